//! How a medium of ours is laid out: names, kinds, ids. The agent finds its partitions by these.
//!
//! ```text
//! LBA 0     protective MBR (the stick: with syslinux' boot code)
//! LBA 1     GPT
//! 1 MiB     partition 1: EFI system partition, FAT32, labelled STEADING
//! behind it partition 2: the base, erofs                                   (number 3 is kept for its successor)
//! end       backup GPT
//! ```

/// Kind of the EFI system partition.
pub const ESP_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// Kind of a partition that holds a base.
pub const BASE_TYPE: &str = "53544541-4449-4E47-8000-424153450001";
/// Kind of a partition that a node has claimed.
pub const CLAIM_TYPE: &str = "53544541-4449-4E47-8000-4449534B0001";
/// Label of the FAT file system, and name of its partition.
pub const LABEL: &str = "STEADING";
/// Name of the base's partition.
pub const BASE_NAME: &str = "steading-base";
/// Where partitions begin and end: multiples of this.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;
/// Length of the system partition of a medium that only carries `farmer.toml`. FAT32 begins at 65525 clusters.
pub const SMALL_ESP_BYTES: u64 = 34 << 20;
/// Length of the system partition of a stick: room for kernel and initramfs twice.
pub const STICK_ESP_BYTES: u64 = 256 << 20;
/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
