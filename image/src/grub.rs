//! GRUB for a BIOS: one program, which a disk's first sector and a CD's firmware both start.
//!
//! ```text
//! disk  boot.img (LBA 0) ──────────────► ┌ second part: diskboot.img ┐
//!                                        │                           ├─► GRUB with its modules ─► EFI/debian/grub.cfg
//! CD    El Torito ─► cdboot.img ─────────┴───────────────────────────┘
//! ```
//!
//! The places that GRUB's own installer would write into these (grub-core/boot/i386/pc, include/grub/i386/pc/boot.h) are
//! filled in here: that installer wants a device.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use packages::program::{pinned, run};

use crate::cd::{CD_SECTOR_BYTES, LOADER_SECTOR};
use crate::layout::SECTOR_BYTES;

/// What it needs to read the stick and the CD, to start Linux, and to say why it cannot.
const MODULES: &[&str] = &[
    "biosdisk", "part_gpt", "fat", "normal", "linux", "regexp", "test", "cpuid", "echo", "sleep", "serial",
    "terminal", "halt", "reboot",
];
/// Where it looks for its configuration: on the first partition of what it was started from.
const PREFIX: &str = "(,gpt1)/EFI/debian";

/// Where boot.img says from which sector the rest is loaded.
const KERNEL_SECTOR: usize = 0x5C;
/// Where diskboot.img, at the end of its sector, says from which sector the rest is loaded.
const BLOCK_LIST: usize = 512 - 12;
/// Where cdboot.img has its boot information table: volume descriptor, own sector, length, sum.
const INFORMATION: usize = 8;
/// What the sum is of begins here.
const SUMMED: usize = 64;

/// The loader, ready to be put at [`LOADER_SECTOR`], and the code of the disk's first sector.
///
/// `boot`: unpacked loaders; `trees`: where the maker's program and its libraries are; `scratch`: written and removed.
///
/// # Errors
/// When the program fails, or its parts are not what they were.
pub fn build(boot: &Path, trees: &[&Path], scratch: &Path) -> Result<(Vec<u8>, [u8; 440])> {
    let folder = boot.join("usr/lib/grub/i386-pc");
    run(pinned(trees, "usr/bin/grub-mkimage")?
        .args(["-O", "i386-pc-eltorito", "-p", PREFIX, "-d"])
        .arg(&folder)
        .arg("-o")
        .arg(scratch)
        .args(MODULES))
    .context("making GRUB for a BIOS")?;
    let mut loader = std::fs::read(scratch).with_context(|| format!("reading {}", scratch.display()))?;
    std::fs::remove_file(scratch)?;
    fill_in(&mut loader)?;
    let path = folder.join("boot.img");
    let mut first = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(first.len() == 512, "{} is not one sector", path.display());
    first[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&second_part().to_le_bytes());
    Ok((loader, first[..440].try_into()?))
}

/// The disk's sector where the second part, behind cdboot.img, begins.
const fn second_part() -> u64 {
    (LOADER_SECTOR + 1) * CD_SECTOR_BYTES / SECTOR_BYTES
}

fn fill_in(loader: &mut Vec<u8>) -> Result<()> {
    let cd = CD_SECTOR_BYTES as usize;
    loader.resize(loader.len().next_multiple_of(cd), 0);
    ensure!(loader.len() > 2 * cd, "GRUB for a BIOS is too short");
    let list = cd + BLOCK_LIST;
    loader[list..list + 8].copy_from_slice(&(second_part() + 1).to_le_bytes());
    let sum = loader[SUMMED..].chunks_exact(4).fold(0u32, |sum, word| {
        sum.wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    });
    let length = u32::try_from(loader.len())?;
    for (index, word) in [16, LOADER_SECTOR as u32, length, sum].into_iter().enumerate() {
        let at = INFORMATION + 4 * index;
        loader[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    Ok(())
}
