//! The base file systems: one read-only volume for each base and group, copied once from the
//! medium, named by its digest.
//!
//! ```text
//!   partition of the medium ── read once ──┬─► LV base-<64 hex> ── sealed: read-only, tag "whole" ──► dm-verity ──► spaces
//!                                          └─► SHA-256 ─── must be the digest, or the LV goes
//! ```
//!
//! The digest, which users agree to, says what was copied; the tree of hashes behind the file system says at each read that
//! the disk still returns it. The tree's root comes from the image for its own base, and from a tag of the volume for one
//! that another image brought. A base of an image without a tree is read as it is.
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
use storage::luks::LuksError;
use storage::lvm::{LogicalVolume, LvmError};
use storage::verity::Seal;

/// The tag of a base that is whole.
const WHOLE: &str = "whole";
/// Beginning of the tag of a base with a tree of hashes: `sealed-<bytes of data>-<root, 64 hex>`.
const SEALED: &str = "sealed-";
/// Bytes of one read.
const PART_BYTES: usize = 1 << 20;

/// Why a base is not there.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// LVM.
    #[error("LVM")]
    Lvm(#[from] LvmError),
    /// Its checked mapping could not be opened or looked at.
    #[error("checking what is read")]
    Verity(#[from] LuksError),
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
    seal: Option<Seal>,
}

impl Bases {
    /// `medium` is the partition with the base, `digest` and `bytes` what `image.json` says of it.
    pub fn new(storage: Storage, medium: PathBuf, digest: Digest, bytes: u64) -> Self {
        Self {
            storage,
            medium,
            digest,
            bytes,
            seal: None,
        }
    }

    /// The same, with what the image says of its base's tree.
    #[must_use]
    pub fn sealed(mut self, seal: Seal) -> Self {
        self.seal = Some(seal);
        self
    }

    /// Opens the checked mapping of every whole base in `groups`.
    ///
    /// # Errors
    /// The first that failed; the others are opened.
    pub async fn open(&self, groups: &[String]) -> Result<(), BaseError> {
        let (bases, groups) = (self.clone(), groups.to_vec());
        let task = tokio::task::spawn_blocking(move || {
            let mut first = Ok(());
            for group in &groups {
                first = first.and(bases.open_blocking(group));
            }
            first
        });
        task.await.map_err(|_| BaseError::Cut)?
    }

    fn open_blocking(&self, group: &str) -> Result<(), BaseError> {
        let mut first = Ok(());
        for volume in self.storage.lvm().lvs(Some(group))? {
            if let Some(digest) = digest_of(&volume).filter(|_| is_whole(&volume)) {
                first = first.and(self.checked(group, &digest, &volume).map(drop));
            }
        }
        first
    }

    /// The mapping through which a whole base is read.
    fn checked(&self, group: &str, digest: &Digest, volume: &LogicalVolume) -> Result<PathBuf, BaseError> {
        let own = self.seal.filter(|_| *digest == self.digest);
        open(&self.storage, group, digest, own.or_else(|| seal_of(volume)))
    }

    /// The groups on which a base was read that is not what it was: their disks return other data than was written.
    ///
    /// # Errors
    /// When a mapping cannot be looked at.
    pub async fn damaged(&self, groups: &[String]) -> Result<Vec<String>, BaseError> {
        let (bases, groups) = (self.clone(), groups.to_vec());
        let task = tokio::task::spawn_blocking(move || bases.damaged_blocking(&groups));
        task.await.map_err(|_| BaseError::Cut)?
    }

    /// As [`Bases::damaged`]; it blocks.
    ///
    /// # Errors
    /// As [`Bases::damaged`].
    pub fn damaged_blocking(&self, groups: &[String]) -> Result<Vec<String>, BaseError> {
        let mut damaged = Vec::new();
        for group in groups {
            for digest in open_in(group) {
                let mapping = names::base_mapping(group, digest.as_bytes());
                if !self.storage.verity().is_sound(&mapping)? {
                    damaged.push(group.clone());
                    break;
                }
            }
        }
        Ok(damaged)
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
                return self.checked(group, digest, &volume);
            }
            lvm.lv_remove(group, &name)?;
        }
        if *digest != self.digest {
            return Err(BaseError::NotOnMedium {
                asked: *digest,
                there: self.digest,
            });
        }
        let tag = self.seal.as_ref().map(seal_tag);
        let tags: Vec<&str> = std::iter::once("base").chain(tag.as_deref()).collect();
        lvm.lv_create(group, &name, self.bytes, &tags)?;
        if let Err(error) = self.copy(&device) {
            lvm.lv_remove(group, &name)?;
            return Err(error);
        }
        lvm.lv_seal(group, &name, WHOLE)?;
        open(&self.storage, group, digest, self.seal)
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
            let Some(digest) = digest_of(&volume) else {
                continue;
            };
            if digest == self.digest || used.contains(&digest) {
                continue;
            }
            let mapping = names::base_mapping(group, digest.as_bytes());
            let closed = self.storage.verity().close(&mapping).map_err(BaseError::from);
            match closed.and_then(|()| Ok(lvm.lv_remove(group, &volume.name)?)) {
                Ok(()) => removed.push(digest),
                Err(error) => tracing::info!(%error, base = %digest, "a base stays"),
            }
        }
        Ok(removed)
    }
}

/// What spaces read a whole base from: its checked mapping, opened where it is not open yet, or the volume of a base
/// without a tree. Blocking.
///
/// # Errors
/// When LVM or the mapping cannot be asked.
pub fn device(storage: &Storage, group: &str, digest: &Digest) -> Result<PathBuf, BaseError> {
    let mapping = names::base_mapping(group, digest.as_bytes());
    let open_already = names::mapping_device(&mapping);
    if open_already.exists() {
        return Ok(open_already);
    }
    let name = names::base_volume(digest.as_bytes());
    let volumes = storage.lvm().lvs(Some(group))?;
    let seal = volumes
        .iter()
        .find(|volume| volume.name == name)
        .and_then(seal_of);
    open(storage, group, digest, seal)
}

fn open(storage: &Storage, group: &str, digest: &Digest, seal: Option<Seal>) -> Result<PathBuf, BaseError> {
    let volume = names::lvm_device(group, &names::base_volume(digest.as_bytes()));
    let Some(seal) = seal else { return Ok(volume) };
    let mapping = names::base_mapping(group, digest.as_bytes());
    Ok(storage.verity().open(&volume, &mapping, &seal)?)
}

/// The bases of a group that are open.
pub(crate) fn open_in(group: &str) -> Vec<Digest> {
    let folder = std::fs::read_dir("/dev/mapper").into_iter().flatten();
    let suffix = format!("-{group}");
    let mut found: Vec<Digest> = folder
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(&suffix)?.strip_prefix("base-")?.parse().ok()
        })
        .collect();
    found.sort();
    found
}

/// The base that a volume keeps.
fn digest_of(volume: &LogicalVolume) -> Option<Digest> {
    volume.name.strip_prefix("base-")?.parse().ok()
}

fn seal_tag(seal: &Seal) -> String {
    let root = Digest::from(seal.root);
    format!("{SEALED}{}-{root}", seal.data_bytes)
}

fn seal_of(volume: &LogicalVolume) -> Option<Seal> {
    let (data_bytes, root) = volume
        .tags
        .iter()
        .find_map(|tag| tag.strip_prefix(SEALED)?.split_once('-'))?;
    Some(Seal {
        data_bytes: data_bytes.parse().ok()?,
        root: *root.parse::<Digest>().ok()?.as_bytes(),
    })
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

    #[test]
    fn a_tag_says_how_a_base_is_checked() {
        let seal = Seal {
            data_bytes: 88_608_768,
            root: [0xab; 32],
        };
        let volume = |tags: &[&str]| LogicalVolume {
            name: "base-ab".into(),
            uuid: String::new(),
            group: "g".into(),
            size_bytes: 0,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            active: true,
            writeable: false,
            path: PathBuf::new(),
            origin: None,
        };
        let tag = seal_tag(&seal);
        assert_eq!(tag, format!("sealed-88608768-{}", "ab".repeat(32)));
        assert_eq!(seal_of(&volume(&["base", &tag, "whole"])), Some(seal));
        for other in ["sealed-", "sealed-x-y", "sealed-1-abcd", "base"] {
            assert_eq!(seal_of(&volume(&[other])), None, "{other}");
        }
    }
}
