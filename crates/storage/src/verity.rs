//! Devices whose every block is checked as it is read, by dm-verity through libcryptsetup.
//!
//! ```text
//!   device  0 ─ data ─┬─ superblock, not read ─┬─ tree of hashes ─ end
//!                     data_bytes               + 4 KiB
//!   root (from whoever is trusted) ─► /dev/mapper/<mapping>: what the tree does not lead to reads as an error
//! ```
//!
//! Invariant: nothing that the device says of itself decides how it is read; length and root come from the caller.

use std::path::{Path, PathBuf};

use host::names;
use libcryptsetup_rs::consts::flags::{CryptActivate, CryptVerity};
use libcryptsetup_rs::consts::vals::EncryptionFormat;
use libcryptsetup_rs::{CryptInit, CryptParamsVerity, CryptParamsVerityRef, Either};

use crate::luks::{self, LuksError};
use crate::owner::Storage;

/// Bytes of a block, of data and of hashes.
const BLOCK_BYTES: u64 = 4096;

/// What opens a device that carries its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Where the data ends.
    pub data_bytes: u64,
    /// The root of the tree.
    pub root: [u8; 32],
}

/// dm-verity, spoken to through the owner thread.
#[derive(Clone)]
pub struct Verity {
    storage: Storage,
}

impl Verity {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Opens `device` as `/dev/mapper/<mapping>`, read-only, and returns that path. Open already: done.
    ///
    /// # Errors
    /// When libcryptsetup or the kernel refuses. Damaged data is no reason: it is found when it is read.
    pub fn open(&self, device: &Path, mapping: &str, seal: &Seal) -> Result<PathBuf, LuksError> {
        let (device, mapping, seal) = (device.to_owned(), mapping.to_owned(), *seal);
        self.storage.run(move |_| open(&device, &mapping, &seal))?
    }

    /// Whether nothing that was read so far was other than the root says. A mapping that is not open is sound.
    ///
    /// # Errors
    /// When libcryptsetup cannot tell.
    pub fn is_sound(&self, mapping: &str) -> Result<bool, LuksError> {
        let mapping = mapping.to_owned();
        self.storage.run(move |_| {
            if !luks::is_open(&mapping)? {
                return Ok(true);
            }
            let mut device = luks::by_name(&mapping)?;
            let active = luks::call("looking at", &mapping, || {
                device.runtime_handle(&mapping).get_active_device()
            })?;
            Ok(!active.flags.contains(CryptActivate::CORRUPTED))
        })?
    }

    /// Closes a mapping. Absent already: done.
    ///
    /// # Errors
    /// [`LuksError::Busy`] while something uses it.
    pub fn close(&self, mapping: &str) -> Result<(), LuksError> {
        self.storage.luks().close(mapping)
    }
}

fn open(path: &Path, mapping: &str, seal: &Seal) -> Result<PathBuf, LuksError> {
    let to = names::mapping_device(mapping);
    if luks::is_open(mapping)? {
        return Ok(to);
    }
    let name = path.to_string_lossy();
    let params = CryptParamsVerity {
        hash_name: "sha256".to_owned(),
        data_device: path.to_owned(),
        hash_device: None,
        fec_device: None,
        salt: Vec::new(),
        hash_type: 1,
        data_block_size: BLOCK_BYTES as u32,
        hash_block_size: BLOCK_BYTES as u32,
        data_size: seal.data_bytes / BLOCK_BYTES,
        // The tree stands behind a superblock, which is for people's tools.
        hash_area_offset: seal.data_bytes + BLOCK_BYTES,
        fec_area_offset: 0,
        fec_roots: 0,
        flags: CryptVerity::NO_HEADER,
    };
    let mut device = luks::call("looking at", &name, || CryptInit::init(path))?;
    // Without a header to be written, "formatting" only tells the library what is there.
    luks::call("describing", &name, || {
        let mut given: CryptParamsVerityRef<'_> = (&params).try_into()?;
        device.context_handle().format::<CryptParamsVerityRef<'_>>(
            EncryptionFormat::Verity,
            ("", ""),
            None,
            Either::Right(0),
            Some(&mut given),
        )
    })?;
    luks::call("opening", mapping, || {
        device.activate_handle().activate_by_volume_key(
            Some(mapping),
            Some(&seal.root),
            CryptActivate::READONLY,
        )
    })?;
    Ok(to)
}
