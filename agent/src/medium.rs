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
//!  CD    GPT   the same, at the same bytes: its partitions are windows that the agent opens
//!  memory      /medium/farmer.toml
//!              /medium/base                                erofs, read only
//! ```

mod choose;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use host::block::{BlockError, Device, ensure_window, partition_path};
use host::mount::{self, MountError};
use host::names;
use nix::mount::MsFlags;

use farmer::Reading;
use farmer::listing::{self, Listed};
use farmer::table;

pub use choose::{Choice, Said, booted_image, choose, is_cd_booted};

/// Where the first partition is mounted while `farmer.toml` is read.
const MOUNT_POINT: &str = "/run/steading/medium";

/// Where the loader of a machine that boots over the network puts what a stick brings on its partitions.
const IN_MEMORY: &str = "/medium";
/// The base there.
const BASE_FILE: &str = "base";

/// The file with the id of the image, and more bytes than it ever has.
const IMAGE_FILE: &str = "steading/a/image";
const IMAGE_BYTES: u64 = 128;

/// Bytes of a sector as the image's partition table counts them.
const IMAGE_SECTOR: u32 = 512;

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
    let mut partitions = table::read(&mut file, sector).map_err(read)?;
    // The image as it was made, on something whose sectors are longer: of its partitions the kernel knows nothing.
    let is_as_made = partitions.is_empty() && sector != IMAGE_SECTOR;
    if is_as_made {
        partitions = table::read(&mut file, IMAGE_SECTOR).map_err(read)?;
    }
    let of_type = |kind: &str| -> Result<Option<PathBuf>, MediumError> {
        let Some(partition) = partitions.iter().find(|partition| partition.kind == kind) else {
            return Ok(None);
        };
        if !is_as_made {
            return Ok(Some(partition_path(&device, partition.number)));
        }
        let sectors = (partition.last_lba + 1).saturating_sub(partition.first_lba);
        let bytes = |sectors: u64| sectors.saturating_mul(IMAGE_SECTOR.into());
        Ok(Some(ensure_window(
            &device,
            bytes(partition.first_lba),
            bytes(sectors),
        )?))
    };
    let Some(base) = of_type(names::BASE_TYPE)? else {
        return Ok(None);
    };
    Ok(Some(Medium {
        disk: Some(disk.to_owned()),
        farmer: of_type(names::ESP_TYPE)?.map_or(Farmer::Nowhere, Farmer::Partition),
        base,
    }))
}

/// Drives for CDs, as the kernel calls them.
#[must_use]
pub fn cd_drives() -> Vec<String> {
    cd_drives_of(Path::new("/sys/block"))
}

fn cd_drives_of(sys: &Path) -> Vec<String> {
    let entries = fs::read_dir(sys).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_drive = |name: &String| {
        name.strip_prefix("sr")
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let mut drives: Vec<String> = names.filter(is_drive).collect();
    drives.sort();
    drives
}

impl Medium {
    /// What the medium says: the farmer's file (where there is none, what is there in its stead), and its image's id.
    ///
    /// Mounted read-only: a FAT that was pulled out of another computer without a word, or that is switched to
    /// read-only, is read as any other.
    ///
    /// # Errors
    /// When the partition cannot be mounted or read.
    pub fn read(self) -> Result<Said, MediumError> {
        let (reading, image) = match &self.farmer {
            Farmer::Partition(system) => {
                let point = Path::new(MOUNT_POINT);
                let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount::ensure_mounted(system, point, "vfat", flags, "")?;
                let found = (read_farmer_file(point), image_of(point));
                // The stick can be pulled out once the base has been copied.
                mount::ensure_unmounted(point)?;
                (found.0?, found.1)
            }
            Farmer::Folder(folder) => (read_farmer_file(folder)?, None),
            Farmer::Nowhere => (Reading::default(), None),
        };
        Ok(Said {
            medium: self,
            reading,
            image,
        })
    }
}

/// The id of the image, where the medium says one.
fn image_of(folder: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(folder.join(IMAGE_FILE)).ok()?;
    file.take(IMAGE_BYTES).read_to_string(&mut text).ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
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
        let reading = medium.read().expect("read").reading;
        assert_eq!(reading.farmer.name.as_deref(), Some("barn"));
    }

    #[test]
    fn drives_for_cds_are_those_that_the_kernel_counts() {
        let sys = tempfile::tempdir().expect("a scratch folder");
        for name in ["sr1", "sda", "sr0", "srx", "loop0"] {
            fs::create_dir(sys.path().join(name)).expect("made");
        }
        assert_eq!(cd_drives_of(sys.path()), ["sr0", "sr1"]);
    }

    #[test]
    fn an_image_says_its_id() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        assert_eq!(image_of(folder.path()), None);
        let path = folder.path().join(IMAGE_FILE);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        for (text, id) in [("5e2d91\n", Some("5e2d91")), (" \n", None)] {
            fs::write(&path, text).expect("written");
            assert_eq!(image_of(folder.path()).as_deref(), id);
        }
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
