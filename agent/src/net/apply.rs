//! A lease as the kernel has it: the address, its routes, the size of packets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, CacheInfo};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::dhcp::Lease;

/// Routes of cards with a lower index win.
const METRIC: u32 = 100;
/// What is added where a card does not lead to the grid and another does: as NetworkManager does.
const BEHIND: u32 = 20_000;

/// A card, and the way to change it.
#[derive(Clone)]
pub(super) struct Card {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub handle: Handle,
    /// Its routes stand behind those of other cards.
    pub aside: Arc<AtomicBool>,
}

impl Card {
    fn priority(&self) -> u32 {
        let behind = self.aside.load(Ordering::Relaxed);
        METRIC + self.index + if behind { BEHIND } else { 0 }
    }
}

/// Why a lease did not reach the kernel.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {card}")]
pub(super) struct ApplyError {
    card: String,
    what: &'static str,
    #[source]
    source: rtnetlink::Error,
}

impl Card {
    fn failed(&self, what: &'static str) -> impl FnOnce(rtnetlink::Error) -> ApplyError {
        let card = self.name.clone();
        move |source| ApplyError { card, what, source }
    }
}

/// Makes the kernel have exactly what the lease says on this card.
pub(super) async fn lease(card: &Card, lease: &Lease) -> Result<(), ApplyError> {
    let mut add = card
        .handle
        .address()
        .add(card.index, lease.address.into(), lease.length)
        .replace();
    // The kernel drops the address by itself if nobody renews it.
    let mut lasts = CacheInfo::default();
    lasts.ifa_preferred = lease.seconds;
    lasts.ifa_valid = lease.seconds;
    add.message_mut()
        .attributes
        .push(AddressAttribute::CacheInfo(lasts));
    add.execute().await.map_err(card.failed("the address"))?;
    for stale in addresses(card).await? {
        if address_of(&stale) != Some(lease.address) {
            card.handle
                .address()
                .del(stale)
                .execute()
                .await
                .map_err(card.failed("an old address"))?;
        }
    }
    if let Some(mtu) = lease.mtu {
        let change = LinkUnspec::new_with_index(card.index).mtu(mtu.into()).build();
        card.handle
            .link()
            .set(change)
            .execute()
            .await
            .map_err(card.failed("the packet size"))?;
    }
    rank(card, lease).await
}

/// Makes the kernel have exactly the lease's routes on this card, where they belong among other cards'. The address, and
/// how long it is good for, is left as it is.
pub(super) async fn rank(card: &Card, lease: &Lease) -> Result<(), ApplyError> {
    for route in &lease.routes {
        let route = route_message(card, lease, *route);
        card.handle
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .map_err(card.failed("a route"))?;
    }
    for stale in routes(card).await? {
        let wanted = lease.routes.iter().any(|route| same_route(card, &stale, *route));
        if !wanted {
            card.handle
                .route()
                .del(stale)
                .execute()
                .await
                .map_err(card.failed("an old route"))?;
        }
    }
    Ok(())
}

/// Takes the lease's address away; its routes, which name it as their source, go with it.
pub(super) async fn remove(card: &Card, lease: &Lease) -> Result<(), ApplyError> {
    for message in addresses(card).await? {
        if address_of(&message) == Some(lease.address) {
            card.handle
                .address()
                .del(message)
                .execute()
                .await
                .map_err(card.failed("the address"))?;
        }
    }
    Ok(())
}

fn route_message(card: &Card, lease: &Lease, route: (Ipv4Addr, u8, Ipv4Addr)) -> RouteMessage {
    let (to, length, router) = route;
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to, length)
        .output_interface(card.index)
        .pref_source(lease.address)
        .priority(card.priority())
        .protocol(RouteProtocol::Dhcp);
    if router.is_unspecified() {
        builder = builder.scope(RouteScope::Link);
    } else {
        builder = builder.gateway(router);
        // A router outside the prefix (a /32 lease) is on the cable all the same.
        if super::network_of(router.into(), lease.length)
            != super::network_of(lease.address.into(), lease.length)
        {
            builder = builder.onlink();
        }
    }
    builder.build()
}

async fn addresses(card: &Card) -> Result<Vec<AddressMessage>, ApplyError> {
    let all: Vec<AddressMessage> = card
        .handle
        .address()
        .get()
        .set_link_index_filter(card.index)
        .execute()
        .try_collect()
        .await
        .map_err(card.failed("reading the addresses"))?;
    Ok(all
        .into_iter()
        .filter(|message| address_of(message).is_some())
        .collect())
}

fn address_of(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

/// The routes on this card that DHCP made.
async fn routes(card: &Card) -> Result<Vec<RouteMessage>, ApplyError> {
    let all: Vec<RouteMessage> = card
        .handle
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute()
        .try_collect()
        .await
        .map_err(card.failed("reading the routes"))?;
    Ok(all
        .into_iter()
        .filter(|route| {
            route.header.protocol == RouteProtocol::Dhcp
                && route.attributes.contains(&RouteAttribute::Oif(card.index))
        })
        .collect())
}

fn same_route(card: &Card, message: &RouteMessage, route: (Ipv4Addr, u8, Ipv4Addr)) -> bool {
    let (to, length, router) = route;
    let said = |pick: fn(&RouteAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let ranks = RouteAttribute::Priority(card.priority());
    message.attributes.contains(&ranks)
        && message.header.destination_prefix_length == length
        && said(super::links::destination).unwrap_or(Ipv4Addr::UNSPECIFIED.into()) == IpAddr::from(to)
        && said(super::links::gateway).unwrap_or(Ipv4Addr::UNSPECIFIED.into()) == IpAddr::from(router)
}
