//! What an NVMe disk says of its own health: the log page of the NVM Express Base Specification, section "SMART / Health
//! Information (Log Page Identifier 02h)". Asked through the kernel; the disk writes nothing for it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The log page has so many bytes.
const LOG_BYTES: usize = 512;
const GET_LOG_PAGE: u8 = 0x02;
const HEALTH: u32 = 0x02;
/// The log of the whole controller, not of a namespace.
const ALL_NAMESPACES: u32 = 0xffff_ffff;
/// A disk that does not answer holds its asker no longer, in milliseconds.
const TIMEOUT_MS: u32 = 5_000;

/// `struct nvme_passthru_cmd` of `linux/nvme_ioctl.h`.
#[repr(C)]
#[derive(Default)]
struct Command {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

mod ioctl {
    use super::Command;
    nix::ioctl_readwrite!(admin, b'N', 0x41, Command);
}

/// What a disk says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// What it warns of, as bits: 0 spare blocks run out, 1 temperature, 2 errors, 3 it takes no more writes, 4 its memory's
    /// battery.
    pub warning: u8,
    /// Degrees Celsius.
    pub celsius: i32,
    /// Spare blocks that are left, in percent.
    pub spare_percent: u8,
    /// Of its life as its maker expects it, in percent; may pass 100.
    pub used_percent: u8,
    /// Reads and writes that failed for good.
    pub media_errors: u128,
}

/// Asks a disk, `/dev/nvme0n1`.
///
/// # Errors
/// When it is no NVMe disk, or does not answer.
pub fn health(disk: &Path) -> io::Result<Health> {
    let file = File::open(disk)?;
    let mut log = [0u8; LOG_BYTES];
    let mut command = Command {
        opcode: GET_LOG_PAGE,
        nsid: ALL_NAMESPACES,
        addr: log.as_mut_ptr() as u64,
        data_len: LOG_BYTES as u32,
        // The number of 4-byte words less one, and which log.
        cdw10: ((LOG_BYTES as u32 / 4 - 1) << 16) | HEALTH,
        timeout_ms: TIMEOUT_MS,
        ..Command::default()
    };
    // SAFETY: the kernel reads and writes one `Command`, and writes at most `data_len` bytes to `addr`, where `log` has as
    // many and lives until the call has returned.
    let status = unsafe { ioctl::admin(file.as_raw_fd(), &raw mut command) }?;
    match status {
        0 => Ok(read(&log)),
        status => Err(io::Error::other(format!(
            "the disk refuses with status {status:#x}"
        ))),
    }
}

fn read(log: &[u8; LOG_BYTES]) -> Health {
    let kelvin = i32::from(u16::from_le_bytes([log[1], log[2]]));
    let mut errors = [0; 16];
    errors.copy_from_slice(&log[160..176]);
    Health {
        warning: log[0] & 0x1f,
        celsius: kelvin - 273,
        spare_percent: log[3],
        used_percent: log[5],
        media_errors: u128::from_le_bytes(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read_as_its_specification_says() {
        let mut log = [0; LOG_BYTES];
        log[..6].copy_from_slice(&[0b101, 0x3a, 0x01, 97, 10, 3]);
        log[160] = 7;
        let health = read(&log);
        assert_eq!((health.warning, health.celsius), (0b101, 41));
        assert_eq!(
            (health.spare_percent, health.used_percent, health.media_errors),
            (97, 3, 7)
        );
        assert_eq!(size_of::<Command>(), 72, "as the kernel has it");
    }

    #[test]
    fn what_is_no_nvme_disk_is_an_error() {
        assert!(health(Path::new("/dev/null")).is_err());
        assert!(health(Path::new("/nonexistent")).is_err());
    }
}
