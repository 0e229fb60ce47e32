//! A cable in the harness's hands: every frame passes it, and may be held back or changed.
//!
//! ```text
//!   the machine's card ◄──frames──► Wire ──pass(way, frame)──► a second QEMU without a machine: its user network
//! ```
//!
//! QEMU's user network answers DHCP at once and in one way. Between it and a card stands this, so that a lease can come late,
//! or with routes that QEMU does not know.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the machine's card.
    Out,
    /// To the machine's card.
    In,
}

/// Longest frame: what a card with segmentation in it hands over.
const MOST_BYTES: usize = 1 << 17;

/// A cable with QEMU's user network at its far end. Dropped, the far end is gone.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    far: Child,
}

impl Wire {
    /// Lays it. `user_network` are words about that network (`ipv6=off`); `pass` is handed every frame and says what becomes of it:
    /// the frame, changed or not, or nothing.
    ///
    /// # Errors
    /// When there is no free port, or QEMU does not start.
    pub fn lay(
        user_network: &str,
        pass: impl FnMut(Way, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
    ) -> io::Result<Wire> {
        let near = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let beyond = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = near.local_addr()?.port();
        let more = match user_network {
            "" => String::new(),
            words => format!(",{words}"),
        };
        let far = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-M", "none", "-nodefaults", "-display", "none"])
            .args(["-netdev", &format!("user,id=user{more}")])
            .args([
                "-netdev",
                &format!("socket,id=near,connect={}", beyond.local_addr()?),
            ])
            .args(["-netdev", "hubport,id=one,hubid=1,netdev=user"])
            .args(["-netdev", "hubport,id=two,hubid=1,netdev=near"])
            .stdin(Stdio::null())
            .spawn()?;
        let pass = Arc::new(Mutex::new(pass));
        thread::spawn(move || -> io::Result<()> {
            let (card, _) = near.accept()?;
            let (user, _) = beyond.accept()?;
            for end in [&card, &user] {
                end.set_nodelay(true)?;
            }
            for (way, from, to) in [
                (Way::Out, card.try_clone()?, user.try_clone()?),
                (Way::In, user, card),
            ] {
                let pass = Arc::clone(&pass);
                thread::spawn(move || {
                    carry(from, to, |frame| match pass.lock() {
                        Ok(mut pass) => pass(way, frame),
                        Err(_) => None,
                    })
                });
            }
            Ok(())
        });
        Ok(Wire { port, far })
    }

    /// The port of 127.0.0.1 where the near end is, for [`crate::Machine::wires`].
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.far.kill();
        let _ = self.far.wait();
    }
}

/// Until one end is gone.
fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    mut pass: impl FnMut(Vec<u8>) -> Option<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MOST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        from.read_exact(&mut frame)?;
        if let Some(frame) = pass(frame) {
            let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
            bytes.extend(frame);
            to.write_all(&bytes)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// An ARP question for QEMU's own address is answered by its user network; where the answer is held back, nothing comes.
    #[test]
    fn frames_pass_or_are_held_back() {
        for (is_held, answers) in [(false, true), (true, false)] {
            let (saw, seen) = channel();
            let wire = Wire::lay("", move |way, frame| {
                if way == Way::In {
                    let _ = saw.send(());
                }
                (way == Way::Out || !is_held).then_some(frame)
            })
            .expect("a wire; on Debian: apt install qemu-system-x86");
            let mut card = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, wire.port())))
                .expect("the near end");
            let mut frame = vec![0xff; 6];
            frame.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6]);
            frame.extend([
                0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15,
            ]);
            frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
            frame.resize(60, 0);
            let mut bytes = 60_u32.to_be_bytes().to_vec();
            bytes.extend(frame);
            card.write_all(&bytes).expect("asked");
            seen.recv_timeout(Duration::from_secs(60))
                .expect("an answer on the wire");
            card.set_read_timeout(Some(if answers {
                Duration::from_secs(60)
            } else {
                Duration::from_secs(1)
            }))
            .expect("set");
            let mut length = [0; 4];
            assert_eq!(card.read_exact(&mut length).is_ok(), answers);
        }
    }
}
