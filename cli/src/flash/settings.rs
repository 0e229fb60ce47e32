//! `farmer.toml` in the FAT of a stick or an image: read as a node reads it, changed by the one code that does.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use farmer::edit::{self, EditError};
use farmer::listing::{self, Listed};
use farmer::{Reading, table};

use super::medium::Medium;
use super::patch::Patches;

/// What an EFI system partition is marked with, and a base of ours.
const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const BASE_TYPE: &str = "53544541-4449-4e47-8000-424153450001";
/// Sectors of every image; a stick with larger ones starts nowhere.
pub const SECTOR_BYTES: u64 = 512;

/// Why the settings were not made.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Something else lies there.
    #[error("it is no Steading stick: it has no partition with our base")]
    NotOurs,
    /// The file system is broken.
    #[error("its file system cannot be read")]
    FileSystem(#[source] io::Error),
    /// A value will not do.
    #[error("farmer.toml {0}")]
    Edit(#[from] EditError),
}

/// Whether an image or a stick that begins so is one of ours.
pub fn is_ours(beginning: &[u8]) -> bool {
    let partitions = table::read(&mut io::Cursor::new(beginning), SECTOR_BYTES as u32);
    partitions.is_ok_and(|found| found.iter().any(|partition| partition.kind == BASE_TYPE))
}

/// Where the partition with `farmer.toml` begins, and how long it is.
///
/// # Errors
/// When the medium is none of ours.
fn find<M: Medium>(patches: &mut Patches<'_, M>) -> Result<(u64, u64), SettingsError> {
    let mut whole = patches.window(0, u64::MAX);
    let partitions = table::read(&mut whole, SECTOR_BYTES as u32).map_err(SettingsError::FileSystem)?;
    if !partitions.iter().any(|partition| partition.kind == BASE_TYPE) {
        return Err(SettingsError::NotOurs);
    }
    let system = partitions.iter().find(|partition| partition.kind == ESP_TYPE);
    let place = system.and_then(|system| {
        let sectors = system.last_lba.checked_sub(system.first_lba)?.checked_add(1)?;
        Some((
            system.first_lba.checked_mul(SECTOR_BYTES)?,
            sectors.checked_mul(SECTOR_BYTES)?,
        ))
    });
    place.ok_or(SettingsError::NotOurs)
}

/// Sets keys in the file that a node would read, and says what it then says. Without keys it only reads.
///
/// # Errors
/// When there is no such file system, or a value will not do; the patches are then to be thrown away.
pub fn set<M: Medium>(
    patches: &mut Patches<'_, M>,
    keys: &[(String, String)],
) -> Result<Reading, SettingsError> {
    let (start, length) = find(patches)?;
    let mut window = patches.window(start, length);
    // The file system's code is not ours and trusts what it reads: a broken one can make it panic.
    catch_unwind(AssertUnwindSafe(|| set_in_fat(&mut window, keys))).unwrap_or_else(|_| {
        let damaged = io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        Err(SettingsError::FileSystem(damaged))
    })
}

fn set_in_fat(
    window: &mut (impl Read + Write + Seek),
    keys: &[(String, String)],
) -> Result<Reading, SettingsError> {
    let failed = SettingsError::FileSystem;
    let system = fatfs::FileSystem::new(window, fatfs::FsOptions::new()).map_err(failed)?;
    let root = system.root_dir();
    let mut listing = Vec::new();
    for entry in root.iter().take(listing::MOST_NAMES) {
        let entry = entry.map_err(failed)?;
        listing.push(Listed {
            name: entry.file_name(),
            is_file: entry.is_file(),
        });
    }
    let mut bytes = Vec::new();
    let reading = listing::read_folder(&listing, |name, most| {
        bytes.clear();
        root.open_file(name)?.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes.clone())
    });
    let before = reading.map_err(failed)?;
    // A file system whose first sector lies leads to a folder that is none: nothing is put there.
    if before.name.is_none()
        && !listing
            .iter()
            .any(|listed| listed.name.eq_ignore_ascii_case("EFI"))
    {
        let lost = io::Error::new(
            io::ErrorKind::InvalidData,
            "its first folder has neither farmer.toml nor a boot loader",
        );
        return Err(failed(lost));
    }
    if keys.is_empty() {
        return Ok(before);
    }
    let name = before.name.clone().unwrap_or_else(|| "farmer.toml".to_owned());
    let mut file = root.create_file(&name).map_err(failed)?;
    bytes.clear();
    Read::by_ref(&mut file)
        .take(farmer::MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let (bytes, mut reading) = edit::set(&bytes, keys)?;
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.truncate())
        .and_then(|()| file.write_all(&bytes))
        .and_then(|()| file.flush())
        .map_err(failed)?;
    drop(file);
    drop(root);
    system.unmount().map_err(failed)?;
    reading.name = Some(name);
    reading.notes = before.notes;
    Ok(reading)
}
