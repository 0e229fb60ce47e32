//! What a lock is for: derived from the sale's body and id, hashed into the lease.
//!
//! Invariant: a lease commits to the rail and to every term, so one lock never serves two sales.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::account::{Account, Asset, RailName, hex_32, lower_hex};

/// A public key of a kind that the rail can check: 32 bytes (ed25519) on a ledger, 33 (secp256k1, compressed) on evm.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RailKey(Vec<u8>);

impl RailKey {
    /// Takes 32 or 33 bytes, nothing else.
    pub fn new(bytes: &[u8]) -> Option<RailKey> {
        matches!(bytes.len(), 32 | 33).then(|| RailKey(bytes.to_vec()))
    }

    /// An ed25519 public key.
    pub fn ed25519(key: &[u8; 32]) -> RailKey {
        RailKey(key.to_vec())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The 32 bytes of an ed25519 key, where it is as long as one.
    pub fn as_ed25519(&self) -> Option<[u8; 32]> {
        self.0.as_slice().try_into().ok()
    }
}

impl fmt::Display for RailKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&lower_hex(&self.0))
    }
}

impl fmt::Debug for RailKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RailKey({self})")
    }
}

impl From<RailKey> for String {
    fn from(key: RailKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for RailKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<RailKey, &'static str> {
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| "a key is lower-case hex")?;
        RailKey::new(&bytes).ok_or("a key is 32 or 33 bytes")
    }
}

/// The hash of a rail and terms: names one lock on that rail, usable once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseId(pub [u8; 32]);

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&lower_hex(&self.0))
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LeaseId({self})")
    }
}

impl FromStr for LeaseId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<LeaseId, &'static str> {
        hex_32(text)
            .map(LeaseId)
            .ok_or("a lease is 64 lower-case hex digits")
    }
}

impl From<LeaseId> for String {
    fn from(lease: LeaseId) -> String {
        lease.to_string()
    }
}

impl TryFrom<String> for LeaseId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<LeaseId, &'static str> {
        text.parse()
    }
}

/// What a lock is for. Both sides derive it from the sale; nobody sends it to the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The money.
    pub asset: Asset,
    /// Who locks, and gets the rest back.
    pub payer: Account,
    /// Who alone can be paid.
    pub payee: Account,
    /// Whose signature makes a voucher.
    pub voucher_key: RailKey,
    /// Whose signature closes the lock and returns the rest: the node's.
    pub give_back_key: RailKey,
    /// The sale's id.
    #[serde(with = "hex_digest")]
    pub sale: [u8; 32],
    /// From the lock to the latest first redeemed voucher, in milliseconds.
    pub accept_window_ms: u64,
    /// From closing (or expiry) to the refund, in milliseconds.
    pub notice_ms: u64,
}

impl Terms {
    /// The lease: SHA-256("steading/lease/1\0" ‖ each field with its length before it, as 8 bytes big endian).
    /// The order: rail, asset, payer, payee, voucher key, give-back key, sale, accept window, notice.
    pub fn lease(&self, rail: &RailName) -> LeaseId {
        let mut hash = Sha256::new();
        hash.update(b"steading/lease/1\0");
        let (accept, notice) = (self.accept_window_ms.to_be_bytes(), self.notice_ms.to_be_bytes());
        let fields: [&[u8]; 9] = [
            rail.as_str().as_bytes(),
            self.asset.as_str().as_bytes(),
            self.payer.as_str().as_bytes(),
            self.payee.as_str().as_bytes(),
            self.voucher_key.as_bytes(),
            self.give_back_key.as_bytes(),
            &self.sale,
            &accept,
            &notice,
        ];
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        LeaseId(hash.finalize().into())
    }
}

/// 32 bytes as 64 lower-case hex digits.
mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::account::lower_hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::account::hex_32(&text)
            .ok_or_else(|| serde::de::Error::custom("64 lower-case hex digits expected"))
    }
}
