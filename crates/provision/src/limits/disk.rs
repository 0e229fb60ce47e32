//! What a space may do to the devices that it shares with others: its own volume's, and the base's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use storage::snapshot::CHUNK_BYTES;

use super::LimitsError;

/// What one space may do to the disk that it shares: enough to feel like a disk, too little to starve the neighbours
/// on a spinning one. No figure of the sale: it protects neighbours and is not sold, but it is enforced all the same.
pub const DISK_BYTES_PER_SECOND: u64 = 200 * 1024 * 1024;

/// Operations a second, for reads and for writes.
pub const DISK_OPERATIONS_PER_SECOND: u64 = 5_000;

/// Writes a second below which there is a snapshot: the kernel copies a whole chunk before the first write into it, for
/// nobody's account, and a write may reach into two. So what is copied is no more than a space may write.
pub const COPIED_WRITES_PER_SECOND: u64 = DISK_BYTES_PER_SECOND / (2 * CHUNK_BYTES);

/// What one space may read of the base: the kernel unpacks what is read ahead outside the reader's CPU limit, and a space
/// that throws its pages away may read the same for ever. A login reads some 10 MiB.
pub const BASE_BYTES_PER_SECOND: u64 = 50 * 1024 * 1024;

/// Operations a second, for the base.
pub const BASE_OPERATIONS_PER_SECOND: u64 = 2_000;

/// What a space may do to its disk, for reads and for writes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimit {
    /// The device.
    pub device: Device,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Reads a second.
    pub reads_per_second: u64,
    /// Writes a second.
    pub writes_per_second: u64,
}

impl DiskLimit {
    /// What every space gets.
    pub fn usual(device: Device) -> Self {
        Self {
            device,
            bytes_per_second: DISK_BYTES_PER_SECOND,
            reads_per_second: DISK_OPERATIONS_PER_SECOND,
            writes_per_second: DISK_OPERATIONS_PER_SECOND,
        }
    }

    /// What a space gets whose volume has a snapshot.
    pub fn with_snapshot(device: Device) -> Self {
        Self {
            writes_per_second: COPIED_WRITES_PER_SECOND,
            ..Self::usual(device)
        }
    }

    /// What every space gets of the base.
    pub fn of_base(device: Device) -> Self {
        Self {
            device,
            bytes_per_second: BASE_BYTES_PER_SECOND,
            reads_per_second: BASE_OPERATIONS_PER_SECOND,
            writes_per_second: BASE_OPERATIONS_PER_SECOND,
        }
    }

    /// As `io.max` says it.
    pub(super) fn line(&self) -> String {
        let Device { major, minor } = self.device;
        let (bytes, reads, writes) = (
            self.bytes_per_second,
            self.reads_per_second,
            self.writes_per_second,
        );
        format!("{major}:{minor} rbps={bytes} wbps={bytes} riops={reads} wiops={writes}")
    }
}

/// A block device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u64,
    /// Which of its devices.
    pub minor: u64,
}

impl Device {
    /// The number of the device at `path`; of a partition its disk's, for partitions have no limits.
    pub fn of(path: &Path) -> Result<Self, LimitsError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| LimitsError::Read { path, source }
        };
        let number = fs::metadata(path).map_err(at(path))?.rdev();
        let own = Self {
            major: nix::sys::stat::major(number),
            minor: nix::sys::stat::minor(number),
        };
        let in_sys = PathBuf::from(format!("/sys/dev/block/{}:{}", own.major, own.minor));
        if !in_sys.join("partition").exists() {
            return Ok(own);
        }
        let whole = in_sys.join("../dev");
        let text = fs::read_to_string(&whole).map_err(at(&whole))?;
        parse_number(&text).ok_or_else(|| at(&whole)(io::Error::from(io::ErrorKind::InvalidData)))
    }
}

/// A number as `/sys` says it: `254:16`.
fn parse_number(text: &str) -> Option<Device> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel copies the chunks that the smallest writes reach into, two each.
    #[test]
    fn what_is_copied_for_a_snapshot_is_no_more_than_may_be_written() {
        let device = Device {
            major: 254,
            minor: 16,
        };
        let copied = |limit: DiskLimit| limit.writes_per_second * 2 * CHUNK_BYTES;
        let most = DISK_BYTES_PER_SECOND;
        assert!(copied(DiskLimit::with_snapshot(device)) <= most);
        assert!(copied(DiskLimit::usual(device)) > 3 * most, "the control");
        assert_eq!(
            DiskLimit::with_snapshot(device).line(),
            "254:16 rbps=209715200 wbps=209715200 riops=5000 wiops=1600"
        );
    }

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        let number = |major, minor| Some(Device { major, minor });
        assert_eq!(parse_number("254:16\n"), number(254, 16));
        assert_eq!(parse_number("254"), None);
        assert_eq!(Device::of(Path::new("/dev/null")).ok(), number(1, 3));
    }
}
