//! The medium that the node was booted from: `farmer.toml` on its first partition, the
//! base on its second.
//!
//! Invariant: nothing on it is ever written, and it is never claimed, whatever bus it
//! sits on. It is known by the type of its base partition, which is ours alone, not by
//! a name or a bus.
//!
//! ```text
//!  GPT   1  EFI system partition, FAT32, STEADING   farmer.toml, steading/a/…
//!        2  our base type                            erofs, read only
//!        3  our base type (number kept for its successor)
//! ```

mod table;

#[cfg(fuzzing)]
pub use table::fuzz_table;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use host::block::{BlockError, Device, partition_path};
use host::mount::{self, MountError};
use host::names;
use nix::mount::MsFlags;

use crate::farmer;

/// Where the first partition is mounted while `farmer.toml` is read.
const MOUNT_POINT: &str = "/run/steading/medium";
/// Names under which `farmer.toml` is found, in the order of preference, case aside.
const FILE_NAMES: [&str; 2] = ["farmer.toml", "farmer.toml.txt"];

/// A medium that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The kernel's name of the disk: it is never claimed.
    pub disk: String,
    /// The device of the partition with `farmer.toml`.
    pub system: Option<PathBuf>,
    /// The device of the partition with the base.
    pub base: PathBuf,
}

/// Why a medium could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// A disk could not be asked.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The first partition could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A file or a folder could not be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Looks for media among whole disks (`sda`, `vdb`); all that are found, in that order.
///
/// A disk that cannot be read is no medium: broken disks stop no boot.
#[must_use]
pub fn find(disks: &[String]) -> Vec<Medium> {
    disks
        .iter()
        .filter_map(|disk| match look(disk) {
            Ok(medium) => medium,
            Err(error) => {
                tracing::debug!(disk, %error, "not the boot medium");
                None
            }
        })
        .collect()
}

fn look(disk: &str) -> Result<Option<Medium>, MediumError> {
    let device = Path::new("/dev").join(disk);
    let sector = Device::open(&device)?.logical_sector()?;
    let read = |source| MediumError::Read {
        path: device.clone(),
        source,
    };
    let mut file = File::open(&device).map_err(read)?;
    let partitions = table::read(&mut file, sector).map_err(read)?;
    let of_type = |kind: &str| {
        partitions
            .iter()
            .find(|partition| partition.kind == kind)
            .map(|partition| partition_path(&device, partition.number))
    };
    Ok(of_type(names::BASE_TYPE).map(|base| Medium {
        disk: disk.to_owned(),
        system: of_type(names::ESP_TYPE),
        base,
    }))
}

impl Medium {
    /// The bytes of `farmer.toml`, bounded; `None` where the medium has none.
    ///
    /// # Errors
    /// When the partition cannot be mounted or read.
    pub fn farmer_file(&self) -> Result<Option<Vec<u8>>, MediumError> {
        let Some(system) = &self.system else {
            return Ok(None);
        };
        let point = Path::new(MOUNT_POINT);
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount::ensure_mounted(system, point, "vfat", flags, "")?;
        let found = read_farmer_file(point);
        // The stick can be pulled out once the base has been copied.
        mount::ensure_unmounted(point)?;
        found
    }
}

fn read_farmer_file(folder: &Path) -> Result<Option<Vec<u8>>, MediumError> {
    let read = |path: &Path| {
        let path = path.to_path_buf();
        move |source| MediumError::Read { path, source }
    };
    let mut best: Option<(usize, PathBuf)> = None;
    for entry in fs::read_dir(folder).map_err(read(folder))? {
        let entry = entry.map_err(read(folder))?;
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        let Some(rank) = FILE_NAMES.iter().position(|known| *known == name) else {
            continue;
        };
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, entry.path()));
        }
    }
    let Some((_, path)) = best else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that too much is noticed.
    File::open(&path)
        .and_then(|file| file.take(farmer::MOST_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(read(&path))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_whatever_windows_called_it() {
        for (names, expected) in [
            (vec!["farmer.toml"], Some("farmer.toml")),
            (vec!["FARMER.TOML"], Some("FARMER.TOML")),
            (vec!["Farmer.toml.txt"], Some("Farmer.toml.txt")),
            (vec!["farmer.toml.txt", "Farmer.Toml"], Some("Farmer.Toml")),
            (vec!["farmer.tom", "readme"], None),
        ] {
            let folder = tempfile::tempdir().expect("a scratch folder");
            for name in &names {
                fs::write(folder.path().join(name), name).expect("written");
            }
            let found = read_farmer_file(folder.path()).expect("read");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{names:?}");
        }
    }

    #[test]
    fn a_file_without_end_is_read_to_its_bound() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        fs::write(folder.path().join("farmer.toml"), vec![b'#'; 1 << 20]).expect("written");
        let bytes = read_farmer_file(folder.path()).expect("read").expect("found");
        assert_eq!(bytes.len(), farmer::MOST_BYTES + 1);
        assert_eq!(farmer::read(&bytes).faults.len(), 1);
    }
}
