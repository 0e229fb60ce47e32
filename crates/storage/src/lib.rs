//! LVM and LUKS through their C libraries, and what is on a disk through libblkid.
//!
//! ```text
//!   provision ──► Storage (a handle; clone it)
//!                    │ closures, one after the other
//!                    ▼
//!              one owner thread ──► lvm::Lvm    liblvm2cmd    ┐ each on a libdevmapper,
//!                               ──► luks, verity libcryptsetup ┘ which has global state
//!
//!   probe ──► libblkid, one probe a call, any thread
//!   snapshot ──► plain reads and writes of devices, any thread
//! ```
//!
//! Invariants: no call into liblvm2cmd or libcryptsetup is made from any other thread than the
//! owner; no function here decides whether something *should* be done, and none knows a sale.
//!
//! This crate holds `unsafe`: calls into C through `extern "C"` in [`lvm`], where no binding
//! exists. Each has a SAFETY comment. All names of devices come from `host::names`.
#![allow(unsafe_code)]

mod direct;
pub mod luks;
pub mod lvm;
mod owner;
pub mod probe;
pub mod snapshot;
pub mod verity;

pub use owner::{OwnerError, Storage};
