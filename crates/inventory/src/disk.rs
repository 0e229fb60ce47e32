//! Whole disks, from `/sys/block`.
//!
//! A disk is what has a device behind it: loop, zram, device mapper and md have
//! none. Optical and floppy drives are left out, and so are the hidden paths of
//! an NVMe multipath.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::tree::{Tree, clean};

/// The kernel counts `size` in these, whatever the disk's sectors are.
const SIZE_UNIT_BYTES: u64 = 512;
/// SCSI page 0x80: type, page, length (2 bytes), then the serial number.
const SERIAL_PAGE_MOST: u64 = 256;

/// How a disk is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each variant says itself")]
pub enum Bus {
    Nvme,
    Sata,
    Sas,
    Scsi,
    Usb,
    Mmc,
    Virtio,
    Xen,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name of today (`sda`): good for showing, not for remembering.
    pub name: String,
    /// Who made it.
    pub vendor: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number; bridges give several disks the same one.
    pub serial: Option<String>,
    /// Its world-wide name (`naa.5000…`, `eui.…`, `nvme.…`).
    pub wwn: Option<String>,
    /// Its size in bytes; a card reader without a card has none.
    pub size_bytes: Option<u64>,
    /// The smallest unit that can be addressed, in bytes.
    pub logical_sector_bytes: Option<u32>,
    /// The smallest unit that can be written at once, in bytes.
    pub physical_sector_bytes: Option<u32>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// Whether its medium can be taken out.
    pub removable: Option<bool>,
    /// Whether it refuses to be written.
    pub read_only: Option<bool>,
    /// How it is connected.
    pub bus: Option<Bus>,
    /// Where it is connected: its path below `/sys/devices`, the same after a reboot
    /// as long as nobody moves the cable.
    pub path: Option<String>,
}

pub(crate) fn read(tree: &Tree) -> Option<Vec<Disk>> {
    Some(names(tree)?.iter().map(|name| disk(tree, name)).collect())
}

fn names(tree: &Tree) -> Option<Vec<String>> {
    let mut names = tree.names("sys/block")?;
    names.retain(|name| is_disk(tree, name));
    Some(names)
}

/// The kernel's names of the disks of the machine whose `/sys` stands below `root`, sorted; none where there is no `/sys`.
/// Nothing else is asked of them.
#[must_use]
pub fn disk_names(root: &Path) -> Vec<String> {
    names(&Tree::new(root)).unwrap_or_default()
}

fn is_disk(tree: &Tree, name: &str) -> bool {
    let virtual_kind = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "zd"]
        .iter()
        .any(|kind| {
            name.strip_prefix(kind)
                .is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        });
    // `mmcblk0boot0` and `mmcblk0rpmb` belong to the card's maker.
    let part_of_card = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !virtual_kind
        && !part_of_card
        && tree.exists(&format!("sys/block/{name}/device"))
        && tree.switch(&format!("sys/block/{name}/hidden")) != Some(true)
}

fn disk(tree: &Tree, name: &str) -> Disk {
    let at = |file: &str| format!("sys/block/{name}/{file}");
    let path = tree.resolve(&format!("sys/block/{name}"));
    let path = path.as_ref().map(|path| path.to_string_lossy());
    Disk {
        name: name.to_owned(),
        vendor: tree
            .text(&at("device/vendor"))
            .filter(|vendor| !vendor.starts_with("0x")),
        model: tree
            .text(&at("device/model"))
            .or_else(|| tree.text(&at("device/name"))),
        serial: serial(tree, name).or_else(|| usb_serial(tree, path.as_deref()?)),
        wwn: tree.text(&at("wwid")).or_else(|| tree.text(&at("device/wwid"))),
        size_bytes: tree
            .number::<u64>(&at("size"))
            .filter(|units| *units > 0)
            .and_then(|units| units.checked_mul(SIZE_UNIT_BYTES)),
        logical_sector_bytes: tree.number(&at("queue/logical_block_size")),
        physical_sector_bytes: tree.number(&at("queue/physical_block_size")),
        rotational: tree.switch(&at("queue/rotational")),
        removable: tree.switch(&at("removable")),
        read_only: tree.switch(&at("ro")),
        bus: path.as_deref().and_then(|path| bus(tree, name, path)),
        path: path
            .as_deref()
            .and_then(|path| path.strip_prefix("sys/devices/"))
            .and_then(clean),
    }
}

/// The serial number of the USB device that a disk is a function of: the folder above
/// the first interface, `…/usb2/2-1/2-1:1.0/host6/…`.
fn usb_serial(tree: &Tree, path: &str) -> Option<String> {
    let (_, below) = path.split_once("/usb")?;
    let interface = below.split('/').find(|part| part.contains(':'))?;
    let (device, _) = path.split_once(&format!("/{interface}"))?;
    tree.text(&format!("{device}/serial"))
}

fn serial(tree: &Tree, name: &str) -> Option<String> {
    let at = |file: &str| format!("sys/block/{name}/{file}");
    tree.text(&at("serial"))
        .or_else(|| tree.text(&at("device/serial")))
        .or_else(|| {
            let page = tree.bytes(&at("device/vpd_pg80"), SERIAL_PAGE_MOST)?;
            let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
            let serial = page.get(4..)?;
            clean(&String::from_utf8_lossy(serial.get(..length.min(serial.len()))?))
        })
}

/// How the disk of this name is connected, in the machine whose `/sys` stands below `root`.
#[must_use]
pub fn bus_of(root: &Path, name: &str) -> Option<Bus> {
    let tree = Tree::new(root);
    let path = tree.resolve(&format!("sys/block/{name}"))?;
    bus(&tree, name, &path.to_string_lossy())
}

/// USB first: a stick's disk is a SCSI one, and an NVMe in a USB box is a USB one.
fn bus(tree: &Tree, name: &str, path: &str) -> Option<Bus> {
    let on = |prefix: &str| {
        path.split('/').any(|part| {
            part.strip_prefix(prefix)
                .is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    if on("usb") {
        return Some(Bus::Usb);
    }
    if name.starts_with("nvme") {
        return Some(Bus::Nvme);
    }
    if on("ata") {
        return Some(Bus::Sata);
    }
    if path.contains("/end_device-") {
        return Some(Bus::Sas);
    }
    // A SCSI disk behind virtio-scsi is on virtio: ask the disk's own device first.
    match tree
        .leads_to(&format!("sys/block/{name}/device/subsystem"))?
        .as_str()
    {
        "virtio" => Some(Bus::Virtio),
        "scsi" => Some(Bus::Scsi),
        "mmc" => Some(Bus::Mmc),
        "nvme" | "nvme-subsystem" => Some(Bus::Nvme),
        "xen" => Some(Bus::Xen),
        _ => None,
    }
}
