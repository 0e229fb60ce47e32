//! A virtual machine as a value, and its console as a stream of lines.
//!
//! ```text
//!   Machine ──start()──► Running ──lines──► wait_for("…")      (a harness reads)
//!      │                    │
//!      │                    ├─ cut_power()   SIGKILL: what a pulled plug does
//!      │                    └─ wait_exit()   the guest powered itself off
//!      └──hand_over()──► the terminal is the guest's console  (a person types)
//! ```
//!
//! The crate knows nothing of Steading. KVM is used only when asked for: on some
//! machines it exists and hangs instead of failing. Under TCG the processor is
//! `max,-cx16`, because QEMU 7.2 emulates `cmpxchg16b` with wrong flags, and one
//! thread runs all processors, because several showed a rare `Oops: int3`. `erms`,
//! `fsrm` and `smap` are taken away too: with them the kernel copies byte by byte and
//! breaks off at every access to a process's memory, which costs an emulator a tenth of a start.

mod console;
mod disk;
mod machine;
mod monitor;
mod wire;

pub use console::{Line, Running, WaitError};
pub use disk::{Bus, Disk, Fault};
pub use machine::{Accel, Board, Boot, CARD_ID, Firmware, Forward, Machine, StartError};
pub use monitor::{Monitor, MonitorError};
pub use wire::{Way, Wire};
