//! What one disk is: read, nothing written.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use host::block::{Device, partition_path};
use host::command::Starts;
use host::names;
use inventory::Disk;
use market::quantity::Bytes;
use storage::Storage;
use storage::lvm::{LvmError, PhysicalVolume};
use storage::probe::{Content, Partition, partitions, probe};

use super::{Rules, is_group_of, mark};
use crate::step::chain;

/// One disk and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) model: Option<String>,
    pub(super) wwn: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) look: Look,
    /// The group on it that has to be closed before it is written.
    pub(super) group: Option<String>,
}

/// What a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// This machine booted from it.
    BootMedium,
    /// The kernel refuses writes.
    ReadOnly,
    /// Mounted, or part of something that is not ours.
    InUse,
    /// It could not be looked at.
    Unreadable { why: String },
    /// It hardly answers.
    Silent,
    /// Nothing is on it.
    Blank,
    /// Something is on it.
    Holds { content: Content },
    /// Claimed by this node.
    Ours { group: String },
    /// Our partition without a group, or a group in which nothing was ever kept, and the mark of a claim that was cut off.
    HalfDone,
    /// Our partition without a group, and no such mark: label, metadata or table rotted.
    Damaged,
    /// Claimed by another node.
    OtherNode { group: String },
}

impl Look {
    pub(super) fn words(&self) -> String {
        match self {
            Self::BootMedium => "the system".to_owned(),
            Self::ReadOnly | Self::InUse => "something".to_owned(),
            Self::Unreadable { why } => format!("what cannot be read ({why})"),
            Self::Silent => "what nobody waits for".to_owned(),
            Self::Blank => "nothing".to_owned(),
            Self::Holds { content } => content.words(),
            Self::Ours { .. } => "our own volumes".to_owned(),
            Self::HalfDone => "a claim that was cut off".to_owned(),
            Self::Damaged => "volumes of a node, damaged".to_owned(),
            Self::OtherNode { .. } => "another node's volumes".to_owned(),
        }
    }
}

impl Seen {
    /// What is on it, with the name of a group that LVM found there.
    pub(super) fn words(&self) -> String {
        match (&self.look, &self.group) {
            (Look::Holds { .. }, Some(group)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
                let group: String = group.chars().filter(|c| plain(*c)).take(64).collect();
                format!("{} of the volume group {group}", self.look.words())
            }
            _ => self.look.words(),
        }
    }
}

/// The physical volumes, by the device that each lies on.
pub(crate) struct Groups(BTreeMap<PathBuf, PhysicalVolume>);

impl Groups {
    pub(crate) fn read(storage: &Storage) -> Result<Self, LvmError> {
        let volumes = storage.lvm().pvs()?;
        Ok(Self(
            volumes.into_iter().map(|pv| (pv.device.clone(), pv)).collect(),
        ))
    }

    /// The names of all groups.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.0.values().filter_map(|pv| pv.group.as_deref()).collect()
    }

    /// What no volume of a group of ours has: such a group is one disk. Nothing where LVM does not see it.
    pub(super) fn free(&self, group: &str) -> Option<Bytes> {
        let mut volumes = self.0.values();
        let found = volumes.find(|pv| pv.group.as_deref() == Some(group));
        found.map(|pv| Bytes(pv.free_bytes))
    }
}

/// Looks at one disk; none for one without a medium.
pub(super) fn at(disk: &Disk, groups: &Groups, rules: &Rules<'_>) -> Option<Seen> {
    let path = Path::new("/dev").join(&disk.name);
    let size_bytes = disk.size_bytes.filter(|size| *size > 0)?;
    let (look, group) = if rules.boot_medium.contains(&disk.name) {
        (Look::BootMedium, None)
    } else if rules.silent.contains(&disk.name) {
        (Look::Silent, None)
    } else if disk.read_only == Some(true) {
        (Look::ReadOnly, None)
    } else {
        content(&path, groups, rules)
    };
    Some(Seen {
        name: disk.name.clone(),
        path,
        size_bytes,
        model: disk.model.clone(),
        wwn: disk.wwn.clone(),
        serial: disk.serial.clone(),
        look,
        group,
    })
}

fn content(path: &Path, groups: &Groups, rules: &Rules<'_>) -> (Look, Option<String>) {
    let unreadable = |error: &(dyn Error + 'static)| Look::Unreadable { why: chain(error) };
    let table = match partitions(path) {
        Ok(table) => table,
        Err(error) => return (unreadable(&error), None),
    };
    if let [only] = &table[..]
        && only.kind == names::CLAIM_TYPE
    {
        return claimed(path, only, groups, rules);
    }
    let content = match probe(path) {
        Ok(content) => content,
        Err(error) => return (unreadable(&error), None),
    };
    match content {
        Content::Unreadable { why } => return (Look::Unreadable { why }, None),
        // The mark alone: the claim was cut off before there was a table.
        Content::NotZero {
            offset: mark::MARK_AT,
            ..
        } if mark::is_there(path).unwrap_or(false) => {
            return (Look::HalfDone, None);
        }
        _ => {}
    }
    // Last, since it asks for the disk alone: a file system of the running system, a member of an
    // array that the kernel put together, or somebody's open device.
    let starts = Starts::hold();
    match Device::open_exclusive(path) {
        Ok(alone) => drop((alone, starts)),
        Err(error) if error.source.kind() == io::ErrorKind::ResourceBusy => return (Look::InUse, None),
        Err(error) => return (unreadable(&error), None),
    }
    let below = |pv: &&PhysicalVolume| {
        pv.device == path || table.iter().any(|p| pv.device == partition_path(path, p.number))
    };
    let group = groups.0.values().find(below).and_then(|pv| pv.group.clone());
    match content {
        Content::Empty => (Look::Blank, None),
        content => (Look::Holds { content }, group),
    }
}

fn claimed(path: &Path, partition: &Partition, groups: &Groups, rules: &Rules<'_>) -> (Look, Option<String>) {
    let device = partition_path(path, partition.number);
    let unfinished = match mark::is_there(path) {
        Ok(there) => there,
        Err(error) => return (Look::Unreadable { why: chain(&error) }, None),
    };
    match groups.0.get(&device).and_then(|pv| pv.group.as_ref()) {
        Some(group) if unfinished && rules.unborn.contains(group) => (Look::HalfDone, Some(group.clone())),
        Some(group) if is_group_of(&rules.node, group) => (Look::Ours { group: group.clone() }, None),
        Some(group) => (Look::OtherNode { group: group.clone() }, None),
        // Our GUID without a group: whoever began it, nothing was ever kept behind it, if it is marked.
        None if unfinished => (Look::HalfDone, None),
        None => (Look::Damaged, None),
    }
}
