//! The base file systems: one read-only volume for each base and group, copied once from the
//! medium, named by its digest.
//!
//! ```text
//!   partition of the medium ── read once ──┬─► LVs base-<64 hex> ── sealed: read-only, tag "whole" ──► dm-verity ──► spaces
//!                                          └─► SHA-256 ─── must be the digest, or the LVs go
//! ```
//!
//! The digest, which users agree to, says what was copied; the tree of hashes behind the file system says at each read that
//! the disk still returns it. The tree's root comes from the image for its own base, and from a tag of the volume for one
//! that another image brought. A base of an image without a tree is read as it is.
//!
//! Invariants: a volume with the tag has, byte for byte, what its name says; one without it was
//! cut off and is made anew; a base is kept while a sale names it, for an overlay over another
//! base would corrupt its space.

mod copy;

use std::io;
use std::path::{Path, PathBuf};

use host::names;
use market::id::Digest;
use storage::Storage;
use storage::luks::LuksError;
use storage::lvm::{LogicalVolume, LvmError};
use storage::verity::Seal;

use copy::CopyError;

/// The tag of a base that is whole.
const WHOLE: &str = "whole";
/// Beginning of the tag of a base with a tree of hashes: `sealed-<bytes of data>-<root, 64 hex>`.
const SEALED: &str = "sealed-";

/// Why a base is not there.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// LVM.
    #[error("LVM")]
    Lvm(#[from] LvmError),
    /// Its checked mapping could not be opened or looked at.
    #[error("checking what is read")]
    Verity(#[from] LuksError),
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
    /// The disk takes it far slower than the others.
    #[error("the disk is much slower than the others")]
    Slow,
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

    /// Opens the checked mapping of every whole base in `groups`. Returns the groups in which this image's own is.
    ///
    /// # Errors
    /// The first that failed; the others are opened.
    pub async fn open(&self, groups: &[String]) -> Result<Vec<String>, BaseError> {
        let (bases, groups) = (self.clone(), groups.to_vec());
        let task = tokio::task::spawn_blocking(move || {
            let mut first = Ok(Vec::new());
            for group in groups {
                let opened = bases.open_blocking(&group);
                first = first.and_then(|mut whole| {
                    whole.extend(opened?.then_some(group));
                    Ok(whole)
                });
            }
            first
        });
        task.await.map_err(|_| BaseError::Cut)?
    }

    /// Whether this image's own is among those of a group.
    fn open_blocking(&self, group: &str) -> Result<bool, BaseError> {
        let mut own = Ok(false);
        for volume in self.storage.lvm().lvs(Some(group))? {
            if let Some(digest) = digest_of(&volume).filter(|_| is_whole(&volume)) {
                let opened = self.checked(group, &digest, &volume);
                own = own.and_then(|own| opened.map(|_| own || digest == self.digest));
            }
        }
        own
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

    /// Brings this image's base to every group that has it not, with one reading of the medium. `told` hears of each as soon as
    /// it is whole, with the read-only device that spaces read. Blocking: seconds where it copies.
    pub fn bring_blocking(&self, groups: &[String], mut told: impl FnMut(&str, Result<PathBuf, BaseError>)) {
        let (mut wanting, mut devices) = (Vec::new(), Vec::new());
        for group in groups {
            match self.prepare(group) {
                Ok(Prepared::Whole(device)) => told(group, Ok(device)),
                Ok(Prepared::Empty(device)) => {
                    wanting.push(group.as_str());
                    devices.push(device);
                }
                Err(error) => told(group, Err(error)),
            }
        }
        copy::copy(&self.medium, self.bytes, &devices, |index, copied| {
            let group = wanting[index];
            told(group, self.finish(group, &devices[index], copied));
        });
    }

    /// As [`Bases::bring_blocking`], to one group.
    ///
    /// # Errors
    /// When it cannot be copied, or what was copied is not what the image says.
    pub fn ensure_blocking(&self, group: &str) -> Result<PathBuf, BaseError> {
        let mut outcome = Err(BaseError::Cut);
        self.bring_blocking(&[group.to_owned()], |_, told| outcome = told);
        outcome
    }

    /// The base of a group that is whole, or an empty volume for it.
    fn prepare(&self, group: &str) -> Result<Prepared, BaseError> {
        let lvm = self.storage.lvm();
        let name = names::base_volume(self.digest.as_bytes());
        let volumes = lvm.lvs(Some(group))?;
        if let Some(volume) = volumes.iter().find(|volume| volume.name == name) {
            if is_whole(volume) {
                if !volume.active {
                    lvm.vg_activate(group, true)?;
                }
                return Ok(Prepared::Whole(self.checked(group, &self.digest, volume)?));
            }
            lvm.lv_remove(group, &name)?;
        }
        let tag = self.seal.as_ref().map(seal_tag);
        let tags: Vec<&str> = std::iter::once("base").chain(tag.as_deref()).collect();
        lvm.lv_create(group, &name, self.bytes, &tags)?;
        Ok(Prepared::Empty(names::lvm_device(group, &name)))
    }

    /// Seals what was copied, or removes what is not the base.
    fn finish(
        &self,
        group: &str,
        device: &Path,
        copied: Result<Digest, CopyError>,
    ) -> Result<PathBuf, BaseError> {
        let lvm = self.storage.lvm();
        let name = names::base_volume(self.digest.as_bytes());
        let error = match copied {
            Ok(found) if found == self.digest => {
                lvm.lv_seal(group, &name, WHOLE)?;
                return open(&self.storage, group, &self.digest, self.seal);
            }
            Ok(found) => BaseError::Damaged {
                path: self.medium.clone(),
                found,
                right: self.digest,
            },
            Err(CopyError::Read(source)) => BaseError::Read {
                path: self.medium.clone(),
                source,
            },
            Err(CopyError::Write(source)) => BaseError::Write {
                path: device.to_owned(),
                source,
            },
            // It may still be written to: the next copy removes it.
            Err(CopyError::Slow) => return Err(BaseError::Slow),
        };
        lvm.lv_remove(group, &name)?;
        Err(error)
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

/// What a group has of a base that is wanted there.
enum Prepared {
    Whole(PathBuf),
    Empty(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

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
            group_bytes: 1,
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
