//! The mark of a claim that is not finished.
//!
//! ```text
//!   0        1 sector: table          512 KiB: the mark, 4 KiB            1 MiB: the partition ─►
//!            written before the table ─┘  └─ cleared once the state on the disk is complete
//! ```
//!
//! A claim that was cut off is known by what is there, not by what is missing: a label of LVM, its metadata or a table
//! that rots looks as if nothing had ever been behind it. Only with this mark is a disk with our partition begun anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where it lies: behind the table of partitions, before the first of them, and whole sectors of any size.
pub const MARK_AT: u64 = 512 << 10;
/// What it begins with.
pub const MARK: &[u8] = b"steading: this claim is not finished\n";
const SECTOR: usize = 4096;

/// Whether the disk has it.
pub(super) fn is_there(disk: &Path) -> io::Result<bool> {
    let mut found = vec![0; SECTOR];
    File::open(disk)?.read_exact_at(&mut found, MARK_AT)?;
    Ok(found.starts_with(MARK))
}

/// Puts it on the disk, durably. It may be in use.
///
/// # Errors
/// When the disk cannot be written.
pub fn set(disk: &Path) -> io::Result<()> {
    let mut sector = vec![0; SECTOR];
    sector[..MARK.len()].copy_from_slice(MARK);
    put(disk, &sector)
}

/// Takes it from the disk, durably, where it is there.
pub(crate) fn clear(disk: &Path) -> io::Result<()> {
    if is_there(disk)? {
        put(disk, &[0; SECTOR])?;
    }
    Ok(())
}

fn put(disk: &Path, sector: &[u8]) -> io::Result<()> {
    let file = File::options().write(true).open(disk)?;
    file.write_all_at(sector, MARK_AT)?;
    file.sync_all()
}
