//! The stick: a medium that also starts, from BIOS and from UEFI, with Secure Boot on.
//!
//! ```text
//! BIOS   gptmbr (LBA 0) ─▶ the partition with the boot bit ─▶ ldlinux.sys ─▶ syslinux.cfg ─┐
//! UEFI   EFI/BOOT/BOOTX64.EFI (shim) ─▶ grubx64.efi ─▶ EFI/debian/grub.cfg ────────────────┴▶ steading/a/{vmlinuz,initramfs}
//! ```
//!
//! shim, GRUB and kernel carry Debian's signatures, so firmware that checks them lets them through. GRUB does not check
//! the initramfs: that is what measured boot is for. `steading/b` is kept for the next version beside this one.

use crate::disk::{self, ESP_START_BYTES, Medium};
use crate::fat::Content;
use crate::layout::{LABEL, STICK_CLUSTER_BYTES, STICK_ESP_BYTES};
use anyhow::{Context, Result};
use packages::program::{pinned, run};
use std::path::Path;

/// What a stick is made of.
#[derive(Debug)]
pub struct Stick<'a> {
    /// The signed kernel.
    pub vmlinuz: &'a Path,
    /// The initramfs, compressed with zstd.
    pub initramfs: &'a Path,
    /// The base.
    pub base: &'a Path,
    /// What the farmer edits.
    pub farmer_toml: &'a str,
    /// Its bill of materials.
    pub bill: &'a str,
    /// The licences of what is in it.
    pub licences: &'a str,
    /// Unpacked boot loaders.
    pub boot: &'a Path,
    /// Unpacked tools, and the sysroot whose loader starts them.
    pub tools: &'a Path,
    /// The sysroot.
    pub sysroot: &'a Path,
}

/// `farmer.toml` with every key asleep.
pub const FARMER_TOML: &str = include_str!("../farmer.toml");

/// The kernel's command line: both consoles, warnings only, and after a panic a new start instead of a dark screen.
pub const COMMAND_LINE: &str = "console=tty0 console=ttyS0,115200 loglevel=4 panic=30";

/// Writes the stick to `path`.
pub fn write(path: &Path, stick: &Stick) -> Result<()> {
    let signed = |name: &str| Content::File(stick.boot.join("usr/lib").join(name));
    let text = |text: String| Content::Bytes(text.into_bytes());
    let files = vec![
        ("farmer.toml", text(stick.farmer_toml.to_owned())),
        ("EFI/BOOT/BOOTX64.EFI", signed("shim/shimx64.efi.signed")),
        (
            "EFI/BOOT/grubx64.efi",
            signed("grub/x86_64-efi-signed/grubx64.efi.signed"),
        ),
        ("EFI/BOOT/mmx64.efi", signed("shim/mmx64.efi.signed")),
        ("EFI/debian/grub.cfg", text(grub_cfg())),
        ("syslinux.cfg", text(syslinux_cfg())),
        ("steading/a/vmlinuz", Content::File(stick.vmlinuz.to_owned())),
        ("steading/a/initramfs", Content::File(stick.initramfs.to_owned())),
        ("steading/a/bill.cdx.json", text(stick.bill.to_owned())),
        ("steading/a/licences.txt", text(stick.licences.to_owned())),
    ];
    let boot_code = stick.boot.join("usr/lib/syslinux/mbr/gptmbr.bin");
    let boot_code = std::fs::read(&boot_code).with_context(|| format!("reading {}", boot_code.display()))?;
    let medium = Medium {
        esp_bytes: STICK_ESP_BYTES,
        cluster_bytes: STICK_CLUSTER_BYTES,
        files,
        base: stick.base,
        boot_code: Some(
            boot_code
                .try_into()
                .map_err(|_| anyhow::anyhow!("the boot code is not 440 bytes long"))?,
        ),
    };
    let partial = path.with_extension("partial");
    disk::write(&partial, &medium)?;
    install_syslinux(&partial, stick)?;
    std::fs::rename(&partial, path).with_context(|| format!("moving to {}", path.display()))
}

/// Debian's GRUB looks for its configuration below EFI/debian of the partition that it was started from.
pub fn grub_cfg() -> String {
    format!(
        "set timeout=0\nsearch --no-floppy --label {LABEL} --set=root\n\
         linux /steading/a/vmlinuz {COMMAND_LINE}\ninitrd /steading/a/initramfs\nboot\n"
    )
}

fn syslinux_cfg() -> String {
    format!(
        "DEFAULT steading\nPROMPT 0\nLABEL steading\n  LINUX /steading/a/vmlinuz\n  INITRD /steading/a/initramfs\n  \
         APPEND {COMMAND_LINE}\n"
    )
}

/// Puts ldlinux.sys into the system partition and its place into the partition's first sector. The installer works on
/// the file through mtools: no root, no mount.
fn install_syslinux(image: &Path, stick: &Stick) -> Result<()> {
    run(pinned(&[stick.tools, stick.sysroot], "usr/bin/syslinux")?
        .env("SOURCE_DATE_EPOCH", "1767225600")
        .arg("--install")
        .arg("--offset")
        .arg(ESP_START_BYTES.to_string())
        .arg(image))
    .context("installing syslinux")
}
