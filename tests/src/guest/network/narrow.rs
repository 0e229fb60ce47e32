//! A path that carries 1280 bytes at most, and whose routers tell nobody so.
//!
//! ```text
//!   space ── user ── node ──1500── outside ──1280── middle ──1500── far
//!                                     └── drop what is too big; their word of it is dropped as well
//! ```
//!
//! Both ends stand on links of 1500 bytes, so neither knows by itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use provision::firewall::{self, Openings};
use provision::network::{inside, link};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::town::{ROUTER, Town, UPLINK, listen};
use super::{FAST, Spaces, path, plan};

const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
const NARROW: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const BEFORE_FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const MTU: u32 = 1280;
/// What is carried each way.
const BYTES: usize = 100_000_000;
/// What is tried where it should not come through: more than a window of the first moment.
const LITTLE: usize = 200_000;
/// How long nothing has to move to be called stuck.
const STUCK: Duration = Duration::from_secs(3);
/// The routers' silence.
const SILENCE: &str = "table inet silent {\nchain out {\ntype filter hook output priority 0;\n\
                       icmp type destination-unreachable drop\n}\n}\n";

/// The two namespaces beyond the town's; gone when dropped.
struct Beyond {
    middle: PathBuf,
    far: PathBuf,
}

impl Beyond {
    const NAMES: [&str; 2] = ["test-middle", "test-far"];

    async fn build(town: &Town) -> Result<Self> {
        let [middle, far] = Self::NAMES.map(|name| {
            let _ = host::netns::delete(name);
            host::netns::create(name)?;
            anyhow::Ok(host::netns::path(name))
        });
        let (middle, far) = (middle?, far?);
        let of_middle = std::fs::File::open(&middle)?;
        let of_far = std::fs::File::open(&far)?;
        let outside = move |handle: rtnetlink::Handle| async move {
            link::create_pair(&handle, "narrow", "eth0", of_middle.as_raw_fd()).await?;
            set_mtu(&handle, "narrow").await?;
            link::ensure_address(&handle, "narrow", NARROW[0], 30).await?;
            link::ensure_up(&handle, "narrow").await?;
            link::ensure_route(&handle, "narrow", (FAR, 32), Some(NARROW[1])).await?;
            anyhow::Ok(())
        };
        inside::netlink(Some(town.path()), outside).await??;
        let between = move |handle: rtnetlink::Handle| async move {
            set_mtu(&handle, "eth0").await?;
            link::ensure_address(&handle, "eth0", NARROW[1], 30).await?;
            link::ensure_up(&handle, "eth0").await?;
            link::ensure_route(&handle, "eth0", (Ipv4Addr::UNSPECIFIED, 0), Some(NARROW[0])).await?;
            link::create_pair(&handle, "wide", "eth0", of_far.as_raw_fd()).await?;
            link::ensure_address(&handle, "wide", BEFORE_FAR, 30).await?;
            link::ensure_up(&handle, "wide").await?;
            anyhow::Ok(())
        };
        inside::netlink(Some(&middle), between).await??;
        let end = |handle: rtnetlink::Handle| async move {
            link::ensure_address(&handle, "eth0", FAR, 30).await?;
            link::ensure_up(&handle, "eth0").await?;
            link::ensure_route(&handle, "eth0", (Ipv4Addr::UNSPECIFIED, 0), Some(BEFORE_FAR)).await?;
            anyhow::Ok(())
        };
        inside::netlink(Some(&far), end).await??;
        inside::netlink(None, |handle| async move {
            link::ensure_route(&handle, UPLINK, (FAR, 32), Some(ROUTER)).await
        })
        .await??;
        for router in [town.path(), &middle] {
            set(router, "ip_forward", "1").await?;
            firewall::apply(Some(router), SILENCE.to_owned()).await?;
        }
        listen(Some(&far), 80).await?;
        Ok(Self { middle, far })
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        for name in Self::NAMES {
            if let Err(error) = host::netns::delete(name) {
                println!("{name} is left: {error} ({:?}, {:?})", self.middle, self.far);
            }
        }
    }
}

async fn set_mtu(handle: &rtnetlink::Handle, name: &str) -> Result<()> {
    let index = link::index(handle, name).await?;
    let narrow = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .mtu(MTU)
        .build();
    Ok(handle.link().set(narrow).execute().await?)
}

/// Writes a setting of IPv4 of a namespace.
async fn set(namespace: &Path, name: &'static str, value: &'static str) -> Result<()> {
    let write = move || std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    inside::run(Some(namespace), write)
        .await?
        .with_context(|| format!("setting {name}"))
}

/// Bytes a second between the space and the far end; an error when nothing moves for `patience`.
async fn carry(space: &Path, send: bool, bytes: usize, patience: Duration) -> Result<f64> {
    let attempt = move || -> std::io::Result<f64> {
        let mut stream = TcpStream::connect((FAR, 80))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let start = Instant::now();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {}
        let order = format!("{} {bytes}", if send { "take" } else { "send" });
        stream.write_all(format!("{order:<16}").as_bytes())?;
        let chunk = vec![0; 64 * 1024];
        let mut left = if send { bytes } else { 0 };
        while left > 0 {
            left -= stream.write(&chunk[..left.min(chunk.len())])?;
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut came = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                read => came += read,
            }
        }
        // The listener closes with "done" in both directions.
        let wanted = if send { 4 } else { bytes + 4 };
        if came != wanted {
            return Err(std::io::Error::other(format!("{came} bytes came of {wanted}")));
        }
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    };
    inside::run(Some(space), attempt)
        .await?
        .with_context(|| format!("{bytes} bytes, towards the far end: {send}"))
}

/// The rules without the chain that speaks of segments.
fn unclamped(rules: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in rules.lines() {
        inside |= line.contains("chain segments");
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= line.trim() != "}";
    }
    kept
}

pub async fn narrow() -> Result<()> {
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    let beyond = Beyond::build(&town).await?;
    let space = path(&spaces.all[0]);
    for send in [true, false] {
        let speed = carry(&space, send, BYTES, STUCK * 3).await?;
        println!(
            "{} MB, from the space: {send}: {:.1} MB/s",
            BYTES / 1_000_000,
            speed / 1e6
        );
    }
    // The control: without the chain both ways are stuck.
    let rules = firewall::node_rules(&plan(&spaces.all, &town, Openings::default())?);
    firewall::apply(None, unclamped(&rules)).await?;
    for send in [true, false] {
        ensure!(
            carry(&space, send, LITTLE, STUCK).await.is_err(),
            "without the chain it goes through as well, from the space: {send}"
        );
    }
    // What is set in every space finds the size by itself, for what it sends.
    set(&space, "tcp_mtu_probing", "1").await?;
    let speed = carry(&space, true, LITTLE, STUCK * 10).await?;
    println!("without the chain, by probing: {:.0} kB/s", speed / 1e3);
    drop(beyond);
    spaces.remove().await?;
    town.remove().await
}
