//! How a medium of ours is laid out: names, kinds, ids. The agent finds its partitions by these.
//!
//! ```text
//! LBA 0     protective MBR (the stick: with GRUB's first sector)
//! LBA 1     GPT
//! 32 KiB    of the stick: what makes it a CD as well, and GRUB for BIOS (src/cd.rs)
//! 1 MiB     partition 1: EFI system partition, FAT32, labelled STEADING
//! behind it partition 2: the base, erofs                                   (number 3 is kept for its successor)
//! end       backup GPT
//! ```
//!
//! The values stand in `image/layout.toml`, for this way of making a medium and for the one from source. They are read
//! while this is compiled: a key that is missing, or a number that is none, does not compile.

/// Kind of the EFI system partition.
pub const ESP_TYPE: &str = text("esp_type");
/// Id of the system partition: fixed, so that the same input gives the same bytes.
pub const ESP_ID: &str = text("esp_id");
/// Kind of a partition that holds a base.
pub const BASE_TYPE: &str = text("base_type");
/// Id of the base's partition.
pub const BASE_ID: &str = text("base_id");
/// Kind of a partition that a node has claimed.
pub const CLAIM_TYPE: &str = text("claim_type");
/// Id of the medium.
pub const DISK_ID: &str = text("disk_id");
/// Label of the FAT file system, and name of its partition.
pub const LABEL: &str = text("esp_name");
/// Serial number of the FAT file system, in hex.
pub const FAT_SERIAL: &str = text("fat_serial");
/// Name of the base's partition.
pub const BASE_NAME: &str = text("base_name");
/// Where partitions begin and end: multiples of this.
pub const ALIGNMENT_BYTES: u64 = number("alignment_bytes");
/// Length of the system partition of a medium that only carries `farmer.toml`.
pub const SMALL_ESP_BYTES: u64 = number("small_esp_bytes");
/// Length of its clusters.
pub const SMALL_CLUSTER_BYTES: u64 = number("small_cluster_bytes");
/// Length of the system partition of a stick: room for kernel and initramfs twice.
pub const STICK_ESP_BYTES: u64 = number("stick_esp_bytes");
/// Length of its clusters.
pub const STICK_CLUSTER_BYTES: u64 = number("stick_cluster_bytes");
/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = number("sector_bytes");

/// The file itself.
pub const FILE: &str = include_str!("../layout.toml");

/// What stands behind `key = `, to the end of its line.
const fn value(key: &str) -> &'static str {
    let (file, key) = (FILE.as_bytes(), key.as_bytes());
    let mut line = 0;
    loop {
        assert!(line < file.len(), "layout.toml lacks a key");
        let mut end = line;
        while end < file.len() && file[end] != b'\n' {
            end += 1;
        }
        let mut same = 0;
        while same < key.len() && line + same < end && file[line + same] == key[same] {
            same += 1;
        }
        let behind = line + same + 3;
        if same == key.len()
            && behind <= end
            && file[behind - 3] == b' '
            && file[behind - 2] == b'='
            && file[behind - 1] == b' '
        {
            return FILE.split_at(end).0.split_at(behind).1;
        }
        line = end + 1;
    }
}

/// The value of `key` between its quotes.
const fn text(key: &str) -> &'static str {
    let quoted = value(key);
    let bytes = quoted.as_bytes();
    assert!(
        bytes.len() > 2 && bytes[0] == b'"' && bytes[bytes.len() - 1] == b'"',
        "a text of layout.toml stands between quotes"
    );
    quoted.split_at(bytes.len() - 1).0.split_at(1).1
}

/// The value of `key` in digits, which `_` may part.
const fn number(key: &str) -> u64 {
    let digits = value(key).as_bytes();
    assert!(!digits.is_empty());
    let (mut at, mut sum) = (0, 0);
    while at < digits.len() {
        if digits[at] != b'_' {
            assert!(
                digits[at].is_ascii_digit(),
                "a number of layout.toml is in digits"
            );
            sum = sum * 10 + (digits[at] - b'0') as u64;
        }
        at += 1;
    }
    sum
}
