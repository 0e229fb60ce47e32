//! The partitions of a GPT, read and nothing more (UEFI 2.10, section 5.3).
//!
//! Hostile until proven: the header's and the table's checksums must hold, and sizes are
//! bounded before anything is allocated.

use std::io::{self, Read, Seek, SeekFrom};

/// The least and most that an entry may have, in bytes.
const ENTRY_BYTES: std::ops::RangeInclusive<u32> = 128..=1024;
/// More entries than anyone has.
const MOST_ENTRIES: u32 = 256;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// Counted from 1, as the kernel does.
    pub number: u32,
    /// Its type, `c12a7328-f81f-11d2-ba4b-00a0c93ec93b`.
    pub kind: String,
}

/// The partitions of a disk; none where it has no sound GPT.
pub(super) fn read(disk: &mut (impl Read + Seek), sector: u32) -> io::Result<Vec<Partition>> {
    let mut header = vec![0; 512];
    disk.seek(SeekFrom::Start(sector.into()))?;
    disk.read_exact(&mut header)?;
    let Some((at, entries, bytes, sum)) = checked_header(&mut header) else {
        return Ok(Vec::new());
    };
    let mut table = vec![0; (entries * bytes) as usize];
    let Some(start) = at.checked_mul(sector.into()) else {
        return Ok(Vec::new());
    };
    disk.seek(SeekFrom::Start(start))?;
    disk.read_exact(&mut table)?;
    if crc32(&table) != sum {
        return Ok(Vec::new());
    }
    Ok(table
        .chunks_exact(bytes as usize)
        .zip(1..)
        .filter_map(|(entry, number)| {
            let kind: [u8; 16] = entry.get(..16)?.try_into().ok()?;
            (kind != [0; 16]).then(|| Partition {
                number,
                kind: guid(kind),
            })
        })
        .collect())
}

/// Where the table begins (in sectors), its entries, their bytes, its checksum.
fn checked_header(header: &mut [u8]) -> Option<(u64, u32, u32, u32)> {
    let word = |header: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?))
    };
    if header.get(..8)? != b"EFI PART" {
        return None;
    }
    let length = word(header, 12)? as usize;
    let sum = word(header, 16)?;
    if !(92..=header.len()).contains(&length) {
        return None;
    }
    // The sum is taken over the header with the sum itself as zero.
    header.get_mut(16..20)?.fill(0);
    if crc32(header.get(..length)?) != sum {
        return None;
    }
    let at = u64::from_le_bytes(header.get(72..80)?.try_into().ok()?);
    let (entries, bytes) = (word(header, 80)?, word(header, 84)?);
    let sound = entries <= MOST_ENTRIES && ENTRY_BYTES.contains(&bytes);
    sound.then_some((at, entries, bytes, word(header, 88)?))
}

/// The first three fields are little endian, the last two are bytes as they stand.
fn guid(b: [u8; 16]) -> String {
    format!(
        "{:08x}-{:04x}-{:04x}-{:02x}{:02x}-{}",
        u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        u16::from_le_bytes([b[4], b[5]]),
        u16::from_le_bytes([b[6], b[7]]),
        b[8],
        b[9],
        data_encoding::HEXLOWER.encode(&b[10..]),
    )
}

/// The CRC of IEEE 802.3, bit by bit: a table of 16 KiB takes no time worth a table of its own.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// How many partitions a disk with sectors of 512 bytes lists, for the fuzz target.
#[cfg(fuzzing)]
pub fn fuzz_table(disk: &[u8]) -> Option<usize> {
    read(&mut io::Cursor::new(disk), 512)
        .ok()
        .map(|found| found.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A disk with two partitions, sealed with right sums.
    fn disk(sector: usize, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut table = vec![0_u8; 128 * 4];
        // c12a7328-f81f-11d2-ba4b-00a0c93ec93b, as UEFI writes it.
        table[..16].copy_from_slice(&[
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
        ]);
        // The base type, third entry: numbers are places.
        table[256..272].copy_from_slice(&[
            0x41, 0x45, 0x54, 0x53, 0x49, 0x44, 0x47, 0x4e, 0x80, 0x00, 0x42, 0x41, 0x53, 0x45, 0x00, 0x01,
        ]);
        let mut header = vec![0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&4_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        let mut disk = vec![0; sector * 2];
        disk[sector..sector + 92].copy_from_slice(&header);
        disk.extend(table);
        change(&mut disk);
        disk
    }

    #[test]
    fn partitions_are_read_from_either_kind_of_sector() {
        for sector in [512, 4096] {
            let found = read(&mut Cursor::new(disk(sector, |_| {})), sector as u32).expect("read");
            let found: Vec<(u32, &str)> = found.iter().map(|p| (p.number, p.kind.as_str())).collect();
            assert_eq!(
                found,
                vec![(1, host::names::ESP_TYPE), (3, host::names::BASE_TYPE)],
                "{sector}"
            );
        }
    }

    #[test]
    fn nothing_unsound_is_believed() {
        assert_eq!(
            crc32(b"123456789"),
            0xCBF4_3926,
            "the check value of the algorithm"
        );
        for (what, at) in [
            ("signature", 512),
            ("header", 512 + 80),
            ("sum", 512 + 16),
            ("table", 1024 + 3),
        ] {
            let broken = disk(512, |disk| disk[at] ^= 1);
            assert_eq!(
                read(&mut Cursor::new(broken), 512).expect("read"),
                vec![],
                "{what}"
            );
        }
        assert_eq!(read(&mut Cursor::new(vec![0; 4096]), 512).expect("read"), vec![]);
        assert!(read(&mut Cursor::new(vec![0; 100]), 512).is_err());
    }
}
