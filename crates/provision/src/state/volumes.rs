//! The state volumes: found, made, mounted.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use host::command::{Program, Run};
use host::{mount, names};
use market::id::NodeId;
use nix::mount::MsFlags;
use storage::Storage;
use storage::lvm::LogicalVolume;
use storage::probe::{Signature, signatures};

use super::identity::{self, Identity};
use super::{JOURNAL, StateError};
use crate::claim::{is_group_of, is_node_group};
use crate::journal::Journal;
use crate::step::named;

/// Room for the journal: some hundred thousand steps.
const STATE_BYTES: u64 = 128 << 20;
const LABEL: &str = "steading-state";

/// What was found at power-on.
#[derive(Default)]
pub(super) struct Found {
    /// The group that leads; none on a new node.
    pub(super) leader: Option<Leader>,
    /// The highest generation of all groups of ours.
    pub(super) highest: u64,
    /// Groups in which nothing was ever kept.
    pub(super) unborn: BTreeSet<String>,
    /// Groups that the leader knew.
    pub(super) known: BTreeSet<String>,
    /// Groups of this node whose state volume is mounted.
    pub(super) mounted: BTreeSet<String>,
}

pub(super) struct Leader {
    pub(super) group: String,
    pub(super) identity: Identity,
}

/// A file on the mounted state volume of a group.
pub(super) fn path(group: &str, name: &str) -> PathBuf {
    names::state_mount(group).join(name)
}

/// Looks at the state of every group of a node among `groups`; ours stay mounted.
pub(super) fn find(storage: &Storage, groups: BTreeSet<&str>) -> Result<Found, StateError> {
    let groups = groups.into_iter().filter(|name| is_node_group(name));
    let groups: Vec<String> = groups.map(str::to_owned).collect();
    // Disks of two nodes in one machine: then nothing is written before it is known who we are.
    let alone = groups.iter().all(|group| group[..17] == groups[0][..17]);
    let mut found = Found::default();
    let mut seen = Vec::new();
    for group in groups {
        // Whatever is wrong with one group, another node's among them, does not stop the others.
        let volumes = match activate(storage, &group) {
            Ok(volumes) => volumes,
            #[cfg(feature = "fault-points")]
            Err(stopped @ StateError::Stopped(_)) => return Err(stopped),
            Err(error) => {
                tracing::warn!(group, error = %crate::step::chain(&error), "a group cannot be opened");
                leave(storage, &group);
                continue;
            }
        };
        match look(&group, &volumes, alone) {
            Ok(Some((identity, disk))) => seen.push((group, identity, disk)),
            Ok(None) if volumes.iter().all(|volume| volume.name == names::STATE_VOLUME) => {
                close(storage, &group)?;
                found.unborn.insert(group);
            }
            // Volumes and no identity: not begun anew, and nobody's until a person looks.
            Ok(None) => leave(storage, &group),
            // One damaged disk does not stop the others; what cannot be read is not begun anew.
            Err(error) => {
                tracing::warn!(group, error = %crate::step::chain(&error), "a disk's state cannot be read");
                leave(storage, &group);
            }
        }
    }
    let Some(node) = leading(&seen) else {
        return Ok(found);
    };
    let mut best = None;
    // Of one disk nobody has to know how much its journal has written.
    let is_alone = seen.len() == 1;
    for (group, identity, disk) in seen {
        if identity.node() != node || !is_group_of(&node, &group) {
            leave(storage, &group);
            continue;
        }
        if !alone {
            unmount(&group).and_then(|()| mount_volume(&group))?;
        }
        found.mounted.insert(group.clone());
        found.highest = found.highest.max(disk.generation);
        let written = if is_alone { 0 } else { writes(&group) };
        let rank = (disk.generation, written);
        if best.is_none_or(|best| rank > best) {
            best = Some(rank);
            found.known = disk.groups;
            found.leader = Some(Leader { group, identity });
        }
    }
    Ok(found)
}

fn activate(storage: &Storage, group: &str) -> Result<Vec<LogicalVolume>, StateError> {
    let volumes = storage.lvm().lvs(Some(group))?;
    named("activate", || {
        storage.lvm().vg_activate(group, true).map_err(StateError::from)
    })?;
    Ok(volumes)
}

/// How much the journal in a group has written; nothing where it cannot be read.
fn writes(group: &str) -> u64 {
    Journal::peek(&path(group, JOURNAL), |entry| entry.writes()).unwrap_or(0)
}

/// Closes a group that is not used. One that stays open is no reason to stop: spaces of it may run.
fn leave(storage: &Storage, group: &str) {
    if let Err(error) = close(storage, group) {
        tracing::warn!(group, error = %crate::step::chain(&error), "a group stays open");
    }
}

/// The node of the highest generation; of two that are equal, the first by group.
fn leading(seen: &[(String, Identity, identity::Disk)]) -> Option<NodeId> {
    let mut best: Option<(u64, NodeId)> = None;
    for (_, identity, disk) in seen {
        if best.is_none_or(|(generation, _)| disk.generation > generation) {
            best = Some((disk.generation, identity.node()));
        }
    }
    best.map(|(_, node)| node)
}

/// Reads the identity in a group, if there is a complete one.
fn look(
    group: &str,
    volumes: &[LogicalVolume],
    alone: bool,
) -> Result<Option<(Identity, identity::Disk)>, StateError> {
    if !volumes.iter().any(|volume| volume.name == names::STATE_VOLUME) || !is_made(group)? {
        return Ok(None);
    }
    if alone {
        mount_volume(group)?;
    } else {
        let flags = flags() | MsFlags::MS_RDONLY;
        mounted(group, flags, "noload")?;
    }
    Identity::read(group)
}

/// Whether our file system is on it: a cut may have come before mkfs ended. What cannot be read was not shown to be empty.
fn is_made(group: &str) -> Result<bool, StateError> {
    let device = names::lvm_device(group, names::STATE_VOLUME);
    let is_ours = |found: &Signature| found.kind == "ext4" && found.label.as_deref() == Some(LABEL);
    let found = signatures(&device).map_err(|source| StateError::Unreadable {
        group: group.to_owned(),
        source,
    })?;
    Ok(found.iter().any(is_ours))
}

/// Makes the state volume of a group of ours where it is missing, and mounts it.
pub(super) fn ensure(storage: &Storage, group: &str) -> Result<(), StateError> {
    let volumes = storage.lvm().lvs(Some(group))?;
    match volumes.iter().find(|volume| volume.name == names::STATE_VOLUME) {
        None => named("state-volume", || make_volume(storage, group))?,
        Some(volume) if !volume.active => storage.lvm().vg_activate(group, true)?,
        Some(_) => {}
    }
    if !is_made(group)? {
        named("state-file-system", || make_file_system(group))?;
    }
    named("state-mount", || mount_volume(group))
}

/// Making is tried first: to look costs as much.
fn make_volume(storage: &Storage, group: &str) -> Result<(), StateError> {
    let lvm = storage.lvm();
    let is_ours = |volume: &LogicalVolume| volume.name == names::STATE_VOLUME;
    match lvm.lv_create(group, names::STATE_VOLUME, STATE_BYTES, &["state"]) {
        Err(_) if lvm.lvs(Some(group))?.iter().any(is_ours) => Ok(()),
        result => Ok(result?),
    }
}

fn make_file_system(group: &str) -> Result<(), StateError> {
    let device = names::lvm_device(group, names::STATE_VOLUME);
    let options = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-m",
        "0",
        "-L",
        LABEL,
        "-E",
        "nodiscard",
    ];
    let made = Run::new(Program::MkfsExt4).args(options).path(&device).run();
    made.map(drop).map_err(|source| StateError::Mkfs {
        group: group.to_owned(),
        source,
    })
}

fn flags() -> MsFlags {
    MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME
}

fn mount_volume(group: &str) -> Result<(), StateError> {
    mounted(group, flags(), "")
}

fn mounted(group: &str, flags: MsFlags, data: &str) -> Result<(), StateError> {
    let device = names::lvm_device(group, names::STATE_VOLUME);
    mount::ensure_mounted(&device, &names::state_mount(group), "ext4", flags, data).map_err(|source| {
        StateError::Mount {
            group: group.to_owned(),
            source,
        }
    })
}

/// Unmounts the state of a group.
pub(super) fn unmount(group: &str) -> Result<(), StateError> {
    mount::ensure_unmounted(&names::state_mount(group)).map_err(|source| StateError::Mount {
        group: group.to_owned(),
        source,
    })
}

/// Unmounts the state of a group and deactivates the group.
pub(super) fn close(storage: &Storage, group: &str) -> Result<(), StateError> {
    unmount(group)?;
    Ok(storage.lvm().vg_activate(group, false)?)
}

/// A whole copy of the journal, beside it.
pub(super) fn copy_here(journal: &Journal, group: &str) -> Result<PathBuf, StateError> {
    let copy = path(group, "journal.copy");
    removed(&copy)?;
    journal.copy_to(&copy)?;
    Ok(copy)
}

/// Brings a copy of the journal to another group, in the place of the one before.
pub(super) fn bring_copy(copy: &Path, group: &str) -> Result<(), StateError> {
    let new = path(group, "journal.new");
    removed(&new)?;
    fs::copy(copy, &new)
        .and_then(|_| File::open(&new)?.sync_all())
        .map_err(|source| StateError::File {
            path: new.clone(),
            source,
        })?;
    Ok(Journal::replace(&new, &path(group, JOURNAL))?)
}

fn removed(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StateError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
