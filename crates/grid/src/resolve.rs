//! Names and whereabouts, answered from the ticket alone.
//!
//! Invariant: there is one name, [`RELAY_NAME`], and its answer comes from the ticket. Every other
//! name does not exist. The engine's own resolver asks public servers where the system has none,
//! so it is never used. Every member is reached through the grid's own relay, and straight as soon as
//! the two have found a way: what others say of where a member is, is not believed, so that nobody can
//! send members to a relay or an address of his choice.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
};

use futures_util::{StreamExt, stream};
use iroh::{
    EndpointAddr, EndpointId, RelayUrl,
    address_lookup::{AddressLookup, EndpointInfo, Error, Item},
    dns::{BoxIter, DnsError, Resolver, TxtRecordData},
};
use n0_error::e;

/// The relay's one name, the same for all: a relay is known by its URL, and the URL is only how
/// each reader reaches it.
pub(crate) const RELAY_NAME: &str = "relay.steading.internal";

type Answer<T> = Pin<Box<dyn Future<Output = Result<BoxIter<T>, DnsError>> + Send>>;

/// The hosts table: [`RELAY_NAME`] is the ticket's host.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    host: String,
    ip: Option<IpAddr>,
}

impl Hosts {
    pub(crate) fn new(host: &str, ip: Option<IpAddr>) -> Self {
        Self {
            host: host.to_owned(),
            ip,
        }
    }

    /// The relay's addresses. A ticket that names its host by a name is answered by the system's
    /// resolver: that name is configuration, as an address would be.
    async fn relay(self, asked: String) -> Result<Vec<IpAddr>, DnsError> {
        if asked.trim_end_matches('.') != RELAY_NAME {
            return Err(e!(DnsError::NxDomain));
        }
        if let Some(ip) = self.ip {
            return Ok(vec![ip]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), 0)).await;
        let found = found.map_err(|_| e!(DnsError::NoResponse))?;
        Ok(found.map(|address: SocketAddr| address.ip()).collect())
    }
}

/// No address of this family is an answer too, and must come as one: after an *error* the engine
/// asks again for three seconds, and has no relay until it gives up.
fn answer<T: Send + 'static>(found: Vec<T>) -> Result<BoxIter<T>, DnsError> {
    Ok(Box::new(found.into_iter()))
}

fn four(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(four) => Some(four),
        IpAddr::V6(_) => None,
    }
}

fn six(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(six) => Some(six),
    }
}

impl Resolver for Hosts {
    fn lookup_ipv4(&self, host: String) -> Answer<Ipv4Addr> {
        let lookup = self.clone().relay(host);
        Box::pin(async { answer(lookup.await?.into_iter().filter_map(four).collect()) })
    }

    fn lookup_ipv6(&self, host: String) -> Answer<Ipv6Addr> {
        let lookup = self.clone().relay(host);
        Box::pin(async { answer(lookup.await?.into_iter().filter_map(six).collect()) })
    }

    fn lookup_txt(&self, _host: String) -> Answer<TxtRecordData> {
        Box::pin(async { Err(e!(DnsError::NxDomain)) })
    }

    fn clear_cache(&self) {}

    fn reset(&self) -> Box<dyn Resolver> {
        Box::new(self.clone())
    }
}

/// Where members are: through the relay, all of them; the bootstrap peer also where the ticket says.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    relay: RelayUrl,
    bootstrap: Option<EndpointAddr>,
}

impl Whereabouts {
    pub(crate) fn new(relay: RelayUrl, bootstrap: Option<EndpointAddr>) -> Self {
        Self { relay, bootstrap }
    }

    fn of(&self, id: EndpointId) -> EndpointAddr {
        match &self.bootstrap {
            Some(bootstrap) if bootstrap.id == id => bootstrap.clone(),
            _ => EndpointAddr::new(id).with_relay_url(self.relay.clone()),
        }
    }
}

impl AddressLookup for Whereabouts {
    fn resolve(&self, id: EndpointId) -> Option<stream::BoxStream<'static, Result<Item, Error>>> {
        let item = Item::new(EndpointInfo::from(self.of(id)), "the grid's ticket", None);
        Some(stream::iter([Ok(item)]).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_name_is_known_and_no_other() {
        let hosts = Hosts::new("10.0.2.2", Some(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2))));
        let found: Vec<_> = hosts.lookup_ipv4(RELAY_NAME.into()).await.unwrap().collect();
        assert_eq!(found, [Ipv4Addr::new(10, 0, 2, 2)]);
        let none = hosts.lookup_ipv6(RELAY_NAME.into()).await.unwrap().count();
        assert_eq!(none, 0, "no address of a family is an answer, not an error");
        assert!(hosts.lookup_ipv4("dns.iroh.link".into()).await.is_err());
        assert!(hosts.lookup_txt(RELAY_NAME.into()).await.is_err());
    }
}
