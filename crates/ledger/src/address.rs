//! A ledger's name and where this reader reaches it:
//! `ledger:<64 hex digits>@http://HOST:PORT`.
//!
//! The name is the key, the same for everybody. The URL is each reader's own:
//! what is 127.0.0.1 on the host is 10.0.2.2 in a guest.

use std::fmt;
use std::str::FromStr;

use escrow::RailName;

/// A ledger that can be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailAddress {
    key: [u8; 32],
    authority: String,
}

/// Why a text is no address of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not the shape.
    #[error(
        "\"{0}\" is not the address of a ledger; it should look like ledger:<64 hex digits>@http://HOST:PORT"
    )]
    Shape(String),
    /// Anything but http.
    #[error(
        "a ledger is reached by http://HOST:PORT, not \"{0}\" (its answers are signed; TLS would add nothing that is checked)"
    )]
    Scheme(String),
    /// The part after http://.
    #[error("\"{0}\" is not HOST:PORT")]
    Authority(String),
}

impl RailAddress {
    /// The ledger with that public key, reached at `authority` (HOST:PORT).
    pub fn new(key: [u8; 32], authority: &str) -> Result<RailAddress, AddressError> {
        let refuse = || AddressError::Authority(authority.chars().take(80).collect());
        let (host, port) = authority.rsplit_once(':').ok_or_else(refuse)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= 253 && host.bytes().all(plain),
        };
        let port_is_good = port.parse::<u16>().is_ok_and(|port| port > 0);
        if !host_is_good || !port_is_good {
            return Err(refuse());
        }
        Ok(RailAddress {
            key,
            authority: authority.to_owned(),
        })
    }

    /// The rail's name.
    pub fn name(&self) -> RailName {
        RailName::ledger(&self.key)
    }

    /// The ledger's public key.
    pub fn key(&self) -> [u8; 32] {
        self.key
    }

    /// HOST:PORT.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where requests go.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// The same ledger and port, by another host's name (10.0.2.2 in a guest
    /// of QEMU's user network).
    pub fn with_host(&self, host: &str) -> Result<RailAddress, AddressError> {
        let port = self.authority.rsplit_once(':').map_or("", |(_, port)| port);
        RailAddress::new(self.key, &format!("{host}:{port}"))
    }
}

impl fmt::Display for RailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name(), self.url())
    }
}

impl FromStr for RailAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<RailAddress, AddressError> {
        let refuse = || AddressError::Shape(text.chars().take(120).collect());
        let (name, url) = text.split_once('@').ok_or_else(refuse)?;
        let key = name
            .parse::<RailName>()
            .ok()
            .and_then(|name| name.ledger_key())
            .ok_or_else(refuse)?;
        let authority = url
            .strip_prefix("http://")
            .ok_or_else(|| AddressError::Scheme(url.chars().take(80).collect()))?;
        RailAddress::new(key, authority.strip_suffix('/').unwrap_or(authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_and_moves_to_another_host() {
        let text = format!("ledger:{}@http://127.0.0.1:7070", "ab".repeat(32));
        let address: RailAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        let in_guest = address.with_host("10.0.2.2").unwrap();
        assert_eq!(in_guest.url(), "http://10.0.2.2:7070");
        assert_eq!(in_guest.name(), address.name());
        assert!(
            format!("ledger:{}@http://[::1]:1/", "ab".repeat(32))
                .parse::<RailAddress>()
                .is_ok()
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let key = "ab".repeat(32);
        for (text, word) in [
            (String::new(), "should look like"),
            (format!("ledger:{key}"), "should look like"),
            (format!("ledger:{}@http://h:1", &key[2..]), "should look like"),
            (format!("ledger:{key}@https://h:1"), "http://HOST:PORT"),
            (format!("ledger:{key}@http://h"), "HOST:PORT"),
            (format!("ledger:{key}@http://h:0"), "HOST:PORT"),
            (format!("ledger:{key}@http://h:99999"), "HOST:PORT"),
            (format!("ledger:{key}@http://user@h:1"), "HOST:PORT"),
            (format!("ledger:{key}@http://h/x:1"), "HOST:PORT"),
            (format!("ledger:{key}@http://[::g]:1"), "HOST:PORT"),
        ] {
            let error = text.parse::<RailAddress>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
