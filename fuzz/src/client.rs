//! What the client reads of strangers and of its own folders.

use std::fs;

use cli::fuzzing;
use farmer::table::crc32;

use crate::text;

/// record.json.
pub fn record(bytes: &[u8]) {
    fuzzing::record(bytes);
}

/// config.toml, the seed's line, a backup.
pub fn files(bytes: &[u8]) {
    let text = text(bytes);
    fuzzing::settings(text);
    fuzzing::seed(text);
    fuzzing::backup(text);
}

/// The output of the checks. What passes names the base that was sold.
pub fn proof(bytes: &[u8]) {
    let printed = String::from_utf8_lossy(bytes);
    if fuzzing::proof(&printed) {
        assert!(printed.contains(&"ba".repeat(32)));
    }
}

/// What an export is made of: a space's listing, export.json, a part.
pub fn export(bytes: &[u8]) {
    fuzzing::listing(bytes);
    fuzzing::manifest(bytes);
    if let Some(inside) = fuzzing::part(bytes) {
        assert!(inside < bytes.len());
    }
}

/// An image that is to be flashed. In front of it, behind their length: the text of a checksum's file, and behind a zero the
/// text of a signature's.
pub fn flash_image(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_at_checked(2) else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let (texts, image) = rest.split_at(length.min(rest.len()));
    let mut texts = texts.split(|byte| *byte == 0);
    let (sum, signature) = (texts.next().unwrap_or_default(), texts.next());
    if let Some(sum) = fuzzing::sum(text(sum), "x.img.zst") {
        assert!(sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("x.img.zst");
    fs::write(&path, image).unwrap();
    if let Some(signature) = signature {
        fs::write(folder.path().join("x.img.zst.minisig"), signature).unwrap();
    }
    // What unpacks to more than this is unpacked no further.
    const MOST: u64 = 4 << 20;
    assert!(fuzzing::image(&path, MOST).is_none_or(|unpacked| unpacked <= MOST));
}

/// Where the file system begins, on a stick of 1 MiB whose partition table is right.
const FAT_LBA: u64 = 34;

/// The file system of a stick whose partition table is right. What cannot be changed stays as it was.
pub fn flash_stick(bytes: &[u8]) {
    let mut stick = empty_stick();
    let start = (FAT_LBA * 512) as usize;
    let most = bytes.len().min(1 << 16);
    stick[start..start + most].copy_from_slice(&bytes[..most]);
    let (done, after) = fuzzing::stick(stick.clone());
    assert_eq!(after.len(), stick.len());
    if !done {
        assert!(after == stick, "a change that failed left something behind");
    }
    // Nothing beside the file system was written, whatever it says of itself.
    let end = 1001 * 512;
    assert!(after[..start] == stick[..start] && after[end..] == stick[end..]);
}

/// A system partition of 967 sectors and a base behind it.
fn empty_stick() -> Vec<u8> {
    let guid = |words: [u8; 16], first: u64, last: u64| {
        let mut entry = [0; 128];
        entry[..16].copy_from_slice(&words);
        entry[16..32].fill(7);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        entry
    };
    let system = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ];
    let base = [
        0x41, 0x45, 0x54, 0x53, 0x49, 0x44, 0x47, 0x4e, 0x80, 0, 0x42, 0x41, 0x53, 0x45, 0, 1,
    ];
    let mut table = guid(system, FAT_LBA, 1000).to_vec();
    table.extend(guid(base, 1001, 1010));
    table.resize(4 * 128, 0);
    let mut header = vec![0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&4_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    let mut stick = vec![0; 1 << 20];
    stick[512..512 + 92].copy_from_slice(&header);
    stick[1024..1536].copy_from_slice(&table);
    stick
}
