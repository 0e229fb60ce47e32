//! The kernel of the image: the signed bzImage as it is, and the ELF file inside it, which QEMU starts through PVH
//! without the firmware's and the decompressor's seconds.
//!
//! The payload's place stands in the boot protocol's header (the kernel's Documentation/arch/x86/boot.rst): offset and
//! length at 0x248 and 0x24c, counted from the end of the real-mode part, whose sectors are counted at 0x1f1.

use anyhow::{Context, Result, bail};
use packages::program::{command, output};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Unpacks the payload of the bzImage at `vmlinuz` to `vmlinux`.
pub fn extract(vmlinuz: &Path, vmlinux: &Path) -> Result<()> {
    let image = std::fs::read(vmlinuz).with_context(|| format!("reading {}", vmlinuz.display()))?;
    let payload = payload(&image)?;
    let program = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        _ => bail!(
            "{}: compressed in a way that is not known here",
            vmlinuz.display()
        ),
    };
    // Four bytes behind the compressed stream hold the size of what was compressed; gzip has them in its own format.
    let stream = if program == "gzip" {
        payload
    } else {
        &payload[..payload.len() - 4]
    };
    let mut child = command(program)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut into = child.stdin.take().context("no pipe")?;
    let elf = std::thread::scope(|scope| {
        let writer = scope.spawn(move || into.write_all(stream));
        let out = child.wait_with_output();
        let _ = writer.join();
        out
    })?;
    if !elf.status.success() || !elf.stdout.starts_with(b"\x7fELF") {
        bail!(
            "{}: the payload is no ELF file ({program}: {})",
            vmlinuz.display(),
            elf.status
        );
    }
    std::fs::write(vmlinux, elf.stdout).with_context(|| format!("writing {}", vmlinux.display()))
}

/// The compressed payload of a bzImage.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the kernel is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("no kernel: the header's signature is missing");
    }
    let real_mode = (usize::from(image[0x1f1].max(1)) + 1) * 512;
    let from = real_mode + word(0x248)?;
    image
        .get(from..from + word(0x24c)?)
        .filter(|payload| payload.len() > 8)
        .context("the kernel's payload is cut off")
}

/// The unpacked kernel package: its version's modules with the whole dependency index, made once.
pub fn index_modules(tree: &Path, version: &str) -> Result<PathBuf> {
    let folder = tree.join("usr/lib/modules").join(version);
    if !folder.join("modules.dep").exists() {
        depmod(tree, version)?;
    }
    Ok(folder)
}

/// Runs depmod for the modules below `tree`.
pub fn depmod(tree: &Path, version: &str) -> Result<()> {
    // Not in an ordinary user's path.
    let program = ["/usr/sbin/depmod", "/sbin/depmod"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    output(
        command(program.context("no depmod: install kmod")?)
            .arg("-b")
            .arg(tree)
            .arg(version),
    )
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_or_refused() -> Result<()> {
        let mut image = vec![0u8; 4096];
        assert!(payload(&image).is_err());
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248] = 16;
        image[0x24c] = 32;
        image[1024 + 16] = 7;
        assert_eq!(payload(&image)?.len(), 32);
        assert_eq!(payload(&image)?[0], 7);
        image[0x24f] = 0xff;
        assert!(payload(&image).is_err());
        Ok(())
    }
}
