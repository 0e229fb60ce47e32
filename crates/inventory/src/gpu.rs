//! Display controllers on PCI: class 03.

use serde::{Deserialize, Serialize};

use crate::tree::Tree;

/// The base class of display controllers, PCI Code and ID Assignment section 1.4.
const DISPLAY: u32 = 0x03;

/// One display controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Where it sits, `0000:01:00.0`.
    pub address: String,
    /// PCI vendor, four hex digits (`10de`).
    pub vendor_id: Option<String>,
    /// PCI device, four hex digits.
    pub device_id: Option<String>,
    /// The whole class, six hex digits (`030000` VGA, `030200` 3D).
    pub class: String,
    /// The driver that moves it, if one does.
    pub driver: Option<String>,
}

pub(crate) fn read(tree: &Tree) -> Option<Vec<Gpu>> {
    let base = "sys/bus/pci/devices";
    let addresses = tree.names(base)?;
    Some(
        addresses
            .iter()
            .filter_map(|address| {
                let at = |file: &str| format!("{base}/{address}/{file}");
                let class = tree.id(&at("class"))?;
                (class >> 16 == DISPLAY).then(|| Gpu {
                    address: address.clone(),
                    vendor_id: tree.id(&at("vendor")).map(|id| format!("{id:04x}")),
                    device_id: tree.id(&at("device")).map(|id| format!("{id:04x}")),
                    class: format!("{class:06x}"),
                    driver: tree.leads_to(&at("driver")),
                })
            })
            .collect(),
    )
}
