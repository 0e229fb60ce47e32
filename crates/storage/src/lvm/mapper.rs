//! The kernel's mappings against the group's metadata, after an agent that was killed within a command of LVM.
//!
//! ```text
//!   metadata says             mappings that explain themselves       left by a kill, in any mixture
//!   space                     space                                  suspended; a node missing, or of another device
//!   space, snap of space      space  space-real  snap  snap-cow      a layer (-real, -cow) without its snapshot
//! ```
//!
//! LVM makes what is suspended go on when it activates a volume, but by the table that waits, be it of a change that was
//! never committed: a volume could reach into extents that are another's later. So it is given the table of the metadata.
//! LVM makes no node for a volume that is active already, and stumbles over layers that its metadata no longer knows:
//! those are let go of here. A layer that is still below something stays; it goes when that goes.
//!
//! libdevmapper by hand, as `libdevmapper.h` of 1.02 declares it: both C libraries stand on it.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

use host::names;

use super::words::{self, Word};
use super::{LogicalVolume, Lvm, LvmError};

/// What is done to a mapping.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// `DM_DEVICE_REMOVE`.
    Remove = 2,
    /// `DM_DEVICE_CLEAR`: the table that was loaded and waits to be put in force goes, and what it holds with it.
    Clear = 14,
}

/// How LVM names what lies below an origin, and below a snapshot. A volume's own hyphens are doubled in these names.
const REAL: &str = "-real";
const COW: &str = "-cow";

unsafe extern "C" {
    fn dm_mknodes(name: *const c_char) -> c_int;
    fn dm_task_create(kind: c_int) -> *mut c_void;
    fn dm_task_set_name(task: *mut c_void, name: *const c_char) -> c_int;
    fn dm_task_run(task: *mut c_void) -> c_int;
    fn dm_task_destroy(task: *mut c_void);
    fn dm_task_update_nodes();
}

impl Lvm {
    /// Activates all volumes of a group, and puts right what is against the metadata.
    pub(super) fn activate(&self, group: &str) -> Result<(), LvmError> {
        let change = || {
            let mut line = words::fixed(&["vgchange", "-ay"]);
            line.push(Word::name("volume group", group)?);
            self.run(line)
        };
        let held = suspended(group);
        let mut done = change();
        if !held.is_empty() {
            self.refresh(group, &held)?;
        }
        self.let_go(group)?;
        if done.is_err() {
            done = change();
        }
        self.storage.run(|_| make_nodes())?;
        done.map(drop)
    }

    /// Lets go of the layers below a group's volumes that no snapshot explains.
    pub(super) fn let_go(&self, group: &str) -> Result<(), LvmError> {
        if !of_group(group).iter().any(|name| is_layer(name)) {
            return Ok(());
        }
        let explained = explained(&self.lvs(Some(group))?);
        let left = || -> BTreeSet<String> {
            let is_left = |name: &String| is_layer(name) && !explained.contains(name);
            of_group(group).into_iter().filter(is_left).collect()
        };
        // A volume that goes on above such a layer holds it.
        let first = left();
        if !first.is_empty() {
            self.refresh(group, &first)?;
        }
        let (left, there) = (left(), of_group(group));
        if left.is_empty() {
            return Ok(());
        }
        self.storage.run(move |_| {
            // A table that waits holds what it names.
            for name in there {
                run(Act::Clear, &name);
            }
            for name in left {
                let gone = run(Act::Remove, &name);
                tracing::warn!(name, gone, "a mapping that no volume explains");
            }
        })?;
        Ok(())
    }

    /// Gives the volumes of which these are mappings the tables that the metadata describes.
    fn refresh(&self, group: &str, mappings: &BTreeSet<String>) -> Result<(), LvmError> {
        for volume in self.lvs(Some(group))? {
            let own = names::lvm_mapping(group, &volume.name);
            let mut all = layers_of(&volume).into_iter().chain([own]);
            if all.any(|name| mappings.contains(&name)) {
                let mut line = words::fixed(&["lvchange", "--refresh"]);
                line.push(Word::volume(group, &volume.name)?);
                if let Err(error) = self.run(line) {
                    tracing::warn!(%error, "a volume keeps its table");
                }
            }
        }
        Ok(())
    }
}

/// Gives every mapping of the kernel its node in `/dev/mapper`, and takes away those that name none. On the owner thread.
pub(super) fn make_nodes() {
    // SAFETY: null stands for all mappings; this thread alone uses libdevmapper.
    unsafe {
        dm_mknodes(std::ptr::null());
        dm_task_update_nodes();
    }
}

/// Does so to a mapping; whether it was done: one that is in use is not removed. On the owner thread.
fn run(act: Act, name: &str) -> bool {
    let Ok(name) = CString::new(name) else {
        return false;
    };
    // SAFETY: the task is checked for null, used by this thread alone and destroyed once; the name lives for the call.
    unsafe {
        let task = dm_task_create(act as c_int);
        if task.is_null() {
            return false;
        }
        let done = dm_task_set_name(task, name.as_ptr()) == 1 && dm_task_run(task) == 1;
        dm_task_destroy(task);
        dm_task_update_nodes();
        done
    }
}

/// The group's mappings, of volumes and layers, that the kernel has.
fn of_group(group: &str) -> BTreeSet<String> {
    those_of_group(group, |_| true)
}

/// Those of them that let nothing through.
fn suspended(group: &str) -> BTreeSet<String> {
    those_of_group(group, |device| {
        std::fs::read_to_string(device.join("dm/suspended")).is_ok_and(|text| text.trim_end() == "1")
    })
}

fn those_of_group(group: &str, wanted: impl Fn(&Path) -> bool) -> BTreeSet<String> {
    let own = names::lvm_mapping(group, "");
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices
        .map(|device| device.path())
        .filter_map(|device| Some((std::fs::read_to_string(device.join("dm/name")).ok()?, device)))
        .filter(|(name, device)| name.starts_with(&own) && wanted(device))
        .map(|(name, _)| name.trim_end().to_owned())
        .collect()
}

/// Whether that mapping lies below a volume's own.
fn is_layer(name: &str) -> bool {
    name.ends_with(REAL) || name.ends_with(COW)
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
        assert!(!is_layer(&names::lvm_mapping("steading-1", "space-real")));
    }
}
