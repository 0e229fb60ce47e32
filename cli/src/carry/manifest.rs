//! `export.json`: what an export consists of, authenticated.
//!
//! ```text
//! {
//!   "steading_export": 1,
//!   "sale": "…", …, "parts": [ {…}, … ],
//!   "done": true,
//!   "mac": "<64 hex digits>"        HMAC-SHA256 over every byte above this line
//! }
//! ```
//! The key comes from the seed and the sale, for this alone. Invariant: nothing of the text is looked at before the MAC holds,
//! but the sale, which says which key to hold it against.

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use market::id::{Digest, NodeId, SaleId};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::files::{read_bounded, write_whole};
use crate::keys::Seed;

/// Its name in the folder.
pub const FILE: &str = "export.json";
/// The name of the listing.
pub const LISTING: &str = "listing.age";
/// More than an export of [`MOST_PARTS`] needs.
const MOST_BYTES: u64 = 16 << 20;
/// Parts; a larger export has larger ones.
pub const MOST_PARTS: u64 = 20_000;
/// The version that this program writes and reads.
const VERSION: u32 = 1;
const MAC_HEAD: &str = "  \"mac\": \"";
const MAC_TAIL: &str = "\"\n}\n";
const MAC_HEX: usize = 64;

/// One file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Its name in the folder.
    pub file: String,
    /// Bytes inside.
    pub plain_bytes: u64,
    /// Digest of what is inside.
    pub plain_sha256: Digest,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Digest of the file.
    pub file_sha256: Digest,
}

/// One piece of the tar stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which group's stream, from 1.
    pub group: usize,
    /// Whether that stream ends here.
    pub ends_group: bool,
    /// The file.
    pub piece: Piece,
}

/// What an export consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub steading_export: u32,
    /// What the space was called.
    pub space: String,
    /// Its sale.
    pub sale: SaleId,
    /// The node it was on.
    pub node: NodeId,
    /// The base below it.
    pub base: Digest,
    /// When the export began, unix milliseconds.
    pub began_ms: u64,
    /// What was asked for, as the person wrote it.
    pub paths: Vec<String>,
    /// Bytes of a part, at most.
    pub part_bytes: u64,
    /// How many groups there are, and how many of the first come again at the end.
    pub groups: usize,
    /// See `groups`.
    pub again: usize,
    /// What was there when it began.
    pub listing: Piece,
    /// What was taken, in order.
    pub parts: Vec<Part>,
    /// Whether everything was taken.
    pub done: bool,
}

/// Why a file says nothing about an export.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The disk.
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
    /// Not one.
    #[error("it is no list of an export's parts, or was cut off")]
    Shape,
    /// Another wallet's, or changed.
    #[error("it was changed, or another wallet made it")]
    NotOurs,
    /// A version that this program does not know.
    #[error("it is of version {0}; this program reads version {VERSION}")]
    Version(u32),
}

impl Manifest {
    /// The one in this folder; none where there is no such file.
    pub fn read(folder: &Path, seed: &Seed) -> Result<Option<Manifest>, ManifestError> {
        match read_bounded(&folder.join(FILE), MOST_BYTES) {
            Ok(Some(bytes)) => Manifest::open(&bytes, seed).map(Some),
            Ok(None) => Err(ManifestError::Shape),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks and reads.
    pub fn open(bytes: &[u8], seed: &Seed) -> Result<Manifest, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Shape)?;
        let (signed, mac) = split(text).ok_or(ManifestError::Shape)?;
        let manifest = parsed(signed).ok_or(ManifestError::Shape)?;
        let mac = ledger::hex::decode::<32>(mac).ok_or(ManifestError::Shape)?;
        tagged(signed, &manifest.sale, seed)
            .verify_slice(&mac)
            .map_err(|_| ManifestError::NotOurs)?;
        if manifest.steading_export != VERSION {
            return Err(ManifestError::Version(manifest.steading_export));
        }
        if manifest.is_in_order() {
            Ok(manifest)
        } else {
            Err(ManifestError::Shape)
        }
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, folder: &Path, seed: &Seed) -> anyhow::Result<()> {
        write_whole(&folder.join(FILE), self.sealed(seed)?.as_bytes())
    }

    fn sealed(&self, seed: &Seed) -> anyhow::Result<String> {
        let json = serde_json::to_string_pretty(self)?;
        let mut text = json.strip_suffix("\n}").unwrap_or(&json).to_owned();
        text.push_str(",\n");
        let mac = tagged(&text, &self.sale, seed).finalize().into_bytes();
        text.push_str(&format!("{MAC_HEAD}{}{MAC_TAIL}", ledger::hex::encode(&mac)));
        Ok(text)
    }

    /// Names of files are this program's own, groups go on from one another, and the last one ends where it is done.
    fn is_in_order(&self) -> bool {
        let is_named = self.listing.file == LISTING
            && (1..)
                .zip(&self.parts)
                .all(|(number, part)| part.piece.file == part_name(number));
        let mut group = 1;
        let is_going_on = self.parts.iter().all(|part| {
            let is_next = part.group == group;
            group += usize::from(part.ends_group);
            is_next
        });
        is_named && is_going_on && group <= self.groups + 1 && self.done == (group == self.groups + 1)
    }

    /// The group that is taken next, from 1, and the parts of it that are there.
    pub fn next_group(&self) -> (usize, &[Part]) {
        let at = self
            .parts
            .iter()
            .rposition(|part| part.ends_group)
            .map_or(0, |at| at + 1);
        let group = at
            .checked_sub(1)
            .and_then(|at| self.parts.get(at))
            .map_or(1, |part| part.group + 1);
        (group, &self.parts[at..])
    }

    /// The parts of a group that is whole.
    pub fn parts_of(&self, group: usize) -> &[Part] {
        let from = self.parts.partition_point(|part| part.group < group);
        let to = self.parts.partition_point(|part| part.group <= group);
        let parts = &self.parts[from..to];
        if parts.last().is_some_and(|part| part.ends_group) {
            parts
        } else {
            &[]
        }
    }

    /// Bytes inside all parts.
    pub fn plain_bytes(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| part.piece.plain_bytes)
            .fold(0, u64::saturating_add)
    }
}

/// The name of a part, from 1.
pub fn part_name(number: usize) -> String {
    format!("part-{number:05}.age")
}

/// Everything above the MAC's line, and the MAC.
fn split(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_suffix(MAC_TAIL)?;
    let at = rest.len().checked_sub(MAC_HEX)?;
    let (head, mac) = rest.split_at_checked(at)?;
    Some((head.strip_suffix(MAC_HEAD)?, mac))
}

fn parsed(signed: &str) -> Option<Manifest> {
    let body = signed.strip_suffix(",\n")?;
    serde_json::from_str(&format!("{body}\n}}")).ok()
}

#[allow(clippy::expect_used)] // an HMAC takes a key of any length
fn tagged(signed: &str, sale: &SaleId, seed: &Seed) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(seed.manifest_key(sale).as_slice())
        .expect("any length is a key")
        .chain_update(signed)
}

/// For the fuzz target: all but the MAC.
#[cfg(fuzzing)]
pub fn unauthenticated(bytes: &[u8]) -> Option<Manifest> {
    let (signed, _) = split(std::str::from_utf8(bytes).ok()?)?;
    parsed(signed).filter(Manifest::is_in_order)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn piece(file: &str, byte: u8) -> Piece {
        Piece {
            file: file.to_owned(),
            plain_bytes: 10,
            plain_sha256: Digest([byte; 32]),
            file_bytes: 200,
            file_sha256: Digest([byte; 32]),
        }
    }

    /// Three parts of two groups.
    pub fn manifest() -> Manifest {
        let part = |number, group, ends_group| Part {
            group,
            ends_group,
            piece: piece(&part_name(number), number as u8),
        };
        Manifest {
            steading_export: VERSION,
            space: "calm-otter".to_owned(),
            sale: SaleId([1; 32]),
            node: NodeId([2; 32]),
            base: Digest([3; 32]),
            began_ms: 1,
            paths: vec!["/".to_owned()],
            part_bytes: 1 << 20,
            groups: 2,
            again: 0,
            listing: piece(LISTING, 9),
            parts: vec![part(1, 1, true), part(2, 2, false), part(3, 2, true)],
            done: true,
        }
    }

    #[test]
    fn it_reads_back_and_any_other_byte_is_noticed() {
        let seed = Seed::fresh().unwrap();
        let text = manifest().sealed(&seed).unwrap();
        assert_eq!(Manifest::open(text.as_bytes(), &seed).unwrap(), manifest());
        assert!(
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "it is JSON:\n{text}"
        );
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            assert!(Manifest::open(&bad, &seed).is_err(), "byte {at}");
        }
        for length in 0..text.len() {
            assert!(
                Manifest::open(&text.as_bytes()[..length], &seed).is_err(),
                "{length}"
            );
        }
        let other = Seed::fresh().unwrap();
        let foreign = Manifest::open(text.as_bytes(), &other);
        assert!(matches!(foreign, Err(ManifestError::NotOurs)), "{foreign:?}");
    }

    /// The control: without the MAC, what somebody wrote in its place is read as it stands.
    #[test]
    fn what_was_edited_reads_well_and_is_refused() {
        let seed = Seed::fresh().unwrap();
        let text = manifest().sealed(&seed).unwrap();
        let edited = text.replace("\"plain_bytes\": 10", "\"plain_bytes\": 11");
        let (signed, _) = split(&edited).unwrap();
        assert_eq!(parsed(signed).unwrap().listing.plain_bytes, 11);
        assert!(matches!(
            Manifest::open(edited.as_bytes(), &seed),
            Err(ManifestError::NotOurs)
        ));
    }

    #[test]
    fn one_that_contradicts_itself_is_none() {
        let seed = Seed::fresh().unwrap();
        let wrong: [fn(&mut Manifest); 6] = [
            |manifest| manifest.done = false,
            |manifest| manifest.parts[1].piece.file = "../part-00002.age".to_owned(),
            |manifest| manifest.listing.file = "other".to_owned(),
            |manifest| manifest.parts.swap(0, 2),
            |manifest| manifest.groups = 1,
            |manifest| manifest.parts[2].ends_group = false,
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut manifest = manifest();
            change(&mut manifest);
            let text = manifest.sealed(&seed).unwrap();
            assert!(Manifest::open(text.as_bytes(), &seed).is_err(), "{number}");
        }
    }

    #[test]
    fn it_knows_where_to_go_on() {
        let mut manifest = manifest();
        assert_eq!(manifest.next_group(), (3, &[][..]));
        manifest.parts.pop();
        assert_eq!((manifest.next_group().0, manifest.next_group().1.len()), (2, 1));
        assert!(manifest.parts_of(2).is_empty());
        assert_eq!(manifest.parts_of(1).len(), 1);
        manifest.parts.clear();
        assert_eq!(manifest.next_group(), (1, &[][..]));
    }
}
