//! What is true of this node: the image it runs, and what its offers say about it.

use std::fs;
use std::path::Path;

use inventory::{Bus, FirmwareKind, Inventory};
use market::message::Facts;
use market::quantity::{BitsPerSecond, Bytes};
use provision::claim::SIZE_FLOOR_BYTES;
use serde::Deserialize;

use crate::farmer::Farmer;

/// What `/etc/steading/image.json` says of the image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// The version of Steading.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The SHA-256 of the base that belongs to it.
    #[serde(with = "hex_digest")]
    pub base_digest: [u8; 32],
    /// The base's length in bytes.
    pub base_bytes: u64,
    /// Where its file system ends and its tree of hashes begins.
    pub base_data_bytes: u64,
    /// The root of that tree.
    #[serde(with = "hex_digest")]
    pub base_root: [u8; 32],
    /// The filter of system calls for spaces.
    #[serde(default)]
    pub seccomp: Option<std::path::PathBuf>,
}

/// Why the image says nothing of itself.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is not there.
    #[error("reading {}", host::names::IMAGE_JSON)]
    Read(#[source] std::io::Error),
    /// It is not what the image builder writes.
    #[error("understanding {}", host::names::IMAGE_JSON)]
    Json(#[source] serde_json::Error),
}

impl Image {
    /// Reads the file of the running image.
    ///
    /// # Errors
    /// When it is not there or not understood.
    pub fn read() -> Result<Self, ImageError> {
        let text = fs::read(Path::new(host::names::IMAGE_JSON)).map_err(ImageError::Read)?;
        serde_json::from_slice(&text).map_err(ImageError::Json)
    }
}

/// `q35 · 2 cores · 2 GiB · UEFI, Secure Boot on · no TPM`: the machine in one line.
#[must_use]
pub fn machine_line(inventory: &Inventory) -> String {
    let mut parts = Vec::new();
    let product = &inventory.product;
    if let Some(name) = product.name.as_ref().or(product.board.as_ref()) {
        parts.push(name.chars().take(32).collect());
    }
    if let Some(cores) = inventory.cpu.cores.or(inventory.cpu.threads) {
        let word = if cores == 1 { "core" } else { "cores" };
        parts.push(format!("{cores} {word}"));
    }
    if let Some(bytes) = inventory.memory_bytes {
        parts.push(inventory::binary(bytes));
    }
    parts.extend(inventory.starts());
    parts.join(" · ")
}

mod hex_digest {
    use serde::de::{Deserialize, Deserializer, Error};

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(D::Error::custom)?;
        bytes
            .try_into()
            .map_err(|_| D::Error::custom("a digest has 64 hex digits"))
    }
}

/// What offers say of this node: as found, or as the farmer declares it.
#[must_use]
pub fn of(inventory: &Inventory, farmer: &Farmer, version: &str) -> Facts {
    Facts {
        country: farmer.country.clone(),
        name: farmer.name.clone(),
        features: farmer.features.clone(),
        cpu_model: inventory.cpu.model.clone(),
        cores: inventory.cpu.cores,
        memory: inventory.memory_bytes.map(Bytes),
        disk_kind: disk_kind(inventory).map(str::to_owned),
        link: fastest_link(inventory),
        image_version: Some(version.to_owned()),
        kernel: inventory.kernel.clone(),
        firmware: firmware(inventory).map(str::to_owned),
        tpm: inventory.tpm.as_ref().map(|tpm| tpm.present),
        notes: Vec::new(),
    }
}

/// The slowest kind among the disks large enough to be claimed: no offer promises more.
fn disk_kind(inventory: &Inventory) -> Option<&'static str> {
    const SLOWEST_FIRST: [&str; 3] = ["hdd", "ssd", "nvme"];
    let disks = inventory.disks.as_deref().unwrap_or_default();
    let kinds: Vec<&str> = disks
        .iter()
        .filter(|disk| disk.size_bytes.is_some_and(|size| size >= SIZE_FLOOR_BYTES))
        .filter_map(|disk| match (disk.bus, disk.rotational) {
            (Some(Bus::Nvme), _) => Some("nvme"),
            (_, Some(false)) => Some("ssd"),
            (_, Some(true)) => Some("hdd"),
            (_, None) => None,
        })
        .collect();
    SLOWEST_FIRST.into_iter().find(|kind| kinds.contains(kind))
}

fn fastest_link(inventory: &Inventory) -> Option<BitsPerSecond> {
    let nics = inventory.nics.as_deref().unwrap_or_default();
    let speed = nics.iter().filter_map(|nic| nic.speed_mbit).max()?;
    Some(BitsPerSecond(u64::from(speed) * 1_000_000))
}

fn firmware(inventory: &Inventory) -> Option<&'static str> {
    match (inventory.firmware.kind?, inventory.firmware.secure_boot) {
        (FirmwareKind::Bios, _) => Some("bios"),
        (FirmwareKind::Uefi, Some(true)) => Some("uefi, secure boot"),
        (FirmwareKind::Uefi, _) => Some("uefi"),
    }
}
