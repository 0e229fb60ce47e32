//! What there is to show, as values; [`super::render`] puts it into words and columns.

use serde::Serialize;

/// Whether the node sells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Selling {
    /// Not decided yet: what it is doing.
    #[default]
    Starting,
    /// Yes.
    Yes,
    /// No, and the first reason.
    No(String),
}

/// The line at the top right.
pub type Verdict = Selling;

/// A disk as the farmer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Disk {
    /// The kernel's name.
    pub name: String,
    /// Its size, with unit.
    pub size: String,
    /// What became of it: `claimed, 8.2 GiB free`, `not touched: ext4 "backup"`.
    pub state: String,
    /// What it holds, where that is what keeps it from being sold: `ext4 "backup"`.
    pub holds: String,
    /// The farmer's word that frees it, where one does: a text of the list `erase` in `farmer.toml`.
    pub line: Option<String>,
    /// It is no disk, but a controller behind which one may be that nobody sees: told among them, for there it is missed.
    pub controller: bool,
}

impl Disk {
    /// Whether it is the node's.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.state.starts_with("claimed")
    }

    /// The whole line for `farmer.toml` that frees it, where one does.
    #[must_use]
    pub fn erase(&self) -> Option<String> {
        self.line.as_ref().map(|line| format!("erase = [\"{line}\"]"))
    }
}

/// A space as the farmer sees it: a name, its size, and how it stands; nothing of what is inside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Space {
    /// The sale's id: two sales may have one name.
    #[serde(skip)]
    pub sale: [u8; 32],
    /// Derived from the sale's id.
    pub name: String,
    /// `0.5 cpu  512 MiB  2 GiB`.
    pub size: String,
    /// `active, paid until 14:05 UTC`.
    pub state: String,
}

/// How a part of the machine feels, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Health {
    /// `cpu`, or a disk by its kernel's name.
    pub part: String,
    /// Degrees Celsius, where it has a sensor.
    pub celsius: Option<i32>,
    /// Of its life as its maker expects it, in percent, where a disk says so.
    pub used_percent: Option<u8>,
    /// What it warns of.
    pub warning: Option<String>,
}

impl std::fmt::Display for Health {
    /// `nvme0n1 41 °C, 3% used`.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.part)?;
        if let Some(celsius) = self.celsius {
            write!(out, " {celsius} °C")?;
        }
        if let Some(percent) = self.used_percent {
            write!(out, ", {percent}% of its life used")?;
        }
        if let Some(warning) = &self.warning {
            write!(out, ": {warning}")?;
        }
        Ok(())
    }
}

/// A part that failed: what, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Failure {
    /// The part: `journal`, `firewall`.
    pub part: String,
    /// What happened and why.
    pub why: String,
    /// What a person can do.
    pub cure: Option<String>,
}

/// Figures behind the words, for programs: `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// What all sales have paid, as a decimal number.
    pub earned: Option<String>,
    /// In which asset of the rail.
    pub asset: String,
    /// Bytes that the uplinks carried in this month.
    pub traffic_bytes: Option<u64>,
    /// Bytes that the farmer lets them carry in a month.
    pub traffic_limit_bytes: Option<u64>,
}

/// All that the screen shows, but for what changes by itself (time, memory).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Status {
    /// Of the image.
    pub version: String,
    /// The node's id, shortened in the middle.
    pub node: Option<String>,
    /// The same, whole: what the QR code says.
    pub node_id: Option<String>,
    /// The verdict.
    pub selling: Selling,
    /// `joined "demo", 4 neighbours`.
    pub grid: String,
    /// `right (ledger)`.
    pub clock: String,
    /// Whether times of day can be believed.
    pub clock_is_right: bool,
    /// The farmer's address shortened, or what is missing.
    pub wallet: String,
    /// What to do about the wallet.
    pub wallet_cure: Option<String>,
    /// `read, 5e2d91`.
    pub farmer_file: String,
    /// What is wrong in it, a line each.
    pub farmer_faults: Vec<String>,
    /// `q35 · 2 cores · 2.0 GiB · UEFI, Secure Boot on · no TPM`.
    pub machine: String,
    /// A line a network card.
    pub network: Vec<String>,
    /// A line a disk; `None` while they are being looked at.
    pub disks: Option<Vec<Disk>>,
    /// A line a space.
    pub spaces: Vec<Space>,
    /// `12.40 today · 87.10 in all`.
    pub earned: Option<String>,
    /// `41.2 GiB of 500 GiB in 2026-11`: what the uplinks carried.
    pub traffic: Option<String>,
    /// The figures behind the two above.
    #[serde(skip)]
    pub figures: Figures,
    /// What sensors and disks say, one a part.
    pub health: Vec<Health>,
    /// Where the status page is, if there is one: `http://192.168.1.20/`.
    pub page: Option<String>,
    /// Parts that failed.
    pub failures: Vec<Failure>,
}
