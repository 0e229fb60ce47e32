//! Block devices: how large, of what sectors, removable; and telling the kernel about partitions.

mod window;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use window::ensure_window;

/// A question to a block device, or an order, that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path:?}")]
pub struct BlockError {
    /// "read the size of", "discard".
    pub what: &'static str,
    /// The device.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// An open block device.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
}

/// The orders themselves, as linux/fs.h and linux/blkpg.h have them.
mod order {
    nix::ioctl_read!(size, 0x12, 114, u64);
    nix::ioctl_read_bad!(logical_sector, 0x1268, i32);
    nix::ioctl_read_bad!(physical_sector, 0x127b, u32);
    nix::ioctl_none_bad!(reread, 0x125f);
    nix::ioctl_write_ptr_bad!(discard, 0x1277, [u64; 2]);
    nix::ioctl_write_ptr_bad!(partition, 0x1269, Request);

    /// `struct blkpg_ioctl_arg`.
    #[repr(C)]
    pub(super) struct Request {
        pub(super) operation: i32,
        pub(super) flags: i32,
        pub(super) length: i32,
        pub(super) data: *mut Partition,
    }

    /// `struct blkpg_partition`.
    #[repr(C)]
    pub(super) struct Partition {
        pub(super) start: i64,
        pub(super) length: i64,
        pub(super) number: i32,
        pub(super) device_name: [u8; 64],
        pub(super) volume_name: [u8; 64],
    }
}

const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;

impl Device {
    /// Opens a block device for reading and asking.
    pub fn open(path: &Path) -> Result<Self, BlockError> {
        Self::open_with(path, false, false)
    }

    /// Opens a block device for writing; fails with `EBUSY` where something has it mounted or holds it.
    pub fn open_exclusive(path: &Path) -> Result<Self, BlockError> {
        Self::open_with(path, true, true)
    }

    /// Opens a block device for writing, beside whoever else uses it.
    pub fn open_writable(path: &Path) -> Result<Self, BlockError> {
        Self::open_with(path, true, false)
    }

    fn open_with(path: &Path, write: bool, exclusive: bool) -> Result<Self, BlockError> {
        let error = |source| BlockError {
            what: "open",
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(if exclusive { libc::O_EXCL } else { 0 })
            .open(path)
            .map_err(error)?;
        if !file.metadata().map_err(error)?.file_type().is_block_device() {
            return Err(error(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a block device",
            )));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    fn said<T>(&self, what: &'static str, result: nix::Result<T>) -> Result<T, BlockError> {
        result.map_err(|e| BlockError {
            what,
            path: self.path.clone(),
            source: e.into(),
        })
    }

    /// Its size in bytes.
    pub fn size(&self) -> Result<u64, BlockError> {
        let mut bytes = 0u64;
        // SAFETY: the kernel writes one u64 through the pointer.
        self.said("read the size of", unsafe {
            order::size(self.file.as_raw_fd(), &raw mut bytes)
        })?;
        Ok(bytes)
    }

    /// The bytes of a sector as it addresses them (512 or 4096).
    pub fn logical_sector(&self) -> Result<u32, BlockError> {
        let mut bytes = 0i32;
        // SAFETY: the kernel writes one int through the pointer.
        self.said("read the sector size of", unsafe {
            order::logical_sector(self.file.as_raw_fd(), &raw mut bytes)
        })?;
        Ok(bytes.unsigned_abs())
    }

    /// The bytes of a sector as it writes them.
    pub fn physical_sector(&self) -> Result<u32, BlockError> {
        let mut bytes = 0u32;
        // SAFETY: the kernel writes one unsigned int through the pointer.
        self.said("read the sector size of", unsafe {
            order::physical_sector(self.file.as_raw_fd(), &raw mut bytes)
        })?;
        Ok(bytes)
    }

    /// Reads the partition table again; fails with `EBUSY` while a partition is in use.
    pub fn reread_partitions(&self) -> Result<(), BlockError> {
        // SAFETY: no argument.
        self.said("read the partition table of", unsafe {
            order::reread(self.file.as_raw_fd())
        })
        .map(drop)
    }

    /// Tells the kernel of one partition, in bytes from the start of the disk. It gets a device at
    /// once, and the others are left alone. One that is there already is no error.
    pub fn add_partition(&self, number: u32, start: u64, length: u64) -> Result<(), BlockError> {
        match self.partition(BLKPG_ADD_PARTITION, number, start, length) {
            Err(Errno::EBUSY) if partition_path(&self.path, number).exists() => Ok(()),
            result => self.said("add a partition to", result),
        }
    }

    /// Makes the kernel forget one partition; one that it does not know is no error.
    pub fn forget_partition(&self, number: u32) -> Result<(), BlockError> {
        match self.partition(BLKPG_DEL_PARTITION, number, 0, 0) {
            Err(Errno::ENXIO) => Ok(()),
            result => self.said("forget a partition of", result),
        }
    }

    fn partition(&self, operation: i32, number: u32, start: u64, length: u64) -> nix::Result<()> {
        let mut partition = order::Partition {
            start: i64::try_from(start).map_err(|_| Errno::EOVERFLOW)?,
            length: i64::try_from(length).map_err(|_| Errno::EOVERFLOW)?,
            number: i32::try_from(number).map_err(|_| Errno::EINVAL)?,
            device_name: [0; 64],
            volume_name: [0; 64],
        };
        let request = order::Request {
            operation,
            flags: 0,
            length: size_of::<order::Partition>() as i32,
            data: &raw mut partition,
        };
        // SAFETY: both structs have the kernel's layout and live for the call.
        unsafe { order::partition(self.file.as_raw_fd(), &raw const request) }.map(drop)
    }

    /// Tells the device, opened for writing, that a range of bytes is not needed any more.
    pub fn discard(&self, start: u64, length: u64) -> Result<(), BlockError> {
        let range = [start, length];
        // SAFETY: two u64 that live for the call.
        self.said("discard", unsafe {
            order::discard(self.file.as_raw_fd(), &raw const range)
        })
        .map(drop)
    }
}

/// The device of a partition: `sda1`, but `nvme0n1p1` and `mmcblk0p1`.
pub fn partition_path(disk: &Path, number: u32) -> PathBuf {
    let name = disk.to_string_lossy();
    let separator = if name.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    PathBuf::from(format!("{name}{separator}{number}"))
}

/// Whether the kernel calls the disk removable (`sda`, not `sda1`); `None` where it does not say.
pub fn is_removable(disk: &str) -> Option<bool> {
    let text = fs::read_to_string(Path::new("/sys/class/block").join(disk).join("removable")).ok()?;
    Some(text.trim() == "1")
}

/// The whole disk on which the partition or disk `name` lies (`sda1` gives `sda`).
pub fn disk_of(name: &str) -> Option<String> {
    let entry = Path::new("/sys/class/block").join(name);
    let device = fs::canonicalize(&entry).ok()?;
    let disk = if device.join("partition").exists() {
        device.parent()?
    } else {
        &device
    };
    Some(disk.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        assert_eq!(partition_path(Path::new("/dev/sda"), 1), Path::new("/dev/sda1"));
        assert_eq!(partition_path(Path::new("/dev/vdb"), 12), Path::new("/dev/vdb12"));
        assert_eq!(
            partition_path(Path::new("/dev/nvme0n1"), 1),
            Path::new("/dev/nvme0n1p1")
        );
        assert_eq!(
            partition_path(Path::new("/dev/mmcblk0"), 2),
            Path::new("/dev/mmcblk0p2")
        );
    }

    #[test]
    fn what_is_no_block_device_is_refused() {
        let error = Device::open(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput);
    }
}
