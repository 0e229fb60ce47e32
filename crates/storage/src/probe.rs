//! What is on a disk: a question that decides whether it may be taken.
//!
//! ```text
//!   0      4 MiB                                              size-4 MiB   size
//!   ├ read all ─┼── s ── s ── s ── 64 samples of 4 KiB ── s ── s ──┼ read all ─┤
//!   libblkid: every superblock and partition table it knows, at both ends
//! ```
//!
//! Invariant: [`Content::Empty`] means that libblkid finds nothing *and* every byte read is zero.
//! A disk that cannot be read is [`Content::Unreadable`], never empty. Text that stood on the disk
//! (labels, UUIDs) is cleaned before anybody sees it. Nothing is written.

mod partitions;
mod samples;
mod signature;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use partitions::{Partition, partitions};
pub use samples::{EDGE_BYTES, SAMPLE_BYTES, SAMPLES, SampleHash};
pub use signature::{Signature, Usage};

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: no signature, and all that was read is zero.
    Empty,
    /// Something that libblkid knows.
    Found {
        /// All of it, in the order in which it was found; at least one.
        signatures: Vec<Signature>,
        /// The hash of all that was read.
        samples: SampleHash,
    },
    /// No signature, but bytes that are not zero.
    NotZero {
        /// Where the first of them was seen.
        offset: u64,
        /// Whether its last sector is the copy of a GPT whose own place was overwritten: libblkid does not know it there.
        is_table_copy: bool,
        /// The hash of all that was read.
        samples: SampleHash,
    },
    /// It could not be read.
    Unreadable {
        /// Why, with the place.
        why: String,
    },
}

/// Why a disk could not be looked at. What is wrong with the disk itself is
/// [`Content::Unreadable`].
#[derive(Debug, thiserror::Error)]
#[error("cannot look at {path}")]
pub struct ProbeError {
    /// The device.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Content {
    /// In plain words, for a person: `ext4 "backup"`, `NTFS`, `a partition table (gpt) with 3
    /// partitions`.
    pub fn words(&self) -> String {
        match self {
            Self::Empty => "nothing".to_owned(),
            Self::Found { signatures, .. } => signatures
                .iter()
                .map(Signature::words)
                .collect::<Vec<_>>()
                .join(" and "),
            Self::NotZero {
                is_table_copy: true, ..
            } => "the copy of a partition table (gpt) at its end".to_owned(),
            Self::NotZero { offset, .. } => {
                format!("bytes that are not zero, first at {offset}")
            }
            Self::Unreadable { why } => format!("unreadable: {why}"),
        }
    }

    /// The content's name in a consent: types with their UUIDs, or the hash of the samples where
    /// there is none. No comma, quote or backslash is in it. `None` for what no consent can name.
    pub fn fingerprint(&self) -> Option<String> {
        match self {
            Self::Empty | Self::Unreadable { .. } => None,
            Self::NotZero { samples, .. } => Some(format!("data {samples}")),
            Self::Found { signatures, samples } => {
                let named = |s: &Signature| s.uuid.as_ref().map(|id| format!("{} {id}", s.kind));
                let all: Option<Vec<_>> = signatures.iter().map(named).collect();
                Some(all.map_or_else(
                    || {
                        let kinds: Vec<_> = signatures.iter().map(|s| s.kind.as_str()).collect();
                        format!("{} {samples}", kinds.join(" + "))
                    },
                    |named| named.join(" + "),
                ))
            }
        }
    }
}

/// Looks at a block device, or at a file that stands for one. Reads 8 MiB and 64 samples.
///
/// # Errors
/// When it cannot be opened.
pub fn probe(path: &Path) -> Result<Content, ProbeError> {
    let (file, size) = opened(path)?;
    let signatures = match signature::find(&file, size) {
        Ok(signatures) => signatures,
        Err(why) => return Ok(Content::Unreadable { why }),
    };
    // Nothing is hashed of a disk that holds nothing.
    let looked = samples::first_not_zero(&file, size).and_then(|first| {
        let holds = !signatures.is_empty() || first.is_some();
        let samples = holds.then(|| samples::hash(&file, size)).transpose()?;
        Ok((first, samples))
    });
    Ok(match looked {
        Err(why) => Content::Unreadable { why },
        Ok((_, None)) => Content::Empty,
        Ok((Some(offset), Some(samples))) if signatures.is_empty() => Content::NotZero {
            offset,
            is_table_copy: is_table_copy(&file, size),
            samples,
        },
        Ok((_, Some(samples))) => Content::Found { signatures, samples },
    })
}

/// The signatures alone: a few blocks are read, where [`probe`] reads megabytes. For who knows that the device is his, and
/// asks whether it was made.
///
/// # Errors
/// When it cannot be opened or read.
pub fn signatures(path: &Path) -> Result<Vec<Signature>, ProbeError> {
    let (file, size) = opened(path)?;
    signature::find(&file, size).map_err(|why| ProbeError::of(path, io::Error::other(why)))
}

/// A device and its size in bytes.
fn opened(path: &Path) -> Result<(File, u64), ProbeError> {
    let opened = File::open(path).and_then(|file| {
        let size = samples::size(&file)?;
        Ok((file, size))
    });
    opened.map_err(|source| ProbeError::of(path, source))
}

impl ProbeError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self { path, source }
    }
}

/// Whether the last sector, of either length, begins as the header of a GPT (UEFI 2.10, section 5.3.2).
fn is_table_copy(file: &File, size: u64) -> bool {
    [512, 4096].into_iter().any(|sector| {
        let mut start = [0; 8];
        let at = size.checked_sub(sector);
        at.is_some_and(|at| file.read_exact_at(&mut start, at).is_ok()) && start == *b"EFI PART"
    })
}

#[cfg(test)]
mod tests;
