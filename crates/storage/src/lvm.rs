//! LVM: typed calls over liblvm2cmd.
//!
//! ```text
//!   Lvm::lv_create(..) ─► "lvcreate --yes -Wn -Zn -L …b -n NAME GROUP" ─► lvm2_run
//!                                                                           │ log callback
//!   Report as JSON, errors as the library's last lines  ◄───────────────────┘ line by line
//! ```
//!
//! liblvm2cmd takes command lines and answers through its log function; everything that comes
//! back is text. Invariants: a word that is put into a command line is checked first
//! ([`LvmError::Word`]), so that no name can become an option or a second argument; only linear
//! volumes are made, and snapshots of them; volumes are activated by us alone, since nothing else on the node does; a change
//! is durable when its call returns. LVM writes its metadata past the page cache and leaves it in the
//! disk's own: a power cut would bring back a volume that was removed, or take one that was made, and
//! the journal on another disk would say otherwise. So each change is followed by a flush.

pub(crate) mod config;
#[cfg(feature = "fault-points")]
pub mod cut;
mod ffi;
pub(crate) mod mapper;
mod report;
mod words;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use config::CONFIG_DIR;
pub(crate) use ffi::LvmSession;
#[cfg(fuzzing)]
pub use report::fuzz_report;
pub use report::{LogicalVolume, PhysicalVolume, VolumeGroup};
use words::Word;

use crate::owner::{OwnerError, Storage};

/// The size of an extent: every volume is a multiple of it.
pub const EXTENT_BYTES: u64 = 4 << 20;

/// Why LVM did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LvmError {
    /// LVM's configuration could not be written.
    #[error("cannot write {path}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This machine has an LVM configuration that we did not write: it is not a node.
    #[error("{path} is not ours: this machine has its own LVM, and its disks are left alone")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// liblvm2cmd gave no handle.
    #[error("LVM did not start: {0}")]
    Start(String),
    /// A name, tag or path that LVM's command line cannot carry.
    #[error("{word:?} cannot be a {what} of LVM")]
    Word {
        /// What it was to be.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// The command failed.
    #[error("{command} failed ({code}): {}", lines.join(" / "))]
    Failed {
        /// The command's name and its object.
        command: String,
        /// `lvm2_run`'s answer: 2 no such command, 3 invalid parameters, 5 processing failed.
        code: i32,
        /// The library's last lines.
        lines: Vec<String>,
    },
    /// What LVM wrote may still be in the disk's own cache.
    #[error("{path} does not flush")]
    Flush {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A report that is not what was asked for.
    #[error("{command} gave a report that cannot be read: {why}")]
    Report {
        /// The command's name.
        command: &'static str,
        /// Why.
        why: String,
    },
    /// The owner thread.
    #[error(transparent)]
    Owner(#[from] OwnerError),
}

/// LVM, spoken to through the owner thread.
#[derive(Clone)]
pub struct Lvm {
    storage: Storage,
}

impl Lvm {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    fn run(&self, line: Vec<Word>) -> Result<Vec<String>, LvmError> {
        let line = words::line(&line);
        self.storage.run(move |libraries| libraries.lvm.run(&line))?
    }

    /// Runs a command that changes a group.
    fn change(&self, group: &str, line: Vec<Word>) -> Result<(), LvmError> {
        self.run(line)?;
        // Which disk a group lies on is asked once: it costs as much as the change.
        let wanted = group.to_owned();
        let known = self
            .storage
            .run(move |libraries| libraries.disks.get(&wanted).cloned())?;
        if let Some(disk) = known
            && flush(&disk).is_ok()
        {
            return Ok(());
        }
        let on_group = |pv: &PhysicalVolume| pv.group.as_deref() == Some(group);
        for disk in self.pvs()?.into_iter().filter(on_group) {
            flush(&disk.device)?;
            self.remember(group, &disk.device)?;
        }
        Ok(())
    }

    fn remember(&self, group: &str, disk: &Path) -> Result<(), LvmError> {
        let (group, disk) = (group.to_owned(), disk.to_owned());
        self.storage
            .run(move |libraries| libraries.disks.insert(group, disk))?;
        Ok(())
    }

    fn forget(&self, group: &str) -> Result<(), LvmError> {
        let group = group.to_owned();
        self.storage
            .run(move |libraries| libraries.disks.remove(&group))?;
        Ok(())
    }

    /// All physical volumes that are seen, those without a group too.
    ///
    /// # Errors
    /// When LVM fails or its report cannot be read.
    pub fn pvs(&self) -> Result<Vec<PhysicalVolume>, LvmError> {
        report::physical_volumes(&self.run(report::command("pvs", report::PV_FIELDS))?)
    }

    /// All volume groups that are seen.
    ///
    /// # Errors
    /// As [`Lvm::pvs`].
    pub fn vgs(&self) -> Result<Vec<VolumeGroup>, LvmError> {
        report::volume_groups(&self.run(report::command("vgs", report::VG_FIELDS))?)
    }

    /// All logical volumes of `group`, or of every group.
    ///
    /// # Errors
    /// As [`Lvm::pvs`]; a group that is not there is an error.
    pub fn lvs(&self, group: Option<&str>) -> Result<Vec<LogicalVolume>, LvmError> {
        report::logical_volumes(&self.run(report::lvs(group)?)?)
    }

    /// Makes `device` a physical volume. What signatures it carries are wiped: ask first.
    ///
    /// # Errors
    /// When LVM fails.
    pub fn pv_create(&self, device: &Path) -> Result<(), LvmError> {
        let mut line = words::fixed(&["pvcreate", "--yes", "--zero", "y"]);
        line.push(Word::device(device)?);
        self.run(line)?;
        flush(device)
    }

    /// Makes a group of one physical volume.
    ///
    /// # Errors
    /// When LVM fails, or the group exists.
    pub fn vg_create(&self, group: &str, device: &Path, tags: &[&str]) -> Result<(), LvmError> {
        let mut line = words::fixed(&["vgcreate", "--yes", "--physicalextentsize", "4m"]);
        words::add_tags(&mut line, tags)?;
        line.push(Word::name("volume group", group)?);
        line.push(Word::device(device)?);
        self.run(line)?;
        flush(device)?;
        self.remember(group, device)
    }

    /// Activates (`true`) or deactivates every volume of a group. What somebody left who was killed while he changed one
    /// is put right with it: see [`mapper`].
    ///
    /// # Errors
    /// When LVM fails; deactivating fails while a volume is open.
    pub fn vg_activate(&self, group: &str, active: bool) -> Result<(), LvmError> {
        // A disk that comes back may have another name.
        self.forget(group)?;
        if active {
            let group = group.to_owned();
            return self
                .storage
                .run(move |libraries| libraries.lvm.activate(&group))?;
        }
        let mut line = words::fixed(&["vgchange", "-an"]);
        line.push(Word::name("volume group", group)?);
        self.run(line).map(drop)
    }

    /// Makes and activates a linear volume of at least `bytes` (rounded up to whole extents).
    /// Nothing is wiped or zeroed (`-Wn -Zn`): whoever fills it does so knowingly.
    ///
    /// # Errors
    /// When LVM fails, there is too little room, or the volume exists.
    pub fn lv_create(&self, group: &str, name: &str, bytes: u64, tags: &[&str]) -> Result<(), LvmError> {
        let mut line = words::fixed(&["lvcreate", "--yes", "--type", "linear", "-Wn", "-Zn", "-L"]);
        line.push(Word::bytes(bytes)?);
        words::add_tags(&mut line, tags)?;
        line.extend(words::fixed(&["-n"]));
        line.push(Word::name("logical volume", name)?);
        line.push(Word::name("volume group", group)?);
        self.change(group, line)
    }

    /// Makes and activates a snapshot of a volume, in use or not: it holds what the volume held at that moment, as after
    /// a power cut. `bytes` is the room for what changes from then on; nothing more than needed is taken.
    ///
    /// # Errors
    /// When LVM fails, there is too little room, or the snapshot exists.
    pub fn lv_snapshot(
        &self,
        group: &str,
        origin: &str,
        name: &str,
        bytes: u64,
        tags: &[&str],
    ) -> Result<(), LvmError> {
        let mut line = words::fixed(&["lvcreate", "--yes", "--snapshot", "--chunksize", "64k", "-L"]);
        line.push(Word::bytes(bytes)?);
        words::add_tags(&mut line, tags)?;
        line.extend(words::fixed(&["-n"]));
        line.push(Word::name("logical volume", name)?);
        line.push(Word::volume(group, origin)?);
        self.change(group, line)
    }

    /// Grows a volume to `bytes` (rounded up to whole extents).
    ///
    /// # Errors
    /// When LVM fails, there is too little room, or it already has that size or a larger one.
    pub fn lv_extend(&self, group: &str, name: &str, bytes: u64) -> Result<(), LvmError> {
        let mut line = words::fixed(&["lvextend", "--yes", "-L"]);
        line.push(Word::bytes(bytes)?);
        line.push(Word::volume(group, name)?);
        self.change(group, line)
    }

    /// Makes a volume read-only and adds a tag to it, in one change of the group's metadata.
    ///
    /// # Errors
    /// When LVM fails.
    pub fn lv_seal(&self, group: &str, name: &str, tag: &str) -> Result<(), LvmError> {
        let mut line = words::fixed(&["lvchange", "--yes", "--permission", "r"]);
        words::add_tags(&mut line, &[tag])?;
        line.push(Word::volume(group, name)?);
        self.change(group, line)
    }

    /// Removes a volume; its extents are discarded where the disk can.
    ///
    /// # Errors
    /// When LVM fails, the volume is open, or it is not there.
    pub fn lv_remove(&self, group: &str, name: &str) -> Result<(), LvmError> {
        let mut line = words::fixed(&["lvremove", "--yes"]);
        line.push(Word::volume(group, name)?);
        self.change(group, line)?;
        let group = group.to_owned();
        self.storage
            .run(move |libraries| libraries.lvm.let_go_of_orphans(&group))?;
        Ok(())
    }

    /// Removes a group with all that is in it. Its physical volume stays, empty.
    ///
    /// # Errors
    /// When LVM fails, or a volume is open.
    pub fn vg_remove(&self, group: &str) -> Result<(), LvmError> {
        let mut line = words::fixed(&["vgremove", "--yes", "--force"]);
        line.push(Word::name("volume group", group)?);
        self.forget(group)?;
        self.run(line).map(drop)
    }
}

/// Returns when what the disk took is on it. Opened for reading: nothing of ours is in the page cache.
fn flush(disk: &Path) -> Result<(), LvmError> {
    #[cfg(feature = "fault-points")]
    if SKIP_FLUSHES.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(());
    }
    let flushed = File::open(disk).and_then(|disk| disk.sync_all());
    flushed.map_err(|source| LvmError::Flush {
        path: disk.to_owned(),
        source,
    })
}

/// A test leaves the flushes away, to see that it is seen.
#[cfg(feature = "fault-points")]
pub static SKIP_FLUSHES: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
