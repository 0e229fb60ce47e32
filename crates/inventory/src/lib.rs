//! What this machine is made of, as one typed value.
//!
//! Invariant: this crate changes nothing and invents nothing. Whatever the tree
//! under the root does not say is `None` (`null` in JSON): a disk without a
//! serial has no serial, not an empty one; a link whose speed is unknown has no
//! speed, not zero. The root is an argument, so a captured `/sys` and `/proc`
//! is a fixture, and the same code reads it.
//!
//! ```text
//!   root ──► tree (bounded reads, links stay below the root) ──► cpu  disk  nic
//!             │                                                  gpu  machine
//!             └─► capture: what was read, as one text file         │
//!                                                                  ▼
//!                                                             Inventory
//! ```
//!
//! What is *on* a disk is not read here: that needs the disk itself, and stands
//! in `storage::probe`.

pub mod boot;
pub mod capture;
mod consent;
mod controller;
mod cpu;
mod disk;
mod gpu;
pub mod health;
mod machine;
mod nic;
mod text;
mod tree;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use consent::{Consent, ConsentError, ConsentHash};
pub use controller::{Controller, ControllerKind};
pub use cpu::Cpu;
pub use disk::{Bus, Disk, bus_of, disk_names};
pub use gpu::Gpu;
pub use machine::{Firmware, FirmwareKind, Product, Tpm};
pub use nic::Nic;
pub use text::binary;
use tree::Tree;

/// Everything that is known about a machine. `None` means: the tree does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The processors, taken together.
    pub cpu: Cpu,
    /// Memory that the kernel can use, in bytes (`MemTotal` of `/proc/meminfo`).
    pub memory_bytes: Option<u64>,
    /// Whole disks, sorted by name; no partitions, no loop devices, no optical drives.
    pub disks: Option<Vec<Disk>>,
    /// Network cards that have a device behind them, sorted by name.
    pub nics: Option<Vec<Nic>>,
    /// PCI devices of class 03 (display controllers), sorted by address.
    pub gpus: Option<Vec<Gpu>>,
    /// Controllers of disks on PCI (class 01), sorted by address.
    pub controllers: Option<Vec<Controller>>,
    /// What the maker wrote into the firmware.
    pub product: Product,
    /// The security chip.
    pub tpm: Option<Tpm>,
    /// What started the kernel.
    pub firmware: Firmware,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: Option<String>,
}

/// Reads the machine whose `/sys` and `/proc` stand below `root` (`/` for this one).
///
/// Never fails: a root without anything gives an inventory without anything.
#[must_use]
pub fn read(root: &Path) -> Inventory {
    read_tree(&Tree::new(root))
}

fn read_tree(tree: &Tree) -> Inventory {
    Inventory {
        cpu: cpu::read(tree),
        memory_bytes: machine::memory_bytes(tree),
        disks: disk::read(tree),
        nics: nic::read(tree),
        gpus: gpu::read(tree),
        controllers: controller::read(tree),
        product: machine::product(tree),
        tpm: machine::tpm(tree),
        firmware: machine::firmware(tree),
        kernel: machine::kernel(tree),
    }
}
