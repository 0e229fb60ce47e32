//! Network cards, from `/sys/class/net`: those with a device behind them.

use serde::{Deserialize, Serialize};

use crate::tree::Tree;

/// `ARPHRD_ETHER`: what an Ethernet card and a wireless one both say.
const ETHERNET: u32 = 1;

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The kernel's name of today (`eth0`).
    pub name: String,
    /// The driver that moves it.
    pub driver: Option<String>,
    /// Its hardware address, `52:54:00:12:34:56`.
    pub mac: Option<String>,
    /// Whether a cable with a living other end is in it; unknown while it is down.
    pub link: Option<bool>,
    /// Speed of the link in Mbit/s, where the driver knows it.
    pub speed_mbit: Option<u32>,
    /// Whether it is a radio.
    pub wireless: Option<bool>,
}

pub(crate) fn read(tree: &Tree) -> Option<Vec<Nic>> {
    let names = tree.names("sys/class/net")?;
    Some(
        names
            .iter()
            .filter(|name| tree.exists(&format!("sys/class/net/{name}/device")))
            .filter(|name| tree.number::<u32>(&format!("sys/class/net/{name}/type")) == Some(ETHERNET))
            .map(|name| nic(tree, name))
            .collect(),
    )
}

fn nic(tree: &Tree, name: &str) -> Nic {
    let at = |file: &str| format!("sys/class/net/{name}/{file}");
    Nic {
        name: name.to_owned(),
        driver: tree
            .leads_to(&at("device/driver"))
            .filter(|driver| driver != "driver"),
        mac: tree.text(&at("address")).filter(|mac| is_mac(mac)),
        link: tree.switch(&at("carrier")),
        // -1 and 0xffffffff are the drivers' ways to say that they do not know; 0 is too.
        speed_mbit: tree
            .number::<u32>(&at("speed"))
            .filter(|speed| *speed != 0 && *speed != u32::MAX),
        wireless: Some(tree.exists(&at("phy80211")) || tree.exists(&at("wireless"))),
    }
}

/// Six bytes in hex, not all zero: a card without an address has none.
fn is_mac(text: &str) -> bool {
    let bytes: Vec<&str> = text.split(':').collect();
    bytes.len() == 6
        && bytes
            .iter()
            .all(|byte| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit()))
        && bytes.iter().any(|byte| *byte != "00")
}
