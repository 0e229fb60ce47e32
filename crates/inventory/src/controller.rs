//! Controllers of disks on PCI (class 01), and what is visible behind each.
//!
//! A disk that hangs on a controller in RAID mode, or on one without a driver, is nowhere in `/sys/block`: without this
//! nobody would say why.

use serde::{Deserialize, Serialize};

use crate::tree::Tree;

/// The base class of mass storage, PCI Code and ID Assignment section 1.2.
const STORAGE: u32 = 0x01;

/// What a controller says that it is: the sub-class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each variant says itself")]
pub enum ControllerKind {
    Scsi,
    Ide,
    Raid,
    Ata,
    Sata,
    Sas,
    Nvme,
    Ufs,
    Other,
}

/// One controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Where it sits, `0000:00:1f.2`.
    pub address: String,
    /// What it says that it is.
    pub kind: ControllerKind,
    /// PCI vendor, four hex digits (`8086`).
    pub vendor_id: Option<String>,
    /// PCI device, four hex digits.
    pub device_id: Option<String>,
    /// The driver that moves it, if one does.
    pub driver: Option<String>,
    /// The kernel's names of what is behind it: disks, and drives for media too.
    pub blocks: Vec<String>,
    /// NVMe drives that it keeps for itself (Intel's RAID mode), as its driver counts them.
    pub hidden_nvme: Option<u32>,
}

pub(crate) fn read(tree: &Tree) -> Option<Vec<Controller>> {
    let base = "sys/bus/pci/devices";
    let addresses = tree.names(base)?;
    let blocks: Vec<(String, String)> = tree
        .names("sys/block")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| {
            let block = format!("sys/block/{name}");
            // A folder that is seen to be there is one that a capture holds: without it the link would lead nowhere.
            let path = tree.exists(&block).then(|| tree.resolve(&block))??;
            Some((name, path.to_string_lossy().into_owned()))
        })
        .collect();
    let controller = |address: &String| {
        let at = |file: &str| format!("{base}/{address}/{file}");
        let class = tree.id(&at("class")).filter(|class| class >> 16 == STORAGE)?;
        let behind = |(name, path): &(String, String)| {
            let inside = path.split('/').any(|part| part == address);
            inside.then(|| name.clone())
        };
        Some(Controller {
            address: address.clone(),
            kind: kind(class >> 8 & 0xFF)?,
            vendor_id: tree.id(&at("vendor")).map(|id| format!("{id:04x}")),
            device_id: tree.id(&at("device")).map(|id| format!("{id:04x}")),
            driver: tree.leads_to(&at("driver")).filter(|driver| driver != "driver"),
            blocks: blocks.iter().filter_map(behind).collect(),
            hidden_nvme: hidden_nvme(tree, &format!("{base}/{address}")),
        })
    };
    Some(addresses.iter().filter_map(controller).collect())
}

/// NVMe drives that the controller in this folder keeps for itself; none is known before it has its ports (`ata1`, …). The
/// file is there earlier, while `ahci` starts, and to read it then is a null pointer in the kernel: `remapped_nvme_show`
/// takes for granted what `ahci_init_one` sets after it has made the file.
fn hidden_nvme(tree: &Tree, controller: &str) -> Option<u32> {
    let is_port = |name: &String| {
        let number = name.strip_prefix("ata").map(str::parse::<u32>);
        number.is_some_and(|number| number.is_ok()) && tree.exists(&format!("{controller}/{name}"))
    };
    let has_ports = tree.names(controller)?.iter().any(is_port);
    let hidden = || tree.number(&format!("{controller}/remapped_nvme"));
    has_ports.then(hidden)?.filter(|count| *count > 0)
}

/// The sub-class; none for a floppy controller, behind which nothing is sold.
fn kind(sub_class: u32) -> Option<ControllerKind> {
    Some(match sub_class {
        0x00 => ControllerKind::Scsi,
        0x01 => ControllerKind::Ide,
        0x02 => return None,
        0x04 => ControllerKind::Raid,
        0x05 => ControllerKind::Ata,
        0x06 => ControllerKind::Sata,
        0x07 => ControllerKind::Sas,
        0x08 => ControllerKind::Nvme,
        0x09 => ControllerKind::Ufs,
        _ => ControllerKind::Other,
    })
}

impl Controller {
    /// Why a disk of the farmer's may not be seen behind it, with what to do; none where one is.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "????".to_owned());
        let which = format!("PCI {}:{}", id(&self.vendor_id), id(&self.device_id));
        let intel = self.vendor_id.as_deref() == Some("8086");
        if let Some(count) = self.hidden_nvme {
            let drives = if count == 1 { "drive" } else { "drives" };
            return Some(format!(
                "it hides {count} NVMe {drives}: in the firmware's set-up, switch the SATA mode from RAID (RST, Optane) \
                 to AHCI"
            ));
        }
        if !self.blocks.is_empty() {
            return None;
        }
        let Some(driver) = &self.driver else {
            return Some(format!(
                "this image has no driver for it ({which}): hang the disks on another controller, or ask for the \
                 driver with that number"
            ));
        };
        Some(match (self.kind, driver.as_str()) {
            (_, "vmd") => "no drive is visible behind it: if there is one, switch VMD off in the firmware's set-up".into(),
            (ControllerKind::Raid, _) if intel => {
                "no disk is visible behind it: in the firmware's set-up, switch the SATA mode from RAID (RST) to AHCI".into()
            }
            (ControllerKind::Raid, _) => format!(
                "no disk is visible behind it ({which}): in its own set-up, switch it to HBA (IT, JBOD) mode, or make one \
                 volume of each disk"
            ),
            _ => format!("no disk is visible behind it ({which}): is one plugged in, with its power?"),
        })
    }

    /// Whether nothing is wrong but that nothing is plugged in: worth a word only where no disk is found elsewhere.
    #[must_use]
    pub fn is_merely_empty(&self) -> bool {
        let moved = self.driver.is_some() && self.kind != ControllerKind::Raid;
        moved && self.blocks.is_empty() && self.hidden_nvme.is_none()
    }

    /// `SATA controller`, as a person calls it.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self.kind {
            ControllerKind::Scsi => "SCSI controller",
            ControllerKind::Ide => "IDE controller",
            ControllerKind::Raid => "RAID controller",
            ControllerKind::Ata => "ATA controller",
            ControllerKind::Sata => "SATA controller",
            ControllerKind::Sas => "SAS controller",
            ControllerKind::Nvme => "NVMe drive",
            ControllerKind::Ufs => "UFS controller",
            ControllerKind::Other => "storage controller",
        }
    }
}
