//! The blocking work of the steps: LVM, LUKS, ext4, mount.

mod snapshot;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use host::block::Device;
use host::command::{Program, Run};
use host::{mount, names};
use market::id::SaleId;
use nix::mount::MsFlags;
use storage::Storage;
use storage::luks::UnlockKey;
use storage::lvm::{EXTENT_BYTES, LogicalVolume};
use storage::probe::{Signature, probe, signatures};

use super::{TAG, VolumeError, extents_for, journal_bytes};
use crate::step::{chain, named};

/// Inode tables are not zeroed behind the space's back: the kernel knows which are in use, and to encrypt 16 MiB of
/// zeros for each GiB takes a second of CPU on a slow node, just while the space starts.
const MOUNT_OPTIONS: &str = "noinit_itable";

/// Where the volume of one sale lies.
pub(super) struct Place {
    storage: Storage,
    sale: SaleId,
    group: String,
}

impl Place {
    pub(super) fn new(storage: Storage, sale: SaleId, group: &str) -> Self {
        Self {
            storage,
            sale,
            group: group.to_owned(),
        }
    }

    fn name(&self) -> String {
        names::space_volume(self.sale.as_bytes())
    }

    fn tag(&self) -> String {
        format!("{TAG}{}", self.sale)
    }

    fn mapping(&self) -> String {
        names::mapping(self.sale.as_bytes())
    }

    fn mount_point(&self) -> PathBuf {
        names::volume_mount(self.sale.as_bytes())
    }

    fn device(&self) -> PathBuf {
        names::lvm_device(&self.group, &self.name())
    }

    /// The file system's UUID is made from the sale's id, so that it is known again.
    fn uuid(&self) -> String {
        let hex = self.sale.to_string();
        let part = |range: std::ops::Range<usize>| &hex[range];
        [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
    }

    /// The volume of this sale; one of that name and another sale is an error.
    fn find(&self) -> Result<Option<LogicalVolume>, VolumeError> {
        self.find_named(self.name())
    }

    fn find_named(&self, name: String) -> Result<Option<LogicalVolume>, VolumeError> {
        let found = self
            .storage
            .lvm()
            .lvs(Some(&self.group))?
            .into_iter()
            .find(|lv| lv.name == name);
        match found {
            Some(volume) if !volume.tags.contains(&self.tag()) => Err(VolumeError::Another {
                name,
                tags: volume.tags.join(" "),
            }),
            found => Ok(found),
        }
    }

    /// The volume of this sale, active.
    fn find_active(&self) -> Result<Option<LogicalVolume>, VolumeError> {
        let found = self.find()?;
        if found.as_ref().is_some_and(|volume| !volume.active) {
            self.storage.lvm().vg_activate(&self.group, true)?;
        }
        Ok(found)
    }

    /// Makes LV, LUKS header and file system, and leaves it open; a volume that has all three is left as it is.
    pub(super) fn ensure_made(&self, disk: u64, key: Option<&UnlockKey>) -> Result<(), VolumeError> {
        if self.ensure_volume(disk)? {
            return self.make_content(disk);
        }
        let luks = self.storage.luks();
        let (device, mapping) = (self.device(), self.mapping());
        let there = if luks.is_made_here(&mapping)? {
            Some(names::mapping_device(&mapping))
        } else {
            match key {
                Some(key) if luks.opens(&device, key).unwrap_or(false) => {
                    Some(luks.open(&device, &mapping, key)?)
                }
                // Some key opens it: whose it is cannot be told now.
                None if luks.has_key(&device)? => return Err(VolumeError::Keyed),
                // What an interrupted build left: the user's key was other then, or there was none, and nothing
                // was ever written below a file system.
                _ => None,
            }
        };
        match there {
            Some(mapping) if self.has_our_file_system(&mapping)? => Ok(()),
            Some(mapping) => self.make_file_system(&mapping, disk),
            None => {
                self.refuse_if_open()?;
                self.make_content(disk)
            }
        }
    }

    /// Makes the logical volume; whether it is new. Making is tried first, since LVM refuses a name that is taken, and
    /// looking costs as much as making.
    fn ensure_volume(&self, disk: u64) -> Result<bool, VolumeError> {
        // No disk has 2^64 bytes: LVM says that there is too little room.
        let bytes = extents_for(disk).unwrap_or(u64::MAX);
        let lvm = self.storage.lvm();
        match lvm.lv_create(&self.group, &self.name(), bytes, &[&self.tag()]) {
            Ok(()) => Ok(true),
            Err(error) => match self.find_active()? {
                Some(_) => Ok(false),
                None => Err(error.into()),
            },
        }
    }

    /// A new header and a new file system, on a volume that has nothing worth keeping.
    fn make_content(&self, disk: u64) -> Result<(), VolumeError> {
        let mapping = self.storage.luks().create(&self.device(), &self.mapping())?;
        self.make_file_system(&mapping, disk)
    }

    /// The one key slot.
    pub(super) fn ensure_key(&self, key: &UnlockKey) -> Result<(), VolumeError> {
        let luks = self.storage.luks();
        Ok(luks.add_key(&self.device(), &self.mapping(), key)?)
    }

    /// A mapping that is open is somebody's at work: never format below it.
    fn refuse_if_open(&self) -> Result<(), VolumeError> {
        if self.storage.luks().is_open(&self.mapping())? {
            return Err(storage::luks::LuksError::Busy {
                mapping: self.mapping(),
            }
            .into());
        }
        Ok(())
    }

    fn has_our_file_system(&self, mapping: &Path) -> Result<bool, VolumeError> {
        // What decrypts to noise was never written; it is not a signature of anything.
        let uuid = self.uuid();
        let is_ours = |found: &Signature| found.kind == "ext4" && found.uuid.as_deref() == Some(&uuid);
        Ok(signatures(mapping)?.iter().any(is_ours))
    }

    /// ext4, lazy: inode tables and journal are zeroed when they are used. No blocks are kept for
    /// root (`-m 0`): all of it was sold. The journal's size is ours to choose, so that what a volume loses
    /// to it can be told ([`least_bytes`](super::least_bytes)). No discard: it would not pass the encryption.
    fn make_file_system(&self, mapping: &Path, disk: u64) -> Result<(), VolumeError> {
        let uuid = self.uuid();
        let journal = format!("size={}", journal_bytes(disk) >> 20);
        let arguments = [
            "-q",
            "-F",
            "-b",
            "4096",
            "-I",
            "256",
            "-m",
            "0",
            "-J",
            &journal,
            "-U",
            &uuid,
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
        ];
        Run::new(Program::MkfsExt4).args(arguments).path(mapping).run()?;
        Ok(())
    }

    /// Opens and mounts it, unmapped, and with the key makes it as large as was sold. One that was made a moment ago is
    /// open, and there is no key that it could ask for. One that was mounted just now is there, grown or not.
    pub(super) fn ensure_mounted(&self, disk: u64, key: Option<&UnlockKey>) -> Result<(), VolumeError> {
        let luks = self.storage.luks();
        let mapping = if luks.is_made_here(&self.mapping())? {
            names::mapping_device(&self.mapping())
        } else {
            if self.find_active()?.is_none() {
                return Err(self.absent());
            }
            let key = key.ok_or(VolumeError::NoKey)?;
            let mapping = luks.open(&self.device(), &self.mapping(), key)?;
            if !self.has_our_file_system(&mapping)? {
                let what = probe(&mapping)?.words();
                return Err(VolumeError::NotOurs { what });
            }
            mapping
        };
        let (target, flags) = (self.mount_point(), MsFlags::MS_NODEV);
        let is_in_use = mount::is_mount_point(&target).unwrap_or(false);
        mount::ensure_mounted(&mapping, &target, "ext4", flags, MOUNT_OPTIONS)?;
        match key.map_or(Ok(()), |key| self.ensure_grown(disk, key)) {
            Err(error) if !is_in_use => {
                tracing::warn!(sale = %self.sale, error = %chain(&error), "a volume is opened and does not grow");
                Ok(())
            }
            grown => grown,
        }
    }

    /// Unmounts and closes it: its key leaves the kernel.
    pub(super) fn ensure_locked(&self) -> Result<(), VolumeError> {
        let target = self.mount_point();
        mount::ensure_unmounted(&target)?;
        // The empty folder is litter, not a resource: that it stays is no failure.
        let _ = std::fs::remove_dir(&target);
        self.storage.luks().close(&self.mapping())?;
        Ok(())
    }

    /// Destroys key slots and header, then the volume; its extents are discarded by LVM.
    pub(super) fn ensure_destroyed(&self) -> Result<(), VolumeError> {
        self.ensure_locked()?;
        // Overwriting the header below a snapshot would keep the old one, its key slot too, in the snapshot.
        if self.find_snapshot()?.is_some() {
            return Err(VolumeError::Snapshot);
        }
        match self.find_active() {
            Ok(Some(_)) => {}
            // A volume of another sale is not ours to remove; ours was then never made.
            Ok(None) | Err(VolumeError::Another { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.storage.luks().destroy(&self.device())?;
        self.storage.lvm().lv_remove(&self.group, &self.name())?;
        Ok(())
    }

    /// Grows logical volume, mapping and file system, each where it is smaller, while it is mounted.
    pub(super) fn ensure_grown(&self, disk: u64, key: &UnlockKey) -> Result<(), VolumeError> {
        let mapping = names::mapping_device(&self.mapping());
        if Device::open(&mapping)?.size()? < disk {
            if self.find_active()?.is_none() {
                return Err(self.absent());
            }
            if self.find_snapshot()?.is_some() {
                return Err(VolumeError::Snapshot);
            }
            let bytes = extents_for(disk).unwrap_or(u64::MAX);
            named("extend-volume", || {
                // Looked at again where it is repeated: LVM refuses to grow a volume to the size that it has.
                match self.find()? {
                    Some(volume) if volume.size_bytes < bytes => {
                        Ok(self.storage.lvm().lv_extend(&self.group, &self.name(), bytes)?)
                    }
                    _ => Ok::<_, VolumeError>(()),
                }
            })?;
            named("extend-mapping", || {
                let luks = self.storage.luks();
                luks.resize(&self.device(), &self.mapping(), key)
                    .map_err(VolumeError::from)
            })?;
        }
        let room = Device::open(&mapping)?.size()?;
        if fills(file_system_bytes(&mapping)?, room) {
            return Ok(());
        }
        named("extend-file-system", || {
            let grown = Run::new(Program::Resize2fs).path(&mapping).run();
            grown.map(drop).map_err(VolumeError::from)
        })
    }

    /// Whether mapping and file system have this size.
    pub(super) fn is_grown(&self, disk: u64) -> Result<bool, VolumeError> {
        let mapping = names::mapping_device(&self.mapping());
        let room = Device::open(&mapping)?.size()?;
        Ok(room >= disk && fills(file_system_bytes(&mapping)?, room))
    }

    fn absent(&self) -> VolumeError {
        VolumeError::Absent {
            sale: self.sale,
            group: self.group.clone(),
        }
    }
}

/// Whether a file system has all the room that it can: ext4 leaves out a last group that is too small to hold anything.
fn fills(file_system: u64, room: u64) -> bool {
    file_system.saturating_add(EXTENT_BYTES) > room
}

/// What the file system itself says of its size: the count of blocks in ext4's superblock, of 4 KiB as we make them.
fn file_system_bytes(mapping: &Path) -> Result<u64, VolumeError> {
    const SUPERBLOCK: u64 = 1024;
    let word = |at: u64| -> std::io::Result<u64> {
        let mut bytes = [0; 4];
        File::open(mapping)?.read_exact_at(&mut bytes, SUPERBLOCK + at)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    let (low, high) = (word(0x4), word(0x150));
    let blocks = low.map_err(VolumeError::Superblock)? | high.map_err(VolumeError::Superblock)? << 32;
    Ok(blocks.saturating_mul(4096))
}
