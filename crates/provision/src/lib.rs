//! Everything that changes the machine for a sale, and the record of it.
//!
//! ```text
//!   claim ── disks that are empty, or that the farmer gave, become volume groups
//!   state ── the node's key and journal, on a small volume of each group
//!   base  ── the read-only file system below every space, one volume a group
//!
//!   step ─── a table: each do beside its undo ───── journal ── what was meant, what was done
//!     volume    LV, LUKS2, ext4, mount
//!     files     host key, authorized keys, names: written through the unmapped volume
//!     limits    cgroup v2
//!     network   namespaces, veth, addresses        firewall ── one nftables set, computed whole
//!     space     the process itself; Provisioner
//! ```
//!
//! It talks to nobody and asks nobody for money: what to build arrives as a value.

pub mod base;
pub mod claim;
pub mod close;
pub mod files;
pub mod journal;
pub mod state;
pub mod step;
pub mod volume;

// The rest of the space's table: limits, network, firewall, space.
pub mod firewall;
pub mod limits;
pub mod network;
pub mod rate;
pub mod space;
