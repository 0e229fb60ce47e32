//! Makes what a node's disk holds: the base of all spaces, and the media that it starts from.
//!
//! ```text
//! base      packages ── mmdebstrap ──▶ tar ── mkfs.erofs ──▶ base.erofs with its tree of hashes, known by its SHA-256
//! medium    GPT: 1 STEADING (FAT32: farmer.toml)                                     2 base   for QEMU, beside kernel
//! stick     GPT: 1 STEADING (FAT32: farmer.toml, steading/a/…, boot loaders)         2 base   for a USB stick or a CD
//! ```
//!
//! Invariants: no root, no loop device, no mount; `medium` and `stick` are one code; the same input gives the same bytes.

pub mod base;
pub mod bill;
pub mod cd;
pub mod disk;
pub mod fat;
pub mod forms;
pub mod grub;
pub mod layout;
pub mod stick;
pub mod verity;
