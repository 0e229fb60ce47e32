//! The medium that the node was booted from: `farmer.toml` on its first partition, the
//! base on its second; or, of a machine that was booted over the network, the same two as files
//! that came with the initramfs.
//!
//! Invariant: nothing on it is ever written, and it is never claimed, whatever bus it
//! sits on. It is known by the type of its base partition, which is ours alone, not by
//! a name or a bus.
//!
//! ```text
//!  disk  GPT   1  EFI system partition, FAT32, STEADING   farmer.toml, steading/a/…
//!              2  our base type                            erofs, read only
//!              3  our base type (number kept for its successor)
//!  memory      /medium/farmer.toml
//!              /medium/base                                erofs, read only
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use host::block::{BlockError, Device, partition_path};
use host::mount::{self, MountError};
use host::names;
use nix::mount::MsFlags;

use farmer::Reading;
use farmer::listing::{self, Listed};
use farmer::table;

/// Where the first partition is mounted while `farmer.toml` is read.
const MOUNT_POINT: &str = "/run/steading/medium";

/// Where the loader of a machine that boots over the network puts what a stick brings on its partitions.
const IN_MEMORY: &str = "/medium";
/// The base there.
const BASE_FILE: &str = "base";

/// A medium that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The kernel's name of the disk: it is never claimed. None of a machine that was booted over the network.
    pub disk: Option<String>,
    /// Where `farmer.toml` is.
    pub farmer: Farmer,
    /// The device of the partition with the base, or the file.
    pub base: PathBuf,
}

/// Where a medium has its `farmer.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farmer {
    /// On the partition that this device is.
    Partition(PathBuf),
    /// In a folder.
    Folder(PathBuf),
    /// There is no place for one.
    Nowhere,
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

/// What came with the initramfs over the network: where there is a base, the machine was booted so.
#[must_use]
pub fn in_memory() -> Option<Medium> {
    in_folder(Path::new(IN_MEMORY))
}

fn in_folder(folder: &Path) -> Option<Medium> {
    let base = folder.join(BASE_FILE);
    base.is_file().then(|| Medium {
        disk: None,
        farmer: Farmer::Folder(folder.to_owned()),
        base,
    })
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
        disk: Some(disk.to_owned()),
        farmer: of_type(names::ESP_TYPE).map_or(Farmer::Nowhere, Farmer::Partition),
        base,
    }))
}

impl Medium {
    /// What the farmer says; where the medium has no such file, what is there in its stead.
    ///
    /// Mounted read-only: a FAT that was pulled out of another computer without a word, or that is switched to
    /// read-only, is read as any other.
    ///
    /// # Errors
    /// When the partition cannot be mounted or read.
    pub fn farmer_file(&self) -> Result<Reading, MediumError> {
        let system = match &self.farmer {
            Farmer::Partition(system) => system,
            Farmer::Folder(folder) => return read_farmer_file(folder),
            Farmer::Nowhere => return Ok(Reading::default()),
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

fn read_farmer_file(folder: &Path) -> Result<Reading, MediumError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| MediumError::Read { path, source }
    };
    let mut listing = Vec::new();
    for entry in fs::read_dir(folder)
        .map_err(failed(folder))?
        .take(listing::MOST_NAMES)
    {
        let entry = entry.map_err(failed(folder))?;
        listing.push(Listed {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_file: entry.file_type().is_ok_and(|kind| kind.is_file()),
        });
    }
    listing::read_folder(&listing, |name, most| {
        let path = folder.join(name);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(most as u64).read_to_end(&mut bytes))
            .map_err(failed(&path))?;
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_over_the_network_is_a_medium_where_it_has_a_base() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        fs::write(folder.path().join("farmer.toml"), "name = \"barn\"").expect("written");
        assert_eq!(
            in_folder(folder.path()),
            None,
            "the initramfs of a stick has the folder too"
        );
        fs::write(folder.path().join("base"), "erofs").expect("written");
        let medium = in_folder(folder.path()).expect("a medium");
        assert_eq!((&medium.disk, &medium.base), (&None, &folder.path().join("base")));
        let reading = medium.farmer_file().expect("read");
        assert_eq!(reading.farmer.name.as_deref(), Some("barn"));
    }

    #[test]
    fn a_folder_is_read_and_a_long_file_to_its_bound() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        fs::create_dir(folder.path().join("steading")).expect("made");
        assert_eq!(read_farmer_file(folder.path()).expect("read"), Reading::default());
        fs::write(folder.path().join("FARMER.TOML"), "name = \"barn\"").expect("written");
        let reading = read_farmer_file(folder.path()).expect("read");
        assert_eq!(reading.name.as_deref(), Some("FARMER.TOML"));
        assert_eq!(reading.farmer.name.as_deref(), Some("barn"));
        fs::write(folder.path().join("FARMER.TOML"), vec![b'#'; 10 << 20]).expect("written");
        let reading = read_farmer_file(folder.path()).expect("read");
        assert!(reading.faults[0].found.contains("larger than 64 KiB"));
    }
}
