//! `./x image --network`: the folder that a server hands out to machines that boot over the network.
//!
//! ```text
//!  BIOS, UEFI  iPXE ─► boot.ipxe ───────────────────────────────────────┐   vmlinuz    as on the stick
//!  UEFI        shimx64.efi ─► grubx64.efi (of the net) ─► grub/grub.cfg ┴─► initramfs  the stick's, and /medium/base
//!              by TFTP (PXE); by HTTP the firmware may start GRUB itself    farmer.cpio  /medium/farmer.toml
//!                                                                           first        PID 1 alone, where that is too much
//! ```
//!
//! Names are relative: whatever brought the first file, TFTP or HTTP, brings the others. The base and `farmer.toml` come as
//! archives of the initramfs, because every loader can hand over several of them; to name files itself, as iPXE can, is not
//! what all versions do under UEFI.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::stick::COMMAND_LINE;
use initramfs::cpio::{Archive, Node};

/// The files that a stick and the folder share.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The signed kernel.
    pub vmlinuz: PathBuf,
    /// The initramfs of real machines, packed.
    pub initramfs: PathBuf,
    /// PID 1 alone.
    pub first: PathBuf,
    /// The base.
    pub base: PathBuf,
    /// Unpacked boot loaders.
    pub boot: PathBuf,
}

/// Writes the folder anew.
pub fn write(folder: &Path, parts: &Parts, farmer_toml: &str) -> Result<()> {
    let partial = folder.with_extension("partial");
    for old in [&partial, &folder.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    fs::create_dir_all(partial.join("grub"))?;
    let copy = |from: &Path, name: &str| {
        let copied = fs::copy(from, partial.join(name));
        copied.with_context(|| format!("copying {}", from.display()))
    };
    let signed = |name: &str| parts.boot.join("usr/lib").join(name);
    copy(&parts.vmlinuz, "vmlinuz")?;
    copy(&parts.first, "first")?;
    copy(&signed("shim/shimx64.efi.signed"), "shimx64.efi")?;
    copy(
        &signed("grub/x86_64-efi-signed/grubnetx64.efi.signed"),
        "grubx64.efi",
    )?;
    let medium = partial.join("base.cpio");
    archive(&medium, "base", Node::File(parts.base.clone(), 0o444))?;
    // The kernel unpacks archives that stand one behind the other, packed or not, at multiples of four bytes.
    let mut whole = fs::read(&parts.initramfs)?;
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole.extend(fs::read(&medium)?);
    fs::write(partial.join("initramfs"), whole)?;
    fs::remove_file(&medium)?;
    archive(
        &partial.join("farmer.cpio"),
        "farmer.toml",
        Node::Bytes(farmer_toml.as_bytes().to_vec(), 0o444),
    )?;
    fs::write(partial.join("boot.ipxe"), ipxe())?;
    fs::write(partial.join("grub/grub.cfg"), grub())?;
    fs::rename(&partial, folder).with_context(|| format!("moving to {}", folder.display()))
}

/// One file of `/medium`.
fn archive(path: &Path, name: &str, node: Node) -> Result<()> {
    let mut archive = Archive::default();
    archive.put(&format!("/medium/{name}"), node)?;
    archive.write(path)?;
    Ok(())
}

/// Under UEFI the kernel itself fetches what `initrd=` names; a BIOS gets both as one.
fn ipxe() -> String {
    format!(
        "#!ipxe\n\
         kernel vmlinuz initrd=initramfs initrd=farmer.cpio {COMMAND_LINE}\n\
         initrd initramfs && initrd farmer.cpio || goto first\n\
         boot\n\
         :first\n\
         imgfree\n\
         kernel vmlinuz initrd=first {COMMAND_LINE}\n\
         initrd first\n\
         boot\n"
    )
}

/// What GRUB was fetched by is where it looks for the rest.
fn grub() -> String {
    format!(
        "set timeout=0\n\
         linux /vmlinuz {COMMAND_LINE}\n\
         if initrd /initramfs /farmer.cpio; then boot; fi\n\
         initrd /first\n\
         boot\n"
    )
}
