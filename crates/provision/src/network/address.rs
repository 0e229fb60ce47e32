//! Addresses inside a node, as pure arithmetic: who gets which, from two small numbers.
//!
//! ```text
//!   198.18.0.0/15   set aside for benchmarks of routers (RFC 2544): no LAN and no provider uses it
//!   ├─ 198.18.0.0/16   spaces: a /26 for each user            user n: 198.18.0.0 + n*64
//!   │                    .1 the gateway (DNS is answered here)   .2 to .62 the user's spaces
//!   └─ 198.19.0.0/16   links: a /30 for each user             user n: 198.19.0.0 + n*4
//!                        .1 the node's end   .2 the user's end
//! ```
//!
//! Indexes are allocated from the journal: the smallest that no live sale holds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// How many users may have spaces on one node at a time.
pub const MOST_USERS: u16 = 1024;
/// How many spaces one user may have on one node at a time.
pub const MOST_SPACES_OF_A_USER: u8 = 61;
/// All addresses that this file gives away.
pub const ALL_SPACES: Prefix = Prefix {
    address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)),
    length: 15,
};

const SPACES: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const LINKS: u32 = u32::from_be_bytes([198, 19, 0, 0]);

/// A user's number on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct UserIndex(u16);

/// A space's number among its user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct SpaceIndex(u8);

/// A number beyond what the addresses reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("number {number} is beyond the {most} that there are addresses for")]
pub struct IndexError {
    number: u32,
    most: u32,
}

impl TryFrom<u16> for UserIndex {
    type Error = IndexError;

    fn try_from(number: u16) -> Result<Self, IndexError> {
        if number < MOST_USERS {
            Ok(Self(number))
        } else {
            Err(IndexError {
                number: u32::from(number),
                most: u32::from(MOST_USERS),
            })
        }
    }
}

impl From<UserIndex> for u16 {
    fn from(index: UserIndex) -> u16 {
        index.0
    }
}

impl TryFrom<u8> for SpaceIndex {
    type Error = IndexError;

    fn try_from(number: u8) -> Result<Self, IndexError> {
        if number < MOST_SPACES_OF_A_USER {
            Ok(Self(number))
        } else {
            Err(IndexError {
                number: u32::from(number),
                most: u32::from(MOST_SPACES_OF_A_USER),
            })
        }
    }
}

impl From<SpaceIndex> for u8 {
    fn from(index: SpaceIndex) -> u8 {
        index.0
    }
}

impl UserIndex {
    /// Every address that the user's spaces can have, and the gateway.
    pub fn subnet(self) -> Prefix {
        Prefix {
            address: IpAddr::V4(self.subnet_address()),
            length: 26,
        }
    }

    /// That subnet's first address.
    pub fn subnet_address(self) -> Ipv4Addr {
        self.at(0)
    }

    /// The user's gateway: the one address outside its own that a space talks to directly.
    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The node's end of the link to the user's namespace, in a /30.
    pub fn link_of_node(self) -> Ipv4Addr {
        Ipv4Addr::from(LINKS + u32::from(self.0) * 4 + 1)
    }

    /// The user's end of that link, in the same /30.
    pub fn link_of_user(self) -> Ipv4Addr {
        Ipv4Addr::from(LINKS + u32::from(self.0) * 4 + 2)
    }

    /// The address of one of the user's spaces.
    pub fn space(self, space: SpaceIndex) -> Ipv4Addr {
        self.at(2 + u32::from(space.0))
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(SPACES + u32::from(self.0) * 64 + offset)
    }
}

/// Whether an address is of a network that no router of the internet knows: RFC 1918, RFC 3927, RFC 4193, RFC 4291; the
/// site-local ones before RFC 4193, too, which QEMU's network still has.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_private() || four.is_link_local(),
        IpAddr::V6(six) => {
            let site_local = six.segments()[0] & 0xffc0 == 0xfec0;
            six.is_unique_local() || six.is_unicast_link_local() || site_local
        }
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prefix {
    /// The address; bits beyond the length do not count.
    pub address: IpAddr,
    /// How many leading bits count.
    pub length: u8,
}

impl Prefix {
    /// The prefix that holds this address alone.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.length.min(32)))
                    .unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.length.min(128)))
                    .unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_addresses_are_the_same_and_all_lie_in_the_range() {
        let mut seen = HashSet::new();
        for user in (0..MOST_USERS).map(|user| UserIndex::try_from(user).unwrap()) {
            let mut own = vec![user.gateway(), user.link_of_node(), user.link_of_user()];
            own.extend(
                (0..MOST_SPACES_OF_A_USER).map(|space| user.space(SpaceIndex::try_from(space).unwrap())),
            );
            for address in own {
                assert!(ALL_SPACES.contains(address.into()), "{address}");
                assert!(seen.insert(address), "{address} is given twice");
            }
        }
    }

    #[test]
    fn spaces_and_gateway_lie_in_the_users_subnet_and_no_broadcast_address_is_given() {
        let user = UserIndex::try_from(MOST_USERS - 1).unwrap();
        let last = user.space(SpaceIndex::try_from(MOST_SPACES_OF_A_USER - 1).unwrap());
        assert_eq!(last, Ipv4Addr::new(198, 18, 255, 254));
        assert!(user.subnet().contains(last.into()) && user.subnet().contains(user.gateway().into()));
    }

    #[test]
    fn numbers_beyond_are_refused() {
        assert!(UserIndex::try_from(MOST_USERS).is_err());
        assert!(SpaceIndex::try_from(MOST_SPACES_OF_A_USER).is_err());
        assert!(serde_json::from_str::<UserIndex>("5000").is_err());
    }

    #[test]
    fn a_prefix_of_no_bits_holds_all_and_of_all_bits_one() {
        let all = Prefix {
            address: Ipv4Addr::UNSPECIFIED.into(),
            length: 0,
        };
        assert!(all.contains(Ipv4Addr::new(8, 8, 8, 8).into()));
        let one = Prefix::host(Ipv4Addr::new(8, 8, 8, 8).into());
        assert!(!one.contains(Ipv4Addr::new(8, 8, 8, 9).into()));
    }
}
