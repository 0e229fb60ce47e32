//! One packet onto a wire whose card has no address yet: what a DHCP client says first.
//!
//! A UDP socket takes some other card's address as the source where the card it is bound to has
//! none, and a server then answers to the wrong place. So the packet is made here, whole, with the
//! source 0.0.0.0, and given to the card (packet(7)); the kernel adds the Ethernet header.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Length of the IPv4 header without options.
const IP: usize = 20;
/// Length of the UDP header.
const UDP: usize = 8;
/// Largest payload that no wire has to split.
pub const LARGEST_PAYLOAD: usize = 1500 - IP - UDP;

/// Sends `payload` by UDP from 0.0.0.0 to everybody on the wire of the card `interface`.
pub fn broadcast_udp(interface: &str, source_port: u16, port: u16, payload: &[u8]) -> io::Result<()> {
    const ETH_P_IP: u16 = 0x0800;
    let packet = broadcast_packet(source_port, port, payload).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the payload is longer than 1472 bytes",
        )
    })?;
    // Protocol 0: nothing is received through it.
    let fd = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let index = nix::net::if_::if_nametoindex(interface)?;
    // SAFETY: zero is a valid value for every field.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = ETH_P_IP.to_be();
    to.sll_ifindex = index as i32;
    to.sll_halen = 6;
    to.sll_addr[..6].fill(0xff);
    // SAFETY: an open descriptor, a buffer with its length, an address with its size.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    match Errno::result(sent)? as usize {
        length if length == packet.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The packet: IPv4 (RFC 791) with UDP (RFC 768), from 0.0.0.0 to 255.255.255.255.
fn broadcast_packet(source_port: u16, port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > LARGEST_PAYLOAD {
        return None;
    }
    let udp_length = ((UDP + payload.len()) as u16).to_be_bytes();
    let length = ((IP + UDP + payload.len()) as u16).to_be_bytes();
    let mut packet = vec![0x45, 0x10, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([0, 0, 0, 0, 255, 255, 255, 255]);
    let header = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&header.to_be_bytes());

    packet.extend(source_port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(udp_length);
    packet.extend([0, 0]);
    packet.extend(payload);
    // The pseudo header: both addresses, the protocol, the length.
    let pseudo = 0xffff + 0xffff + 17 + (UDP + payload.len()) as u32;
    // 0 would mean "no checksum", and is sent as its other form.
    let sum = match checksum(&packet[IP..], pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    packet[IP + 6..IP + 8].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// The checksum of RFC 1071 over `bytes`, with `start` already summed.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // RFC 1071, section 3: these words sum to ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0),
            !0xddf2
        );
    }

    #[test]
    fn a_receiver_finds_both_checksums_right() {
        for payload in [&b""[..], b"odd", b"even", &[0xff; LARGEST_PAYLOAD]] {
            let packet = broadcast_packet(68, 67, payload).unwrap();
            assert_eq!(packet.len(), IP + UDP + payload.len());
            assert_eq!(u16::from_be_bytes([packet[2], packet[3]]) as usize, packet.len());
            assert_eq!(checksum(&packet[..IP], 0), 0, "header");
            let pseudo = 0xffff + 0xffff + 17 + (UDP + payload.len()) as u32;
            assert_eq!(checksum(&packet[IP..], pseudo), 0, "datagram");
            assert_eq!(&packet[IP..IP + 4], [0, 68, 0, 67]);
            assert_eq!(&packet[IP + UDP..], payload);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(broadcast_packet(68, 67, &[0; LARGEST_PAYLOAD + 1]).is_none());
        let error = broadcast_udp("lo", 68, 67, &[0; LARGEST_PAYLOAD + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
