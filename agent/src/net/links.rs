//! The one task that looks at the links and keeps a client for each card.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{
    Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use super::apply::{self, Card};
use super::client::{Client, Report};
use super::ways::{Aside, Ways};
use super::{Link, NetState, NetWatch};

/// Events come in bursts: the picture is taken once they have settled.
const SETTLE: Duration = Duration::from_millis(30);
/// The picture is taken so often even without an event.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
const MAIN_TABLE: u32 = 254;

/// Why the network could not be watched at all.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket.
    #[error("opening the kernel's network socket")]
    Socket(#[source] io::Error),
    /// The kernel did not answer.
    #[error("reading the network cards")]
    Look(#[source] rtnetlink::Error),
}

/// Starts with every card that has a device behind it.
///
/// # Errors
/// When the kernel's network socket cannot be opened; afterwards nothing fails any more.
pub fn start() -> Result<(NetWatch, Ways), NetError> {
    start_with(|name| Path::new("/sys/class/net").join(name).join("device").exists())
}

/// Starts with the Ethernet links for which `is_uplink` is true.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    is_uplink: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Result<(NetWatch, Ways), NetError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut events) = new_multicast_connection(&groups).map_err(NetError::Socket)?;
    crate::task::spawn(connection);
    let (tell, watched) = watch::channel(NetState::default());
    let (ways, mut aside) = watch::channel(Aside::new());
    crate::task::spawn(async move {
        let (reports, mut reported) = mpsc::channel(64);
        let mut links = Links {
            handle,
            is_uplink: Box::new(is_uplink),
            cards: BTreeMap::new(),
            reports,
            tell,
        };
        let mut clock = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                event = events.next() => {
                    if event.is_none() {
                        tracing::error!("the kernel's network socket closed");
                        return;
                    }
                    sleep(SETTLE).await;
                    // What came meanwhile is in the picture that is taken now.
                    while events.try_recv().is_ok() {}
                }
                Some(report) = reported.recv() => links.heard(report),
                Ok(()) = aside.changed() => {
                    let aside = aside.borrow_and_update().clone();
                    links.put_aside(&aside).await;
                }
                _ = clock.tick() => {}
            }
            if let Err(error) = links.look().await {
                tracing::warn!(%error, "the network could not be looked at");
            }
        }
    });
    Ok((watched, Ways(ways)))
}

/// A card and the client that serves it.
struct Served {
    card: Card,
    task: JoinHandle<()>,
    carrier: watch::Sender<bool>,
    report: Option<Report>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Links {
    handle: Handle,
    is_uplink: Box<dyn Fn(&str) -> bool + Send + Sync>,
    cards: BTreeMap<u32, Served>,
    reports: mpsc::Sender<Report>,
    tell: watch::Sender<NetState>,
}

impl Links {
    fn heard(&mut self, report: Report) {
        if let Some(card) = self.cards.get_mut(&report.index) {
            card.report = Some(report);
        }
    }

    /// Puts routes of these cards behind the others', and no card's else.
    async fn put_aside(&mut self, aside: &Aside) {
        for (index, served) in &self.cards {
            let is_aside = aside.contains(index);
            if served.card.aside.swap(is_aside, Ordering::Relaxed) == is_aside {
                continue;
            }
            let lease = served.report.as_ref().and_then(|report| report.lease.as_ref());
            if let Some(lease) = lease
                && let Err(error) = apply::rank(&served.card, lease).await
            {
                let why = crate::words::chain(&error);
                tracing::warn!(
                    card = served.card.name,
                    why,
                    "its routes could not be put where they belong"
                );
            }
        }
    }

    /// Takes the whole picture, serves what is new, forgets what is gone.
    async fn look(&mut self) -> Result<(), NetError> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(NetError::Look)?;
        let mut links: BTreeMap<u32, Link> = BTreeMap::new();
        for message in &messages {
            let up = message.header.flags.contains(LinkFlags::Up);
            if message.header.link_layer_type == LinkLayerType::Loopback && !up {
                self.raise(message.header.index).await;
            }
            let Some(link) = ethernet(message).filter(|link| (self.is_uplink)(&link.name)) else {
                continue;
            };
            if !up {
                listen_to_routers(&link.name);
                self.raise(link.index).await;
            }
            links.insert(link.index, link);
        }
        self.cards.retain(|index, _| links.contains_key(index));
        for link in links.values_mut() {
            self.serve(link);
        }
        self.addresses(&mut links).await?;
        self.routers(&mut links).await?;
        let state = NetState {
            links: links.into_values().collect(),
        };
        self.tell.send_if_modified(|known| {
            let changed = *known != state;
            *known = state;
            changed
        });
        Ok(())
    }

    async fn raise(&self, index: u32) {
        let up = LinkUnspec::new_with_index(index).up().build();
        if let Err(error) = self.handle.link().set(up).execute().await {
            tracing::warn!(index, %error, "a network card could not be switched on");
        }
    }

    /// Sees to it that the card has a client, and that it knows about the cable.
    fn serve(&mut self, link: &mut Link) {
        let served = self.cards.entry(link.index).or_insert_with(|| {
            let (carrier, watched) = watch::channel(link.carrier);
            let card = Card {
                index: link.index,
                name: link.name.clone(),
                mac: link.mac,
                handle: self.handle.clone(),
                aside: Arc::default(),
            };
            let client = Client {
                card: Card {
                    handle: own_socket().unwrap_or_else(|| self.handle.clone()),
                    ..card.clone()
                },
                carrier: watched,
                reports: self.reports.clone(),
            };
            Served {
                card,
                task: crate::task::spawn(client.serve()),
                carrier,
                report: None,
            }
        });
        served
            .carrier
            .send_if_modified(|known| std::mem::replace(known, link.carrier) != link.carrier);
        if let Some(report) = &served.report {
            link.lease = report.lease.clone();
            link.asked = report.asked;
        }
        link.aside = served.card.aside.load(Ordering::Relaxed);
    }

    async fn addresses(&self, links: &mut BTreeMap<u32, Link>) -> Result<(), NetError> {
        let mut all = self.handle.address().get().execute();
        while let Some(message) = all.try_next().await.map_err(NetError::Look)? {
            let Some(link) = links.get_mut(&message.header.index) else {
                continue;
            };
            let mut address = None;
            let mut unready = false;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(local) => address = Some(*local),
                    AddressAttribute::Address(peer) if address.is_none() => address = Some(*peer),
                    AddressAttribute::Flags(flags) => {
                        unready = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
                    }
                    _ => {}
                }
            }
            if let Some(address) = address.filter(|_| !unready) {
                link.addresses.push((address, message.header.prefix_len));
            }
        }
        for link in links.values_mut() {
            link.addresses.sort();
        }
        Ok(())
    }

    async fn routers(&self, links: &mut BTreeMap<u32, Link>) -> Result<(), NetError> {
        let questions = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ];
        for question in questions {
            let mut all = self.handle.route().get(question).execute();
            while let Some(route) = all.try_next().await.map_err(NetError::Look)? {
                if let Some((index, router)) = default_router(&route)
                    && let Some(link) = links.get_mut(&index)
                    && !link.gateways.contains(&router)
                {
                    link.gateways.push(router);
                }
            }
        }
        Ok(())
    }
}

/// A client's own socket: on one socket the kernel answers one question for a list at a time, and refuses the second.
fn own_socket() -> Option<Handle> {
    let (connection, handle, _) = new_connection().ok()?;
    crate::task::spawn(connection);
    Some(handle)
}

/// A link message as a link, if it is an Ethernet card.
fn ethernet(message: &LinkMessage) -> Option<Link> {
    if message.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let mut name = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac: mac?,
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        addresses: Vec::new(),
        gateways: Vec::new(),
        lease: None,
        asked: 0,
        aside: false,
    })
}

fn default_router(route: &RouteMessage) -> Option<(u32, IpAddr)> {
    let plain = route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast;
    let main = u32::from(route.header.table) == MAIN_TABLE;
    if !plain || !main {
        return None;
    }
    let interface = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    Some((interface, route.attributes.iter().find_map(gateway)?))
}

pub(super) fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => plain(address),
        _ => None,
    }
}

pub(super) fn destination(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Destination(address) => plain(address),
        _ => None,
    }
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Router advertisements count even though the node forwards for its spaces (the value 2).
fn listen_to_routers(name: &str) {
    let conf = Path::new("/proc/sys/net/ipv6/conf").join(name);
    if let Err(error) = fs::write(conf.join("accept_ra"), "2") {
        tracing::debug!(name, %error, "no IPv6 on this card");
    }
}
