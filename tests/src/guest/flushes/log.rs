//! What QEMU wrote down of a disk: every write and every flush, in the order in which they were done.
//!
//! ```text
//!   sector 0   magic, version 1, entries, bytes of a sector                    (dm-log-writes' format, as QEMU's
//!   then       sector, sectors, flags, length │ to the sector's end │ data …    block driver blklogwrites writes it)
//! ```
//!
//! A mark is a sector that this program writes to a place of the disk that nobody uses: it says in the log when
//! something was acknowledged. Nothing of the log is trusted: it was written by another program.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const MARK: u64 = 0x6b72_616d_5f73_7475;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// QEMU is told to use this.
const SECTOR: u64 = 512;
/// From the end of the disk: behind the last partition, before the copy of the table.
const MARK_FROM_END: u64 = 512 << 10;
const ALIGNED: usize = 4096;
const MOST_ENTRIES: usize = 1 << 20;

/// One write, flush or mark.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Where on the disk, bytes.
    pub at: u64,
    /// How much.
    pub bytes: u64,
    /// Where its data is in the log, bytes; none of a discard.
    pub data: Option<u64>,
    /// What was written before is durable when this is done.
    pub flushes: bool,
    /// It is itself durable when it is done.
    pub durable: bool,
    /// The number of a mark.
    pub mark: Option<u64>,
}

/// Reads the log of a disk of `size` bytes up to the mark `last`.
pub fn read(log: &Path, size: u64, last: u64) -> Result<Vec<Entry>> {
    let file = File::open(log)?;
    let number = |at: u64| -> Result<u64> {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    };
    ensure!(number(0)? == MAGIC, "{} is no log of writes", log.display());
    let mut entries = Vec::new();
    let mut at = SECTOR;
    while entries.len() < MOST_ENTRIES {
        let (sector, sectors, flags) = (number(at)?, number(at + 8)?, number(at + 16)?);
        at += SECTOR;
        let bytes = sectors.checked_mul(SECTOR).context("too many sectors")?;
        let place = sector.checked_mul(SECTOR).context("a sector beyond the disk")?;
        ensure!(
            place.checked_add(bytes).is_some_and(|end| end <= size),
            "entry {} writes beyond the disk: {place} {bytes}",
            entries.len()
        );
        let data = (flags & DISCARD == 0 && bytes > 0).then_some(at);
        let mark = match data {
            Some(data) if place == size - MARK_FROM_END && number(data)? == MARK => Some(number(data + 8)?),
            _ => None,
        };
        if data.is_some() {
            at += bytes;
        }
        entries.push(Entry {
            at: place,
            bytes,
            data,
            flushes: flags & FLUSH != 0,
            durable: flags & FUA != 0,
            mark,
        });
        if mark == Some(last) {
            return Ok(entries);
        }
    }
    anyhow::bail!("the log of {} has no mark {last}", log.display())
}

/// Writes a mark to a disk, and no flush with it.
pub fn mark(disk: &Path, size: u64, number: u64) -> Result<()> {
    let file = File::options()
        .write(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(disk)?;
    // What goes past the page cache has to be aligned in memory too.
    let mut room = vec![0_u8; 2 * ALIGNED];
    let start = room.as_ptr().align_offset(ALIGNED);
    let sector = room.get_mut(start..start + ALIGNED).context("no aligned room")?;
    sector[..8].copy_from_slice(&MARK.to_le_bytes());
    sector[8..16].copy_from_slice(&number.to_le_bytes());
    Ok(file.write_all_at(sector, size - MARK_FROM_END)?)
}

/// What a disk holds when power goes right after entry `cut` is done: what was flushed, and of what was not, that which
/// `kept` says. The numbers of entries, in order.
pub fn survivors(entries: &[Entry], cut: usize, kept: impl Fn(usize) -> bool) -> Vec<usize> {
    let flushed = entries[..=cut]
        .iter()
        .rposition(|entry| entry.flushes)
        .unwrap_or(0);
    let stays = |at: &usize| {
        let entry = &entries[*at];
        entry.mark.is_none() && entry.bytes > 0 && (*at < flushed || entry.durable || kept(*at))
    };
    (0..=cut).filter(stays).collect()
}
