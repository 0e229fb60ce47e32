//! Ids: 32 bytes each, told apart by type, with one text form (64 lower-case hex digits).
//!
//! Invariant: `Display`, `FromStr` and serde agree; upper case and other lengths are refused, so that one id has one
//! text. [`SaleId::name`] gives both sides the same name for a space without a message.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::name;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an id: 64 lower-case hex digits")]
pub struct IdError(String);

macro_rules! id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Shortened in the middle for a table: `9c41…d07e`.
            pub fn short(&self) -> String {
                let text = self.to_string();
                format!("{}…{}", &text[..4], &text[60..])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                bytes
                    .map($name)
                    .ok_or_else(|| IdError(text.chars().take(70).collect()))
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<$name, IdError> {
                text.parse()
            }
        }
    };
}

id!(NodeId, "A node: its ed25519 public key.");
id!(UserId, "A user: an ed25519 public key.");
id!(GridId, "A grid: the ed25519 public key of whoever founded it.");
id!(
    SaleId,
    "A sale: SHA-256 over a prefix and the body that both signed."
);
id!(RequestHash, "SHA-256 over a whole signed request.");
id!(OfferHash, "SHA-256 over a whole signed offer.");
id!(Digest, "SHA-256 of something else: a base, a message.");
id!(EndpointId, "An endpoint on the grid: its ed25519 public key.");

impl SaleId {
    /// The id of the sale whose body is these exact bytes: SHA-256("steading/sale/1\0" ‖ body).
    pub fn of_body(body: &[u8]) -> SaleId {
        SaleId(
            Sha256::new()
                .chain_update(b"steading/sale/1\0")
                .chain_update(body)
                .finalize()
                .into(),
        )
    }

    /// What people call the space: two words, the same on both sides, such as `calm-otter`.
    pub fn name(&self) -> String {
        name::of(&self.0)
    }
}

impl Digest {
    /// SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
}

/// A disk as something to sell from: the name of its volume group, at most 127 characters as LVM allows them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub String);

impl fmt::Display for GroupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_has_one_text() {
        let id = NodeId([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("AB".repeat(32).parse::<NodeId>().is_err());
        assert!("ab".repeat(31).parse::<NodeId>().is_err());
        assert_eq!(id.short(), "abab…abab");
    }

    #[test]
    fn a_sale_is_named_after_its_body_alone() {
        assert_eq!(SaleId::of_body(b"body"), SaleId::of_body(b"body"));
        assert_ne!(SaleId::of_body(b"body"), SaleId::of_body(b"bodz"));
        assert_ne!(SaleId::of_body(b"body").0, Digest::of(b"body").0);
    }
}
