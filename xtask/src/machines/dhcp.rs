//! DHCP as it passes on a cable: recognised, and answers changed (RFC 2131, RFC 3442).
//!
//! ```text
//!  0    Ethernet │ 14  IPv4, 20 bytes │ 34  UDP │ 42  BOOTP, 236 bytes │ 278  99 130 83 99 │ 282  options … 255
//! ```

const TYPE_AT: usize = 12;
const IP_AT: usize = 14;
const UDP_AT: usize = 34;
const OPTIONS_AT: usize = 282;
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];
const SERVER: u16 = 67;
const CLIENT: u16 = 68;

const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const CLASS: u8 = 60;
const ROUTES: u8 = 121;
const END: u8 = 255;

/// Who boots by HTTP.
const HTTP_CLASS: &[u8; 12] = b"\x3c\x0aHTTPClient";
/// One address alone.
const ONE: [u8; 6] = [MASK, 4, 255, 255, 255, 255];
/// 10.0.2.2/32 is on the cable, and all else behind it.
const CLASSLESS: [u8; 16] = [ROUTES, 14, 32, 10, 0, 2, 2, 0, 0, 0, 0, 0, 10, 0, 2, 2];

fn port(frame: &[u8], at: usize) -> Option<u16> {
    let is_udp =
        frame.get(TYPE_AT..IP_AT)? == IPV4 && *frame.get(IP_AT)? == 0x45 && *frame.get(IP_AT + 9)? == 17;
    let port = frame.get(UDP_AT + at..UDP_AT + at + 2)?;
    is_udp.then_some(u16::from_be_bytes([port[0], port[1]]))
}

/// Whether a client asks.
pub fn is_question(frame: &[u8]) -> bool {
    port(frame, 2) == Some(SERVER)
}

fn is_answer(frame: &[u8]) -> bool {
    port(frame, 0) == Some(SERVER) && port(frame, 2) == Some(CLIENT)
}

/// Whether it goes no further than the cable: addresses are found out and leased, and no packet comes from anywhere.
pub fn is_local(frame: &[u8]) -> bool {
    frame.get(TYPE_AT..IP_AT) == Some(&ARP) || is_question(frame) || is_answer(frame)
}

/// The same, but an answer to a question leases one address alone, has no router, and classless routes instead.
pub fn with_classless_routes(frame: Vec<u8>) -> Vec<u8> {
    with_options(frame, &[MASK, ROUTER], &[&ONE[..], &CLASSLESS].concat())
}

/// The same, but an answer says that it is for those who boot by HTTP (UEFI 2.10, 24.7.2.3.2): none else is one to them.
pub fn with_http_class(frame: Vec<u8>) -> Vec<u8> {
    with_options(frame, &[CLASS], HTTP_CLASS)
}

/// An answer without some options, and with others.
fn with_options(frame: Vec<u8>, without: &[u8], with: &[u8]) -> Vec<u8> {
    if !is_answer(&frame) || frame.len() < OPTIONS_AT {
        return frame;
    }
    let mut options = Vec::new();
    let mut at = OPTIONS_AT;
    while let Some(&code) = frame.get(at) {
        match code {
            END => break,
            PAD => at += 1,
            _ => {
                let length = usize::from(frame.get(at + 1).copied().unwrap_or(0));
                let option = frame.get(at..at + 2 + length).unwrap_or_default();
                if !without.contains(&code) {
                    options.extend_from_slice(option);
                }
                at += 2 + length;
            }
        }
    }
    options.extend(with);
    options.push(END);
    let mut out = frame[..OPTIONS_AT].to_vec();
    out.extend(options);
    let total = (out.len() - IP_AT) as u16;
    let udp = (out.len() - UDP_AT) as u16;
    out[IP_AT + 2..IP_AT + 4].copy_from_slice(&total.to_be_bytes());
    out[IP_AT + 10..IP_AT + 12].fill(0);
    let sum = checksum(&out[IP_AT..UDP_AT]);
    out[IP_AT + 10..IP_AT + 12].copy_from_slice(&sum.to_be_bytes());
    out[UDP_AT + 4..UDP_AT + 6].copy_from_slice(&udp.to_be_bytes());
    // None: RFC 768.
    out[UDP_AT + 6..UDP_AT + 8].fill(0);
    out
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Vec<u8> {
        let mut frame = vec![0; OPTIONS_AT];
        frame[TYPE_AT..IP_AT].copy_from_slice(&IPV4);
        frame[IP_AT] = 0x45;
        frame[IP_AT + 9] = 17;
        frame[UDP_AT..UDP_AT + 4].copy_from_slice(&[0, 67, 0, 68]);
        frame.extend([
            53, 1, 2, MASK, 4, 255, 255, 255, 0, ROUTER, 4, 10, 0, 2, 2, 51, 4, 0, 1, 0x51, 0x80, END, 0,
        ]);
        frame
    }

    #[test]
    fn an_answer_gets_classless_routes_in_the_place_of_a_router() {
        let changed = with_classless_routes(answer());
        let options = &changed[OPTIONS_AT..];
        assert_eq!(options[..9], [53, 1, 2, 51, 4, 0, 1, 0x51, 0x80]);
        assert_eq!(options[9..15], ONE);
        assert_eq!(options[15..31], CLASSLESS);
        assert_eq!(options[31..], [END]);
        assert_eq!(
            checksum(&changed[IP_AT..UDP_AT]),
            0,
            "a right header sums to nothing"
        );
        let total = u16::from_be_bytes([changed[IP_AT + 2], changed[IP_AT + 3]]);
        assert_eq!(usize::from(total), changed.len() - IP_AT);
    }

    #[test]
    fn an_answer_is_for_those_who_boot_by_http_and_keeps_the_rest() {
        let changed = with_http_class(answer());
        let options = &changed[OPTIONS_AT..];
        assert_eq!(options[..3], [53, 1, 2]);
        assert_eq!(options[options.len() - 13..options.len() - 1], *HTTP_CLASS);
        assert_eq!(changed.len(), OPTIONS_AT + 21 + 12 + 1);
    }

    #[test]
    fn what_is_no_answer_passes_as_it_is() {
        let mut other = answer();
        other[UDP_AT + 1] = 53;
        assert_eq!(with_classless_routes(other.clone()), other);
        assert!(!is_local(&other) && is_local(&answer()) && !is_question(&answer()));
        let short = vec![0; 20];
        assert_eq!(with_classless_routes(short.clone()), short);
    }
}
