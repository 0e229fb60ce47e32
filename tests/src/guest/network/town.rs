//! A small outside for the node: an uplink, a LAN behind it, and an internet behind that, all in one namespace.
//!
//! ```text
//!   outside (namespace)                        node (ours)
//!   203.0.113.1/24 ──────── uplink ──────────── 203.0.113.2/24
//!   198.51.100.1    the internet
//!   192.168.5.5     the farmer's printer       192.168.5.53    the resolver
//!   169.254.169.254 a metadata service         100.64.0.1      the carrier
//! ```
//!
//! It routes the spaces' addresses back through the node, so that without walls everything here is reachable: the
//! control of every test of a wall.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use provision::firewall::{InterfaceName, Uplink};
use provision::network::address::Prefix;
use provision::network::{inside, link};

pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const NODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub const PRINTER: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 5);
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 53);
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub const CARRIER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// A port of the internet that tells who sent a datagram to it.
pub const EAR: u16 = 7777;
/// How long what comes is waited for, on a machine that has other things to do.
const COMES: Duration = Duration::from_secs(20);
/// How long what a wall drops is waited for.
pub const PATIENCE: Duration = Duration::from_millis(1500);
const OUTSIDE: &str = "test-outside";
pub const UPLINK: &str = "test-uplink";

/// The outside, while it lives.
pub struct Town {
    path: PathBuf,
    heard: Receiver<IpAddr>,
}

impl Town {
    /// Builds it, with a listener on every port that the tests knock at.
    pub async fn build() -> Result<Self> {
        // A trial that failed may have left its own.
        Self::clear().await?;
        let path = host::netns::path(OUTSIDE);
        host::netns::create(OUTSIDE)?;
        let far = std::fs::File::open(&path)?;
        let near = move |handle| async move {
            link::create_pair(&handle, UPLINK, "eth0", far.as_raw_fd()).await?;
            link::ensure_address(&handle, UPLINK, NODE, 24).await?;
            link::ensure_up(&handle, UPLINK).await?;
            for network in [INTERNET, PRINTER, RESOLVER, METADATA, CARRIER] {
                link::ensure_route(&handle, UPLINK, (network, 32), Some(ROUTER)).await?;
            }
            anyhow::Ok(())
        };
        inside::netlink(None, near).await?.context("the node's end")?;
        let beyond = |handle| async move {
            link::ensure_up(&handle, "lo").await?;
            link::ensure_address(&handle, "eth0", ROUTER, 24).await?;
            for address in [INTERNET, PRINTER, RESOLVER, METADATA, CARRIER] {
                link::ensure_address(&handle, "lo", address, 32).await?;
            }
            link::ensure_up(&handle, "eth0").await?;
            link::ensure_route(&handle, "eth0", (Ipv4Addr::new(198, 18, 0, 0), 15), Some(NODE)).await?;
            anyhow::Ok(())
        };
        inside::netlink(Some(&path), beyond)
            .await?
            .context("the outside")?;
        for port in [25, 53, 80, 465, 587] {
            listen(Some(&path), port).await?;
        }
        echo_datagrams(&path, 53).await?;
        listen_on_the_node().await?;
        let heard = hear_datagrams(&path).await?;
        Ok(Self { path, heard })
    }

    /// Who sent the next datagram to [`EAR`] of the internet, if one comes.
    pub fn hears(&self) -> Option<IpAddr> {
        self.heard.recv_timeout(COMES).ok()
    }

    /// The same, where none is to come.
    pub fn hears_after_all(&self) -> Option<IpAddr> {
        self.heard.recv_timeout(PATIENCE).ok()
    }

    /// As the agent would describe it.
    pub fn uplink(&self) -> Result<Uplink> {
        Ok(Uplink {
            interface: InterfaceName::try_from(UPLINK.to_owned())?,
            prefixes: vec![Prefix {
                address: IpAddr::V4(NODE),
                length: 24,
            }],
            resolvers: vec![IpAddr::V4(RESOLVER)],
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it away. Listeners end with their namespace's last link, or with the guest.
    pub async fn remove(self) -> Result<()> {
        Self::clear().await
    }

    async fn clear() -> Result<()> {
        inside::netlink(None, |handle| async move {
            link::ensure_absent(&handle, UPLINK).await
        })
        .await??;
        Ok(host::netns::delete(OUTSIDE)?)
    }
}

/// Listens on every address of a namespace; whoever connects is told by which address it was seen. Its reader then
/// swallows what comes, and after a line "send N" sends N bytes.
pub async fn listen(namespace: Option<&Path>, port: u16) -> Result<()> {
    let listener = inside::run(namespace, move || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
    })
    .await??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(())
}

/// On port 80 of the node, once for all trials: a listener of a namespace that lives on lives on as well.
async fn listen_on_the_node() -> Result<()> {
    static LISTENS: AtomicBool = AtomicBool::new(false);
    if !LISTENS.swap(true, Ordering::Relaxed) {
        listen(None, 80).await?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let seen = stream.peer_addr().ok()?.ip();
    writeln!(stream, "{seen}").ok()?;
    let mut first = [0; 16];
    stream.read_exact(&mut first).ok()?;
    let order = String::from_utf8_lossy(&first).into_owned();
    let (verb, count) = order.trim().split_once(' ')?;
    let mut left: usize = count.trim().parse().ok()?;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let most = left.min(buffer.len());
        left -= match verb {
            "send" => stream.write(&buffer[..most]).ok()?,
            _ => match stream.read(&mut buffer[..most]).ok()? {
                0 => return None,
                read => read,
            },
        };
    }
    stream.write_all(b"done").ok()
}

async fn echo_datagrams(namespace: &Path, port: u16) -> Result<()> {
    let socket = inside::run(Some(namespace), move || UdpSocket::bind((RESOLVER, port))).await??;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    Ok(())
}

async fn hear_datagrams(namespace: &Path) -> Result<Receiver<IpAddr>> {
    let socket = inside::run(Some(namespace), move || UdpSocket::bind((INTERNET, EAR))).await??;
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            if tell.send(from.ip()).is_err() {
                break;
            }
        }
    });
    Ok(heard)
}

/// Sends a datagram from inside a namespace, from an address that the namespace has taken, to [`EAR`].
pub async fn send_as(namespace: &Path, from: Ipv4Addr) -> Result<()> {
    let send = move || -> std::io::Result<usize> {
        UdpSocket::bind((from, 0))?.send_to(b"who am I?", (INTERNET, EAR))
    };
    inside::run(Some(namespace), send)
        .await?
        .with_context(|| format!("sending as {from}"))?;
    Ok(())
}

/// Opens so many connections of datagrams from inside a namespace, to ports of the internet where nobody answers.
pub async fn open_many(namespace: &Path, count: u32) -> Result<()> {
    let send = move || -> std::io::Result<()> {
        let mut port = 10_000u16;
        let mut socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for number in 0..count {
            if number % 1000 == 999 {
                socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                port = 10_000;
            }
            // What a wall answers comes as an error of the next call.
            let _ = socket.send_to(b"one more", (INTERNET, port));
            port += 1;
        }
        Ok(())
    };
    inside::run(Some(namespace), send)
        .await?
        .context("opening many connections")
}

/// Connects from inside a namespace; says by which address the other end saw it.
pub async fn knock(namespace: &Path, to: Ipv4Addr, port: u16) -> Result<String> {
    knock_for(COMES, namespace, to, port).await
}

/// The same, where a wall is to drop it.
pub async fn knock_at_a_wall(namespace: &Path, to: Ipv4Addr, port: u16) -> Result<String> {
    knock_for(PATIENCE, namespace, to, port).await
}

async fn knock_for(patience: Duration, namespace: &Path, to: Ipv4Addr, port: u16) -> Result<String> {
    let attempt = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut text = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
            text.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    inside::run(Some(namespace), attempt)
        .await?
        .with_context(|| format!("{to}:{port}"))
}

/// Asks for a datagram back from inside a namespace.
pub async fn ask(namespace: &Path, to: Ipv4Addr, port: u16) -> Result<()> {
    let attempt = move || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(COMES))?;
        socket.connect((to, port))?;
        socket.send(b"which address?")?;
        socket.recv(&mut [0; 64])
    };
    inside::run(Some(namespace), attempt)
        .await?
        .with_context(|| format!("{to}:{port} (datagram)"))?;
    Ok(())
}

/// Bytes a second from inside a namespace to a listener (`send` false) or from it (`send` true).
pub async fn speed(namespace: &Path, to: Ipv4Addr, send: bool, bytes: usize) -> Result<f64> {
    let attempt = move || -> std::io::Result<f64> {
        let mut stream = TcpStream::connect((to, 80))?;
        let start = std::time::Instant::now();
        let order = format!(
            "{:<16}",
            format!("{} {bytes}", if send { "send" } else { "take" })
        );
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {}
        stream.write_all(order.as_bytes())?;
        let mut end = Vec::new();
        if !send {
            stream.write_all(&vec![0; bytes])?;
        }
        stream.read_to_end(&mut end)?;
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    };
    inside::run(Some(namespace), attempt)
        .await?
        .context("measuring a rate")
}
