//! What there is to show, as values; [`super::render`] puts it into words and columns.

/// Whether the node sells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// The kernel's name.
    pub name: String,
    /// Its size, with unit.
    pub size: String,
    /// What became of it: `claimed, 8.2 GiB free`, `not touched: ext4 "backup"`.
    pub state: String,
    /// The whole line for `farmer.toml` that frees it, where one does.
    pub erase: Option<String>,
}

/// A space as the farmer sees it: a name, its size, and how it stands; nothing of what is inside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Space {
    /// The sale's id: two sales may have one name.
    pub sale: [u8; 32],
    /// Derived from the sale's id.
    pub name: String,
    /// `0.5 cpu  512 MiB  2 GiB`.
    pub size: String,
    /// `active, paid until 14:05 UTC`.
    pub state: String,
}

/// A part that failed: what, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// The part: `journal`, `firewall`.
    pub part: String,
    /// What happened and why.
    pub why: String,
    /// What a person can do.
    pub cure: Option<String>,
}

/// All that the screen shows, but for what changes by itself (time, memory).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Of the image.
    pub version: String,
    /// The node's id, shortened in the middle.
    pub node: Option<String>,
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
    /// Parts that failed.
    pub failures: Vec<Failure>,
}
