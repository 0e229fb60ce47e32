//! What the kernel announces about devices, as it comes.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

/// What the kernel announces about devices.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Listens from now on: open it before the walk, and nothing falls between.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // A burst at power-on must fit: the walk of /sys is going on meanwhile.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &(4 << 20));
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(fd))
    }

    /// Waits for the next announcement of a device: its properties. `None` when some were lost,
    /// and `/sys` has to be walked again.
    pub fn receive(&self) -> io::Result<Option<HashMap<String, String>>> {
        let mut buffer = [0u8; 8192];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                // Only the kernel has the number 0; another sender says nothing.
                Ok((length, Some(from))) if from.pid() == 0 => {
                    return Ok(Some(properties(&buffer[..length])));
                }
                Ok(_) => return Ok(Some(HashMap::new())),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether one is waiting, within `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        crate::process::wait_readable(self.0.as_fd(), limit)
    }

    /// Takes what is waiting without looking at it.
    pub fn drain(&self) {
        let mut buffer = [0u8; 8192];
        while nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// `add@/devices/…\0ACTION=add\0MODALIAS=…\0`
fn properties(message: &[u8]) -> HashMap<String, String> {
    message
        .split(|&byte| byte == 0)
        .filter_map(|field| std::str::from_utf8(field).ok()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_read() {
        let message =
            b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0MODALIAS=pci:v00001AF4d00001042\0\xff=bad\0";
        let found = properties(message);
        assert_eq!(found["ACTION"], "add");
        assert_eq!(found["MODALIAS"], "pci:v00001AF4d00001042");
        assert_eq!(found.len(), 3);
    }
}
