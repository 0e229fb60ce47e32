//! Where a grid's people meet, as one line of text.
//!
//! ```text
//!   steading:NAME@HOST:RELAY?grid=HEX&peer=HEX&udp=PORT&qad=PORT&cert=BASE64URL
//!            │    │    │      │        │        │        └────────┴ optional: address discovery
//!            │    │    │      │        │        └ the bootstrap peer's own port, on HOST
//!            │    │    │      │        └ the bootstrap peer's endpoint id
//!            │    │    │      └ the grid's id: its founder's public key, in every signature
//!            │    │    └ the relay's port (plain http)
//!            │    └ as the reader reaches it: 127.0.0.1 on the host, 10.0.2.2 in a QEMU guest
//!            └ what people call it
//! ```
//!
//! It is text that a farmer may copy and whose host may be edited by hand; nothing in it is secret.

use std::{fmt, net::IpAddr, str::FromStr};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use iroh::EndpointId;

use crate::PeerId;

const PREFIX: &str = "steading:";
const MAX_TEXT: usize = 2048;
const MAX_NAME: usize = 64;
const MAX_HOST: usize = 253;
const MAX_CERTIFICATE: usize = 1024;

/// All that is needed to join a grid.
#[derive(Clone, PartialEq, Eq)]
pub struct GridTicket {
    pub(crate) name: String,
    pub(crate) grid: [u8; 32],
    pub(crate) peer: EndpointId,
    pub(crate) host: String,
    pub(crate) relay_port: u16,
    pub(crate) udp_port: u16,
    pub(crate) discovery: Option<Discovery>,
}

/// The relay's QUIC address discovery: its port, and the one certificate that is believed there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Discovery {
    pub(crate) port: u16,
    pub(crate) certificate: Vec<u8>,
}

/// Why a text is not a grid's ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It starts otherwise, or is far too long.
    #[error("a grid ticket is one line that starts with \"{PREFIX}\"; `steading grid serve` prints it")]
    NotATicket,
    /// A part is missing.
    #[error("the grid ticket lacks its {0}: copy the whole line")]
    Missing(&'static str),
    /// A part is there and wrong.
    #[error("the grid ticket's {part} is wrong: {why}")]
    Wrong {
        /// Which part.
        part: &'static str,
        /// What would be right.
        why: &'static str,
    },
    /// A part that this version does not know.
    #[error("the grid ticket has a part \"{0}\" that this version does not know")]
    Unknown(String),
}

impl GridTicket {
    /// What people call the grid.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The grid's id: its founder's public key.
    pub fn grid_id(&self) -> [u8; 32] {
        self.grid
    }

    /// The bootstrap peer's endpoint id.
    pub fn bootstrap(&self) -> PeerId {
        self.peer.into()
    }

    /// The host at which its reader reaches relay and bootstrap.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The relay's TCP port on that host.
    pub fn relay_port(&self) -> u16 {
        self.relay_port
    }

    /// The same grid for a reader who reaches the host by another name or address
    /// (in a QEMU guest the machine around it is `10.0.2.2`).
    pub fn with_host(&self, host: &str) -> Result<Self, TicketError> {
        check_host(host)?;
        Ok(Self {
            host: host.to_owned(),
            ..self.clone()
        })
    }

    pub(crate) fn host_ip(&self) -> Option<IpAddr> {
        self.host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()
    }
}

impl fmt::Display for GridTicket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, host, relay, udp) = (&self.name, &self.host, self.relay_port, self.udp_port);
        let grid = HEXLOWER.encode(&self.grid);
        let peer = HEXLOWER.encode(self.peer.as_bytes());
        write!(
            formatter,
            "{PREFIX}{name}@{host}:{relay}?grid={grid}&peer={peer}&udp={udp}"
        )?;
        if let Some(Discovery { port, certificate }) = &self.discovery {
            write!(
                formatter,
                "&qad={port}&cert={}",
                BASE64URL_NOPAD.encode(certificate)
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for GridTicket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GridTicket({self})")
    }
}

impl FromStr for GridTicket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(TicketError::NotATicket);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        let (head, query) = rest.split_once('?').ok_or(TicketError::Missing("grid"))?;
        let (name, place) = head.split_once('@').ok_or(TicketError::Missing("name"))?;
        check_name(name)?;
        let (host, relay) = place.rsplit_once(':').ok_or(TicketError::Missing("port"))?;
        check_host(host)?;
        let relay_port = port("relay port", relay)?;
        let mut parts = Parts::default();
        for pair in query.split('&') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| TicketError::Unknown(shown(pair)))?;
            parts.set(key, value)?;
        }
        parts.finish(name, host, relay_port)
    }
}

#[derive(Default)]
struct Parts {
    grid: Option<[u8; 32]>,
    peer: Option<EndpointId>,
    udp: Option<u16>,
    qad: Option<u16>,
    certificate: Option<Vec<u8>>,
}

impl Parts {
    fn set(&mut self, key: &str, value: &str) -> Result<(), TicketError> {
        match key {
            "grid" => once("grid id", &mut self.grid, key32("grid id", value)?),
            "peer" => {
                let wrong = TicketError::Wrong {
                    part: "peer",
                    why: "it must be an ed25519 key",
                };
                let id = EndpointId::from_bytes(&key32("peer", value)?).map_err(|_| wrong)?;
                once("peer", &mut self.peer, id)
            }
            "udp" => once("udp port", &mut self.udp, port("udp port", value)?),
            "qad" => once("qad port", &mut self.qad, port("qad port", value)?),
            "cert" => {
                let wrong = TicketError::Wrong {
                    part: "certificate",
                    why: "it must be base64url of at most 1 KiB",
                };
                let bytes = BASE64URL_NOPAD
                    .decode(value.as_bytes())
                    .map_err(|_| wrong.clone())?;
                if bytes.is_empty() || bytes.len() > MAX_CERTIFICATE {
                    return Err(wrong);
                }
                once("certificate", &mut self.certificate, bytes)
            }
            other => Err(TicketError::Unknown(shown(other))),
        }
    }

    fn finish(self, name: &str, host: &str, relay_port: u16) -> Result<GridTicket, TicketError> {
        let discovery = match (self.qad, self.certificate) {
            (Some(port), Some(certificate)) => Some(Discovery { port, certificate }),
            (None, None) => None,
            (Some(_), None) => return Err(TicketError::Missing("certificate")),
            (None, Some(_)) => return Err(TicketError::Missing("qad port")),
        };
        Ok(GridTicket {
            name: name.to_owned(),
            grid: self.grid.ok_or(TicketError::Missing("grid id"))?,
            peer: self.peer.ok_or(TicketError::Missing("peer"))?,
            host: host.to_owned(),
            relay_port,
            udp_port: self.udp.ok_or(TicketError::Missing("udp port"))?,
            discovery,
        })
    }
}

/// A grid's name: letters that survive every file and every shell.
pub(crate) fn check_name(name: &str) -> Result<(), TicketError> {
    let wrong = TicketError::Wrong {
        part: "name",
        why: "1 to 64 of a-z, A-Z, 0-9, '-', '_', '.'",
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(wrong);
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), TicketError> {
    let wrong = TicketError::Wrong {
        part: "host",
        why: "an IPv4 address, an IPv6 address in [brackets], or a name",
    };
    if let Some(inner) = host.strip_prefix('[') {
        let six = inner
            .strip_suffix(']')
            .and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
        return six.map(|_| ()).ok_or(wrong);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(fits) {
        return Err(wrong);
    }
    Ok(())
}

fn key32(part: &'static str, value: &str) -> Result<[u8; 32], TicketError> {
    let wrong = TicketError::Wrong {
        part,
        why: "it must be 64 lower-case hex digits",
    };
    let bytes = HEXLOWER.decode(value.as_bytes()).map_err(|_| wrong.clone())?;
    bytes.try_into().map_err(|_| wrong)
}

fn port(part: &'static str, value: &str) -> Result<u16, TicketError> {
    match value.parse() {
        Ok(0) | Err(_) => Err(TicketError::Wrong {
            part,
            why: "it must be a number from 1 to 65535",
        }),
        Ok(port) => Ok(port),
    }
}

fn once<T>(part: &'static str, slot: &mut Option<T>, value: T) -> Result<(), TicketError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TicketError::Wrong {
            part,
            why: "it is there twice",
        }),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(24).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> GridTicket {
        GridTicket {
            name: "testing-1".into(),
            grid: [3; 32],
            peer: iroh::SecretKey::from_bytes(&[9; 32]).public(),
            host: "127.0.0.1".into(),
            relay_port: 7800,
            udp_port: 7801,
            discovery: Some(Discovery {
                port: 7802,
                certificate: vec![1, 2, 3, 250],
            }),
        }
    }

    #[test]
    fn text_there_and_back() {
        let mut plain = sample();
        plain.discovery = None;
        for ticket in [sample(), plain] {
            assert_eq!(ticket.to_string().parse::<GridTicket>().unwrap(), ticket);
        }
        let spaced = format!("  {}\r\n", sample());
        assert_eq!(spaced.parse::<GridTicket>().unwrap(), sample());
    }

    #[test]
    fn another_host_is_the_same_grid() {
        let guest = sample().with_host("10.0.2.2").unwrap();
        assert_eq!(guest.host_ip(), Some("10.0.2.2".parse().unwrap()));
        assert_eq!(guest.grid_id(), sample().grid_id());
        assert!(sample().with_host("fe80::1").is_err());
        let six = sample().with_host("[::1]").unwrap();
        assert_eq!(six.host_ip(), Some("::1".parse().unwrap()));
        assert_eq!(six.to_string().parse::<GridTicket>().unwrap(), six);
        assert!(sample().with_host("a@b").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = sample().to_string();
        let error = |changed: String| changed.parse::<GridTicket>().unwrap_err();
        assert_eq!(error("hello".into()), TicketError::NotATicket);
        assert_eq!(
            error(text.replace("&udp=7801", "")),
            TicketError::Missing("udp port")
        );
        assert_eq!(
            error(text.replace("&qad=7802", "")),
            TicketError::Missing("qad port")
        );
        assert_eq!(error(format!("{text}&new=1")), TicketError::Unknown("new".into()));
        assert!(error(format!("{text}&udp=9")).to_string().contains("twice"));
        assert!(
            error(text.replace(":7800", ":0"))
                .to_string()
                .contains("relay port")
        );
        assert!(
            error(text.replace("grid=03", "grid=3"))
                .to_string()
                .contains("64 lower-case")
        );
        assert!(
            error(text.replace("testing-1", "a b"))
                .to_string()
                .contains("name")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_means_itself(text in "steading:[a-z@:?=&0-9\\[\\]]{0,200}") {
            if let Ok(ticket) = text.parse::<GridTicket>() {
                prop_assert_eq!(ticket.to_string().parse::<GridTicket>().unwrap(), ticket);
            }
        }

        #[test]
        fn a_cut_or_changed_ticket_never_panics(position in 0usize..400, letter in any::<char>()) {
            let text = sample().to_string();
            let mut changed: Vec<char> = text.chars().collect();
            let position = position % changed.len();
            changed[position] = letter;
            let _ = changed.iter().collect::<String>().parse::<GridTicket>();
            let _ = text[..position].parse::<GridTicket>();
        }
    }
}
