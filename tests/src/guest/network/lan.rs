//! Another machine of the farmer's LAN: a hardware address of its own on the node's wire, IPv4 and IPv6, groups.
//!
//! ```text
//!   first space ── user's namespace ── node ══ uplink ══╦═ 203.0.113.1      outside (the town's router)
//!                                      .2, 2001:db8:113::2  ╚═ 203.0.113.77, 2001:db8:113::77, fe80::…  guest
//! ```
//!
//! Three things keep IPv6 in: no address, IPv6 switched off in the user's namespace, the rules. The first two are
//! taken away here, so that the rules stand alone; without them the guest is reached, which is the control.
//! Groups and broadcasts have none: without the rules nobody would lead them on either. What is shown of them is that
//! the guest hears the node's and not the space's.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::names;
use provision::firewall::Openings;
use provision::network::address::Prefix;
use provision::network::{self, SpaceLink, inside, link};
use rtnetlink::packet_route::link::MacVlanMode;
use rtnetlink::{Handle, LinkMacVlan, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::town::{NODE, PATIENCE, Town, UPLINK};
use super::{FAST, NO_RULES, Spaces, apply, path, plan};

const GUEST: &str = "test-guest";
const CARD: &str = "guest0";
const GUEST_4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const GUEST_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x77);
const NODE_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2);
/// What the user would give himself, and what leads there.
const SPACE_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5);
const GATEWAY_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const USER_END_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 2);
const NODE_END_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 1);
/// Groups that machines of a LAN listen to, and the LAN's broadcast address.
const GROUPS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
    IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 255)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
];
const EAR_4: u16 = 5353;
const EAR_6: u16 = 5354;

/// The other machine, while it lives.
struct Guest {
    path: PathBuf,
    link_local: Ipv6Addr,
    heard: Receiver<String>,
}

impl Guest {
    async fn build(town: &Town) -> Result<Self> {
        host::netns::delete(GUEST)?;
        host::netns::create(GUEST)?;
        let path = host::netns::path(GUEST);
        let target = fs::File::open(&path)?;
        let plug = move |handle: Handle| async move {
            let wire = link::index(&handle, "eth0").await?;
            let card = LinkMacVlan::new(CARD, wire, MacVlanMode::Bridge).build();
            handle.link().add(card).execute().await?;
            let index = link::index(&handle, CARD).await?;
            let away = LinkMessageBuilder::<LinkUnspec>::new()
                .index(index)
                .setns_by_fd(target.as_raw_fd());
            handle.link().set(away.build()).execute().await?;
            anyhow::Ok(())
        };
        inside::netlink(Some(town.path()), plug)
            .await?
            .context("plugging the guest in")?;
        let address = |handle: Handle| async move {
            link::ensure_address(&handle, CARD, GUEST_4, 24).await?;
            link::ensure_up(&handle, "lo").await?;
            let index = link::ensure_up(&handle, CARD).await?;
            six(&handle, CARD, GUEST_6).await?;
            link::ensure_route(&handle, CARD, (Ipv4Addr::new(198, 18, 0, 0), 15), Some(NODE)).await?;
            route_six(&handle, CARD, SPACE_6, NODE_6).await?;
            anyhow::Ok(index)
        };
        let index = inside::netlink(Some(&path), address)
            .await?
            .context("the guest's addresses")?;
        let of_node = |handle: Handle| async move {
            six(&handle, UPLINK, NODE_6).await?;
            link::ensure_route(&handle, UPLINK, (Ipv4Addr::new(224, 0, 0, 0), 4), None).await?;
            anyhow::Ok(())
        };
        inside::netlink(None, of_node)
            .await?
            .context("the node's address")?;
        let listener = inside::run(Some(&path), || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))).await??;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop(stream);
            }
        });
        let (tell, heard) = channel();
        inside::run(Some(&path), move || ears(index, tell)).await??;
        let link_local = inside::run(Some(&path), link_local).await??;
        Ok(Self {
            path,
            link_local,
            heard,
        })
    }

    /// What came to the groups within a while, by the name in it; enough of it ends the while.
    fn hears(&self, enough: usize) -> BTreeSet<String> {
        let (end, mut all) = (Instant::now() + PATIENCE, BTreeSet::new());
        while all.len() < enough {
            match self
                .heard
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(name) => all.insert(name),
                Err(_) => break,
            };
        }
        all
    }
}

fn ears(index: u32, tell: Sender<String>) -> std::io::Result<()> {
    let four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, EAR_4))?;
    let six = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, EAR_6))?;
    for group in GROUPS {
        match group {
            IpAddr::V4(group) if group.is_multicast() => four.join_multicast_v4(&group, &GUEST_4)?,
            IpAddr::V6(group) => six.join_multicast_v6(&group, index)?,
            IpAddr::V4(_) => {}
        }
    }
    for socket in [four, six] {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 128];
            while let Ok((length, _)) = socket.recv_from(&mut bytes) {
                let name = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if tell.send(name).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

/// The address that the guest gave itself, when it is sure that nobody else has it.
fn link_local() -> Result<Ipv6Addr> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string("/proc/thread-self/net/if_inet6")?;
        let own = text.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Flags: 0x40 is "still asking".
            let sure = words.get(4).is_some_and(|flags| *flags == "80");
            (sure && words.get(5) == Some(&CARD) && words[0].starts_with("fe80"))
                .then(|| u128::from_str_radix(words[0], 16).ok())?
        });
        if let Some(own) = own {
            return Ok(Ipv6Addr::from_bits(own));
        }
        ensure!(Instant::now() < end, "no link-local address after 20 s: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

async fn six(handle: &Handle, name: &str, address: Ipv6Addr) -> Result<()> {
    let index = link::index(handle, name).await?;
    let add = handle.address().add(index, IpAddr::V6(address), 64);
    Ok(add.execute().await?)
}

/// Leads the /64 of `to` over `gateway`.
async fn route_six(handle: &Handle, name: &str, to: Ipv6Addr, gateway: Ipv6Addr) -> Result<()> {
    let index = link::index(handle, name).await?;
    let network = Ipv6Addr::from_bits(to.to_bits() >> 64 << 64);
    let route = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(network, 64)
        .output_interface(index)
        .gateway(gateway);
    Ok(handle.route().add(route.build()).execute().await?)
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net/ipv6/conf/all").join(name);
    fs::write(&path, value).with_context(|| path.display().to_string())
}

/// Makes every way for IPv6 that nobody on a node makes.
async fn lead_six(space: &SpaceLink) -> Result<()> {
    let of_user = names::netns_path(&names::user_netns(space.user.as_bytes()));
    let cable = names::space_interface(space.sale.as_bytes());
    let of_node = names::user_interface(space.user.as_bytes());
    let within = move |handle: Handle| async move {
        set("disable_ipv6", "0")?;
        set("forwarding", "1")?;
        six(&handle, &cable, GATEWAY_6).await?;
        six(&handle, network::LINK_OF_USER, USER_END_6).await?;
        route_six(&handle, network::LINK_OF_USER, GUEST_6, NODE_END_6).await
    };
    inside::netlink(Some(&of_user), within)
        .await?
        .context("the user's namespace")?;
    let node = move |handle: Handle| async move {
        set("forwarding", "1")?;
        six(&handle, &of_node, NODE_END_6).await?;
        route_six(&handle, &of_node, SPACE_6, USER_END_6).await
    };
    inside::netlink(None, node).await?.context("the node")?;
    let own = |handle: Handle| async move {
        six(&handle, "eth0", SPACE_6).await?;
        route_six(&handle, "eth0", GUEST_6, GATEWAY_6).await
    };
    inside::netlink(Some(&path(space)), own)
        .await?
        .context("the space")
}

/// Connects from a namespace, again and again for so long: neighbours are found by asking.
async fn reach(namespace: Option<&Path>, to: SocketAddr, within: Duration) -> Result<()> {
    let attempt = move || -> std::io::Result<()> {
        let end = Instant::now() + within;
        loop {
            let tried =
                TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| stream.read(&mut [0]));
            match tried {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    inside::run(namespace, attempt)
        .await?
        .with_context(|| to.to_string())
}

/// Sends to every group from a namespace, through the link of this name.
async fn shout(namespace: Option<&Path>, name: &'static str, link_name: &str) -> Result<()> {
    let link_name = link_name.to_owned();
    let index = inside::netlink(namespace, move |handle| async move {
        link::index(&handle, &link_name).await
    })
    .await??;
    let send = move || -> Result<()> {
        let four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        four.set_broadcast(true)?;
        four.set_multicast_ttl_v4(16)?;
        let six = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        for group in GROUPS {
            let bytes = format!("{name} to {group}");
            match group {
                IpAddr::V4(group) => four.send_to(bytes.as_bytes(), (group, EAR_4)),
                IpAddr::V6(group) => six.send_to(bytes.as_bytes(), SocketAddrV6::new(group, EAR_6, 0, index)),
            }
            .with_context(|| bytes.clone())?;
        }
        Ok(())
    };
    inside::run(namespace, send).await?
}

/// The trial.
pub async fn guest() -> Result<()> {
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    let mut plan = plan(&spaces.all, &town, Openings::default())?;
    plan.uplinks[0].prefixes.push(Prefix {
        address: NODE_6.into(),
        length: 64,
    });
    let guest = Guest::build(&town).await?;
    let first = &spaces.all[0];
    lead_six(first).await?;
    apply(&spaces.all, &plan).await?;
    let inside_first = path(first);
    let uplink = inside::netlink(None, |handle| async move { link::index(&handle, UPLINK).await }).await??;
    let cable = inside::netlink(Some(&inside_first), |handle| async move {
        link::index(&handle, "eth0").await
    })
    .await??;
    let (four, six) = (SocketAddr::from((GUEST_4, 80)), SocketAddr::from((GUEST_6, 80)));
    let own = |index| SocketAddr::V6(SocketAddrV6::new(guest.link_local, 80, 0, index));

    // The node reaches it in every way.
    for to in [four, six, own(uplink)] {
        reach(None, to, Duration::from_secs(10))
            .await
            .context("the guest, from the node")?;
    }
    shout(None, "node", UPLINK).await?;
    let heard = guest.hears(GROUPS.len());
    ensure!(
        heard.len() == GROUPS.len(),
        "of the node the guest hears {heard:?}"
    );

    // A space does not.
    for to in [four, six, own(cable)] {
        if reach(Some(&inside_first), to, Duration::ZERO).await.is_ok() {
            bail!("a guest of the LAN was reached from a space: {to}");
        }
    }
    shout(Some(&inside_first), "space", "eth0").await?;
    let heard = guest.hears(1);
    ensure!(heard.is_empty(), "of a space the guest hears {heard:?}");

    // Nor the guest a space, whatever it knows of addresses; but for the port that was declared.
    for to in [
        SocketAddr::from((super::address(first), 22)),
        SocketAddr::from((SPACE_6, 22)),
    ] {
        ensure!(
            reach(Some(&guest.path), to, Duration::ZERO).await.is_err(),
            "a guest of the LAN reached a space: {to}"
        );
    }
    reach(Some(&guest.path), (NODE, 2201).into(), Duration::from_secs(5))
        .await
        .context("the declared port, from the guest")?;

    // The control: without the rules the space reaches it.
    let of_user = names::netns_path(&names::user_netns(first.user.as_bytes()));
    for namespace in [None, Some(of_user.as_path())] {
        provision::firewall::apply(namespace, NO_RULES.to_owned()).await?;
    }
    for to in [four, six] {
        reach(Some(&inside_first), to, Duration::from_secs(10))
            .await
            .context("without rules, the guest")?;
    }
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0")?;
    spaces.remove().await?;
    host::netns::delete(GUEST)?;
    town.remove().await
}
