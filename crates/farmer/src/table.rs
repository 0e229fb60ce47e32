//! The partitions of a GPT (UEFI 2.10, section 5.3): read, and sealed anew for a longer disk.
//!
//! Hostile until proven: the header's and the table's checksums must hold, and sizes are
//! bounded before anything is allocated.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// The least and most that an entry may have, in bytes.
const ENTRY_BYTES: std::ops::RangeInclusive<u32> = 128..=1024;
/// More entries than anyone has.
const MOST_ENTRIES: u32 = 256;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Counted from 1, as the kernel does.
    pub number: u32,
    /// Its type, `c12a7328-f81f-11d2-ba4b-00a0c93ec93b`.
    pub kind: String,
    /// Its first sector.
    pub first_lba: u64,
    /// Its last sector, that one included.
    pub last_lba: u64,
}

/// The partitions of a disk with sectors of `sector` bytes; none where it has no sound GPT.
///
/// # Errors
/// When the disk cannot be read.
pub fn read(disk: &mut (impl Read + Seek), sector: u32) -> io::Result<Vec<Partition>> {
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
    Ok(parts(&table, bytes).collect())
}

/// The entries that are taken; each begins where its number says.
fn parts(table: &[u8], bytes: u32) -> impl Iterator<Item = Partition> + '_ {
    let entries = table.chunks_exact(bytes as usize).zip(1..);
    entries.filter_map(|(entry, number)| {
        let kind: [u8; 16] = entry.get(..16)?.try_into().ok()?;
        let lba =
            |at: usize| -> Option<u64> { Some(u64::from_le_bytes(entry.get(at..at + 8)?.try_into().ok()?)) };
        let (first_lba, last_lba) = (lba(32)?, lba(40)?);
        (kind != [0; 16]).then(|| Partition {
            number,
            kind: guid(kind),
            first_lba,
            last_lba,
        })
    })
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
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// Rewrites both headers and the backup's table for a disk of `sectors` sectors of 512 bytes, as an image needs it
/// that was written to a longer stick. Nothing is written where the first table is not sound or does not fit.
///
/// The copy at the end comes first: cut off at any moment, the first table still holds.
///
/// # Errors
/// When the disk cannot be read or written, or has no sound table to begin with.
pub fn fit(disk: &mut (impl Read + Write + Seek), sectors: u64) -> io::Result<()> {
    let mut header = vec![0; 512];
    disk.seek(SeekFrom::Start(512))?;
    disk.read_exact(&mut header)?;
    let Some((at, entries, bytes, sum)) = checked_header(&mut header.clone()) else {
        return Err(unsound("its first partition table has a wrong checksum"));
    };
    let mut table = vec![0; ((entries * bytes) as usize).next_multiple_of(512)];
    let Some(start) = at.checked_mul(512) else {
        return Err(unsound("its first partition table lies nowhere"));
    };
    disk.seek(SeekFrom::Start(start))?;
    disk.read_exact(&mut table)?;
    if crc32(table.get(..(entries * bytes) as usize).unwrap_or_default()) != sum {
        return Err(unsound("its first partition table has a wrong checksum"));
    }
    let last_end = parts(&table, bytes).map(|part| part.last_lba).max().unwrap_or(0);
    let table_sectors = table.len() as u64 / 512;
    let backup = sectors.checked_sub(1 + table_sectors).filter(|at| *at > last_end);
    let Some(backup) = backup else {
        return Err(unsound("its partitions do not fit"));
    };
    let last = sectors - 1;
    put(&mut header, 48, backup - 1);
    let mut copy = header.clone();
    put(&mut header, 24, 1);
    put(&mut header, 32, last);
    put(&mut copy, 24, last);
    put(&mut copy, 32, 1);
    put(&mut copy, 72, backup);
    disk.seek(SeekFrom::Start(backup * 512))?;
    disk.write_all(&table)?;
    disk.write_all(&sealed(copy))?;
    disk.seek(SeekFrom::Start(512))?;
    disk.write_all(&sealed(header))?;
    protect(disk, sectors)
}

/// The record of the first sector that covers the whole disk covers this one.
fn protect(disk: &mut (impl Read + Write + Seek), sectors: u64) -> io::Result<()> {
    let mut first = vec![0; 512];
    disk.seek(SeekFrom::Start(0))?;
    disk.read_exact(&mut first)?;
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX).to_le_bytes();
    for record in [446, 462, 478, 494] {
        let Some(record) = first.get_mut(record..record + 16) else {
            continue;
        };
        // Of a hybrid table only the record that begins at the header says how long the disk is.
        if record[4] == 0xEE && record[8..12] == 1_u32.to_le_bytes() {
            record[12..16].copy_from_slice(&length);
        }
    }
    disk.seek(SeekFrom::Start(0))?;
    disk.write_all(&first)
}

fn put(header: &mut [u8], at: usize, value: u64) {
    if let Some(field) = header.get_mut(at..at + 8) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

/// A header with its own sum; its length was checked when it was read.
fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    let length = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
    header[16..20].fill(0);
    let sum = crc32(header.get(..length).unwrap_or_default());
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn unsound(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    const BASE_TYPE: &str = "53544541-4449-4e47-8000-424153450001";

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
            assert_eq!(found, vec![(1, ESP_TYPE), (3, BASE_TYPE)], "{sector}");
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

    #[test]
    fn a_table_is_sealed_for_a_longer_disk_and_not_for_one_too_short() {
        let mut image = disk(512, |disk| disk.resize(40 * 512, 0));
        // A protective record that says 39 sectors.
        image[446 + 4] = 0xEE;
        image[446 + 8..446 + 12].copy_from_slice(&1_u32.to_le_bytes());
        image[446 + 12..446 + 16].copy_from_slice(&39_u32.to_le_bytes());
        image.resize(1000 * 512, 7);
        let mut stick = Cursor::new(image);
        fit(&mut stick, 1000).expect("fits");
        let found = read(&mut stick, 512).expect("read");
        assert_eq!(found.len(), 2);
        let bytes = stick.get_ref();
        assert_eq!(bytes[446 + 12..446 + 16], 999_u32.to_le_bytes());
        let first = &bytes[512..604];
        assert_eq!(first[32..40], 999_u64.to_le_bytes(), "the copy's place");
        let copy = &bytes[999 * 512..999 * 512 + 92];
        assert_eq!(
            (&copy[24..32], &copy[32..40]),
            (&999_u64.to_le_bytes()[..], &1_u64.to_le_bytes()[..])
        );
        // The copy is as sound as the first: read as a disk of its own, at the place that it names.
        let at = u64::from_le_bytes(copy[72..80].try_into().expect("8 bytes"));
        let mut alone = vec![0; 512];
        alone.extend(&bytes[999 * 512..]);
        alone[512 + 72..512 + 80].copy_from_slice(&2_u64.to_le_bytes());
        let resealed = sealed(alone[512..1024].to_vec());
        alone[512..1024].copy_from_slice(&resealed);
        alone.extend(&bytes[at as usize * 512..999 * 512]);
        assert_eq!(read(&mut Cursor::new(alone), 512).expect("read"), found);
        assert!(checked_header(&mut bytes[999 * 512..].to_vec()).is_some());

        let before = bytes.clone();
        assert!(fit(&mut Cursor::new(before.clone()), 1).is_err());
        let mut broken = before;
        broken[512 + 60] ^= 1;
        let mut cursor = Cursor::new(broken.clone());
        assert!(fit(&mut cursor, 1000).is_err());
        assert_eq!(*cursor.get_ref(), broken, "nothing was written");
    }
}
