//! From the lock to the keys: Funded, KeyGrant, SealedKey.

use super::{Kind, Message, MessageError, ensure, of};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::SaleId;

const MOST_KEYS: usize = 12;
const MOST_KEY_BYTES: usize = 4096;

/// The user says that the money is locked: a hint to look at the rail, never believed. Answered by a KeyGrant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funded {
    /// Which sale.
    pub sale: SaleId,
}

impl Message for Funded {
    const KIND: Kind = Kind::Funded;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, self.sale.as_bytes()).finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Funded, CborError> {
            let mut fields = Fields::read(payload)?;
            let funded = Funded {
                sale: SaleId(fields.array(1)?),
            };
            fields.finish()?;
            Ok(funded)
        };
        read().map_err(of(Self::KIND))
    }
}

/// The node's keys for one sale and epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    /// Which sale.
    pub sale: SaleId,
    /// Counts this sale's grants from 1; only the newest is answered.
    pub epoch: u64,
    /// The boot in which the seal key lives.
    pub boot: [u8; 16],
    /// The image that runs.
    pub image_version: String,
    /// X25519: what the unlock key is sealed to.
    pub seal_key: [u8; 32],
    /// The space's SSH host key (ed25519), to be pinned.
    pub host_key: [u8; 32],
}

impl KeyGrant {
    /// The host key as known_hosts and authorized_keys write it: `ssh-ed25519 AAAA…`.
    pub fn host_key_line(&self) -> String {
        openssh_ed25519(&self.host_key)
    }
}

/// An ed25519 public key as OpenSSH writes it (RFC 8709): `ssh-ed25519 AAAA…`.
pub fn openssh_ed25519(key: &[u8; 32]) -> String {
    let mut blob = Vec::with_capacity(51);
    for part in [&b"ssh-ed25519"[..], key] {
        blob.extend_from_slice(&(part.len() as u32).to_be_bytes());
        blob.extend_from_slice(part);
    }
    format!("ssh-ed25519 {}", data_encoding::BASE64.encode(&blob))
}

impl Message for KeyGrant {
    const KIND: Kind = Kind::Grant;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .uint(2, self.epoch)
            .bytes(3, &self.boot)
            .text(4, &self.image_version)
            .bytes(5, &self.seal_key)
            .bytes(6, &self.host_key)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<KeyGrant, CborError> {
            let mut fields = Fields::read(payload)?;
            let grant = KeyGrant {
                sale: SaleId(fields.array(1)?),
                epoch: fields.uint(2)?,
                boot: fields.array(3)?,
                image_version: fields.text(4, 96)?,
                seal_key: fields.array(5)?,
                host_key: fields.array(6)?,
            };
            fields.finish()?;
            Ok(grant)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        ensure(Self::KIND, self.epoch > 0, "epoch", self.epoch, "1 or more")
    }
}

/// The unlock key, sealed to a grant's key, and who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Which sale.
    pub sale: SaleId,
    /// Which grant it answers.
    pub epoch: u64,
    /// HPKE's encapsulated key.
    pub encapsulated: [u8; 32],
    /// HPKE's ciphertext of the 64 bytes of unlock key: 80 bytes.
    pub ciphertext: [u8; 80],
    /// Lines of an authorized_keys file; at least one.
    pub authorized_keys: Vec<String>,
}

impl Message for SealedKey {
    const KIND: Kind = Kind::SealedKey;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .uint(2, self.epoch)
            .bytes(3, &self.encapsulated)
            .bytes(4, &self.ciphertext)
            .list(5, self.authorized_keys.iter().map(|line| Item::text(line)))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<SealedKey, CborError> {
            let mut fields = Fields::read(payload)?;
            let sealed = SealedKey {
                sale: SaleId(fields.array(1)?),
                epoch: fields.uint(2)?,
                encapsulated: fields.array(3)?,
                ciphertext: fields.array(4)?,
                authorized_keys: fields.texts(5, MOST_KEYS, MOST_KEY_BYTES)?,
            };
            fields.finish()?;
            Ok(sealed)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        let (kind, count) = (Self::KIND, self.authorized_keys.len());
        ensure(kind, self.epoch > 0, "epoch", self.epoch, "1 or more")?;
        ensure(
            kind,
            (1..=MOST_KEYS).contains(&count),
            "authorized keys",
            count,
            "1 to 12",
        )?;
        let odd = self.authorized_keys.iter().find(|line| !is_key_line(line));
        ensure(
            kind,
            odd.is_none(),
            "authorized key",
            odd.map_or("", |line| line),
            "one line, at most 4096 bytes",
        )
    }
}

fn is_key_line(line: &str) -> bool {
    !line.trim().is_empty() && line.len() <= MOST_KEY_BYTES && line.chars().all(crate::is_plain)
}
