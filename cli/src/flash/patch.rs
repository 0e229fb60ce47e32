//! Blocks in memory that differ from the image: what this stick has otherwise.
//!
//! ```text
//!  FAT, partition table ──► Window (a stretch as a file) ──► Patches ──► block, read once, changed in memory
//! ```
//!
//! Invariant: nothing reaches the medium before [`Patches::into_blocks`] is written by who asked for it, so a change
//! that fails halfway leaves the medium as it was.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::BLOCK;
use super::medium::Medium;

/// A file system that sends its reader in circles ends here.
const MOST_READ: u64 = 256 << 20;

/// The changed blocks of a medium.
pub struct Patches<'m, M> {
    medium: &'m mut M,
    blocks: BTreeMap<u64, (Vec<u8>, bool)>,
    bytes: u64,
    read: u64,
}

impl<'m, M: Medium> Patches<'m, M> {
    /// No patches; `known` blocks are taken from memory.
    pub fn new(medium: &'m mut M, known: BTreeMap<u64, Vec<u8>>) -> Self {
        let bytes = medium.bytes();
        Patches {
            medium,
            blocks: known.into_iter().map(|(at, block)| (at, (block, true))).collect(),
            bytes,
            read: 0,
        }
    }

    /// The medium's size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A stretch of it as a file.
    pub fn window(&mut self, start: u64, length: u64) -> Window<'_, 'm, M> {
        Window {
            length: length.min(self.bytes.saturating_sub(start)),
            patches: self,
            start,
            at: 0,
        }
    }

    /// The blocks that differ, by number.
    pub fn into_blocks(self) -> BTreeMap<u64, Vec<u8>> {
        let changed = self.blocks.into_iter().filter(|(_, (_, changed))| *changed);
        changed.map(|(number, (block, _))| (number, block)).collect()
    }

    fn block(&mut self, number: u64) -> io::Result<&mut (Vec<u8>, bool)> {
        if !self.blocks.contains_key(&number) {
            let start = number * BLOCK as u64;
            let length = self.bytes.saturating_sub(start).min(BLOCK as u64);
            let mut block = vec![0; usize::try_from(length).unwrap_or(BLOCK)];
            self.medium.read(start, &mut block)?;
            self.blocks.insert(number, (block, false));
        }
        self.blocks
            .get_mut(&number)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A stretch of a medium as a file of its own.
pub struct Window<'p, 'm, M> {
    patches: &'p mut Patches<'m, M>,
    start: u64,
    length: u64,
    at: u64,
}

impl<M: Medium> Window<'_, '_, M> {
    /// The block that the place is in, where in it, and how much may be taken at once.
    fn place(&self, wanted: usize) -> (u64, usize, usize) {
        let place = self.start.saturating_add(self.at);
        let within = usize::try_from(place % BLOCK as u64).unwrap_or(0);
        let left = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        (place / BLOCK as u64, within, wanted.min(left).min(BLOCK - within))
    }
}

impl<M: Medium> Read for Window<'_, '_, M> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (number, within, length) = self.place(into.len());
        if length == 0 {
            return Ok(0);
        }
        self.patches.read += length as u64;
        if self.patches.read > MOST_READ {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it leads in circles"));
        }
        let (block, _) = self.patches.block(number)?;
        let (Some(from), Some(to)) = (block.get(within..within + length), into.get_mut(..length)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        to.copy_from_slice(from);
        self.at += length as u64;
        Ok(length)
    }
}

impl<M: Medium> Write for Window<'_, '_, M> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (number, within, length) = self.place(bytes.len());
        if length == 0 {
            return Ok(0);
        }
        let (block, changed) = self.patches.block(number)?;
        let (Some(to), Some(from)) = (block.get_mut(within..within + length), bytes.get(..length)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if to != from {
            to.copy_from_slice(from);
            *changed = true;
        }
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<M: Medium> Seek for Window<'_, '_, M> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.length, by),
            SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from
            .checked_add_signed(by)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
