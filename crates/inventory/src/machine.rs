//! The machine as a whole: memory, maker, security chip, firmware, kernel.

use serde::{Deserialize, Serialize};

use crate::tree::{Tree, clean};

/// `EFI_GLOBAL_VARIABLE`, UEFI 2.10 section 3.3.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What makers leave in a field that they did not fill.
const NOT_FILLED: [&str; 12] = [
    "to be filled by o.e.m.",
    "default string",
    "not specified",
    "not applicable",
    "not available",
    "system product name",
    "system manufacturer",
    "system serial number",
    "none",
    "n/a",
    "unknown",
    "0",
];

/// What the maker wrote into the firmware (DMI).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Who made it.
    pub vendor: Option<String>,
    /// What it is.
    pub name: Option<String>,
    /// Which one it is.
    pub serial: Option<String>,
    /// The main board, where the product is one of many on it.
    pub board: Option<String>,
}

/// The security chip; `present: false` is a finding, no `Tpm` at all is not knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tpm {
    /// Whether the kernel found one.
    pub present: bool,
    /// 1 or 2.
    pub version: Option<u8>,
}

/// What started the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareKind {
    /// The kernel has no EFI runtime: a BIOS, or a hypervisor that started it directly.
    Bios,
    /// The kernel has EFI's runtime.
    Uefi,
}

/// The firmware and how far it is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// BIOS or UEFI.
    pub kind: Option<FirmwareKind>,
    /// Whether Secure Boot is on; unknown where the variables are not mounted.
    pub secure_boot: Option<bool>,
}

pub(crate) fn memory_bytes(tree: &Tree) -> Option<u64> {
    let info = tree.long_text("proc/meminfo", 16 << 10)?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).filter(|bytes| *bytes > 0)
}

pub(crate) fn product(tree: &Tree) -> Product {
    let said = |file: &str| {
        tree.text(&format!("sys/class/dmi/id/{file}"))
            .filter(|text| !NOT_FILLED.contains(&text.to_ascii_lowercase().as_str()))
    };
    Product {
        vendor: said("sys_vendor"),
        name: said("product_name"),
        serial: said("product_serial"),
        board: said("board_name"),
    }
}

pub(crate) fn tpm(tree: &Tree) -> Option<Tpm> {
    // Without the folder of all classes, the tree simply does not say.
    if !tree.exists("sys/class") {
        return None;
    }
    let chip = tree.exists("sys/class/tpm/tpm0");
    Some(Tpm {
        present: chip,
        version: tree
            .number::<u8>("sys/class/tpm/tpm0/tpm_version_major")
            .filter(|version| *version == 1 || *version == 2),
    })
}

pub(crate) fn firmware(tree: &Tree) -> Firmware {
    let kind = if tree.exists("sys/firmware/efi") {
        Some(FirmwareKind::Uefi)
    } else if tree.exists("sys/firmware") {
        Some(FirmwareKind::Bios)
    } else {
        None
    };
    // Four bytes of attributes, then the value.
    let secure_boot = match tree.bytes(SECURE_BOOT, 16).as_deref() {
        Some([_, _, _, _, 0]) => Some(false),
        Some([_, _, _, _, 1]) => Some(true),
        _ => None,
    };
    Firmware { kind, secure_boot }
}

pub(crate) fn kernel(tree: &Tree) -> Option<String> {
    tree.text("proc/sys/kernel/osrelease").or_else(|| {
        let version = tree.text("proc/version")?;
        clean(version.strip_prefix("Linux version ")?.split(' ').next()?)
    })
}
