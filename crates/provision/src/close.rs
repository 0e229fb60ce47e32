//! Closing everything that lies on disks, for halt: `agent close`, in a process of its own, when the
//! agent and all spaces have ended.
//!
//! ```text
//!   spaces' volumes: unmount, close (their keys leave the kernel) ─► bases: close; states: unmount ─► groups: off
//! ```
//!
//! It asks no journal: what is mounted and mapped under our names is what there is. It never stops
//! at an error, and repeating it is harmless.

use std::fs;

use host::{mount, names};
use market::id::SaleId;
use storage::Storage;

use crate::base;
use crate::claim::is_node_group;
use crate::step::chain;

/// What could not be closed, one line each.
#[derive(Debug, thiserror::Error)]
#[error("not closed: {}", .0.join("; "))]
pub struct CloseError(pub Vec<String>);

/// What was open and is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Closed {
    /// Volumes of spaces.
    pub volumes: usize,
    /// Disks: each is a group by itself.
    pub disks: usize,
}

/// Closes volumes, bases, states and groups. Blocking.
///
/// # Errors
/// [`CloseError`] with all that stayed open; the rest is closed.
pub fn close_all(storage: &Storage) -> Result<Closed, CloseError> {
    let mut left = Vec::new();
    let mut done = Closed::default();
    let mut keep = |what: String, result: Result<(), String>| {
        if let Err(why) = result {
            left.push(format!("{what}: {why}"));
        }
    };
    for folder in [names::RUN_VOLUME, names::RUN_BASE, names::RUN_STATE] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            keep(
                path.display().to_string(),
                mount::ensure_unmounted(&path).map_err(|e| chain(&e)),
            );
        }
    }
    let groups = storage.lvm().vgs().unwrap_or_else(|error| {
        keep("groups".to_owned(), Err(chain(&error)));
        Vec::new()
    });
    for group in groups.into_iter().filter(|group| is_node_group(&group.name)) {
        for sale in storage
            .lvm()
            .lvs(Some(&group.name))
            .unwrap_or_default()
            .iter()
            .filter_map(sale_of)
        {
            let mapping = names::mapping(sale.as_bytes());
            let open = names::mapping_device(&mapping).exists();
            let closed = storage.luks().close(&mapping).map_err(|e| chain(&e));
            done.volumes += usize::from(open && closed.is_ok());
            keep(mapping, closed);
        }
        for digest in base::open_in(&group.name) {
            let mapping = names::base_mapping(&group.name, digest.as_bytes());
            let closed = storage.verity().close(&mapping).map_err(|e| chain(&e));
            keep(mapping, closed);
        }
        let off = storage
            .lvm()
            .vg_activate(&group.name, false)
            .map_err(|e| chain(&e));
        done.disks += usize::from(off.is_ok());
        keep(group.name, off);
    }
    if left.is_empty() {
        Ok(done)
    } else {
        Err(CloseError(left))
    }
}

/// The sale of a space's volume, from its tag.
pub(crate) fn sale_of(volume: &storage::lvm::LogicalVolume) -> Option<SaleId> {
    volume
        .tags
        .iter()
        .find_map(|tag| tag.strip_prefix("sale-")?.parse().ok())
}
