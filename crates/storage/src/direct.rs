//! A device read past the page cache: what the disk has, and not what was last written from here.
//!
//! A regular file is read as any other: not every file system can do otherwise.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Aligned enough for every disk.
pub(crate) const ALIGNED: usize = 4096;

/// An open device, and room for what is read of it.
pub(crate) struct Direct {
    file: File,
    buffer: Vec<u8>,
}

impl Direct {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let is_device = std::fs::metadata(path)?.file_type().is_block_device();
        let flags = if is_device { libc::O_DIRECT } else { 0 };
        Ok(Self {
            file: File::options().read(true).custom_flags(flags).open(path)?,
            buffer: Vec::new(),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// So many bytes from there on, both multiples of [`ALIGNED`].
    pub(crate) fn read(&mut self, at: u64, bytes: usize) -> io::Result<&[u8]> {
        self.buffer.resize(bytes + ALIGNED, 0);
        let start = self.buffer.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        let part = &mut self.buffer[start..start + bytes];
        self.file.read_exact_at(part, at)?;
        Ok(part)
    }
}
