//! `agent close`: called by PID 1 at halt, after every process of a space has ended:
//! lets go of every volume, so that the disks can be left in peace.
//!
//! Invariant: it stops at no error; it goes on with the rest and reports all of them.
//! It is a fresh process: what is open is read from the kernel and from LVM, not from
//! anyone's memory.

use anyhow::Context;
use storage::Storage;

/// Closes what this node holds open, and says what that was.
///
/// # Errors
/// What could not be closed, all of it, in one message.
pub fn close() -> anyhow::Result<()> {
    let storage = Storage::start().context("LVM")?;
    let closed = provision::close::close_all(&storage).context("closing the volumes")?;
    println!(
        "agent: closed: {}, {}",
        counted(closed.volumes, "volume of a space", "volumes of spaces"),
        counted(closed.disks, "disk", "disks")
    );
    Ok(())
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
