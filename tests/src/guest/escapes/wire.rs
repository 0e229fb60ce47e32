//! Frames by root inside, listened for on every other wire.
//!
//! ```text
//!   first ──cable── user's namespace ──cable── second       node ── outside
//!     sends all      ear: hears all      ear: hears none    ears: the honest one alone
//! ```
//!
//! The ear at the other end of the cable is the control: what it hears was sent. The honest datagram shows that the
//! outside's ear hears.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use host::{cgroup, names};
use market::id::UserId;
use market::quantity::BitsPerSecond;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use provision::network::address::{SpaceIndex, UserIndex};
use provision::network::{self, SpaceLink, UserLink, inside};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::network::town::{INTERNET, NODE, Town};
use crate::network::{build_rules, no_rules};
use crate::spaces::bench::{Bench, value};

const FRAMES: &str = include_str!("wire.py");
const FALSE: &str = "02:00:00:00:00:66";
const MARK: &[u8] = b"steading-";
/// How long frames may take from one namespace to the next.
const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// What is heard on all wires of a namespace, by name.
struct Ear(watch::Receiver<BTreeSet<String>>);

impl Ear {
    async fn open(namespace: Option<&Path>) -> Result<Self> {
        let open = || -> Result<_> {
            let ear = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )?;
            setsockopt(&ear, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500))?;
            Ok(ear)
        };
        let socket = inside::run(namespace, open).await??;
        let (tell, heard) = watch::channel(BTreeSet::new());
        std::thread::spawn(move || {
            // It ends with the guest's namespace, or when nobody holds the other half any more.
            while !tell.is_closed() {
                let mut frame = [0; 2048];
                let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
                    continue;
                };
                if let Some(name) = name(&frame[..length]) {
                    tell.send_if_modified(|heard| heard.insert(name));
                }
            }
        });
        Ok(Self(heard))
    }

    fn heard(&self) -> BTreeSet<String> {
        self.0.borrow().clone()
    }

    /// Waits until it has heard enough; what it has heard otherwise is in the error.
    async fn hears(&mut self, enough: impl FnMut(&BTreeSet<String>) -> bool) -> Result<()> {
        let waited = timeout(HEARD_WITHIN, self.0.wait_for(enough)).await;
        waited
            .is_ok_and(|heard| heard.is_ok())
            .then_some(())
            .with_context(|| format!("it hears {:?}", self.heard()))
    }
}

/// The name that stands in a frame of ours.
fn name(frame: &[u8]) -> Option<String> {
    let at = frame.windows(MARK.len()).position(|bytes| bytes == MARK)?;
    let rest = frame.get(at + MARK.len()..)?;
    let end = rest.iter().position(|byte| *byte == b'.')?;
    Some(String::from_utf8_lossy(rest.get(..end)?).into_owned())
}

/// The trial.
pub async fn stays() -> Result<()> {
    let town = Town::build().await?;
    let benches = [Bench::new(1)?, Bench::new(2)?];
    let user = UserId([1; 32]);
    let user_index = UserIndex::try_from(1)?;
    let mut links = Vec::new();
    for (number, bench) in benches.iter().enumerate() {
        links.push(SpaceLink {
            sale: bench.sale(),
            user,
            user_index,
            space_index: SpaceIndex::try_from(u8::try_from(number)?)?,
            first_id: bench.first_id(),
            rate: BitsPerSecond(1_000_000_000),
        });
    }
    network::ensure_user(&UserLink {
        user,
        index: user_index,
    })
    .await?;
    build_rules(&links, &town).await?;
    for link in &links {
        network::ensure_space(link).await?;
    }
    let [first, second] = &benches;
    let of_user = names::netns_path(&names::user_netns(user.as_bytes()));
    let (mut cable, neighbour) = (
        Ear::open(Some(&of_user)).await?,
        Ear::open(Some(&second.netns())).await?,
    );
    let (mut outside, node) = (Ear::open(Some(town.path())).await?, Ear::open(None).await?);
    let folder = first.volume().join("upper/root");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("wire.py"), FRAMES)?;
    let address = |number: u8| -> Result<Ipv4Addr> { Ok(user_index.space(SpaceIndex::try_from(number)?)) };
    let (own, other, gateway) = (address(0)?, address(1)?, user_index.gateway());
    let order = format!("python3 /root/wire.py {own} {other} {gateway} {INTERNET} {NODE}");
    let found = first.run(&order)?;
    let sent: usize = value(&found, "sent")?.parse()?;
    cable
        .hears(|heard| heard.len() >= sent)
        .await
        .with_context(|| format!("{sent} kinds of frames were sent: the cable's other end"))?;
    outside
        .hears(|heard| heard.contains("honest"))
        .await
        .context("the outside")?;
    let honest = BTreeSet::from(["honest".to_owned()]);
    ensure!(
        neighbour.heard().is_empty(),
        "the neighbour hears {:?}",
        neighbour.heard()
    );
    ensure!(
        outside.heard() == honest,
        "the outside hears {:?}",
        outside.heard()
    );
    // What has an honest sender and may be routed comes as far as the node's walls, and no farther.
    let routed = ["honest", "link-local", "on-link", "on-link-broadcast"];
    let heard = node.heard();
    ensure!(
        heard.iter().all(|name| routed.contains(&name.as_str())),
        "the node hears {heard:?}"
    );
    println!("wire: {sent} kinds of frames were sent, the neighbour heard none, the outside the honest one");

    // Who claims an address is believed on his own cable alone.
    let known = arp(&of_user).await?;
    ensure!(
        !known
            .iter()
            .any(|line| line.contains(&other.to_string()) && line.contains(FALSE)),
        "the neighbour's address was taken: {known:?}"
    );
    // The control of the walls: without the rules what is false gets out.
    for namespace in [None, Some(of_user.clone())] {
        provision::firewall::apply(
            namespace.as_deref(),
            "table inet steading\ndelete table inet steading\n".to_owned(),
        )
        .await?;
    }
    first.run(&order)?;
    let false_ones = ["as-the-neighbour", "as-the-uplink", "on-link"];
    outside
        .hears(|heard| false_ones.iter().any(|what| heard.contains(*what)))
        .await
        .context("without rules: the outside")?;
    println!("wire: without rules the outside hears {:?}", outside.heard());
    for (bench, link) in benches.iter().zip(&links) {
        cgroup::ensure_absent(&bench.cgroup(), Duration::from_secs(30))?;
        network::ensure_space_absent(&link.sale, &user).await?;
    }
    network::ensure_user_absent(&user).await?;
    no_rules().await?;
    town.remove().await
}

async fn arp(namespace: &Path) -> Result<Vec<String>> {
    let text = inside::run(Some(namespace), || {
        std::fs::read_to_string("/proc/thread-self/net/arp")
    })
    .await?;
    Ok(text.context("reading arp")?.lines().map(str::to_owned).collect())
}
