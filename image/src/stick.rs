//! The stick: a medium that also starts, from BIOS and from UEFI, with Secure Boot on.
//!
//! ```text
//! BIOS   boot.img (LBA 0), or a CD's catalog ─▶ GRUB (before partition 1) ─┐
//! UEFI   EFI/BOOT/BOOTX64.EFI (shim) ─▶ grubx64.efi ───────────────────────┴▶ EFI/debian/grub.cfg ─▶ steading/a/{vmlinuz,initramfs}
//! ```
//!
//! The image is a CD as well ([`crate::cd`]).
//!
//! Where the initramfs does not fit or cannot be read, PID 1 starts alone (`steading/a/first`) and says which it is, on every
//! console.
//!
//! shim, GRUB and kernel carry Debian's signatures, so firmware that checks them lets them through. GRUB does not check
//! the initramfs: that is what measured boot is for. `steading/b` is kept for the next version beside this one.

use crate::disk::{self, Medium, Starts};
use crate::fat::Content;
use crate::grub;
use crate::layout::{STICK_CLUSTER_BYTES, STICK_ESP_BYTES};
use anyhow::{Context, Result};
use std::path::Path;

/// What a stick is made of.
#[derive(Debug)]
pub struct Stick<'a> {
    /// The signed kernel.
    pub vmlinuz: &'a Path,
    /// The initramfs, compressed with zstd.
    pub initramfs: &'a Path,
    /// PID 1 alone, as an initramfs of its own.
    pub first: &'a Path,
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

/// What the kernel is told where the medium is a CD: the node looks for it among drives for CDs alone.
const CD_WORD: &str = "steading.cd";
/// Seconds for which a sentence of the loader stands on the screen.
const READ_WITHIN_S: u32 = 60;

/// Writes the stick to `path`.
pub fn write(path: &Path, stick: &Stick) -> Result<()> {
    let id = id(stick)?;
    let config = grub_cfg(&id);
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
        ("EFI/debian/grub.cfg", text(config.clone())),
        ("steading/a/image", text(format!("{id}\n"))),
        ("steading/a/vmlinuz", Content::File(stick.vmlinuz.to_owned())),
        ("steading/a/initramfs", Content::File(stick.initramfs.to_owned())),
        ("steading/a/first", Content::File(stick.first.to_owned())),
        ("steading/a/bill.cdx.json", text(stick.bill.to_owned())),
        ("steading/a/licences.txt", text(stick.licences.to_owned())),
    ];
    let partial = path.with_extension("partial");
    let (loader, code) = grub::build(
        stick.boot,
        &[stick.tools, stick.sysroot],
        &path.with_extension("grub"),
    )?;
    let medium = Medium {
        esp_bytes: STICK_ESP_BYTES,
        cluster_bytes: STICK_CLUSTER_BYTES,
        files,
        base: stick.base,
        starts: Some(Starts {
            code,
            loader,
            config: config.into_bytes(),
        }),
    };
    disk::write(&partial, &medium)?;
    std::fs::rename(&partial, path).with_context(|| format!("moving to {}", path.display()))
}

/// What the loader tells the kernel and the stick says of itself: a node knows by it which of several sticks it runs from.
fn id(stick: &Stick) -> Result<String> {
    let digest = packages::store::sha256(stick.initramfs)?;
    Ok(digest.chars().take(16).collect())
}

/// What GRUB does, whatever started it. Its root is then what it was started from: nothing is searched by label, for another
/// stick has the same. Of a CD, GRUB for UEFI knows the whole; what is needed is on the first partition of it. A BIOS counts
/// drives for CDs from E0h (hd96) on. `id`: of the image.
fn grub_cfg(id: &str) -> String {
    format!(
        "set timeout=0\n\
         set medium=\n\
         function stop {{\n\
         \x20 if [ \"$grub_platform\" = pc ]; then\n\
         \x20   serial --unit=0 --speed=115200\n\
         \x20   terminal_output console serial\n\
         \x20 fi\n\
         \x20 echo \"steading: $1\"\n\
         \x20 sleep {READ_WITHIN_S}\n\
         }}\n\
         if regexp '^(cd|hd9[6-9]|hd1[0-2][0-9])' \"$root\"; then set medium={CD_WORD}; fi\n\
         if regexp '^cd[0-9]*$' \"$root\"; then set root=\"$root,gpt1\"; fi\n\
         if cpuid -l; then\n\
         \x20 if linux /steading/a/vmlinuz {COMMAND_LINE} steading.image={id} $medium; then\n\
         \x20   if initrd /steading/a/initramfs; then boot; fi\n\
         \x20   if initrd /steading/a/first; then boot; fi\n\
         \x20   stop \"this machine has too little memory, and a node needs 1 GiB; or, if it has more, what is on this \
         medium cannot be read: write it anew. It starts again in {READ_WITHIN_S} s.\"\n\
         \x20 else\n\
         \x20   stop \"what is on this medium cannot be read: write it anew. It starts again in {READ_WITHIN_S} s.\"\n\
         \x20 fi\n\
         \x20 reboot\n\
         else\n\
         \x20 stop \"this machine has a 32-bit processor, and a node needs a 64-bit one (x86-64): use another machine. \
         It switches itself off in {READ_WITHIN_S} s.\"\n\
         \x20 halt\n\
         fi\n"
    )
}

/// What the loader of the build from source does, which is made of few modules.
pub fn short_grub_cfg() -> String {
    format!("set timeout=0\nlinux /steading/a/vmlinuz {COMMAND_LINE}\ninitrd /steading/a/initramfs\nboot\n")
}
