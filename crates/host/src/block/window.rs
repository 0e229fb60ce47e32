//! A part of a block device as a device of its own, read only, where the kernel knows no partitions: of a CD, whose sectors
//! are longer than those that a partition table counts in.
//!
//! It is a loop device (linux/loop.h), and stays until the machine is switched off.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::BlockError;
use crate::module;

/// So often a free loop device is asked for, where another process takes it first.
const TRIES: u32 = 8;
const READ_ONLY: u32 = 1;

mod order {
    nix::ioctl_none_bad!(free, 0x4C82);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, Config);

    /// `struct loop_config`.
    #[repr(C)]
    pub(super) struct Config {
        pub(super) file: u32,
        pub(super) block_bytes: u32,
        pub(super) information: Information,
        pub(super) reserved: [u64; 8],
    }

    /// `struct loop_info64`.
    #[repr(C)]
    pub(super) struct Information {
        pub(super) devices: [u64; 3],
        pub(super) offset: u64,
        pub(super) length: u64,
        pub(super) number: u32,
        pub(super) encryption: [u32; 2],
        pub(super) flags: u32,
        pub(super) names: [[u8; 64]; 2],
        pub(super) key: [u8; 32],
        pub(super) more: [u64; 2],
    }

    const _: () = assert!(size_of::<Config>() == 304 && size_of::<Information>() == 232);
}

/// The device that shows `length` bytes of `device` from byte `start` on; the one that is there already, or a new one.
///
/// # Errors
/// When the kernel has no loop devices, or refuses one.
pub fn ensure_window(device: &Path, start: u64, length: u64) -> Result<PathBuf, BlockError> {
    let failed = |source: io::Error| BlockError {
        what: "open a part of",
        path: device.to_owned(),
        source,
    };
    if let Some(there) = existing(Path::new("/sys/block"), device, start, length) {
        return Ok(there);
    }
    let control = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
    };
    let control = control().or_else(|_| {
        let loaded = module::of_running_kernel().and_then(|index| module::load(&index, "loop"));
        loaded.map_err(io::Error::other)?;
        control()
    });
    let control = control.map_err(failed)?;
    let below = File::open(device).map_err(failed)?;
    let file = u32::try_from(below.as_raw_fd()).map_err(|error| failed(io::Error::other(error)))?;
    let config = order::Config {
        file,
        block_bytes: 0,
        information: order::Information {
            devices: [0; 3],
            offset: start,
            length,
            number: 0,
            encryption: [0; 2],
            flags: READ_ONLY,
            names: [name(device), [0; 64]],
            key: [0; 32],
            more: [0; 2],
        },
        reserved: [0; 8],
    };
    for _ in 0..TRIES {
        // SAFETY: no argument.
        let number = unsafe { order::free(control.as_raw_fd()) }.map_err(|error| failed(error.into()))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let window = File::open(&path).map_err(failed)?;
        // SAFETY: the struct has the kernel's layout and lives for the call, as does the descriptor that it names.
        match unsafe { order::configure(window.as_raw_fd(), &raw const config) } {
            Ok(_) => return Ok(path),
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Err(failed(Errno::EBUSY.into()))
}

/// A window that shows the same, below `/sys/block`.
fn existing(sys: &Path, device: &Path, start: u64, length: u64) -> Option<PathBuf> {
    let wanted = [
        ("backing_file", device.to_string_lossy().into_owned()),
        ("offset", start.to_string()),
        ("sizelimit", length.to_string()),
    ];
    fs::read_dir(sys).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let shows = |(file, text): &(&str, String)| {
            let path = entry.path().join("loop").join(file);
            fs::read_to_string(path).is_ok_and(|have| have.trim() == text)
        };
        wanted.iter().all(shows).then(|| Path::new("/dev").join(name))
    })
}

/// The device's path as the struct has it: cut off, and closed by a zero.
fn name(device: &Path) -> [u8; 64] {
    let mut out = [0; 64];
    let path = device.to_string_lossy();
    for (to, from) in out.iter_mut().take(63).zip(path.bytes()) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_shows_the_same_is_found_again_and_no_other() {
        let sys = std::env::temp_dir().join(format!("host-window-{}", std::process::id()));
        for (name, offset) in [("loop0", "0"), ("loop1", "1048576")] {
            let folder = sys.join(name).join("loop");
            fs::create_dir_all(&folder).expect("made");
            for (file, text) in [
                ("backing_file", "/dev/sr0"),
                ("offset", offset),
                ("sizelimit", "4096"),
            ] {
                fs::write(folder.join(file), format!("{text}\n")).expect("written");
            }
        }
        fs::create_dir(sys.join("sda")).expect("made");
        let found = |device: &str, start, length| existing(&sys, Path::new(device), start, length);
        assert_eq!(found("/dev/sr0", 1 << 20, 4096), Some("/dev/loop1".into()));
        assert_eq!(found("/dev/sr0", 1 << 20, 8192), None);
        assert_eq!(found("/dev/sr1", 0, 4096), None);
        fs::remove_dir_all(&sys).expect("removed");
    }
}
