//! The kernel's mappings against the group's metadata, after an agent that was killed within a command of LVM.
//!
//! ```text
//!   metadata says             mappings that explain themselves       left by a kill, in any mixture
//!   space                     space                                  suspended; a table that waits; a node missing
//!   space, snap of space      space  space-real  snap  snap-cow      a layer (-real, -cow) without its snapshot
//!
//!   clear what waits ─► vgchange -ay ─► let go of layers ─► nodes
//! ```
//!
//! A table that was loaded and never put in force may be of a change that was never committed, and LVM would take it for its
//! own at the next change: the volume would reach into extents that are another's by then. So these go first, and LVM makes
//! what is suspended go on by the table of the metadata. LVM makes no node for a volume that is active already, and stumbles
//! over layers that its metadata no longer knows: those are let go of. A layer that is still below something stays; it goes
//! when that goes.
//!
//! All of it is looked at and done on the owner thread: no command of LVM is half done meanwhile.
//!
//! libdevmapper by hand, as `libdevmapper.h` of 1.02 declares it: libcryptsetup stands on it; liblvm2cmd has its own copy.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

use host::names;

use super::words::{self, Word};
use super::{LogicalVolume, LvmError, LvmSession, report};

/// What is done to a mapping.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// `DM_DEVICE_REMOVE`.
    Remove = 2,
    /// `DM_DEVICE_CLEAR`: the table that was loaded and waits to be put in force goes, and what it holds with it.
    Clear = 14,
}

/// How LVM names what lies below an origin, and below a snapshot.
const REAL: &str = "-real";
const COW: &str = "-cow";

unsafe extern "C" {
    fn dm_mknodes(name: *const c_char) -> c_int;
    fn dm_task_create(kind: c_int) -> *mut c_void;
    fn dm_task_set_name(task: *mut c_void, name: *const c_char) -> c_int;
    fn dm_task_run(task: *mut c_void) -> c_int;
    fn dm_task_destroy(task: *mut c_void);
    fn dm_lib_release();
}

impl LvmSession {
    /// Activates all volumes of a group, and puts right what is against the metadata. Every step is tried; the first error
    /// is told.
    pub(super) fn activate(&mut self, group: &str) -> Result<(), LvmError> {
        let mut line = words::fixed(&["vgchange", "-ay"]);
        line.push(Word::name("volume group", group)?);
        let line = words::line(&line);
        clear(group);
        let first = self.run(&line);
        let mut done = first.is_ok();
        let let_go = self.let_go(group);
        if !done {
            done = self.run(&line).is_ok();
        }
        make_nodes();
        if done { let_go } else { first.map(drop) }
    }

    /// After a volume was removed: lets go of layers that it left. Where there are none, this is one look at the kernel's list.
    pub(super) fn let_go_of_orphans(&mut self, group: &str) {
        let left = |(name, holders): (String, usize)| is_orphan(&name, holders);
        if of_group(group).into_iter().any(left)
            && let Err(error) = self.let_go(group)
        {
            tracing::warn!(%error, "layers of a snapshot stay");
        }
    }

    /// Lets go of the layers below a group's volumes that no snapshot explains.
    fn let_go(&mut self, group: &str) -> Result<(), LvmError> {
        if !of_group(group).keys().any(|name| is_layer(name)) {
            return Ok(());
        }
        let line = words::line(&report::lvs(Some(group))?);
        let volumes = report::logical_volumes(&self.run(&line)?)?;
        let explained = explained(&volumes);
        let left = || -> BTreeSet<String> {
            let is_left = |name: &String| is_layer(name) && !explained.contains(name);
            of_group(group).into_keys().filter(is_left).collect()
        };
        if left().is_empty() {
            return Ok(());
        }
        // What waits holds what it names, and a refresh would put it in force.
        clear(group);
        remove(left());
        // A volume that goes on above such a layer is given the table that the metadata describes.
        let held = left();
        let above = |volume: &&LogicalVolume| layers_of(volume).iter().any(|layer| held.contains(layer));
        for volume in volumes.iter().filter(above) {
            let mut line = words::fixed(&["lvchange", "--refresh"]);
            line.push(Word::volume(group, &volume.name)?);
            if let Err(error) = self.run(&words::line(&line)) {
                tracing::warn!(%error, "a volume keeps its table");
            }
        }
        remove(left());
        Ok(())
    }
}

/// Removes those that nothing holds.
fn remove(layers: BTreeSet<String>) {
    for name in layers {
        let gone = run(Act::Remove, &name);
        tracing::warn!(name, gone, "a mapping that no volume explains");
    }
}

/// Lets go of a mapping that never had a table in force: it has no sectors. Whether it was one, and is gone.
pub(crate) fn let_go_of_empty(name: &str) -> bool {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let says = |device: &Path, file: &str| std::fs::read_to_string(device.join(file)).unwrap_or_default();
    let is_empty = devices
        .map(|device| device.path())
        .any(|device| says(&device, "dm/name").trim_end() == name && says(&device, "size").trim() == "0");
    let gone = is_empty && run(Act::Remove, name);
    if is_empty {
        tracing::warn!(name, gone, "a mapping that was never opened");
    }
    gone
}

/// Gives every mapping of the kernel its node in `/dev/mapper`, and takes away those that name none.
fn make_nodes() {
    // SAFETY: null stands for all mappings; the owner thread alone uses libdevmapper. The release makes the nodes, and closes
    // the library's way to the kernel, which programs would inherit.
    unsafe {
        dm_mknodes(std::ptr::null());
        dm_lib_release();
    }
}

/// Takes the tables that wait from a group's mappings: no command is at work, so nobody will put them in force.
fn clear(group: &str) {
    for name in of_group(group).into_keys() {
        run(Act::Clear, &name);
    }
}

/// Does so to a mapping; whether it was done: one that is in use is not removed.
fn run(act: Act, name: &str) -> bool {
    let Ok(name) = CString::new(name) else {
        return false;
    };
    // SAFETY: the task is checked for null, used by the owner thread alone and destroyed once; the name lives for the call.
    unsafe {
        let task = dm_task_create(act as c_int);
        if task.is_null() {
            return false;
        }
        let done = dm_task_set_name(task, name.as_ptr()) == 1 && dm_task_run(task) == 1;
        dm_task_destroy(task);
        dm_lib_release();
        done
    }
}

/// The group's mappings, of volumes and layers, that the kernel has; with each how many stand on it.
fn of_group(group: &str) -> BTreeMap<String, usize> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices
        .filter_map(|device| {
            let name = std::fs::read_to_string(device.path().join("dm/name")).ok()?;
            let holders = std::fs::read_dir(device.path().join("holders"));
            Some((name.trim_end().to_owned(), holders.map_or(0, Iterator::count)))
        })
        .filter(|(name, _)| is_of_group(name, group))
        .collect()
}

/// A group's own hyphens are doubled, and no volume's name begins with one.
fn is_of_group(name: &str, group: &str) -> bool {
    let rest = name.strip_prefix(&names::lvm_mapping(group, ""));
    rest.is_some_and(|rest| !rest.starts_with('-'))
}

/// Whether that mapping lies below a volume's own. A volume's own hyphens are doubled.
fn is_layer(name: &str) -> bool {
    let of = |suffix| name.strip_suffix(suffix).is_some_and(|rest| !rest.ends_with('-'));
    of(REAL) || of(COW)
}

/// Whether it is a layer without those that stand on a whole snapshot's: the snapshot on its store, and it and the volume
/// on what is below both.
fn is_orphan(name: &str, holders: usize) -> bool {
    is_layer(name) && holders < if name.ends_with(REAL) { 2 } else { 1 }
}

/// The layers that a volume has if it is the origin of a snapshot, and if it is one.
fn layers_of(volume: &LogicalVolume) -> [String; 2] {
    let mapping = names::lvm_mapping(&volume.group, &volume.name);
    [REAL, COW].map(|suffix| format!("{mapping}{suffix}"))
}

/// The layers that the metadata of a group explains.
fn explained(volumes: &[LogicalVolume]) -> BTreeSet<String> {
    let of = |volume: &LogicalVolume| {
        let origin = names::lvm_mapping(&volume.group, volume.origin.as_deref()?);
        let [_, cow] = layers_of(volume);
        Some([format!("{origin}{REAL}"), cow])
    };
    volumes.iter().filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_explains_the_layer_of_its_origin_and_its_own() {
        let volume = |name: &str, origin: Option<&str>| LogicalVolume {
            name: name.to_owned(),
            uuid: String::new(),
            group: "steading-1".to_owned(),
            group_bytes: 1,
            size_bytes: 1,
            tags: Vec::new(),
            active: true,
            writeable: true,
            path: names::lvm_device("steading-1", name),
            origin: origin.map(str::to_owned),
        };
        let alone = [volume("space-a", None), volume("space-real", None)];
        assert!(explained(&alone).is_empty());
        let both = [volume("space-a", None), volume("snap-a", Some("space-a"))];
        let layers = ["steading--1-snap--a-cow", "steading--1-space--a-real"];
        assert_eq!(explained(&both), layers.map(str::to_owned).into());
        assert!(explained(&both).iter().all(|name| is_layer(name)));
        let [cow, real] = layers;
        assert!(!is_orphan(cow, 1) && !is_orphan(real, 2), "whole");
        assert!(is_orphan(cow, 0) && is_orphan(real, 1));
    }

    #[test]
    fn a_volume_is_no_layer_and_another_groups_is_not_of_this_one() {
        assert!(!is_layer(&names::lvm_mapping("steading-1", "space-real")));
        assert!(!is_layer(&names::lvm_mapping("steading-1", "space-cow")));
        let mapping = names::lvm_mapping("steading-1-2", "space-a");
        assert!(is_of_group(&mapping, "steading-1-2") && !is_of_group(&mapping, "steading-1"));
    }
}
