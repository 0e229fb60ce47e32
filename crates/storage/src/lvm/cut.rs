//! A process that is killed within a command of LVM, for tests: before its n-th change, counted by the library's own
//! debug log. A command makes two dozen within some milliseconds; no clock comes to each of them.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

/// The level at which the library tells what it does (`_LOG_DEBUG` of its `log.h`).
pub(super) const LOG_DEBUG: c_int = 7;

/// What is in a line that comes before a change: the kernel's mappings, the nodes in `/dev`, the group's metadata.
/// What is counted as suspended is so already, and the metadata is committed before it goes on.
const CHANGES: [&str; 9] = [
    "dm create ",
    "dm reload ",
    "dm suspend ",
    "Suspended device counter increased",
    "dm resume ",
    "dm remove ",
    "Processing NODE_ADD",
    "Processing NODE_DEL",
    "metadata commit seq",
];

/// How often the library found its own state wrong since this process began: then its next commands may fail.
pub static INTERNAL_ERRORS: AtomicU32 = AtomicU32::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);

/// This process dies before the `number`th change from now, counted from 1.
pub fn before(number: u32) {
    LEFT.store(number, Ordering::Relaxed);
}

pub(super) fn is_armed() -> bool {
    LEFT.load(Ordering::Relaxed) != 0
}

pub(super) fn told(message: &str) {
    if message.starts_with("Internal error") {
        println!("{message}");
        INTERNAL_ERRORS.fetch_add(1, Ordering::Relaxed);
    }
    let is_change = CHANGES.iter().any(|change| message.contains(change));
    if is_armed() && is_change && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        println!("killed before: {message}");
        // SAFETY: no memory is involved.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
