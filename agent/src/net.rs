//! The node's uplinks: every Ethernet card up, an address on each, and nobody waits.
//!
//! Invariant: nothing here blocks anything else. Cards are asked in parallel and for
//! ever; a cable that comes an hour late is an event like any other. What is known
//! stands in one watched value, [`NetState`]. The kernel is the truth: after every
//! netlink event the links, addresses and routes are read again as a whole, so a
//! missed event costs a moment, never a wrong picture.
//!
//! ```text
//!  kernel ──netlink event──► links::look ──► NetState ──watch──► console, grid, firewall
//!                               │ a card                ▲
//!                               ▼                       │ lease
//!                            client (a task a card): DHCP for ever ──► apply ◄── ways: which cards lead to the grid
//!  router ──RA──► kernel: addresses and routes of IPv6 by itself
//! ```

mod apply;
mod client;
mod dhcp;
mod links;
mod ways;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use tokio::sync::watch;

pub use dhcp::Lease;
#[cfg(fuzzing)]
pub use dhcp::fuzzing;
pub use links::{NetError, start, start_with};
pub use ways::Ways;

/// A network card of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// The kernel's name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Whether there is somebody at the other end of the cable.
    pub carrier: bool,
    /// Addresses with their prefix lengths, IPv4 first.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routers, most preferred first.
    pub gateways: Vec<IpAddr>,
    /// What DHCP gave.
    pub lease: Option<Lease>,
    /// How often DHCP was asked since there was last an answer.
    pub asked: u32,
    /// Its routes stand behind those of other cards, for it does not lead to the grid and one of them does.
    pub aside: bool,
}

/// All that is known of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetState {
    /// Sorted by index.
    pub links: Vec<Link>,
}

impl NetState {
    /// Whether anything beyond the cable can be reached, as far as one can tell from here.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.links
            .iter()
            .any(|link| link.carrier && link.has_global_address() && !link.gateways.is_empty())
    }

    /// The name servers that the networks named, each once.
    #[must_use]
    pub fn resolvers(&self) -> Vec<IpAddr> {
        self.of_leases(|lease| &lease.resolvers)
    }

    /// The time servers that the networks named, each once.
    #[must_use]
    pub fn time_servers(&self) -> Vec<IpAddr> {
        self.of_leases(|lease| &lease.time_servers)
    }

    fn of_leases(&self, pick: fn(&Lease) -> &Vec<Ipv4Addr>) -> Vec<IpAddr> {
        let mut found: Vec<IpAddr> = Vec::new();
        for lease in self.links.iter().filter_map(|link| link.lease.as_ref()) {
            for address in pick(lease) {
                let address = IpAddr::from(*address);
                if !found.contains(&address) {
                    found.push(address);
                }
            }
        }
        found
    }
}

impl Link {
    fn has_global_address(&self) -> bool {
        self.addresses.iter().any(|(address, _)| !is_link_local(*address))
    }
}

impl fmt::Display for Link {
    /// One line of the console: `52:54:00:12:34:56  10.0.2.15/24`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac: Vec<String> = self.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(out, "{}", mac.join(":"))?;
        if !self.carrier {
            return write!(out, "  {}: no cable, or nobody at its other end", self.name);
        }
        if self.has_global_address() {
            for (address, length) in &self.addresses {
                if !is_link_local(*address) {
                    write!(out, "  {address}/{length}")?;
                }
            }
            if self.gateways.is_empty() {
                write!(out, "  no router")?;
            }
            if self.aside {
                write!(out, "  does not lead to the grid")?;
            }
            return Ok(());
        }
        match self.asked {
            0 => write!(out, "  {}: asking for an address", self.name),
            asked => write!(out, "  {}: no answer by DHCP yet, asked {asked} times", self.name),
        }
    }
}

/// Addresses that mean nothing beyond the cable: 169.254/16 and fe80::/10.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The address with all bits behind the prefix cleared.
fn network_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from(v4.to_bits() & keep).into()
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX
                .checked_shl(128 - u32::from(length.min(128)))
                .unwrap_or(0);
            std::net::Ipv6Addr::from(v6.to_bits() & keep).into()
        }
    }
}

/// The network as it is now and as it becomes.
pub type NetWatch = watch::Receiver<NetState>;

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            index: 2,
            name: "eth0".into(),
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            carrier: true,
            addresses: vec![],
            gateways: vec![],
            lease: None,
            asked: 0,
            aside: false,
        }
    }

    #[test]
    fn a_link_says_what_it_lacks() {
        let mut link = link();
        assert_eq!(link.to_string(), "52:54:00:12:34:56  eth0: asking for an address");
        link.asked = 7;
        assert!(link.to_string().ends_with("no answer by DHCP yet, asked 7 times"));
        link.addresses = vec![
            ("fe80::1".parse().expect("v6"), 64),
            ("10.0.2.15".parse().expect("v4"), 24),
        ];
        assert_eq!(link.to_string(), "52:54:00:12:34:56  10.0.2.15/24  no router");
        link.gateways = vec!["10.0.2.2".parse().expect("v4")];
        assert_eq!(link.to_string(), "52:54:00:12:34:56  10.0.2.15/24");
        link.aside = true;
        assert!(
            link.to_string()
                .ends_with("10.0.2.15/24  does not lead to the grid")
        );
        link.carrier = false;
        assert!(link.to_string().contains("no cable"));
    }

    #[test]
    fn usable_needs_a_cable_an_address_and_a_router() {
        let mut link = link();
        let usable = |link: &Link| {
            NetState {
                links: vec![link.clone()],
            }
            .is_usable()
        };
        assert!(!usable(&link));
        link.gateways = vec!["fe80::2".parse().expect("v6")];
        link.addresses = vec![("fe80::1".parse().expect("v6"), 64)];
        assert!(!usable(&link), "link-local alone reaches nothing");
        link.addresses.push(("2001:db8::5".parse().expect("v6"), 64));
        assert!(usable(&link));
        link.carrier = false;
        assert!(!usable(&link));
    }

    #[test]
    fn prefixes_are_cut_where_they_end() {
        for (address, length, network) in [
            ("10.0.2.15", 24, "10.0.2.0"),
            ("10.0.2.15", 32, "10.0.2.15"),
            ("10.0.2.15", 0, "0.0.0.0"),
            ("2001:db8:1:2:3::5", 64, "2001:db8:1:2::"),
            ("2001:db8::5", 0, "::"),
        ] {
            let cut = network_of(address.parse().expect("an address"), length);
            assert_eq!(cut, network.parse::<IpAddr>().expect("a network"));
        }
    }
}
