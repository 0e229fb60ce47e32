//! Who may hold a connection of a server that anybody may come to: so many in all, and of these so many from one address.
//!
//! ```text
//!   accept ─► Places::take(address) ─► Place, held as long as the connection is
//!                   └ none: closed at once
//! ```
//!
//! Invariant: strangers hold a bounded number of connections, one address (of IPv6: one /64) a share of them. It accepts
//! nothing itself, and knows no protocol.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections there are for strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// Of these, from one address, or one /64 of IPv6. Many nodes and users may stand behind one.
    pub connections_an_address: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 1024,
            connections_an_address: 256,
        }
    }
}

/// The connections that are open, by address.
#[derive(Debug, Clone)]
pub struct Places {
    bounds: Bounds,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// All of them free.
    pub fn new(bounds: Bounds) -> Places {
        Places {
            bounds,
            taken: Arc::default(),
        }
    }

    /// One for who comes from there; none where all are taken, or all of that address.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let address = counted_as(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.bounds.connections || own >= self.bounds.connections_an_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Some(Place {
            places: self.clone(),
            address,
        })
    }
}

/// One subscriber of IPv6 has a /64, and would be as many strangers as it likes.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        four @ IpAddr::V4(_) => four,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_of_ipv6_is_one_stranger() {
        let places = Places::new(Bounds {
            connections: 8,
            connections_an_address: 2,
        });
        let from = |address: &str| places.take(address.parse().unwrap());
        let first = from("2001:db8:0:1::1").unwrap();
        let _second = from("2001:db8:0:1:ffff::2").unwrap();
        assert!(from("2001:db8:0:1:aaaa:bbbb:cccc:dddd").is_none(), "the same /64");
        let _other = from("2001:db8:0:2::1").unwrap();
        drop(first);
        let _again = from("2001:db8:0:1::3").unwrap();
        let _four = (from("192.0.2.1").unwrap(), from("::ffff:192.0.2.1").unwrap());
        assert!(from("192.0.2.1").is_none());
        assert!(from("192.0.2.2").is_some());
    }

    #[test]
    fn all_of_them_are_bounded_whoever_comes() {
        let places = Places::new(Bounds {
            connections: 3,
            connections_an_address: 2,
        });
        let from = |last: u8| places.take(IpAddr::from([192, 0, 2, last]));
        let mut held: Vec<Place> = (1..=3).filter_map(from).collect();
        assert_eq!(held.len(), 3);
        assert!(from(4).is_none());
        held.pop();
        assert!(from(4).is_some());
    }
}
