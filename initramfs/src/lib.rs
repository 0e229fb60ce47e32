//! Assembles the initramfs: our programs, the closure of their libraries, the kernel modules, nothing else.
//!
//! ```text
//! /init                     PID 1, and by the link /sbin/modprobe the kernel's module loader
//! /sbin/agent               the agent (a test puts its own program there)
//! /usr/sbin/…               nft, mkfs.ext4, e2fsck, resize2fs
//! /usr/lib/x86_64-linux-gnu the libraries that those name, and that these name
//! /usr/lib/modules/VERSION  a subset, with modules.dep, .alias, .softdep, .builtin for exactly that subset
//! /etc/steading/image.json  what image this is
//! ```
//!
//! Invariant: every library and every symbol version that a program here needs is here; assembling fails otherwise.

pub mod assemble;
pub mod closure;
pub mod cpio;
pub mod elf;
pub mod hardware;
pub mod kernel;
pub mod modules;

pub use assemble::{ImageFacts, Recipe, Summary, assemble};
pub use modules::Choice;
