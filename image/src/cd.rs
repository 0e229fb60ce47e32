//! What makes a stick's image a CD as well: an ISO 9660 of a few sectors before the first partition, with an El Torito
//! catalog. A CD has sectors of 2048 bytes; its first 16 belong to nobody, so the partition table keeps its place.
//!
//! ```text
//! bytes      CD sector
//! 0          0..15   MBR, GPT and its entries: not the CD's
//! 32 KiB     16      primary volume descriptor   (ECMA-119, 8.4)
//!            17      boot record: where the catalog is   (El Torito 1.0, figure 7)
//!            18      end of the descriptors
//!            19      catalog ─┬─ BIOS: [`LOADER_SECTOR`], no emulation
//!                             └─ EFI: the system partition, to the end of the CD
//!            20, 21  path tables
//!            22..24  folders /, /EFI, /EFI/DEBIAN
//!            25      /EFI/DEBIAN/GRUB.CFG: what the signed GRUB looks for on what it was loaded from
//! 64 KiB     32      BIOS: GRUB, which a CD's firmware loads whole and a disk's from its third KiB on
//! 1 MiB      512     the system partition
//! ```
//!
//! Firmware that meets the image as a disk reads the partition table; that of a CD finds none, for its sectors are longer.

use anyhow::{Result, ensure};

use crate::layout::ALIGNMENT_BYTES;

/// Bytes of a CD's sector.
pub const CD_SECTOR_BYTES: u64 = 2048;
/// The CD sector where the loader for BIOS begins.
pub const LOADER_SECTOR: u64 = 32;
/// The first CD sector that is ours.
const FIRST_SECTOR: u64 = 16;
const CATALOG: u32 = 19;
const PATHS: [u32; 2] = [20, 21];
const ROOT: u32 = 22;
const EFI: u32 = 23;
const DEBIAN: u32 = 24;
const CONFIG: u32 = 25;
/// The platform of an entry for EFI.
const PLATFORM_EFI: u8 = 0xEF;
/// The volume's name: another one than the partition's, so that nobody takes the one for the other.
const VOLUME: &str = "STEADING_CD";
/// The first of 2026, as everything in an image: `YYYYMMDDHHMMSScc` and the zone.
const LONG_TIME: &[u8; 17] = b"2026010100000000\0";
/// The same in a folder's entry: years since 1900, month, day, hour, minute, second, zone.
const SHORT_TIME: [u8; 7] = [126, 1, 1, 0, 0, 0, 0];

/// Bytes for the image from [`start`] on: everything of the CD up to the system partition.
///
/// `loader`: GRUB for a BIOS that boots from CD; `config`: of the GRUB for UEFI; `bytes`: length of the whole image.
///
/// # Errors
/// When something does not fit where it belongs.
pub fn build(loader: &[u8], config: &[u8], bytes: u64) -> Result<Vec<u8>> {
    let room = ALIGNMENT_BYTES - LOADER_SECTOR * CD_SECTOR_BYTES;
    ensure!(
        loader.len() as u64 <= room,
        "the loader for BIOS has {} bytes, and room is for {room}",
        loader.len()
    );
    let config_length = u32::try_from(config.len())?;
    let config_room = (LOADER_SECTOR - u64::from(CONFIG)) * CD_SECTOR_BYTES;
    ensure!(
        u64::from(config_length) <= config_room,
        "the loader's configuration is too long"
    );
    let mut out = vec![0; usize::try_from(ALIGNMENT_BYTES - start())?];
    let mut put = |sector: u32, bytes: &[u8]| {
        let at = (sector as usize - FIRST_SECTOR as usize) * CD_SECTOR_BYTES as usize;
        out[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let table = path_table(u32::to_le_bytes, u16::to_le_bytes);
    let sectors = u32::try_from(bytes / CD_SECTOR_BYTES)?;
    put(16, &volume(sectors, u32::try_from(table.len())?));
    put(17, &boot_record());
    put(18, b"\xFFCD001\x01");
    put(CATALOG, &catalog());
    put(PATHS[0], &table);
    put(PATHS[1], &path_table(u32::to_be_bytes, u16::to_be_bytes));
    let length = CD_SECTOR_BYTES as u32;
    put(ROOT, &folder(ROOT, ROOT, &entry(b"EFI", EFI, length, true)));
    put(EFI, &folder(EFI, ROOT, &entry(b"DEBIAN", DEBIAN, length, true)));
    put(
        DEBIAN,
        &folder(DEBIAN, EFI, &entry(b"GRUB.CFG;1", CONFIG, config_length, false)),
    );
    put(CONFIG, config);
    put(LOADER_SECTOR as u32, loader);
    Ok(out)
}

/// Where in the image the CD's own begins.
pub const fn start() -> u64 {
    FIRST_SECTOR * CD_SECTOR_BYTES
}

/// A number twice, as ISO 9660 writes it: little end first, then big end first.
fn both(value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&value.to_le_bytes());
    out[4..].copy_from_slice(&value.to_be_bytes());
    out
}

fn both_short(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

fn volume(sectors: u32, table_bytes: u32) -> Vec<u8> {
    let mut out = b"\x01CD001\x01\0".to_vec();
    out.extend(text("", 32));
    out.extend(text(VOLUME, 32));
    out.extend([0; 8]);
    out.extend(both(sectors));
    out.extend([0; 32]);
    // One volume of a set of one.
    out.extend(both_short(1));
    out.extend(both_short(1));
    out.extend(both_short(CD_SECTOR_BYTES as u16));
    out.extend(both(table_bytes));
    out.extend(PATHS[0].to_le_bytes());
    out.extend([0; 4]);
    out.extend(PATHS[1].to_be_bytes());
    out.extend([0; 4]);
    out.extend(entry(&[0], ROOT, CD_SECTOR_BYTES as u32, true));
    // Set, publisher, preparer, application, then the names of three files: none.
    out.extend(text("", 128 * 4 + 37 * 3));
    out.extend(LONG_TIME);
    out.extend(LONG_TIME);
    // It never expires, and is good from the beginning.
    out.extend(b"0000000000000000\0");
    out.extend(b"0000000000000000\0");
    out.extend([1, 0]);
    out
}

fn text(text: &str, length: usize) -> Vec<u8> {
    let mut out = text.as_bytes().to_vec();
    out.resize(length, b' ');
    out
}

fn boot_record() -> Vec<u8> {
    let mut out = b"\0CD001\x01EL TORITO SPECIFICATION".to_vec();
    out.resize(0x47, 0);
    out.extend(CATALOG.to_le_bytes());
    out
}

/// The entry for BIOS, which comes first and is the default, and a section for EFI.
fn catalog() -> Vec<u8> {
    const NO_EMULATION: u8 = 0;
    const BOOTS: u8 = 0x88;
    const LAST_SECTION: u8 = 0x91;
    // The sum of its 16-bit words is nought.
    let mut out = vec![0u8; 32];
    (out[0], out[30], out[31]) = (1, 0x55, 0xAA);
    let sum = out.chunks_exact(2).fold(0u16, |sum, pair| {
        sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]))
    });
    out[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    let boots = |sectors: u16, at: u32| {
        let mut entry = vec![BOOTS, NO_EMULATION, 0, 0, 0, 0];
        entry.extend(sectors.to_le_bytes());
        entry.extend(at.to_le_bytes());
        entry.resize(32, 0);
        entry
    };
    // Four sectors of 512: the loader's own first part, which loads the rest.
    out.extend(boots(4, LOADER_SECTOR as u32));
    let mut section = vec![LAST_SECTION, PLATFORM_EFI, 1, 0];
    section.resize(32, 0);
    out.extend(section);
    // No length says: to the end (UEFI 2.10, 13.3.2.1); sixteen bits could not say it.
    out.extend(boots(0, (ALIGNMENT_BYTES / CD_SECTOR_BYTES) as u32));
    out
}

fn path_table(word: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, at, above) in [(&b"\0"[..], ROOT, 1), (b"EFI", EFI, 1), (b"DEBIAN", DEBIAN, 2)] {
        out.extend([name.len() as u8, 0]);
        out.extend(word(at));
        out.extend(short(above));
        out.extend(name);
        out.resize(out.len().next_multiple_of(2), 0);
    }
    out
}

/// A folder's sector: itself, the one above, and what is in it.
fn folder(own: u32, above: u32, inside: &[u8]) -> Vec<u8> {
    let length = CD_SECTOR_BYTES as u32;
    let mut out = entry(&[0], own, length, true);
    out.extend(entry(&[1], above, length, true));
    out.extend(inside);
    out
}

fn entry(name: &[u8], at: u32, bytes: u32, is_folder: bool) -> Vec<u8> {
    let length = (33 + name.len()).next_multiple_of(2);
    let mut out = vec![length as u8, 0];
    out.extend(both(at));
    out.extend(both(bytes));
    out.extend(SHORT_TIME);
    out.extend([if is_folder { 2 } else { 0 }, 0, 0]);
    out.extend(both_short(1));
    out.push(name.len() as u8);
    out.extend(name);
    out.resize(length, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 64 << 20;

    fn cd() -> Result<Vec<u8>> {
        build(&[7; 100_000], b"set timeout=0\n", BYTES)
    }

    fn sector(cd: &[u8], sector: usize) -> &[u8] {
        let at = (sector - FIRST_SECTOR as usize) * 2048;
        &cd[at..at + 2048]
    }

    fn number(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default()) as usize
    }

    /// What a reader finds in a folder by name: where, and how long.
    fn find(folder: &[u8], name: &[u8]) -> Option<(usize, usize)> {
        let mut at = 0;
        while folder[at] != 0 {
            let length = usize::from(folder[at + 32]);
            if &folder[at + 33..at + 33 + length] == name {
                return Some((number(folder, at + 2), number(folder, at + 10)));
            }
            at += usize::from(folder[at]);
        }
        None
    }

    #[test]
    fn a_reader_gets_from_the_descriptor_to_the_configuration() -> Result<()> {
        let cd = cd()?;
        assert_eq!(cd.len() as u64, ALIGNMENT_BYTES - start());
        let volume = sector(&cd, 16);
        assert_eq!(&volume[..7], b"\x01CD001\x01");
        assert_eq!(&volume[40..51], b"STEADING_CD");
        assert_eq!(number(volume, 80) as u64, BYTES / 2048);
        assert_eq!((volume[881], volume[882]), (1, 0), "version of the format");
        let mut at = number(volume, 156 + 2);
        for name in [&b"EFI"[..], b"DEBIAN", b"GRUB.CFG;1"] {
            at = find(sector(&cd, at), name).map(|(at, _)| at).unwrap_or_default();
        }
        assert!(sector(&cd, at).starts_with(b"set timeout=0\n"));
        let (folder, above) = (sector(&cd, DEBIAN as usize), EFI as usize);
        assert_eq!(find(folder, &[1]).map(|(at, _)| at), Some(above));
        assert_eq!(find(folder, b"GRUB.CFG;1"), Some((CONFIG as usize, 14)));
        Ok(())
    }

    #[test]
    fn firmware_finds_a_loader_for_each_platform() -> Result<()> {
        let cd = cd()?;
        let record = sector(&cd, 17);
        assert_eq!(&record[..30], b"\0CD001\x01EL TORITO SPECIFICATION");
        let catalog = sector(&cd, number(record, 0x47));
        let sum = |entry: &[u8]| -> u16 {
            let words = entry.chunks_exact(2);
            words.fold(0, |sum, pair| {
                sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]))
            })
        };
        assert_eq!((sum(&catalog[..32]), &catalog[30..32]), (0, &[0x55, 0xAA][..]));
        let mut other = catalog[..32].to_vec();
        other[1] = PLATFORM_EFI;
        assert_ne!(sum(&other), 0, "the control: another first entry has another sum");
        assert_eq!((catalog[32], number(catalog, 40)), (0x88, 32));
        assert_eq!(&sector(&cd, 32)[..16], &[7; 16]);
        assert_eq!(
            (catalog[64], catalog[65], catalog[96]),
            (0x91, PLATFORM_EFI, 0x88)
        );
        assert_eq!(number(catalog, 104) as u64 * 2048, ALIGNMENT_BYTES);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_before_the_partition_is_refused() {
        assert!(build(&vec![0; 983_040], b"", BYTES).is_ok());
        assert!(build(&vec![0; 983_041], b"", BYTES).is_err());
        assert!(build(&[], &[b' '; 14_337], BYTES).is_err());
    }
}
