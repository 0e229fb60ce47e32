//! Both ends and samples between: are they zero, and if not, what is their hash.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// Read whole at each end.
pub const EDGE_BYTES: u64 = 4 << 20;
/// Samples between the ends.
pub const SAMPLES: u64 = 64;
/// Bytes of one sample.
pub const SAMPLE_BYTES: u64 = 4096;
/// Bytes of one read.
const READ_BYTES: u64 = 1 << 20;

/// SHA-256 over all that was read, shown as its first 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SampleHash(pub [u8; 32]);

impl fmt::Display for SampleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The size of a device or a file, by seeking to its end.
pub(super) fn size(mut file: &File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(size)
}

/// The ranges that are read: `(offset, length)`, in order, without overlap.
fn ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= 2 * EDGE_BYTES {
        return vec![(0, size)];
    }
    let between = size - 2 * EDGE_BYTES;
    let mut ranges = vec![(0, EDGE_BYTES)];
    if between <= SAMPLES * SAMPLE_BYTES {
        ranges.push((EDGE_BYTES, between));
    } else {
        for index in 0..SAMPLES {
            // In u128, since a disk times 64 does not fit u64; the middle of each of 64 parts.
            let middle = u128::from(between) * u128::from(2 * index + 1) / u128::from(2 * SAMPLES);
            let offset = (EDGE_BYTES + middle as u64) / SAMPLE_BYTES * SAMPLE_BYTES;
            ranges.push((offset, SAMPLE_BYTES.min(size - EDGE_BYTES - offset)));
        }
    }
    ranges.push((size - EDGE_BYTES, EDGE_BYTES));
    ranges
}

/// Where the first byte is that is not zero. The error says where it could not be read.
pub(super) fn first_not_zero(file: &File, size: u64) -> Result<Option<u64>, String> {
    let zeros = vec![0; READ_BYTES as usize];
    let mut found = None;
    read(file, size, |offset, part| {
        // Compared as a whole: a blank disk is the one that somebody waits for.
        if found.is_none() && *part != zeros[..part.len()] {
            let index = part.iter().position(|byte| *byte != 0);
            found = index.map(|index| offset + index as u64);
        }
    })?;
    Ok(found)
}

/// The hash over all ranges. The error says where they could not be read.
pub(super) fn hash(file: &File, size: u64) -> Result<SampleHash, String> {
    let mut hash = Sha256::new();
    read(file, size, |_, part| hash.update(part))?;
    Ok(SampleHash(hash.finalize().into()))
}

fn read(file: &File, size: u64, mut take: impl FnMut(u64, &[u8])) -> Result<(), String> {
    let mut buffer = vec![0; READ_BYTES as usize];
    for (start, length) in ranges(size) {
        let mut offset = start;
        while offset < start + length {
            let part = READ_BYTES.min(start + length - offset) as usize;
            let part = &mut buffer[..part];
            file.read_exact_at(part, offset)
                .map_err(|e| format!("at byte {offset}: {e}"))?;
            take(offset, part);
            offset += part.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_in_order_and_within() {
        for size in [
            0,
            1,
            EDGE_BYTES,
            2 * EDGE_BYTES,
            2 * EDGE_BYTES + 1,
            10 << 20,
            1 << 30,
            1 << 62,
        ] {
            let ranges = ranges(size);
            let mut end = 0;
            for (offset, length) in &ranges {
                assert!(*offset >= end, "{size}: {ranges:?}");
                end = offset + length;
            }
            assert_eq!(end, size);
            let all: u64 = ranges.iter().map(|(_, length)| length).sum();
            assert!(
                all <= 2 * EDGE_BYTES + SAMPLES * SAMPLE_BYTES,
                "bounded, whatever the disk"
            );
        }
        assert_eq!(ranges(1 << 40).len() as u64, SAMPLES + 2);
    }
}
