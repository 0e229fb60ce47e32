//! What is written: a stick, or a file that stands for one.
//!
//! Invariant: [`Medium::read_back`] reads what the medium holds, never what the kernel remembers of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// The kernel wants direct reads to begin and end at these, in memory and on the medium.
const ALIGNED: usize = 4096;
/// Reads past the kernel's memory go through a buffer of this size.
const DIRECT: usize = 1 << 20;

/// Something with a size that is written and read by place.
///
/// There is a second one in tests: a stick that claims more than it has cannot be had there.
pub trait Medium {
    /// Its size.
    fn bytes(&self) -> u64;
    /// Whether it is known to hold zeros, so that none need to be written.
    fn is_blank(&self) -> bool {
        false
    }
    /// Whether it says itself how large it is, and may lie.
    fn may_lie(&self) -> bool;
    /// Reads, from wherever.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written is on the medium.
    ///
    /// # Errors
    /// When something did not get there.
    fn settle(&mut self) -> io::Result<()>;
    /// Reads from the medium itself what was settled there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_back(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A block device or a regular file.
#[derive(Debug)]
pub struct Opened {
    file: File,
    direct: Option<File>,
    bytes: u64,
    is_device: bool,
    is_blank: bool,
}

impl Opened {
    /// A whole disk, for this program alone: the kernel mounts nothing of it meanwhile, and refuses where it is mounted.
    ///
    /// # Errors
    /// When it cannot be opened so.
    pub fn disk(path: &Path, bytes: u64) -> io::Result<Opened> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_EXCL | nix::libc::O_CLOEXEC)
            .open(path)?;
        if !file.metadata()?.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no disk"));
        }
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_DIRECT | nix::libc::O_CLOEXEC)
            .open(path)?;
        Ok(Opened {
            file,
            direct: Some(direct),
            bytes,
            is_device: true,
            is_blank: false,
        })
    }

    /// A new file of this size, or an old one emptied.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_file(path: &Path, bytes: u64) -> io::Result<Opened> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        file.set_len(bytes)?;
        Ok(Opened {
            file,
            direct: None,
            bytes,
            is_device: false,
            is_blank: true,
        })
    }

    /// A file that holds an image already.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn old_file(path: &Path) -> io::Result<Opened> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        Ok(Opened {
            bytes: about.len(),
            file,
            direct: None,
            is_device: false,
            is_blank: false,
        })
    }
}

impl Medium for Opened {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }

    fn may_lie(&self) -> bool {
        self.is_device
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // Without this a file's pages stay, and reading back would read them. A disk is read directly besides.
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    }

    fn read_back(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else {
            return self.file.read_exact_at(into, at);
        };
        let mut buffer = vec![0; DIRECT + 2 * ALIGNED];
        let skip = buffer.as_ptr().align_offset(ALIGNED);
        let mut done = 0;
        while done < into.len() {
            let place = at + done as u64;
            let before = usize::try_from(place % ALIGNED as u64).unwrap_or(0);
            let wanted = (before + into.len() - done).next_multiple_of(ALIGNED).min(DIRECT);
            let window = buffer.get_mut(skip..skip + wanted).unwrap_or_default();
            let read = direct.read_at(window, place - before as u64)?;
            let fresh = window.get(before..read).unwrap_or_default();
            let fresh = fresh
                .get(..fresh.len().min(into.len() - done))
                .unwrap_or_default();
            if fresh.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(part) = into.get_mut(done..done + fresh.len()) {
                part.copy_from_slice(fresh);
            }
            done += fresh.len();
        }
        Ok(())
    }
}
