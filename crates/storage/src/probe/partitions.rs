//! The partitions of a disk, as libblkid reads them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use libblkid_rs::BlkidProbe;

use super::ProbeError;
use super::signature::clean;

/// Tables list at most this many that anybody looks at.
const MAX_PARTITIONS: i32 = 256;
/// libblkid counts in these, whatever the disk's sectors are.
const SECTOR_BYTES: u64 = 512;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins on the disk.
    pub start_bytes: u64,
    /// Its length.
    pub size_bytes: u64,
    /// GPT's type GUID in lower case, or DOS's type byte as `0x83`.
    pub kind: String,
    /// Its GUID.
    pub uuid: Option<[u8; 16]>,
    /// Its name, cleaned.
    pub name: Option<String>,
}

/// The partitions of `path`; none where there is no table that can be read.
///
/// # Errors
/// When it cannot be opened.
pub fn partitions(path: &Path) -> Result<Vec<Partition>, ProbeError> {
    let (file, size) = super::opened(path)?;
    Ok(list(&file, size).unwrap_or_default())
}

/// `None` where libblkid finds no table.
pub(super) fn list(file: &File, size: u64) -> Option<Vec<Partition>> {
    let size = i64::try_from(size).ok().filter(|size| *size > 0)?;
    let mut probe = BlkidProbe::new().ok()?;
    probe.set_device(file.as_raw_fd(), 0, size).ok()?;
    probe.enable_partitions(true).ok()?;
    let mut table = probe.get_partitions().ok()?;
    let count = table.number_of_partitions().ok()?.min(MAX_PARTITIONS);
    let mut all = Vec::new();
    for index in 0..count {
        let partition = table.get_partition(index).ok()?;
        all.push(Partition {
            number: partition.get_partno().ok()?,
            start_bytes: bytes(*partition.get_start().as_ref())?,
            size_bytes: bytes(*partition.get_size().as_ref())?,
            kind: partition
                .get_type_string()
                .map(|kind| kind.to_ascii_lowercase())
                .unwrap_or_else(|_| format!("{:#04x}", partition.get_type())),
            uuid: partition.get_uuid().ok().flatten().map(|uuid| *uuid.as_bytes()),
            name: partition.get_name().ok().flatten().and_then(|name| clean(&name)),
        });
    }
    Some(all)
}

fn bytes(sectors: i64) -> Option<u64> {
    u64::try_from(sectors).ok()?.checked_mul(SECTOR_BYTES)
}
