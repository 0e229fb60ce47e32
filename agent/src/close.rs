//! `agent close`: called by PID 1 at halt, after every process of a space has ended:
//! lets go of every volume, so that the disks can be left in peace.
//!
//! Invariant: it stops at no error; it goes on with the rest and reports all of them.
//! It is a fresh process: what is open is read from the kernel and from LVM, not from
//! anyone's memory.

use anyhow::Context;
use storage::Storage;

/// Closes what this node holds open.
///
/// # Errors
/// What could not be closed, all of it, in one message.
pub fn close() -> anyhow::Result<()> {
    let storage = Storage::start().context("LVM")?;
    provision::close::close_all(&storage).context("closing the volumes")
}
