//! The blocking work about a snapshot: make, remove, put back.
//!
//! ```text
//!   space-<16 hex>   snapshot-origin ──► the old chunk first, then the new data      what runs goes on above
//!   snap-<16 hex>    snapshot ──► the store, else the volume
//! ```

use host::{mount, names};
use storage::lvm::LogicalVolume;
use storage::snapshot::Devices;

use super::{Place, VolumeError};
use crate::limits::DISK_BYTES_PER_SECOND;
use crate::step::named;

impl Place {
    fn snapshot_name(&self) -> String {
        names::snapshot_volume(self.sale.as_bytes())
    }

    /// The snapshot of this sale, whole or half made; one of that name and another sale is an error.
    pub(super) fn find_snapshot(&self) -> Result<Option<LogicalVolume>, VolumeError> {
        self.find_named(self.snapshot_name())
    }

    /// Makes the snapshot, of what was written until now. One that is there is left as it is.
    pub(in crate::volume) fn ensure_snapshot(&self, bytes: u64) -> Result<(), VolumeError> {
        match self.find_snapshot()? {
            Some(snapshot) if snapshot.origin.as_deref() == Some(&self.name()) => {
                return self.ensure_active(&snapshot);
            }
            // LVM makes a plain volume first: somebody was stopped there.
            Some(_) => self.storage.lvm().lv_remove(&self.group, &self.snapshot_name())?,
            None => {}
        }
        self.find_active()?.ok_or_else(|| self.absent())?;
        let target = self.mount_point();
        if mount::is_mount_point(&target).unwrap_or(false) {
            mount::sync(&target).map_err(VolumeError::Sync)?;
        }
        let (lvm, tag) = (self.storage.lvm(), self.tag());
        Ok(lvm.lv_snapshot(&self.group, &self.name(), &self.snapshot_name(), bytes, &[&tag])?)
    }

    fn ensure_active(&self, snapshot: &LogicalVolume) -> Result<(), VolumeError> {
        if !snapshot.active {
            self.storage.lvm().vg_activate(&self.group, true)?;
        }
        Ok(())
    }

    /// Removes the snapshot, and what it may hold of the volume's key slot before.
    pub(in crate::volume) fn ensure_no_snapshot(&self) -> Result<(), VolumeError> {
        let snapshot = match self.find_snapshot() {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) | Err(VolumeError::Another { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if snapshot.origin.is_some() {
            self.ensure_active(&snapshot)?;
            let device = names::lvm_device(&self.group, &self.snapshot_name());
            // One that the kernel gave up takes no writes. It goes all the same: its extents are discarded, and what a
            // slot in them opens is opened by nobody but the user.
            if self.devices().check().is_ok() {
                self.storage.luks().destroy(&device)?;
            }
        }
        self.storage.lvm().lv_remove(&self.group, &self.snapshot_name())?;
        Ok(())
    }

    fn devices(&self) -> Devices {
        Devices {
            snapshot: names::lvm_device(&self.group, &self.snapshot_name()),
            store: names::snapshot_store_device(&self.group, &self.snapshot_name()),
            volume: self.device(),
        }
    }

    /// Whether there is a snapshot that holds.
    pub(in crate::volume) fn check_snapshot(&self) -> Result<(), VolumeError> {
        let snapshot = self.find_snapshot()?.ok_or(VolumeError::NoSnapshot)?;
        if snapshot.origin.as_deref() != Some(&self.name()) {
            return Err(VolumeError::NoSnapshot);
        }
        self.ensure_active(&snapshot)?;
        Ok(self.devices().check()?)
    }

    /// Writes what the snapshot kept back into the volume, which is closed, as fast as the space itself might write.
    pub(in crate::volume) fn put_back(&self, is_ending: impl Fn() -> bool) -> Result<u64, VolumeError> {
        self.refuse_if_open()?;
        self.check_snapshot()?;
        named("put-back", || {
            self.devices().put_back(DISK_BYTES_PER_SECOND, || {
                named("put-back-part", || {
                    if is_ending() {
                        return Err(VolumeError::Ending);
                    }
                    Ok(())
                })
            })
        })
    }
}
