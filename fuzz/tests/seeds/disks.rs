//! Seeds of what stands on disks, in the machine and in what the node's helpers say.

use escrow::{Amount, LockState, LockView, RailTime};
use market::id::{Digest, SaleId};
use market::quantity::Seconds;
use market::sale::{Deal, Now, Sale, Why};
use provision::journal::Journal;
use provision::step::StepState;

use super::{Seed, file};

/// As `crc32` counts: reflected, 0xedb88320.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

/// One EFI system partition, in a table of four entries, with sectors of 512 bytes.
fn gpt() -> Vec<u8> {
    let mut table = vec![0; 4 * 128];
    table[..16].copy_from_slice(&[
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ]);
    table[16..32].copy_from_slice(&[7; 16]);
    table[32..48].copy_from_slice(&[34, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0]);
    let mut header = vec![0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    header[32..40].copy_from_slice(&2047_u64.to_le_bytes());
    header[40..48].copy_from_slice(&34_u64.to_le_bytes());
    header[48..56].copy_from_slice(&2000_u64.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&4_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    let mut disk = vec![0; 512];
    disk[450] = 0xee;
    disk[458..462].copy_from_slice(&2047_u32.to_le_bytes());
    disk[454] = 1;
    disk[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(header);
    disk.resize(1024, 0);
    disk.extend(table);
    disk
}

/// A valid header with chunks of 64 KiB, then two pairs and the end of the list.
fn snapshot_store() -> Vec<u8> {
    let header = [0x7041_6e53_u32, 1, 1, 128];
    let pairs = [7_u64, 2, 3, 3, 0, 0];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(pairs.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

fn swap() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&1023_u32.to_le_bytes());
    page[4086..].copy_from_slice(b"SWAPSPACE2");
    page
}

fn ext4() -> Vec<u8> {
    let mut disk = vec![0; 2048];
    let block = &mut disk[1024..];
    block[0x04..0x08].copy_from_slice(&16384_u32.to_le_bytes());
    block[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
    block[0x38..0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
    block[0x4c..0x50].copy_from_slice(&1_u32.to_le_bytes());
    block[0x5c..0x60].copy_from_slice(&4_u32.to_le_bytes());
    block[0x60..0x64].copy_from_slice(&0x42_u32.to_le_bytes());
    block[0x68..0x78].copy_from_slice(&[0xab; 16]);
    block[0x78..0x7e].copy_from_slice(b"backup");
    disk
}

fn sale() -> Sale {
    let now = Now {
        rail: RailTime(1_764_000_000_000),
        boot_ms: 5_000,
    };
    let deal = Deal {
        id: SaleId([1; 32]),
        prices: market::prices::Prices::of(Amount(400_000)),
        period: Seconds(3600),
        periods: 3,
        notice: Seconds(86_400),
    };
    let mut sale = Sale::agreed(deal, now);
    sale.state = market::message::SaleState::Active;
    sale.ready_at = Some(now.rail);
    sale.why = Some(Why::Stopped);
    sale.lock = LockView {
        state: LockState::Active,
        funded: Amount(1_200_000),
        paid: Amount(400_000),
        accept_by: RailTime(1_764_001_800_000),
        expiry: RailTime(1_764_100_000_000),
        close_asked: None,
    };
    sale
}

fn journal() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    drop(Journal::create(&path).unwrap());
    std::fs::read(path).unwrap()
}

/// As QEMU's disk answers: three attributes, one of them warm; their limits; the registers of a disk that is well.
fn smart() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let attributes: [[u8; 12]; 3] = [
        [5, 3, 0, 36, 36, 0, 0, 0, 0, 0, 0, 0],
        [190, 3, 0, 0x45, 0x45, 0x1f, 0, 0x1f, 0x1f, 0, 0, 0],
        [197, 0x32, 0, 100, 100, 8, 0, 0, 0, 0, 0, 0],
    ];
    bytes[0] = 1;
    bytes[512] = 1;
    for (index, attribute) in attributes.iter().enumerate() {
        let at = 2 + index * 12;
        bytes[at..at + 12].copy_from_slice(attribute);
        (bytes[512 + at], bytes[512 + at + 1]) = (attribute[0], 36);
    }
    bytes.extend([
        0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 0, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0x50,
    ]);
    bytes
}

/// A boot as PID 1 and the agent write it down.
const BOOT: &str = "beat 1000 2000000\nphase before -800 0 -\nphase kernel 0 3100 loader,before\nphase init 3100 3160 kernel\n\
                    phase agent 3160 3400 init\nphase modules 3160 4200 init\nphase disks 4200 5000 medium,modules\n";

pub fn all() -> Vec<Seed> {
    let spec = format!(
        r#"{{"sale":"{0}","user":"{0}","name":"calm-otter","cpu":500,"memory":536870912,"disk":2147483648,"rate":100000000,"pids":1024,"base":"{1}","group":"g","public_port":4022}}"#,
        SaleId([1; 32]),
        Digest([0xba; 32])
    );
    let record = format!(
        r#"{{"spec":{spec},"place":{{"user_index":1,"space_index":1,"first_id":1000000}},"phase":"active"}}"#
    );
    let step = StepState::UndoFailed {
        cause: "busy".to_owned(),
    };
    let modules = "kernel/a.ko.xz: kernel/b.ko.xz\nkernel/b.ko.xz:\n--\nalias pci:v00001AF4d* a\n--\nsoftdep a pre: b\n--\nkernel/c.ko\n";
    let report = r#"  WARNING: something
{"report":[{"vg":[{"vg_name":"steading-a-b","vg_uuid":"u","vg_size":"8585740288","vg_free":"0","vg_tags":"x,y","vg_missing_pv_count":"0"}]}]}"#;
    let image = format!(
        r#"{{"version":"0.1.0","kernel":"6.12","base_digest":"{}","base_bytes":1,"seccomp":null}}"#,
        Digest([0xba; 32])
    );
    let text = |target, name: &str, text: &str| (target, name.to_owned(), text.as_bytes().to_vec());
    vec![
        ("partition_table", "gpt".into(), gpt()),
        ("disk_probe", "gpt".into(), gpt()),
        ("disk_probe", "swap".into(), swap()),
        ("disk_probe", "ext4".into(), ext4()),
        ("disk_probe", "zero".into(), vec![0; 16]),
        text("disk_consent", "line", "/dev/vdb, 8GiB, ext4 0a0b"),
        text("image_json", "image", &image),
        ("sale_record", "sale".into(), serde_json::to_vec(&sale()).unwrap()),
        text("sale_record", "spec", &spec),
        text("space_record", "record", &record),
        ("space_record", "step".into(), serde_json::to_vec(&step).unwrap()),
        text(
            "space_record",
            "node",
            r#"{"generation":3,"groups":["steading-a-b"]}"#,
        ),
        ("journal_file", "empty".into(), journal()),
        (
            "inventory",
            "firecracker".into(),
            file("crates/inventory/tests/trees/firecracker.tree"),
        ),
        (
            "inventory",
            "hostile".into(),
            file("crates/inventory/tests/trees/hostile.tree"),
        ),
        text("lvm_report", "groups", report),
        ("snapshot_store", "two".into(), snapshot_store()),
        (
            "luks_header",
            "ours".into(),
            file("crates/storage/src/luks/header.json"),
        ),
        text("space_answer", "started", r#"{"pid":4}"#),
        text("space_answer", "failed", r#"{"step":"execute","error":"no"}"#),
        text("module_lists", "some", modules),
        ("disk_smart", "warm".into(), smart()),
        text("boot_report", "boot", BOOT),
    ]
}
