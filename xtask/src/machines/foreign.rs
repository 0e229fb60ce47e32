//! What other systems write on disks, for those whose tools want a block device: laid by the published formats, with right
//! checksums, where libblkid and the other system itself look for it.
//!
//! ```text
//!  LVM2        512: label, PV header │ 4 KiB: metadata area, header and text
//!  md 0.90     the last whole 64 KiB but one │ 1.0: 8 KiB before the end │ 1.2: 4 KiB from the beginning
//!  ZFS         four labels of 256 KiB, two at each end: nvlist at 16 KiB, ring of uberblocks at 128 KiB
//!  GPT         protective MBR, header, 32 sectors of entries … entries, header: the copy at the end
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

const SECTOR: u64 = 512;

/// Where bytes are laid in a block of bytes.
fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// CRC-32 as IEEE 802.3 has it, from a state and to one: neither inverted.
fn crc32(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            (state >> 1) ^ (0xedb8_8320 & (state & 1).wrapping_neg())
        })
    })
}

/// A physical volume of the group `vg0`, which somebody's system is on (lvm2, `format_text`).
pub fn lvm(disk: &File, size: u64) -> io::Result<()> {
    const INITIAL: u32 = 0xf597_a6cf;
    const AREA: usize = 4096;
    const DATA: u64 = 1 << 20;
    let pv = "Ab1cd2-Ef3g-Hi4j-Kl5m-No6p-Qr7s-Tu8vw9";
    let mut label = [0; SECTOR as usize];
    put(&mut label, 0, b"LABELONE");
    put(&mut label, 8, &1_u64.to_le_bytes());
    put(&mut label, 20, &32_u32.to_le_bytes());
    put(&mut label, 24, b"LVM2 001");
    put(&mut label, 32, pv.replace('-', "").as_bytes());
    // The disk; its data; no more data; its metadata; no more of it.
    for (index, number) in [size, DATA, 0, 0, 0, AREA as u64, DATA - AREA as u64, 0, 0]
        .into_iter()
        .enumerate()
    {
        put(&mut label, 64 + 8 * index, &number.to_le_bytes());
    }
    let sum = crc32(INITIAL, &label[20..]);
    put(&mut label, 16, &sum.to_le_bytes());
    let extents = (size - DATA) / (4 << 20);
    let text = format!(
        "vg0 {{\nid = \"aB1cD2-eF3g-hI4j-kL5m-nO6p-qR7s-tU8vW9\"\nseqno = 2\nformat = \"lvm2\"\n\
         status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = 8192\nmax_lv = 0\nmax_pv = 0\n\
         metadata_copies = 0\nphysical_volumes {{\npv0 {{\nid = \"{pv}\"\ndevice = \"/dev/sdz\"\n\
         status = [\"ALLOCATABLE\"]\nflags = []\ndev_size = {}\npe_start = 2048\npe_count = {extents}\n}}\n}}\n\
         logical_volumes {{\nroot {{\nid = \"Aa1bb2-Cc3d-Dd4e-Ee5f-Ff6g-Gg7h-Hh8ii9\"\n\
         status = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n\
         extent_count = 100\ntype = \"striped\"\nstripe_count = 1\nstripes = [\n\"pv0\", 0\n]\n}}\n}}\n}}\n}}\n\
         contents = \"Text Format Volume Group\"\nversion = 1\ndescription = \"\"\ncreation_host = \"other\"\n\
         creation_time = 1700000000\n\0",
        size / SECTOR
    );
    let mut header = [0; SECTOR as usize];
    put(&mut header, 4, b" LVM2 x[5A%r0N*>");
    put(&mut header, 20, &1_u32.to_le_bytes());
    for (at, number) in [
        (24, AREA as u64),
        (32, DATA - AREA as u64),
        (40, SECTOR),
        (48, text.len() as u64),
    ] {
        put(&mut header, at, &number.to_le_bytes());
    }
    put(&mut header, 56, &crc32(INITIAL, text.as_bytes()).to_le_bytes());
    let sum = crc32(INITIAL, &header[4..]);
    put(&mut header, 0, &sum.to_le_bytes());
    disk.write_all_at(&label, SECTOR)?;
    disk.write_all_at(&header, AREA as u64)?;
    disk.write_all_at(text.as_bytes(), AREA as u64 + SECTOR)
}

/// The magic of an array's member.
const MD: u32 = 0xa92b_4efc;

/// A member of a mirror with a superblock of version 0.90 (`linux/raid/md_p.h`).
pub fn md_0_90(disk: &File, size: u64) -> io::Result<()> {
    let kib = (size / (64 << 10) - 1) * 64;
    let mut words = [0_u32; 1024];
    for (at, value) in [
        (0, MD),
        (2, 90),
        (5, 0x1111_2222),
        (6, 1_700_000_000),
        (7, 1),
        (8, kib as u32),
        (9, 2),
        (10, 2),
        (13, 0x3333_4444),
        (14, 0x5555_6666),
        (15, 0x7777_8888),
        (32, 1_700_000_100),
        (33, 1),
        (34, 2),
        (35, 2),
        (39, 20),
    ] {
        words[at] = value;
    }
    // Two disks, in sync, and which of them this is.
    for (at, number) in [(128, 0), (160, 1), (992, 0)] {
        words[at] = number;
        words[at + 1] = 8;
        words[at + 2] = 16 * (number + 1);
        words[at + 3] = number;
        words[at + 4] = 0b110;
    }
    let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
    words[38] = ((sum & 0xffff_ffff) + (sum >> 32)) as u32;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    disk.write_all_at(&bytes, kib << 10)
}

/// A member of an array with a superblock of version 1, of which `missing` has been taken out (the same header).
pub fn md_1(disk: &File, size: u64, at: u64, name: &str, level: u32, missing: Option<u16>) -> io::Result<()> {
    const FAULTY: u16 = 0xfffe;
    let disks: u16 = if level == 1 { 2 } else { 3 };
    let mut block = vec![0; 256 + 2 * usize::from(disks)];
    let id = Sha256::digest(name);
    let sectors = size / SECTOR - 4096;
    put(&mut block, 0, &MD.to_le_bytes());
    put(&mut block, 4, &1_u32.to_le_bytes());
    put(&mut block, 16, &id[..16]);
    put(&mut block, 32, name.as_bytes());
    for (offset, number) in [
        (64, 1_700_000_000),
        (80, sectors),
        (128, if at == 0 || at == 4096 { 2048 } else { 0 }),
        (136, sectors),
        (144, at / SECTOR),
        (192, 1_700_000_100),
        (200, 20),
        (208, u64::MAX),
    ] {
        put(&mut block, offset, &number.to_le_bytes());
    }
    for (offset, number) in [
        (72, level),
        (88, 1024),
        (92, u32::from(disks)),
        (220, u32::from(disks)),
    ] {
        put(&mut block, offset, &number.to_le_bytes());
    }
    put(&mut block, 168, &id[16..]);
    for role in 0..disks {
        let is = if missing == Some(role) { FAULTY } else { role };
        put(&mut block, 256 + 2 * usize::from(role), &is.to_le_bytes());
    }
    let mut sum: u64 = 0;
    for word in block.chunks(4) {
        let mut four = [0; 4];
        four[..word.len()].copy_from_slice(word);
        sum += u64::from(u32::from_le_bytes(four));
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    put(&mut block, 216, &(sum as u32).to_le_bytes());
    disk.write_all_at(&block, at)
}

/// Where a superblock of version 1.0 is.
pub fn md_1_0_at(size: u64) -> u64 {
    ((size / SECTOR - 16) & !7) * SECTOR
}

/// A disk of the pool `tank` (OpenZFS, `vdev_impl.h`; the nvlist in XDR).
pub fn zfs(disk: &File, size: u64) -> io::Result<()> {
    const LABEL: u64 = 256 << 10;
    const LIST: usize = 16 << 10;
    const RING: usize = 128 << 10;
    const GUID: u64 = 0x1122_3344_5566_7788;
    let mut list = vec![1, 1, 0, 0];
    list.extend([0_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat());
    for (name, value) in [
        ("version", Value::Number(5000)),
        ("name", Value::Text("tank")),
        ("state", Value::Number(0)),
        ("txg", Value::Number(4)),
        ("pool_guid", Value::Number(GUID)),
        ("guid", Value::Number(!GUID)),
        ("top_guid", Value::Number(!GUID)),
    ] {
        list.extend(value.pair(name));
    }
    list.extend([0; 8]);
    let end = size / LABEL * LABEL;
    for at in [0, LABEL, end - 2 * LABEL, end - LABEL] {
        let mut label = vec![0; LABEL as usize];
        put(&mut label, LIST, &list);
        let eck = RING - 40;
        put(&mut label, eck, &0x0210_da7a_b10c_7a11_u64.to_le_bytes());
        // The sum begins as the place, so that a label is known to be where it was written.
        put(&mut label, eck + 8, &(at + LIST as u64).to_le_bytes());
        let sum = Sha256::digest(&label[LIST..RING]);
        for (index, word) in sum.chunks(8).enumerate() {
            let reversed: Vec<u8> = word.iter().rev().copied().collect();
            put(&mut label, eck + 8 + 8 * index, &reversed);
        }
        for txg in 0..32_u64 {
            let block = RING + 1024 * txg as usize;
            for (index, number) in [
                0x00ba_b10c,
                5000,
                4 + txg,
                GUID.wrapping_add(!GUID),
                1_700_000_000,
            ]
            .into_iter()
            .enumerate()
            {
                put(&mut label, block + 8 * index, &number.to_le_bytes());
            }
        }
        disk.write_all_at(&label, at)?;
    }
    Ok(())
}

enum Value {
    Number(u64),
    Text(&'static str),
}

impl Value {
    /// A pair of an nvlist: its encoded and its decoded size, name, type, how many, value.
    fn pair(&self, name: &str) -> Vec<u8> {
        let text = |text: &str| {
            let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut out = text(name);
        let (kind, value): (u32, Vec<u8>) = match self {
            Self::Number(number) => (8, number.to_be_bytes().to_vec()),
            Self::Text(value) => (9, text(value)),
        };
        out.extend(kind.to_be_bytes());
        out.extend(1_u32.to_be_bytes());
        out.extend(value);
        let mut pair = (out.len() as u32 + 8).to_be_bytes().to_vec();
        pair.extend(64_u32.to_be_bytes());
        pair.extend(out);
        pair
    }
}

/// A partition of a table: its type as it lies on the disk, its first sector, its last.
pub type Partition = ([u8; 16], u64, u64);

/// Microsoft's types and the EFI system partition's, as they lie on a disk.
pub const WINDOWS: [[u8; 16]; 4] = [
    *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b",
    *b"\x16\xe3\xc9\xe3\x5c\x0b\xb8\x4d\x81\x7d\xf9\x2d\xf0\x02\x15\xae",
    *b"\xa2\xa0\xd0\xeb\xe5\xb9\x33\x44\x87\xc0\x68\xb6\xb7\x26\x99\xc7",
    *b"\xa4\xbb\x94\xde\xd1\x06\x40\x4d\xa1\x6a\xbf\xd5\x01\x79\xd6\xac",
];

/// A table of partitions at both ends (UEFI 2.10, chapter 5).
pub fn gpt(disk: &File, size: u64, partitions: &[Partition]) -> io::Result<()> {
    protective(disk, size)?;
    let (entries, last) = (entries(partitions), size / SECTOR - 1);
    disk.write_all_at(&header(&entries, 1, last, 2, last), SECTOR)?;
    disk.write_all_at(&entries, 2 * SECTOR)?;
    backup(disk, size, partitions)
}

/// The copy of such a table at the end alone, as it is left where the beginning was overwritten.
pub fn backup(disk: &File, size: u64, partitions: &[Partition]) -> io::Result<()> {
    let (entries, last) = (entries(partitions), size / SECTOR - 1);
    disk.write_all_at(&entries, (last - 32) * SECTOR)?;
    disk.write_all_at(&header(&entries, last, 1, last - 32, last), last * SECTOR)
}

/// The MBR that keeps others away from such a table.
pub fn protective(disk: &File, size: u64) -> io::Result<()> {
    let mut mbr = [0; SECTOR as usize];
    put(&mut mbr, 447, &[0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    put(&mut mbr, 458, &((size / SECTOR - 1) as u32).to_le_bytes());
    put(&mut mbr, 510, &[0x55, 0xaa]);
    disk.write_all_at(&mbr, 0)
}

fn entries(partitions: &[Partition]) -> Vec<u8> {
    let mut all = vec![0; 128 * 128];
    for (index, (kind, first, last)) in partitions.iter().enumerate() {
        let at = 128 * index;
        put(&mut all, at, kind);
        put(&mut all, at + 16, &Sha256::digest([index as u8])[..16]);
        put(&mut all, at + 32, &first.to_le_bytes());
        put(&mut all, at + 40, &last.to_le_bytes());
    }
    all
}

fn header(entries: &[u8], here: u64, there: u64, entries_at: u64, last: u64) -> [u8; SECTOR as usize] {
    let mut header = [0; SECTOR as usize];
    put(&mut header, 0, b"EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00");
    for (at, number) in [
        (24, here),
        (32, there),
        (40, 34),
        (48, last - 33),
        (72, entries_at),
    ] {
        put(&mut header, at, &number.to_le_bytes());
    }
    put(&mut header, 56, &Sha256::digest(last.to_le_bytes())[..16]);
    for (at, number) in [(80, 128), (84, 128), (88, !crc32(!0, entries))] {
        put(&mut header, at, &number.to_le_bytes());
    }
    let sum = !crc32(!0, &header[..92]);
    put(&mut header, 16, &sum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the catalogue of CRCs: CRC-32/ISO-HDLC of "123456789".
    #[test]
    fn the_sum_is_the_known_one() {
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_is_laid_is_what_was_meant() -> io::Result<()> {
        const SIZE: u64 = 64 << 20;
        let laid = |lay: &dyn Fn(&File) -> io::Result<()>, at: u64, magic: &[u8]| -> io::Result<()> {
            let disk = tempfile::tempfile()?;
            disk.set_len(SIZE)?;
            lay(&disk)?;
            let mut found = vec![0; magic.len()];
            disk.read_exact_at(&mut found, at)?;
            assert_eq!(found, magic, "at {at}");
            assert_eq!(disk.metadata()?.len(), SIZE, "nothing is laid behind the end");
            Ok(())
        };
        let md = MD.to_le_bytes();
        laid(&|disk| lvm(disk, SIZE), SECTOR, b"LABELONE")?;
        laid(&|disk| md_0_90(disk, SIZE), SIZE - (64 << 10), &md)?;
        let at = md_1_0_at(SIZE);
        laid(
            &|disk| md_1(disk, SIZE, at, "a:0", 1, None),
            SIZE - (8 << 10),
            &md,
        )?;
        laid(&|disk| md_1(disk, SIZE, 4096, "a:1", 5, Some(2)), 4096, &md)?;
        laid(
            &|disk| zfs(disk, SIZE),
            SIZE - (128 << 10),
            &0x00ba_b10c_u64.to_le_bytes(),
        )?;
        laid(
            &|disk| gpt(disk, SIZE, &[(WINDOWS[0], 2048, 4095)]),
            SECTOR,
            b"EFI PART",
        )?;
        laid(&|disk| backup(disk, SIZE, &[]), SIZE - SECTOR, b"EFI PART")?;
        laid(&|disk| protective(disk, SIZE), 510, &[0x55, 0xaa])
    }
}
