//! Where an endpoint can be reached, as opaque bytes that travel in requests and status answers.
//!
//! Invariant: decoding is of hostile input. An address never names a relay or a host: it only says
//! *whether* the endpoint can be reached through the grid's own relay. So a message cannot make
//! its reader resolve a name or call a third party's relay; the worst it can do is to have a few
//! handshake packets sent to [`MAX_DIRECT`] addresses, and in answer to a broadcast to [`UNPROVEN_DIRECT`].
//!
//! ```text
//!   version 1 │ id 32 │ flags 1 (bit 0: through the grid's relay) │ count 1 │ count × address
//!   address:  4 │ IPv4 4 │ port 2 BE      6 │ IPv6 16 │ port 2 BE
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use iroh::{EndpointAddr, EndpointId, RelayUrl};

use crate::PeerId;

const VERSION: u8 = 1;
const THROUGH_RELAY: u8 = 1;
const MAX_DIRECT: usize = 12;
/// Addresses of a stranger that are tried where no relay leads to him.
const UNPROVEN_DIRECT: usize = 2;

/// An endpoint's id and how to reach it without any discovery.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointAddress {
    id: EndpointId,
    through_relay: bool,
    direct: Vec<SocketAddr>,
}

/// Why bytes are not an endpoint's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// More bytes than any address has.
    #[error("an endpoint address has at most {max} bytes, this has {0}", max = EndpointAddress::MAX_BYTES)]
    TooLong(usize),
    /// Fewer bytes than it says, or bytes left over.
    #[error("an endpoint address ends too early or too late")]
    Length,
    /// Another version, by number.
    #[error("endpoint address version {0} is unknown here (1 is known)")]
    Version(u8),
    /// The 32 bytes are not a public key.
    #[error("an endpoint address without a valid ed25519 key")]
    Key,
    /// A bit or a family that means nothing.
    #[error("an endpoint address with an unknown field")]
    Unknown,
    /// Nobody can be reached there.
    #[error("{0} is no address at which an endpoint can be reached")]
    Unreachable(SocketAddr),
    /// More addresses than allowed.
    #[error("an endpoint address names at most {MAX_DIRECT} addresses, this names {0}")]
    TooMany(usize),
}

impl EndpointAddress {
    /// No encoded address is longer.
    pub const MAX_BYTES: usize = 1024;

    /// The endpoint's id.
    pub fn id(&self) -> PeerId {
        self.id.into()
    }

    /// Of an endpoint of which only the id is known: through the grid's relay.
    pub fn by_relay(id: PeerId) -> Result<Self, AddressError> {
        Ok(Self {
            id: EndpointId::from_bytes(id.as_bytes()).map_err(|_| AddressError::Key)?,
            through_relay: true,
            direct: Vec::new(),
        })
    }

    /// Whether it says that the grid's relay reaches it.
    pub fn through_relay(&self) -> bool {
        self.through_relay
    }

    /// The socket addresses that it believes to have.
    pub fn direct(&self) -> &[SocketAddr] {
        &self.direct
    }

    /// What to try, in this order, where nobody has proven yet that the addresses are his: the relay, then
    /// [`UNPROVEN_DIRECT`] addresses. A broadcast reaches every node, and what each of them sends to an address that it
    /// names goes to whoever has that address.
    pub fn unproven(&self) -> impl Iterator<Item = EndpointAddress> {
        let by_relay = self.through_relay.then(|| EndpointAddress {
            direct: Vec::new(),
            ..self.clone()
        });
        let straight = (!self.direct.is_empty()).then(|| EndpointAddress {
            through_relay: false,
            direct: self.direct.iter().copied().take(UNPROVEN_DIRECT).collect(),
            ..self.clone()
        });
        by_relay.into_iter().chain(straight)
    }

    /// The bytes that travel.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(35 + 19 * self.direct.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.push(if self.through_relay { THROUGH_RELAY } else { 0 });
        bytes.push(u8::try_from(self.direct.len()).unwrap_or(u8::MAX));
        for address in &self.direct {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_be_bytes());
        }
        bytes
    }

    /// Reads bytes that anybody may have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AddressError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(AddressError::TooLong(bytes.len()));
        }
        let mut reader = Reader(bytes);
        let [version] = reader.take::<1>()?;
        if version != VERSION {
            return Err(AddressError::Version(version));
        }
        let id = EndpointId::from_bytes(&reader.take::<32>()?).map_err(|_| AddressError::Key)?;
        let [flags] = reader.take::<1>()?;
        if flags & !THROUGH_RELAY != 0 {
            return Err(AddressError::Unknown);
        }
        let [count] = reader.take::<1>()?;
        let count = usize::from(count);
        if count > MAX_DIRECT {
            return Err(AddressError::TooMany(count));
        }
        let mut direct = Vec::with_capacity(count);
        for _ in 0..count {
            let ip = match reader.take::<1>()? {
                [4] => IpAddr::V4(Ipv4Addr::from(reader.take::<4>()?)),
                [6] => IpAddr::V6(Ipv6Addr::from(reader.take::<16>()?)),
                _ => return Err(AddressError::Unknown),
            };
            let address = SocketAddr::new(ip, u16::from_be_bytes(reader.take::<2>()?));
            if !is_reachable(&address) {
                return Err(AddressError::Unreachable(address));
            }
            direct.push(address);
        }
        if !reader.0.is_empty() {
            return Err(AddressError::Length);
        }
        Ok(Self {
            id,
            through_relay: flags & THROUGH_RELAY != 0,
            direct,
        })
    }

    /// What this endpoint knows of itself, as others may use it. Every member can be reached
    /// through the grid's relay: its first dial of the bootstrap has made itself known there,
    /// long before the engine has measured and named its home relay.
    pub(crate) fn of(own: &EndpointAddr) -> Self {
        let direct = own
            .ip_addrs()
            .copied()
            .filter(is_reachable)
            .take(MAX_DIRECT)
            .collect();
        Self {
            id: own.id,
            through_relay: true,
            direct,
        }
    }

    /// As the engine wants it; the relay is the reader's own, whatever the writer called it.
    pub(crate) fn to_engine(&self, relay: &RelayUrl) -> EndpointAddr {
        let mut address = EndpointAddr::new(self.id);
        if self.through_relay {
            address = address.with_relay_url(relay.clone());
        }
        for direct in &self.direct {
            address = address.with_ip_addr(*direct);
        }
        address
    }
}

impl fmt::Debug for EndpointAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "EndpointAddress({}, relay: {}, {:?})",
            self.id(),
            self.through_relay,
            self.direct
        )
    }
}

fn is_reachable(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(four) if four.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], AddressError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(AddressError::Length)?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> EndpointAddress {
        EndpointAddress {
            id: iroh::SecretKey::from_bytes(&[7; 32]).public(),
            through_relay: true,
            direct: vec!["10.0.2.15:4433".parse().unwrap(), "[fec0::1]:9".parse().unwrap()],
        }
    }

    #[test]
    fn bytes_there_and_back() {
        let bytes = sample().to_bytes();
        assert_eq!(EndpointAddress::from_bytes(&bytes).unwrap(), sample());
        assert!(bytes.len() <= EndpointAddress::MAX_BYTES);
    }

    #[test]
    fn a_strangers_addresses_are_tried_after_the_relay_and_two_at_most() {
        let mut address = sample();
        address.direct = (1..=12).map(|port| ([192, 0, 2, 1], port).into()).collect();
        let tries: Vec<_> = address.unproven().collect();
        let told: Vec<_> = tries
            .iter()
            .map(|one| (one.through_relay, one.direct.len()))
            .collect();
        assert_eq!(told, [(true, 0), (false, 2)]);
        address.through_relay = false;
        assert_eq!(address.unproven().count(), 1);
    }

    #[test]
    fn every_truncation_and_every_tail_is_refused() {
        let bytes = sample().to_bytes();
        for length in 0..bytes.len() {
            assert!(EndpointAddress::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(EndpointAddress::from_bytes(&longer), Err(AddressError::Length));
        assert_eq!(
            EndpointAddress::from_bytes(&[1; 2000]),
            Err(AddressError::TooLong(2000))
        );
    }

    #[test]
    fn what_nobody_can_be_reached_at_is_refused() {
        for bad in [
            "0.0.0.0:1",
            "224.0.0.1:53",
            "255.255.255.255:9",
            "127.0.0.1:0",
            "[ff02::1]:1",
        ] {
            let mut address = sample();
            address.direct = vec![bad.parse().unwrap()];
            let refused = EndpointAddress::from_bytes(&address.to_bytes());
            assert!(
                matches!(refused, Err(AddressError::Unreachable(_))),
                "{bad}: {refused:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_back_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(address) = EndpointAddress::from_bytes(&bytes) {
                prop_assert_eq!(address.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(position in 0usize..64, value in any::<u8>()) {
            let mut bytes = sample().to_bytes();
            let position = position % bytes.len();
            bytes[position] = value;
            if let Ok(address) = EndpointAddress::from_bytes(&bytes) {
                prop_assert_eq!(address.to_bytes(), bytes);
            }
        }
    }
}
