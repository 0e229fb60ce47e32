//! The base file systems: one read-only volume for each base and group, copied once from the
//! medium, named by its digest.
//!
//! ```text
//!   partition of the medium ── read once ──┬─► LV base-<64 hex> ── sealed: read-only, tag "whole"
//!                                          └─► SHA-256 ─── must be the digest, or the LV goes
//! ```
//!
//! Invariants: a volume with the tag has, byte for byte, what its name says; one without it was
//! cut off and is made anew; a base is kept while a sale names it, for an overlay over another
//! base would corrupt its space.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use host::names;
use market::id::Digest;
use sha2::{Digest as _, Sha256};
use storage::Storage;
use storage::lvm::{LogicalVolume, LvmError};

/// The tag of a base that is whole.
const WHOLE: &str = "whole";
/// Bytes of one read.
const PART_BYTES: usize = 1 << 20;

/// Why a base is not there.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// LVM.
    #[error("LVM")]
    Lvm(#[from] LvmError),
    /// The medium does not hold this base: it holds the one of its own image.
    #[error("base {asked} is not on the medium, which has {there}")]
    NotOnMedium {
        /// What was asked for.
        asked: Digest,
        /// What there is.
        there: Digest,
    },
    /// The medium could not be read.
    #[error("the base cannot be read from {path}")]
    Read {
        /// The partition.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The volume could not be written.
    #[error("the base cannot be written to {path}")]
    Write {
        /// The volume.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is on the medium is not what the image says.
    #[error("the base on {path} is damaged: its digest is {found}, not {right}")]
    Damaged {
        /// The partition.
        path: PathBuf,
        /// What was read.
        found: Digest,
        /// What the image says.
        right: Digest,
    },
    /// The blocking task ended without an answer.
    #[error("copying the base was cut off")]
    Cut,
}

/// The base of the image that runs, and where to copy it from.
#[derive(Clone)]
pub struct Bases {
    storage: Storage,
    medium: PathBuf,
    digest: Digest,
    bytes: u64,
}

impl Bases {
    /// `medium` is the partition with the base, `digest` and `bytes` what `image.json` says of it.
    pub fn new(storage: Storage, medium: PathBuf, digest: Digest, bytes: u64) -> Self {
        Self {
            storage,
            medium,
            digest,
            bytes,
        }
    }

    /// The digest of the base that this image brings.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of a group that this base takes.
    pub fn extents(&self) -> u64 {
        self.bytes.next_multiple_of(storage::lvm::EXTENT_BYTES)
    }

    /// The read-only device with base `digest` in `group`, copied from the medium where it is not
    /// there yet.
    ///
    /// # Errors
    /// [`BaseError::NotOnMedium`] for a base of another image that this group does not have.
    pub async fn ensure(&self, group: &str, digest: &Digest) -> Result<PathBuf, BaseError> {
        let (bases, group, digest) = (self.clone(), group.to_owned(), *digest);
        let task = tokio::task::spawn_blocking(move || bases.ensure_blocking(&group, &digest));
        task.await.map_err(|_| BaseError::Cut)?
    }

    /// As [`Bases::ensure`]; it blocks, for a second where it copies.
    ///
    /// # Errors
    /// As [`Bases::ensure`].
    pub fn ensure_blocking(&self, group: &str, digest: &Digest) -> Result<PathBuf, BaseError> {
        let lvm = self.storage.lvm();
        let name = names::base_volume(digest.as_bytes());
        let device = names::lvm_device(group, &name);
        let found = lvm
            .lvs(Some(group))?
            .into_iter()
            .find(|volume| volume.name == name);
        if let Some(volume) = found {
            if is_whole(&volume) {
                if !volume.active {
                    lvm.vg_activate(group, true)?;
                }
                return Ok(device);
            }
            lvm.lv_remove(group, &name)?;
        }
        if *digest != self.digest {
            return Err(BaseError::NotOnMedium {
                asked: *digest,
                there: self.digest,
            });
        }
        lvm.lv_create(group, &name, self.bytes, &["base"])?;
        if let Err(error) = self.copy(&device) {
            lvm.lv_remove(group, &name)?;
            return Err(error);
        }
        lvm.lv_seal(group, &name, WHOLE)?;
        Ok(device)
    }

    fn copy(&self, to: &Path) -> Result<(), BaseError> {
        let read = |source| BaseError::Read {
            path: self.medium.clone(),
            source,
        };
        let write = |source| BaseError::Write {
            path: to.to_owned(),
            source,
        };
        let mut source = File::open(&self.medium).map_err(read)?;
        let mut target = File::options().write(true).open(to).map_err(write)?;
        let found = copy_with_digest(&mut source, &mut target, self.bytes).map_err(|error| match error {
            CopyError::Read(source) => read(source),
            CopyError::Write(source) => write(source),
        })?;
        target.sync_all().map_err(write)?;
        if found == self.digest {
            return Ok(());
        }
        Err(BaseError::Damaged {
            path: self.medium.clone(),
            found,
            right: self.digest,
        })
    }

    /// Removes the bases of `group` that are neither in `used` nor this image's. One that is
    /// mounted stays. Returns those that went.
    ///
    /// # Errors
    /// When LVM does not say what there is.
    pub fn remove_unused(&self, group: &str, used: &[Digest]) -> Result<Vec<Digest>, BaseError> {
        let lvm = self.storage.lvm();
        let mut removed = Vec::new();
        for volume in lvm.lvs(Some(group))? {
            let digest = volume
                .name
                .strip_prefix("base-")
                .and_then(|hex| hex.parse::<Digest>().ok());
            let Some(digest) = digest else { continue };
            if digest == self.digest || used.contains(&digest) {
                continue;
            }
            match lvm.lv_remove(group, &volume.name) {
                Ok(()) => removed.push(digest),
                Err(error) => tracing::info!(%error, base = %digest, "a base stays"),
            }
        }
        Ok(removed)
    }
}

fn is_whole(volume: &LogicalVolume) -> bool {
    !volume.writeable && volume.tags.iter().any(|tag| tag == WHOLE)
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies exactly `bytes` and says their SHA-256, of what was read, in one pass.
fn copy_with_digest(from: &mut impl Read, to: &mut impl Write, bytes: u64) -> Result<Digest, CopyError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PART_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).map_or(PART_BYTES, |left| left.min(PART_BYTES));
        from.read_exact(&mut buffer[..part]).map_err(CopyError::Read)?;
        hash.update(&buffer[..part]);
        to.write_all(&buffer[..part]).map_err(CopyError::Write)?;
        left -= part as u64;
    }
    Ok(Digest::from(<[u8; 32]>::from(hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_bytes_of_the_image_are_copied() {
        let source = vec![7; PART_BYTES + 1000];
        let mut target = Vec::new();
        let length = PART_BYTES as u64 + 5;
        let digest = copy_with_digest(&mut source.as_slice(), &mut target, length)
            .ok()
            .unwrap();
        assert_eq!(target.len() as u64, length);
        assert_eq!(digest.as_bytes()[..], Sha256::digest(&target)[..]);
        let short = copy_with_digest(&mut &source[..10], &mut Vec::new(), 11);
        assert!(matches!(short, Err(CopyError::Read(_))));
    }
}
