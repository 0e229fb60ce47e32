//! What a SATA disk says of its own health: SMART, as the ATA Command Set (ACS-2, sections "SMART" and "IDENTIFY DEVICE")
//! and its makers have it. Asked through the kernel by ATA PASS-THROUGH (16) of SAT; the disk writes nothing for it.
//!
//! ```text
//!   identify            does it keep such figures, and is it told to?   word 82 bit 0, word 85 bit 0
//!   SMART READ DATA     30 attributes of 12 bytes from byte 2:          id, flags (2), value, worst, raw (6), -
//!   … READ THRESHOLDS   30 limits of 12 bytes from byte 2:              id, limit, - (10)
//!   … RETURN STATUS     registers that come back as sense data:         c2 4f it is well, 2c f4 it fails soon
//! ```
//!
//! Only disks on the kernel's own ATA are asked: bridges between USB and SATA are known to hang on such questions.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A sector of figures.
pub const PAGE_BYTES: usize = 512;
/// Attributes of a page.
const ATTRIBUTES: usize = 30;
const SENSE_BYTES: usize = 32;
/// A disk that does not answer holds its asker no longer, in milliseconds.
const TIMEOUT_MS: u32 = 5_000;

const IDENTIFY: u8 = 0xec;
const SMART: u8 = 0xb0;
const READ_DATA: u8 = 0xd0;
const READ_THRESHOLDS: u8 = 0xd1;
const RETURN_STATUS: u8 = 0xda;
/// What stands in LBA Mid and High for every SMART command, and comes back from a disk that is well.
const SMART_SIGNATURE: (u8, u8) = (0x4f, 0xc2);
/// What comes back from a disk that expects to fail.
const FAILS_SIGNATURE: (u8, u8) = (0xf4, 0x2c);

/// `struct sg_io_hdr` of `scsi/sg.h`.
#[repr(C)]
struct Header {
    interface_id: i32,
    direction: i32,
    command_bytes: u8,
    most_sense_bytes: u8,
    iovec_count: u16,
    data_bytes: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: i32,
    user_pointer: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    residual: i32,
    duration: u32,
    info: u32,
}

mod ioctl {
    use super::Header;
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, Header);
}

/// `SG_DXFER_NONE` and `SG_DXFER_FROM_DEV`.
const NO_DATA: i32 = -1;
const FROM_DISK: i32 = -3;

/// What a disk says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// It expects to fail soon, by its own word.
    pub fails_soon: bool,
    /// Attributes that are at their limit or below, in the order in which the disk has them.
    pub failing: Vec<Failing>,
    /// Degrees Celsius, where it has a sensor.
    pub celsius: Option<i32>,
    /// Sectors that it cannot read and has not given up yet.
    pub unreadable: u64,
    /// Sectors that it found unreadable when it looked by itself.
    pub uncorrectable: u64,
}

/// An attribute at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// Its number.
    pub id: u8,
    /// How well it is, by its maker's scale: less is worse.
    pub value: u8,
    /// From here on down its maker calls it failing.
    pub limit: u8,
}

impl Failing {
    /// What makers agree that the number means.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self.id {
            1 => "read errors",
            3 => "time to spin up",
            5 => "sectors that it replaced",
            7 => "seek errors",
            8 => "seek time",
            10 => "attempts to spin up",
            184 => "errors between its parts",
            187 => "errors that it could not correct",
            196 => "times that it replaced a sector",
            197 => "sectors that it cannot read",
            198 => "sectors that cannot be corrected",
            169 | 173 | 177 | 202 | 231 | 233 => "its life as its maker expects it",
            _ => "one of its figures",
        }
    }
}

/// Asks a disk, `/dev/sda`.
///
/// # Errors
/// When it is no SATA disk, keeps no such figures, or does not answer.
pub fn health(disk: &Path) -> io::Result<Health> {
    let file = File::open(disk)?;
    let about = ask(&file, IDENTIFY, 0)?;
    if !keeps_figures(&about) {
        return Err(io::Error::other("the disk keeps no figures of its health"));
    }
    let data = ask(&file, SMART, READ_DATA)?;
    // They are obsolete since ACS-4: a disk without them still says whether it fails.
    let limits = ask(&file, SMART, READ_THRESHOLDS).unwrap_or([0; PAGE_BYTES]);
    let sense = status(&file)?;
    read(&data, &limits, &sense).ok_or_else(|| io::Error::other("the disk's figures are damaged"))
}

/// Words 82 and 85 of what it says of itself: it can, and it does.
fn keeps_figures(about: &[u8; PAGE_BYTES]) -> bool {
    about[82 * 2] & 1 == 1 && about[85 * 2] & 1 == 1
}

/// One page of figures.
fn ask(file: &File, command: u8, feature: u8) -> io::Result<[u8; PAGE_BYTES]> {
    let mut page = [0; PAGE_BYTES];
    let sense = pass_through(file, &words(command, feature, true), &mut page)?;
    // Without sense data it went well: none was asked for.
    match sense[0] {
        0 => Ok(page),
        _ => Err(io::Error::other("the disk refuses")),
    }
}

/// The registers after RETURN STATUS, as sense data.
fn status(file: &File) -> io::Result<[u8; SENSE_BYTES]> {
    pass_through(file, &words(SMART, RETURN_STATUS, false), &mut [])
}

/// ATA PASS-THROUGH (16) of SAT-3: one sector in, or no data and the registers back.
fn words(command: u8, feature: u8, data: bool) -> [u8; 16] {
    let mut words = [0; 16];
    words[0] = 0x85;
    // The protocol: PIO in, or none. How much: blocks, as the count says, from the disk; or ask for the registers.
    (words[1], words[2], words[6]) = if data {
        (4 << 1, 0x0e, 1)
    } else {
        (3 << 1, 0x20, 0)
    };
    words[4] = feature;
    if command == SMART {
        (words[10], words[12]) = SMART_SIGNATURE;
    }
    words[14] = command;
    words
}

fn pass_through(file: &File, words: &[u8; 16], data: &mut [u8]) -> io::Result<[u8; SENSE_BYTES]> {
    let mut sense = [0; SENSE_BYTES];
    let mut header = Header {
        interface_id: i32::from(b'S'),
        direction: if data.is_empty() { NO_DATA } else { FROM_DISK },
        command_bytes: words.len() as u8,
        most_sense_bytes: SENSE_BYTES as u8,
        iovec_count: 0,
        data_bytes: data.len() as u32,
        data: data.as_mut_ptr(),
        command: words.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: TIMEOUT_MS,
        flags: 0,
        pack_id: 0,
        user_pointer: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the kernel reads and writes one `Header`, reads `command_bytes` of `command`, and writes at most `data_bytes`
    // to `data` and `most_sense_bytes` to `sense`: each has as many, and lives until the call has returned.
    unsafe { ioctl::sg_io(file.as_raw_fd(), &raw mut header) }?;
    match (header.host_status, header.residual) {
        (0, 0) => Ok(sense),
        (0, _) => Err(io::Error::other("the disk answered with too little")),
        (status, _) => Err(io::Error::other(format!("no answer, host status {status:#x}"))),
    }
}

/// Two pages and the sense data in words of ours; none where the first page's sum is wrong.
#[must_use]
pub fn read(data: &[u8; PAGE_BYTES], limits: &[u8; PAGE_BYTES], sense: &[u8]) -> Option<Health> {
    if data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
        return None;
    }
    let mut health = Health {
        fails_soon: registers(sense) == Some(FAILS_SIGNATURE),
        ..Health::default()
    };
    for attribute in entries(data) {
        let (id, flags, value) = (attribute[0], attribute[1], attribute[3]);
        let mut raw = [0; 8];
        raw[..6].copy_from_slice(&attribute[5..11]);
        let raw = u64::from_le_bytes(raw);
        match id {
            194 => health.celsius = believed(attribute[5]),
            190 => health.celsius = health.celsius.or(believed(attribute[5])),
            // Only the low half is a number of sectors; some makers keep other things above it.
            197 => health.unreadable = raw & 0xffff_ffff,
            198 => health.uncorrectable = raw & 0xffff_ffff,
            _ => {}
        }
        let limit = entries(limits)
            .find(|limit| limit[0] == id)
            .map_or(0, |limit| limit[1]);
        // Values of 0, 254 and 255 say nothing, and so does a limit of 0. Bit 0: at the limit it fails, and is not merely old.
        if flags & 1 == 1 && limit > 0 && (1..=253).contains(&value) && value <= limit {
            health.failing.push(Failing { id, value, limit });
        }
    }
    Some(health)
}

/// Entries of a page that are in use.
fn entries(page: &[u8; PAGE_BYTES]) -> impl Iterator<Item = &[u8]> {
    page[2..]
        .chunks_exact(12)
        .take(ATTRIBUTES)
        .filter(|entry| entry[0] != 0)
}

/// A temperature that a disk can have and still answer.
fn believed(raw: u8) -> Option<i32> {
    let celsius = i32::from(raw.cast_signed());
    (celsius != 0 && celsius > -40).then_some(celsius)
}

/// LBA Mid and High in sense data: of the ATA descriptor of SAT, or at their place in the fixed form.
fn registers(sense: &[u8]) -> Option<(u8, u8)> {
    match sense.first()? & 0x7f {
        0x72 => {
            let mut rest = sense.get(8..)?;
            while let [kind, length, ..] = *rest {
                let descriptor = rest.get(..2 + usize::from(length))?;
                if kind == 0x09 && length >= 12 {
                    return Some((descriptor[9], descriptor[11]));
                }
                rest = &rest[descriptor.len()..];
            }
            None
        }
        0x70 => Some((*sense.get(10)?, *sense.get(11)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU 7.2 answers, with another value of attribute 5 and sectors that it cannot read.
    fn page(entries: &[[u8; 12]]) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[0] = 1;
        for (index, entry) in entries.iter().enumerate() {
            page[2 + index * 12..][..12].copy_from_slice(entry);
        }
        let sum = page.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        page[511] = 0_u8.wrapping_sub(sum);
        page
    }

    const REPLACED: [u8; 12] = [5, 3, 0, 100, 100, 0, 0, 0, 0, 0, 0, 0];
    const WARM: [u8; 12] = [190, 3, 0, 0x45, 0x45, 0x1f, 0, 0x1f, 0x1f, 0, 0, 0];
    const LIMIT: [u8; 12] = [5, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const WELL: [u8; 22] = [
        0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 0, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0x50,
    ];

    #[test]
    fn figures_are_read_as_makers_write_them() {
        let limits = page(&[LIMIT]);
        let well = read(&page(&[REPLACED, WARM]), &limits, &WELL);
        let wanted = Health {
            celsius: Some(31),
            ..Health::default()
        };
        assert_eq!(well, Some(wanted));
        let mut worn = REPLACED;
        worn[3] = 36;
        let pending = [197, 0x32, 0, 100, 100, 8, 0, 0, 0, 9, 0, 0];
        let sick = read(&page(&[worn, pending]), &limits, &WELL).expect("a page whose sum is right");
        assert_eq!((sick.unreadable, sick.celsius), (8, None));
        let failing = Failing {
            id: 5,
            value: 36,
            limit: 36,
        };
        assert_eq!(sick.failing, [failing]);
        assert_eq!(failing.words(), "sectors that it replaced");
        // Old is not failing, and neither is what has no limit.
        worn[1] = 2;
        assert!(read(&page(&[worn]), &limits, &WELL).is_some_and(|health| health.failing.is_empty()));
        worn[1] = 3;
        let none = [0; PAGE_BYTES];
        assert!(read(&page(&[worn]), &none, &WELL).is_some_and(|health| health.failing.is_empty()));
        let mut damaged = page(&[REPLACED]);
        damaged[100] ^= 1;
        assert_eq!(read(&damaged, &limits, &WELL), None);
    }

    #[test]
    fn both_forms_of_sense_data_hold_the_registers() {
        assert_eq!(registers(&WELL), Some(SMART_SIGNATURE));
        let mut fails = WELL;
        (fails[17], fails[19]) = FAILS_SIGNATURE;
        let health = read(&page(&[]), &page(&[]), &fails);
        assert!(health.is_some_and(|health| health.fails_soon));
        let fixed = [0x70, 0, 1, 0, 0x50, 0, 0, 10, 0, 0, 0xf4, 0x2c, 0, 0x1d];
        assert_eq!(registers(&fixed), Some(FAILS_SIGNATURE));
        // Another descriptor before it, one that is cut off, and nothing.
        let mut second = [0_u8; 26];
        second[..8].copy_from_slice(&WELL[..8]);
        (second[8], second[9]) = (2, 2);
        second[12..].copy_from_slice(&WELL[8..]);
        assert_eq!(registers(&second), Some(SMART_SIGNATURE));
        assert_eq!(registers(&second[..25]), None);
        assert_eq!(registers(&[]), None);
    }

    #[test]
    fn questions_are_those_of_the_standard() {
        assert_eq!(size_of::<Header>(), 88, "as the kernel has it");
        let data = words(SMART, READ_DATA, true);
        assert_eq!(
            data,
            [0x85, 8, 0x0e, 0, 0xd0, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]
        );
        let mut about = [0; PAGE_BYTES];
        assert!(!keeps_figures(&about));
        (about[164], about[170]) = (1, 1);
        assert!(keeps_figures(&about));
        assert!(health(Path::new("/dev/null")).is_err());
    }
}
