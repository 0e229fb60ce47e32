//! By what a machine is started.

use std::path::Path;

use anyhow::{Context, Result, bail};
use qemu::Firmware;
use serde::Serialize;

/// Who starts the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// QEMU itself.
    Direct,
    /// SeaBIOS and GRUB, from a USB stick.
    Bios,
    /// OVMF, shim and GRUB, from a USB stick.
    Uefi,
    /// The same, checking signatures.
    Secure,
}

impl By {
    /// `direct,bios`, or `all`.
    pub fn read(text: &str) -> Result<Vec<By>> {
        let all = [By::Direct, By::Bios, By::Uefi, By::Secure];
        if text == "all" {
            return Ok(all.to_vec());
        }
        let one = |word: &str| all.into_iter().find(|by| by.word() == word);
        text.split(',')
            .map(|word| one(word).with_context(|| format!("--by {word}: direct, bios, uefi, secure, or all")))
            .collect()
    }

    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            By::Direct => "direct",
            By::Bios => "bios",
            By::Uefi => "uefi",
            By::Secure => "secure",
        }
    }
}

/// What reads the boot medium, with variables of its own in `dir`.
pub fn firmware(by: By, dir: &Path) -> Result<Firmware> {
    let folder = Path::new("/usr/share/OVMF");
    let (code, vars, secure) = match by {
        By::Direct => bail!("a direct boot has no firmware"),
        By::Bios => return Ok(Firmware::Bios),
        By::Uefi => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", false),
        By::Secure => ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd", true),
    };
    let own = dir.join("ovmf-vars.fd");
    std::fs::copy(folder.join(vars), &own)
        .with_context(|| format!("copying {vars}; on Debian: apt install ovmf"))?;
    Ok(Firmware::Uefi {
        code: folder.join(code),
        vars: own,
        secure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmwares_are_named_one_by_one_or_all_together() -> Result<()> {
        assert_eq!(By::read("bios,direct")?, [By::Bios, By::Direct]);
        assert_eq!(By::read("all")?.len(), 4);
        assert!(By::read("coreboot").is_err());
        Ok(())
    }
}
