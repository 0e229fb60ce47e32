#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

use std::io::{self, Cursor};
use std::path::Path;

use farmer::table;

use super::disks::{self, Refusal};
use super::medium::{Medium, Opened};
use super::settings::SettingsError;
use super::source::{Signed, Source, SourceError, sum_of};
use super::write::{FlashError, change, flash, places};
use super::{BLOCK, Progress, Stage};

const MIB: u64 = 1 << 20;
/// FAT32 begins at 65525 clusters; FAT16 will do here, and any FAT is read alike.
const ESP_BYTES: u64 = 8 * MIB;
const TEMPLATE: &str = include_str!("../../../image/farmer.toml");

/// A small image as ours are: a table, a FAT with `farmer.toml`, a base.
fn image(farmer_toml: &str) -> Vec<u8> {
    let bytes = 16 * MIB;
    let mut image: Vec<u8> = (0..bytes).map(|at| (at / 777) as u8).collect();
    image[..BLOCK].fill(0);
    let esp = MIB as usize..(MIB + ESP_BYTES) as usize;
    let mut fat = Cursor::new(vec![0; ESP_BYTES as usize]);
    fatfs::format_volume(&mut fat, fatfs::FormatVolumeOptions::new()).unwrap();
    {
        let system = fatfs::FileSystem::new(&mut fat, fatfs::FsOptions::new()).unwrap();
        let mut file = system.root_dir().create_file("farmer.toml").unwrap();
        io::Write::write_all(&mut file, farmer_toml.as_bytes()).unwrap();
    }
    image[esp].copy_from_slice(fat.get_ref());
    let entry = |kind: [u8; 16], first: u64, last: u64| {
        let mut entry = kind.to_vec();
        entry.resize(32, 1);
        entry.extend(first.to_le_bytes());
        entry.extend(last.to_le_bytes());
        entry.resize(128, 0);
        entry
    };
    let esp_type = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ];
    let base_type = [
        0x41, 0x45, 0x54, 0x53, 0x49, 0x44, 0x47, 0x4e, 0x80, 0x00, 0x42, 0x41, 0x53, 0x45, 0x00, 0x01,
    ];
    let mut entries = entry(esp_type, 2048, (MIB + ESP_BYTES) / 512 - 1);
    entries.extend(entry(base_type, (MIB + ESP_BYTES) / 512, 15 * MIB / 512 - 1));
    entries.resize(128 * 128, 0);
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&table::crc32(&entries).to_le_bytes());
    let sum = table::crc32(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    image[512..1024].copy_from_slice(&header);
    image[1024..1024 + entries.len()].copy_from_slice(&entries);
    image
}

/// How a stick behaves: what it claims, what it has, what becomes of the rest.
struct Stick {
    held: Vec<u8>,
    claims: u64,
    lie: Lie,
    writes: usize,
    fails_at: Option<usize>,
}

#[derive(Clone, Copy)]
enum Lie {
    /// Behind its end it begins anew.
    Wraps,
    /// Behind its end nothing is kept.
    Forgets,
    /// It keeps everything, but for one bit.
    Flips(usize),
}

impl Stick {
    fn honest(bytes: u64) -> Stick {
        Stick::lying(bytes, bytes, Lie::Wraps)
    }

    fn lying(has: u64, claims: u64, lie: Lie) -> Stick {
        Stick {
            held: vec![0xA5; has as usize],
            claims,
            lie,
            writes: 0,
            fails_at: None,
        }
    }
}

impl Medium for Stick {
    fn bytes(&self) -> u64 {
        self.claims
    }

    fn may_lie(&self) -> bool {
        true
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let has = self.held.len() as u64;
        for (offset, byte) in into.iter_mut().enumerate() {
            let place = at + offset as u64;
            *byte = match self.lie {
                Lie::Wraps => self.held[(place % has) as usize],
                Lie::Forgets if place >= has => 0,
                _ => self.held[place as usize],
            };
        }
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.writes += 1;
        if self.fails_at == Some(self.writes) {
            return Err(io::Error::other("unplugged"));
        }
        let has = self.held.len() as u64;
        for (offset, byte) in bytes.iter().enumerate() {
            let place = at + offset as u64;
            match self.lie {
                Lie::Wraps => self.held[(place % has) as usize] = *byte,
                Lie::Forgets if place >= has => {}
                Lie::Flips(bit) if place == bit as u64 => self.held[place as usize] = *byte ^ 4,
                _ => self.held[place as usize] = *byte,
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_back(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read(at, into)
    }
}

fn keys(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn put(
    stick: &mut Stick,
    image: &[u8],
    pairs: &[(&str, &str)],
) -> (Result<farmer::Reading, FlashError>, Stage) {
    let progress = Progress::default();
    let done = flash(
        stick,
        &mut &image[..],
        Some(image.len() as u64),
        &keys(pairs),
        &progress,
    );
    (done.map(|done| done.reading), progress.stage())
}

#[test]
fn a_good_stick_gets_the_image_the_settings_and_a_table_to_its_end() {
    let image = image(TEMPLATE);
    let mut stick = Stick::honest(50 * MIB + 512);
    let (reading, stage) = put(&mut stick, &image, &[("name", "barn-1"), ("price", "0.4")]);
    let reading = reading.unwrap();
    assert_eq!(stage, Stage::Whole);
    assert_eq!(reading.farmer.name.as_deref(), Some("barn-1"));
    assert_eq!(change(&mut stick, &[]).unwrap().mark, reading.mark);
    // The base is what the image has; the copy of the table is the last sector, and nothing of the marks is left.
    let base = (MIB + ESP_BYTES) as usize..15 * MIB as usize;
    assert!(stick.held[base.clone()] == image[base]);
    let last = stick.held.len() - 512;
    assert_eq!(&stick.held[last..last + 8], b"EFI PART");
    let marked = places(stick.claims)
        .into_iter()
        .filter(|at| *at >= 16 * MIB && at + 40_000 < stick.claims);
    for at in marked {
        assert!(
            stick.held[at as usize..at as usize + 4096]
                .iter()
                .all(|byte| *byte == 0),
            "{at}"
        );
    }
    // Another name on the same stick: nothing else moves.
    let before = stick.held.clone();
    let reading = change(&mut stick, &keys(&[("name", "attic")])).unwrap();
    assert_eq!(reading.farmer.name.as_deref(), Some("attic"));
    assert_eq!(reading.farmer.price.map(|price| price.0), Some(400_000));
    let outside = |held: &[u8]| held[(MIB + ESP_BYTES) as usize..].to_vec();
    assert!(outside(&before) == outside(&stick.held));
}

#[test]
fn a_stick_that_claims_more_than_it_has_is_found_out_before_the_image_is_written() {
    let image = image(TEMPLATE);
    for (has, claims, lie) in [
        (32 * MIB, 64 * MIB, Lie::Wraps),
        (32 * MIB, 96 * MIB, Lie::Wraps),
        (20 * MIB, 64 * MIB, Lie::Forgets),
        (63 * MIB, 64 * MIB, Lie::Forgets),
    ] {
        let mut stick = Stick::lying(has, claims, lie);
        let (done, stage) = put(&mut stick, &image, &[]);
        assert!(
            matches!(done, Err(FlashError::Lies { .. })),
            "{has} of {claims}: {done:?}"
        );
        assert_eq!(stage, Stage::Marks);
        // The control: of the size that it has, the same stick is good.
        let (done, _) = put(&mut Stick::honest(has), &image, &[]);
        assert!(done.is_ok(), "{done:?}");
    }
}

#[test]
fn one_bit_that_did_not_stay_is_found_and_the_stick_starts_nothing() {
    let image = image(TEMPLATE);
    for place in [
        12 * MIB as usize + 5,
        16 * MIB as usize - 1,
        3 * MIB as usize + 70_001,
    ] {
        let mut stick = Stick::lying(40 * MIB, 40 * MIB, Lie::Flips(place));
        let (done, stage) = put(&mut stick, &image, &[]);
        let Err(FlashError::Differs { at }) = done else {
            panic!("{place}: {done:?}");
        };
        assert_eq!(at, place as u64 / MIB * MIB);
        assert_eq!(stage, Stage::ReadBack);
        assert!(
            stick.held[..BLOCK].iter().all(|byte| *byte == 0),
            "no table, no boot code"
        );
    }
}

#[test]
fn wherever_it_is_unplugged_or_stopped_it_starts_nothing_unless_whole() {
    let image = image(TEMPLATE);
    let mut whole = Stick::honest(24 * MIB);
    put(&mut whole, &image, &[]).0.unwrap();
    let mut ended = Vec::new();
    for fails_at in 1..=whole.writes {
        let mut stick = Stick::honest(24 * MIB);
        stick.fails_at = Some(fails_at);
        let (done, stage) = put(&mut stick, &image, &[]);
        assert!(matches!(done, Err(FlashError::Medium { doing: "written", .. })));
        assert!(
            fails_at == 1 || stick.held[..BLOCK].iter().all(|byte| *byte == 0),
            "write {fails_at}"
        );
        ended.push(stage);
    }
    ended.dedup();
    assert_eq!(ended, [Stage::Marks, Stage::Image, Stage::Last]);
    let progress = Progress::default();
    progress.stop();
    let mut stick = Stick::honest(24 * MIB);
    let stopped = flash(&mut stick, &mut &image[..], None, &[], &progress);
    assert!(matches!(stopped, Err(FlashError::Stopped)));
    assert!(progress.words().contains("half written"));
}

#[test]
fn nothing_is_touched_for_what_would_not_do() {
    let image = image(TEMPLATE);
    let mut small = Stick::honest(8 * MIB);
    let (done, stage) = put(&mut small, &image, &[]);
    assert!(matches!(done, Err(FlashError::TooSmall { .. })) && stage == Stage::Untouched);
    let mut stick = Stick::honest(24 * MIB);
    let wallet = format!("steading:{}:{}00000000", "0".repeat(32), "1".repeat(64));
    for (image, pairs) in [
        (&vec![0; 4 * BLOCK], vec![]),
        (&image, vec![("wallet", wallet.as_str())]),
    ] {
        let (done, stage) = put(&mut stick, image, &pairs);
        assert!(
            matches!(done, Err(FlashError::NotOurs | FlashError::Settings(_))),
            "{done:?}"
        );
        assert_eq!((stage, stick.writes), (Stage::Untouched, 0));
    }
    let refused = change(&mut stick, &keys(&[("name", "a")]));
    assert!(matches!(
        refused,
        Err(FlashError::Settings(SettingsError::NotOurs))
    ));
}

#[test]
fn a_broken_file_system_is_said_to_be_one() {
    let mut stick = Stick::honest(24 * MIB);
    put(&mut stick, &image(TEMPLATE), &[]).0.unwrap();
    let good = stick.held.clone();
    for spoilt in [MIB as usize + 11, MIB as usize + 14, MIB as usize + 510] {
        stick.held.copy_from_slice(&good);
        stick.held[spoilt] ^= 0xFF;
        let before = stick.held.clone();
        assert!(change(&mut stick, &keys(&[("name", "a")])).is_err(), "{spoilt}");
        assert!(stick.held == before, "nothing was written");
    }
}

#[test]
fn a_file_is_as_good_as_a_stick() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.img"), folder.path().join("to.img"));
    let image = image(TEMPLATE);
    std::fs::write(&from, &image).unwrap();
    let progress = Progress::default();
    let source = Source::check(&from, None, &progress).unwrap();
    assert_eq!(
        (source.has_sum, source.signed, source.bytes),
        (false, Signed::No, Some(16 * MIB))
    );
    let mut file = Opened::new_file(&to, source.length().unwrap()).unwrap();
    flash(
        &mut file,
        &mut source.open().unwrap(),
        source.bytes,
        &keys(&[("name", "a")]),
        &progress,
    )
    .unwrap();
    let reading = change(&mut Opened::old_file(&to).unwrap(), &[]).unwrap();
    assert_eq!(reading.farmer.name.as_deref(), Some("a"));
    // The sum beside it, right and wrong, alone and in a line, and one of another file.
    let sum = from.with_file_name("from.img.sha256");
    let wrong = "0".repeat(64);
    for (text, is_good) in [
        (format!("{}\n", source.sha256), true),
        (format!("{wrong}  other.img\n{}  from.img\n", source.sha256), true),
        (format!("{wrong} *from.img\n"), false),
        (format!("{}  other.img\n", source.sha256), false),
    ] {
        std::fs::write(&sum, &text).unwrap();
        assert_eq!(Source::check(&from, None, &progress).is_ok(), is_good, "{text}");
    }
    assert_eq!(sum_of("nonsense", "x"), None);
    std::fs::remove_file(sum).unwrap();
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    assert!(matches!(
        Source::check(&from, Some(key), &progress),
        Err(SourceError::NoSignature(_))
    ));
    assert!(matches!(
        Source::check(&from, Some("RWQ"), &progress),
        Err(SourceError::Key(_))
    ));
}

/// The README's example of minisign: a file that holds "test", its key, its signature.
#[test]
fn a_signature_of_stock_minisign_holds_for_its_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.img");
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let signature = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1556193335\tfile:test\n\
        y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==";
    std::fs::write(folder.path().join("x.img.minisig"), signature).unwrap();
    let progress = Progress::default();
    std::fs::write(&file, "test").unwrap();
    assert_eq!(
        Source::check(&file, Some(key), &progress).unwrap().signed,
        Signed::Good
    );
    assert_eq!(
        Source::check(&file, None, &progress).unwrap().signed,
        Signed::Unchecked
    );
    let in_file = folder.path().join("minisign.pub");
    std::fs::write(&in_file, format!("untrusted comment: x\n{key}\n")).unwrap();
    assert!(Source::check(&file, in_file.to_str(), &progress).is_ok());
    std::fs::write(&file, "Test").unwrap();
    let bad = Source::check(&file, Some(key), &progress);
    assert!(matches!(bad, Err(SourceError::Signature { .. })), "{bad:?}");
}

/// A machine with an NVMe disk that it runs from, a stick, a mounted stick, a card, and a disk below LVM.
fn machine(root: &Path) {
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for (number, (name, bus, removable)) in [
        ("nvme0n1", "pci0/nvme/nvme0", "0"),
        ("sda", "pci0/ata1/host0/target0/0:0:0:0", "0"),
        ("sdb", "pci0/usb1/1-1/1-1:1.0/host6/target6/6:0:0:0", "1"),
        ("sdc", "pci0/usb1/1-2/1-2:1.0/host7/target7/7:0:0:0", "0"),
        ("sdd", "pci0/ata2/host1/target1/1:0:0:0", "0"),
    ]
    .into_iter()
    .enumerate()
    {
        let place = format!("sys/devices/{bus}/block/{name}");
        let part = if name.ends_with(|c: char| c.is_ascii_digit()) {
            format!("{name}p1")
        } else {
            format!("{name}1")
        };
        for (file, text) in [
            ("size", "31260672"),
            ("removable", removable),
            ("ro", "0"),
            ("queue/logical_block_size", "512"),
            ("dev", &format!("8:{}", number * 16)),
            ("device/model", "Ultra"),
            (&format!("{part}/partition"), "1"),
            (&format!("{part}/dev"), &format!("8:{}", number * 16 + 1)),
        ] {
            put(&format!("{place}/{file}"), text);
        }
        std::fs::create_dir_all(root.join("sys/block")).unwrap();
        std::os::unix::fs::symlink(
            format!("../devices/{bus}/block/{name}"),
            root.join("sys/block").join(name),
        )
        .unwrap();
    }
    put(
        "sys/devices/pci0/ata2/host1/target1/1:0:0:0/block/sdd/sdd1/holders/dm-0",
        "",
    );
    put("sys/devices/virtual/block/dm-0/dev", "253:0");
    std::os::unix::fs::symlink("../devices/virtual/block/dm-0", root.join("sys/block/dm-0")).unwrap();
    put(
        "proc/self/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/nvme0n1p1 rw\n30 22 8:49 / /media/My\\040Stick rw shared:1 - vfat /dev/sdc1 rw\n\
         31 22 253:0 / /srv rw - ext4 /dev/mapper/a rw\n",
    );
    put("proc/swaps", "Filename Type Size Used Priority\n");
    put(
        "run/udev/data/b8:33",
        "I:1\nE:ID_FS_TYPE=vfat\nE:ID_FS_LABEL=KEYS\n",
    );
}

#[test]
fn only_sticks_that_nothing_uses_are_written() {
    let root = tempfile::tempdir().unwrap();
    machine(root.path());
    let found = disks::find(root.path());
    let refusal = |name: &str, any| found.iter().find(|disk| disk.name == name).unwrap().refusal(any);
    assert_eq!(refusal("sdb", false), None);
    assert_eq!(refusal("sda", false), Some(Refusal::BuiltIn));
    assert_eq!(refusal("sda", true), None);
    // Whatever was said: what runs this machine, what is mounted, what lies below something mounted.
    for any in [false, true] {
        assert!(matches!(refusal("nvme0n1", any), Some(Refusal::System(_))));
        let Some(Refusal::InUse(uses)) = refusal("sdc", any) else {
            panic!()
        };
        assert_eq!(uses, "sdc1 is mounted at /media/My Stick");
        let Some(Refusal::InUse(uses)) = refusal("sdd", any) else {
            panic!()
        };
        assert!(
            uses.contains("dm-0 stands on sdd1") && uses.contains("mounted at /srv"),
            "{uses}"
        );
    }
    let stick = found.iter().find(|disk| disk.name == "sdb").unwrap();
    assert_eq!(stick.holds.as_deref(), Some("vfat \"KEYS\""));
    let mut odd = stick.clone();
    odd.sector_bytes = 4096;
    assert_eq!(odd.refusal(true), Some(Refusal::Sectors(4096)));
    odd.bytes = 0;
    assert_eq!(odd.refusal(true), Some(Refusal::Empty));
    assert!(disks::find_any(root.path(), "nothing").is_none());
}
