//! The volume of a space: three steps of its table.
//!
//! ```text
//!   ext4, mounted unmapped at /run/steading/volume/<16 hex>      step "mount"
//!     │                                                            ▲ open, mount │ unmount, close ▼
//!   /dev/mapper/steading-<16 hex>     dm-crypt                   ──┘
//!     │
//!   the one key slot                  the user's key             step "key"
//!     │                                                            add ▲         │ (goes with the volume)
//!   LUKS2: 1 MiB                      fresh volume key           step "volume"
//!     │                                                            make ▲        │ destroy ▼
//!   LV space-<16 hex>, tagged sale-<64 hex>, linear              ──┘
//!     │
//!   VG of one disk
//! ```
//!
//! A new volume is made, opened and mounted before the user's key is here; then its key gets the only slot, and the
//! volume key is forgotten. Until that is done the space has never been ready: what stops there is undone whole.
//! A volume that is there already opens by the user's key alone.
//!
//! A volume that is smaller than what was sold is grown by `mount` while it is in use, with the user's key at hand: the
//! logical volume, then the mapping, then the file system, each where it is smaller. Whatever stops it between, all
//! three hold the same data, and the next `mount` with the key goes on. It never shrinks. A volume that is opened is
//! open whether it can grow or not: nobody's files are out of reach for want of room.
//!
//! A snapshot of the volume is a step of a table of its own, since it comes and goes while the space runs: an LV
//! `snap-<16 hex>` whose store is as large as the volume, so that it never runs full. It is made of the ciphertext and
//! needs no key: what was written and synced before is in it, and the file system is as after a power cut. While there
//! is one the volume does not grow. [`put_back`] makes the closed volume what the snapshot is; the snapshot stays.
//!
//! Undoing `mount` locks the volume: the user's data stays and the key is gone from the kernel.
//! Undoing `volume` destroys it: key slots and header are overwritten and looked at again, then the
//! extents are discarded and given back. So a failed unlock is undone down to `mount` and no
//! further ([`Table::run_from`](crate::step::Table::run_from)).
//!
//! Invariants: a volume is known by the whole id in its tag, never by its name alone; a file system
//! is made only on a volume that was made just now or that this key opens; a volume whose slot another key has is
//! never made anew without that key's owner asking for it.

mod make;

use std::path::PathBuf;

use async_trait::async_trait;
use host::mount::MountError;
use host::names;
use market::id::SaleId;
use storage::Storage;
use storage::luks::{HEADER_BYTES, LuksError, UnlockKey};
use storage::lvm::{EXTENT_BYTES, LogicalVolume, LvmError};
use storage::snapshot::{SnapshotError, store_bytes};

use crate::step::{Cause, Step};

/// What these steps need to know.
pub trait VolumeContext: Sync {
    /// LVM and LUKS.
    fn storage(&self) -> &Storage;
    /// The volume group on which it lies.
    fn group(&self) -> &str;
    /// What was sold, in bytes: the size of the opened volume, at least.
    fn bytes(&self) -> u64;
    /// What a snapshot of it may take of the group, in bytes; 0: there is none.
    fn snapshot_bytes(&self) -> u64;
    /// The user's key, while it is at hand. Undoing needs none.
    fn unlock_key(&self) -> Option<&UnlockKey>;
}

/// Why a volume could not be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The user's key is not at hand.
    #[error("the volume cannot be opened without the user's key")]
    NoKey,
    /// There is no volume of this sale.
    #[error("there is no volume of sale {sale} in {group}")]
    Absent {
        /// The sale.
        sale: SaleId,
        /// The group.
        group: String,
    },
    /// A volume has the name that this sale's would have, and is another sale's.
    #[error("volume {name} belongs to another sale ({tags})")]
    Another {
        /// Its name.
        name: String,
        /// Its tags.
        tags: String,
    },
    /// A volume of this sale is there, some key opens it, and that key is not at hand.
    #[error("the volume is there already, and the key that opens it is not at hand")]
    Keyed,
    /// It cannot go, or grow, while there is a snapshot of it.
    #[error("there is a snapshot of the volume")]
    Snapshot,
    /// There is no snapshot of it.
    #[error("there is no snapshot of the volume")]
    NoSnapshot,
    /// It was being put back, and is to go.
    #[error("the end of its sale came first")]
    Ending,
    /// Putting back what the snapshot holds.
    #[error("the snapshot")]
    PutBack(#[from] SnapshotError),
    /// What is in memory of it could not be written out.
    #[error("the volume's files could not be synced")]
    Sync(#[source] std::io::Error),
    /// The opened volume has something else on it than the file system that was made.
    #[error("the volume holds {what}, not the file system that was made")]
    NotOurs {
        /// What.
        what: String,
    },
    /// LVM.
    #[error("LVM")]
    Lvm(#[from] LvmError),
    /// LUKS.
    #[error("LUKS")]
    Luks(#[from] LuksError),
    /// A device of its own could not be read.
    #[error("the volume's device")]
    Block(#[from] host::block::BlockError),
    /// The file system's own size could not be read.
    #[error("the file system's size cannot be read")]
    Superblock(#[source] std::io::Error),
    /// Reading what is on it.
    #[error("the volume cannot be read")]
    Probe(#[from] storage::probe::ProbeError),
    /// mkfs.ext4, resize2fs.
    #[error("the file system was not made or grown")]
    Mkfs(#[from] host::command::CommandError),
    /// Mounting or unmounting.
    #[error("the volume's mount")]
    Mount(#[from] MountError),
    /// The blocking task ended without an answer.
    #[error("the work on the volume was cut off")]
    Cut,
    /// A test.
    #[cfg(feature = "fault-points")]
    #[error(transparent)]
    Stopped(#[from] crate::step::fault::Stopped),
}

/// The bytes of a group that a space of `disk` bytes takes: with the LUKS header, in whole extents.
/// `None` where no disk could have that size.
pub fn extents_for(disk: u64) -> Option<u64> {
    disk.checked_add(HEADER_BYTES)?
        .checked_next_multiple_of(EXTENT_BYTES)
}

/// What a space takes of a group beside its own whole extents.
pub const BESIDE_BYTES: u64 = HEADER_BYTES.next_multiple_of(EXTENT_BYTES);

/// Of which sale this volume is, or snapshot.
pub fn sale_of(volume: &LogicalVolume) -> Option<SaleId> {
    let named = |tag: &String| tag.strip_prefix(TAG)?.parse().ok();
    volume.tags.iter().find_map(named)
}

/// A space's volumes have this and the sale's whole id as their tag.
const TAG: &str = "sale-";

/// The bytes of a group that a snapshot of a space of `disk` bytes takes, so that it holds whatever changes.
pub fn snapshot_for(disk: u64) -> Option<u64> {
    store_bytes(extents_for(disk)?)?.checked_next_multiple_of(EXTENT_BYTES)
}

/// The journal of a space's ext4: a thirty-second of it, 4 to 16 MiB.
pub fn journal_bytes(disk: u64) -> u64 {
    (disk / 32).clamp(4 << 20, 16 << 20)
}

/// What a space of `disk` bytes shows as the size of its file system, at least: an inode of 256
/// bytes for each 16 KiB is 1.6 %, tables and bitmaps less than half of one; then the journal, and
/// 8 MiB for the tables that let it grow.
pub fn least_bytes(disk: u64) -> u64 {
    disk.saturating_sub(disk / 50)
        .saturating_sub(journal_bytes(disk) + (8 << 20))
}

/// Where the volume of a sale is mounted.
pub fn mount_point(sale: &SaleId) -> PathBuf {
    names::volume_mount(sale.as_bytes())
}

/// Step `volume`: the logical volume, its LUKS header and its file system, open.
pub struct VolumeStep;

/// Step `key`: the one key slot. Undoing it is nothing: the slot goes with the volume, and with nothing less.
pub struct KeyStep;

/// Step `mount`: opened, mounted, and as large as was sold.
pub struct MountStep;

#[async_trait]
impl<C: VolumeContext + ?Sized> Step<C> for VolumeStep {
    fn name(&self) -> &'static str {
        "volume"
    }

    fn needs_key(&self) -> bool {
        false
    }

    async fn ensure(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        let bytes = context.bytes();
        blocking(sale, context, move |place, key| {
            place.ensure_made(bytes, key.as_ref())
        })
        .await
    }

    async fn ensure_absent(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        blocking(sale, context, |place, _| place.ensure_destroyed()).await
    }
}

#[async_trait]
impl<C: VolumeContext + ?Sized> Step<C> for KeyStep {
    fn name(&self) -> &'static str {
        "key"
    }

    fn after(&self) -> Option<&'static [&'static str]> {
        Some(&["volume"])
    }

    async fn ensure(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        blocking(sale, context, |place, key| {
            place.ensure_key(&key.ok_or(VolumeError::NoKey)?)
        })
        .await
    }

    async fn ensure_absent(&self, _: &SaleId, _: &C) -> Result<(), Cause> {
        Ok(())
    }
}

#[async_trait]
impl<C: VolumeContext + ?Sized> Step<C> for MountStep {
    fn name(&self) -> &'static str {
        "mount"
    }

    fn after(&self) -> Option<&'static [&'static str]> {
        Some(&["volume"])
    }

    fn needs_key(&self) -> bool {
        false
    }

    async fn ensure(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        let bytes = context.bytes();
        blocking(sale, context, move |place, key| {
            place.ensure_mounted(bytes, key.as_ref())
        })
        .await
    }

    async fn ensure_absent(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        blocking(sale, context, |place, _| place.ensure_locked()).await
    }
}

/// Step `snapshot`, of a table of its own: a snapshot of the volume.
pub struct SnapshotStep;

#[async_trait]
impl<C: VolumeContext + ?Sized> Step<C> for SnapshotStep {
    fn name(&self) -> &'static str {
        SNAPSHOT
    }

    fn needs_key(&self) -> bool {
        false
    }

    async fn ensure(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        let bytes = context.snapshot_bytes();
        blocking(sale, context, move |place, _| place.ensure_snapshot(bytes)).await
    }

    async fn ensure_absent(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        blocking(sale, context, |place, _| place.ensure_no_snapshot()).await
    }
}

/// The name of [`SnapshotStep`].
pub const SNAPSHOT: &str = "snapshot";

/// Whether the snapshot holds. Changes nothing.
///
/// # Errors
/// When there is none, or it is broken.
pub async fn check_snapshot(storage: &Storage, sale: &SaleId, group: &str) -> Result<(), VolumeError> {
    let place = make::Place::new(storage.clone(), *sale, group);
    tokio::task::spawn_blocking(move || place.check_snapshot())
        .await
        .map_err(|_| VolumeError::Cut)?
}

/// Makes the closed volume what its snapshot is; the bytes that differed, in whole chunks. The snapshot stays. Where
/// `is_ending` says so it stops.
///
/// # Errors
/// When there is no snapshot, the volume is open, it was stopped, or a device fails: then the volume may hold some of both, and it is
/// to be repeated before anybody opens it.
pub async fn put_back(
    storage: &Storage,
    sale: &SaleId,
    group: &str,
    is_ending: impl Fn() -> bool + Send + 'static,
) -> Result<u64, VolumeError> {
    let place = make::Place::new(storage.clone(), *sale, group);
    tokio::task::spawn_blocking(move || place.put_back(is_ending))
        .await
        .map_err(|_| VolumeError::Cut)?
}

/// Runs `work` on a blocking thread. It runs to its end even where nobody waits any more.
async fn blocking<C: VolumeContext + ?Sized>(
    sale: &SaleId,
    context: &C,
    work: impl FnOnce(make::Place, Option<UnlockKey>) -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), Cause> {
    let place = make::Place::new(context.storage().clone(), *sale, context.group());
    let key = context.unlock_key().map(UnlockKey::another_handle);
    let task = tokio::task::spawn_blocking(move || work(place, key));
    Ok(task.await.map_err(|_| VolumeError::Cut)??)
}

/// Grows a space's volume to hold `disk` bytes, its mapping and its file system with it, while it is in use: what step
/// `mount` does where a sale became larger. The user's client sends the key once more for it.
///
/// # Errors
/// When any of the three cannot be grown; what was grown stays, and it can be repeated.
pub async fn grow(
    storage: &Storage,
    sale: &SaleId,
    group: &str,
    disk: u64,
    key: UnlockKey,
) -> Result<(), VolumeError> {
    let place = make::Place::new(storage.clone(), *sale, group);
    tokio::task::spawn_blocking(move || place.ensure_grown(disk, &key))
        .await
        .map_err(|_| VolumeError::Cut)?
}

/// Whether an open volume is as large as this.
///
/// # Errors
/// When it cannot be read.
pub async fn is_grown(storage: &Storage, sale: &SaleId, group: &str, disk: u64) -> Result<bool, VolumeError> {
    let place = make::Place::new(storage.clone(), *sale, group);
    tokio::task::spawn_blocking(move || place.is_grown(disk))
        .await
        .map_err(|_| VolumeError::Cut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_takes_whole_extents_and_gets_all_it_paid() {
        for disk in [1, 4096, EXTENT_BYTES, EXTENT_BYTES - HEADER_BYTES, 10 << 30] {
            let taken = extents_for(disk).unwrap();
            assert_eq!(taken % EXTENT_BYTES, 0);
            assert!(taken - HEADER_BYTES >= disk && taken - HEADER_BYTES < disk + EXTENT_BYTES);
            let snapshot = snapshot_for(disk).unwrap();
            assert!(
                snapshot.is_multiple_of(EXTENT_BYTES)
                    && snapshot > taken
                    && snapshot <= taken + taken / 1024 + EXTENT_BYTES
            );
        }
        assert_eq!(extents_for(u64::MAX), None);
        for disk in [EXTENT_BYTES, 128 << 20, 10 << 30] {
            assert_eq!(extents_for(disk), Some(disk + BESIDE_BYTES), "as it is booked");
        }
    }
}
