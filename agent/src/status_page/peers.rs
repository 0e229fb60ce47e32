//! Who may look: a machine next door, on a private network of one of the node's own cards.

use std::net::{IpAddr, SocketAddr};

use provision::network::address::{Prefix, is_private};

use crate::net::NetState;

/// Whether an address is of a private network that one of the cards is on. Those of spaces are on none.
#[must_use]
pub fn is_neighbour(peer: SocketAddr, network: &NetState) -> bool {
    let address = peer.ip().to_canonical();
    if !is_private(address) {
        return false;
    }
    if let (SocketAddr::V6(peer), IpAddr::V6(six)) = (peer, address)
        && six.is_unicast_link_local()
    {
        return network.links.iter().any(|link| link.index == peer.scope_id());
    }
    let on_link = |(own, length): &(IpAddr, u8)| {
        let prefix = Prefix {
            address: *own,
            length: *length,
        };
        // A host's own prefix has no neighbours.
        is_private(*own) && prefix.contains(address)
    };
    network
        .links
        .iter()
        .any(|link| link.addresses.iter().any(on_link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Link;

    #[test]
    fn neighbours_on_private_networks_alone_may_look() {
        let addresses = [
            ("192.168.7.20", 24),
            ("203.0.113.7", 24),
            ("fd00:7::20", 64),
            ("fe80::20", 64),
        ];
        let network = NetState {
            links: vec![Link {
                index: 2,
                name: "eth0".into(),
                mac: [2, 0, 0, 0, 0, 1],
                carrier: true,
                addresses: addresses
                    .iter()
                    .map(|(address, length)| (address.parse().expect("an address"), *length))
                    .collect(),
                gateways: vec![],
                lease: None,
                asked: 0,
                aside: false,
            }],
        };
        let may = |peer: &str| is_neighbour(peer.parse().expect("a peer"), &network);
        for peer in [
            "192.168.7.1:5",
            "[::ffff:192.168.7.9]:5",
            "[fd00:7::1]:5",
            "[fe80::1%2]:5",
        ] {
            assert!(may(peer), "{peer}");
        }
        for peer in [
            "192.168.8.1:5",
            "203.0.113.8:5", // on the same cable, and not private
            "8.8.8.8:5",
            "198.18.0.5:5", // a space
            "127.0.0.1:5",
            "[::1]:5",
            "[fd00:8::1]:5",
            "[2001:db8::1]:5",
            "[fe80::1%3]:5",
            "[fe80::1]:5",
        ] {
            assert!(!may(peer), "{peer}");
        }
        assert!(!is_neighbour(
            "192.168.7.1:5".parse().expect("a peer"),
            &NetState::default()
        ));
    }
}
