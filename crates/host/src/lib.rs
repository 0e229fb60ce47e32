//! Every kernel call of Steading, and every name that the kernel sees.
//!
//! ```text
//!   names ── what things are called          (pure)
//!   mount ── file systems, old and new API   isolate ── how a space is asked for
//!   module ─ kernel modules                  netns ──── network namespaces
//!   process ─ clone3, pidfd, cgroup.kill     command ── the one owner of programs
//!   block ── disks and partitions            console ── where people read
//!   power ── off and again                   seccomp ── filters, compiled here
//!   cgroup ─ ended, handed over              packet ─── the first word of DHCP
//!   boot ─── when, since power-on
//!   terminal ─ a console with keys            ata, nvme ─ how a disk feels
//! ```
//!
//! The room decides nothing and knows no sale: ids arrive as bytes. `init`, which is PID 1, stands
//! on it, so it links libc alone: no runtime, no thread of its own, no C library.
//!
//! Dropping a handle never destroys what outlives the process (a namespace, a cgroup, a mount):
//! those have an explicit, idempotent `remove` or `ensure_*_absent`.

// The home of `unsafe` (beside storage): raw system calls that nix does not wrap stand here, each
// behind a safe function with the reason why it is sound.
#![allow(unsafe_code)]

pub mod ata;
pub mod block;
pub mod boot;
pub mod capability;
pub mod cgroup;
pub mod command;
pub mod console;
pub mod fuse;
pub mod isolate;
pub mod module;
pub mod mount;
pub mod names;
pub mod netns;
pub mod nvme;
pub mod packet;
pub mod power;
pub mod process;
pub mod seccomp;
pub mod terminal;
