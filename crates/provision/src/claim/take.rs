//! Writing a disk that may be written: table, partition, physical volume, group.
//!
//! A cut after any line leaves a disk that the next start takes for half done, blank or finished.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{OperatingSystem, Type};
use gpt::{GptConfig, GptError};
use host::block::{BlockError, Device, partition_path};
use host::command::Starts;
use host::names;
use market::id::NodeId;
use storage::Storage;
use storage::lvm::LvmError;

use super::look::{Look, Seen};
use super::mark;
use crate::step::named;

/// What is overwritten at each end of a disk that held something: where every format that
/// libblkid knows has what it is known by, but for copies that are never read first.
const WIPE_BYTES: u64 = 4 << 20;
/// Partitions begin and end on whole MiB.
const ALIGN_BYTES: u64 = 1 << 20;

/// Why a disk was not claimed.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Opening, partitions.
    #[error("the disk")]
    Block(#[from] BlockError),
    /// Overwriting.
    #[error("{path} cannot be written")]
    Write {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The partition table.
    #[error("the partition table was not written")]
    Table(#[source] GptError),
    /// Its sectors are of a size that GPT has no use for.
    #[error("its sectors have {0} bytes")]
    Sector(u32),
    /// Our type GUID is none: a defect.
    #[error("{} is no GUID", names::CLAIM_TYPE)]
    Type,
    /// LVM.
    #[error("LVM")]
    Lvm(#[from] LvmError),
    /// A test.
    #[cfg(feature = "fault-points")]
    #[error(transparent)]
    Stopped(#[from] crate::step::fault::Stopped),
}

/// Takes the disk; returns its group.
pub(super) fn take(storage: &Storage, disk: &Seen, node: &NodeId) -> Result<String, TakeError> {
    if let Some(group) = &disk.group {
        storage.lvm().vg_activate(group, false)?;
    }
    if !matches!(disk.look, Look::Blank) {
        named("claim-wipe", || wipe(&disk.path, disk.size_bytes))?;
    }
    named("claim-mark", || {
        mark::set(&disk.path).map_err(|source| TakeError::Write {
            path: disk.path.clone(),
            source,
        })
    })?;
    let partition = named("claim-table", || {
        let partition = write_table(&disk.path, disk.size_bytes, node)?;
        let device = Device::open(&disk.path)?;
        device.reread_partitions()?;
        device.add_partition(1, partition.start_bytes, partition.size_bytes)?;
        Ok::<_, TakeError>(partition)
    })?;
    let path = partition_path(&disk.path, 1);
    let group = names::volume_group(node.as_bytes(), &partition.guid);
    named("claim-physical-volume", || {
        storage.lvm().pv_create(&path).map_err(TakeError::from)
    })?;
    named("claim-group", || ensure_group(storage, &group, &path, node))?;
    Ok(group)
}

/// Making is tried first: to look costs as much.
fn ensure_group(storage: &Storage, group: &str, path: &Path, node: &NodeId) -> Result<(), TakeError> {
    let lvm = storage.lvm();
    match lvm.vg_create(group, path, &[&format!("node-{node}")]) {
        Err(_) if lvm.vgs()?.iter().any(|there| there.name == group) => Ok(()),
        result => Ok(result?),
    }
}

/// Opened alone, and inherited by no child.
struct Alone {
    starts: Starts,
    file: File,
}

fn open_alone(path: &Path) -> io::Result<Alone> {
    let starts = Starts::hold();
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(path)?;
    Ok(Alone { file, starts })
}

/// Zeros over both ends, so that nothing is found there any more.
fn wipe(path: &Path, size: u64) -> Result<(), TakeError> {
    let work = || -> io::Result<()> {
        let Alone { starts: _open, file } = open_alone(path)?;
        let zeros = vec![0; WIPE_BYTES as usize];
        file.write_all_at(&zeros, 0)?;
        file.write_all_at(&zeros, size.saturating_sub(WIPE_BYTES))?;
        file.sync_all()
    };
    work().map_err(|source| TakeError::Write {
        path: path.to_owned(),
        source,
    })?;
    // What the kernel still shows of the old table would be found by LVM.
    Ok(Device::open(path)?.reread_partitions()?)
}

struct Written {
    guid: [u8; 16],
    start_bytes: u64,
    size_bytes: u64,
}

fn write_table(path: &Path, size: u64, node: &NodeId) -> Result<Written, TakeError> {
    let write = |source| TakeError::Write {
        path: path.to_owned(),
        source,
    };
    let sector = Device::open(path)?.logical_sector()?;
    let block_size = match sector {
        512 => LogicalBlockSize::Lb512,
        4096 => LogicalBlockSize::Lb4096,
        other => return Err(TakeError::Sector(other)),
    };
    let sectors = size / u64::from(sector);
    let Alone { starts, mut file } = open_alone(path).map_err(write)?;
    let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(covered)
        .overwrite_lba0(&mut file)
        .map_err(|error| write(io::Error::other(error.to_string())))?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(block_size)
        .create_from_device(file, None)
        .map_err(TakeError::Table)?;
    // The last MiB holds the table's copy.
    let start_bytes = ALIGN_BYTES;
    let size_bytes = (size / ALIGN_BYTES).saturating_sub(2) * ALIGN_BYTES;
    let guid = names::CLAIM_TYPE.parse().map_err(|_| TakeError::Type)?;
    let kind = Type {
        guid,
        os: OperatingSystem::Custom("Steading".to_owned()),
    };
    let (first, length) = (start_bytes / u64::from(sector), size_bytes / u64::from(sector));
    table
        .add_partition_at(
            &names::claim_partition(node.as_bytes()),
            1,
            first,
            length,
            kind,
            0,
        )
        .map_err(TakeError::Table)?;
    let guid = table
        .partitions()
        .get(&1)
        .map_or([0; 16], |partition| *partition.part_guid.as_bytes());
    let mut file = table.write().map_err(TakeError::Table)?;
    file.flush().and_then(|()| file.sync_all()).map_err(write)?;
    drop((file, starts));
    Ok(Written {
        guid,
        start_bytes,
        size_bytes,
    })
}
