//! LUKS2 volumes through libcryptsetup, in this process.
//!
//! ```text
//!   0        16K       32K                         1M                              end
//!   ├ header ─┼ its twin ┼ key slot 0 ─ (no others) ─┼ data: aes-xts-plain64, 4 KiB ─┤
//!
//!   unlock key (the user's, 64 random bytes) ─ pbkdf2 ─► key slot 0 ─► volume key (made here)
//! ```
//!
//! Invariants: the volume key is made by libcryptsetup, goes to the kernel and never anywhere
//! else; there is exactly one key slot; a header that does not say what we formatted is not opened
//! (see `header`); destroying leaves neither slots nor header, and looks.

mod call;
mod header;
mod key;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use call::{call, call_raw, failed, wrong_key};
use host::names;
pub use key::{UNLOCK_KEY_BYTES, UnlockKey};
use libcryptsetup_rs::consts::flags::{CryptActivate, CryptDeactivate, CryptPbkdf, CryptVolumeKey};
use libcryptsetup_rs::consts::vals::{
    CryptKdf, CryptStatusInfo, EncryptionFormat, KeyslotInfo, KeyslotsSize, MetadataSize,
};
use libcryptsetup_rs::{
    CryptDevice, CryptInit, CryptParamsLuks2, CryptParamsLuks2Ref, CryptPbkdfType, Either, LibcryptErr,
};

use crate::owner::{OwnerError, Storage};

/// What the header takes from a volume: data begins after it.
pub const HEADER_BYTES: u64 = header::DATA_OFFSET_BYTES;
/// LUKS2 has at most this many key slots.
const MAX_SLOTS: u32 = 32;

/// Why LUKS did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    /// libcryptsetup failed.
    #[error("{what} {device} failed: {why}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The device or the mapping.
        device: String,
        /// libcryptsetup's last words and its error.
        why: String,
    },
    /// The key does not open the key slot.
    #[error("the key does not open {device}")]
    WrongKey {
        /// The device.
        device: String,
    },
    /// The header, or the mapping made from it, is not what we formatted.
    #[error("{device} is not what was formatted: {what}")]
    NotOurs {
        /// The device or the mapping.
        device: String,
        /// The first difference.
        what: String,
    },
    /// The mapping is still in use.
    #[error("{mapping} is in use")]
    Busy {
        /// The mapping.
        mapping: String,
    },
    /// The header could not be overwritten, or was still there afterwards.
    #[error("the header of {device} could not be wiped")]
    Wipe {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The owner thread.
    #[error(transparent)]
    Owner(#[from] OwnerError),
}

/// LUKS, spoken to through the owner thread.
#[derive(Clone)]
pub struct Luks {
    storage: Storage,
}

impl Luks {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Makes `device` a LUKS2 volume with a fresh volume key, which `key` alone opens.
    /// What was there is lost.
    ///
    /// # Errors
    /// When libcryptsetup fails.
    pub fn format(&self, device: &Path, key: &UnlockKey) -> Result<(), LuksError> {
        let (device, key) = (device.to_owned(), key.another_handle());
        self.storage.run(move |_| format(&device, &key))?
    }

    /// Opens `device` as `/dev/mapper/<mapping>` and returns that path. Open already, by the same
    /// device: checked as if it had just been opened.
    ///
    /// # Errors
    /// [`LuksError::NotOurs`] before the key is used, or after opening, when anything differs from
    /// what was formatted (the mapping is then closed again); [`LuksError::WrongKey`].
    pub fn open(&self, device: &Path, mapping: &str, key: &UnlockKey) -> Result<PathBuf, LuksError> {
        let (device, mapping, key) = (device.to_owned(), mapping.to_owned(), key.another_handle());
        self.storage.run(move |_| open(&device, &mapping, &key))?
    }

    /// Whether `key` opens a key slot of `device`. Nothing is opened.
    ///
    /// # Errors
    /// As [`Luks::open`], but for a wrong key, which is an answer.
    pub fn opens(&self, device: &Path, key: &UnlockKey) -> Result<bool, LuksError> {
        let (device, key) = (device.to_owned(), key.another_handle());
        self.storage.run(move |_| opens(&device, &key))?
    }

    /// Whether the mapping exists.
    ///
    /// # Errors
    /// When libcryptsetup cannot tell.
    pub fn is_open(&self, mapping: &str) -> Result<bool, LuksError> {
        let mapping = mapping.to_owned();
        self.storage.run(move |_| is_open(&mapping))?
    }

    /// Grows an open mapping to the size that its device has now. The volume key is in the kernel
    /// and is not read back from there, so the unlock key is needed once more.
    ///
    /// # Errors
    /// As [`Luks::open`].
    pub fn resize(&self, device: &Path, mapping: &str, key: &UnlockKey) -> Result<(), LuksError> {
        let (device, mapping, key) = (device.to_owned(), mapping.to_owned(), key.another_handle());
        self.storage.run(move |_| resize(&device, &mapping, &key))?
    }

    /// Closes a mapping, so that its volume key leaves the kernel. Absent already: done.
    ///
    /// # Errors
    /// [`LuksError::Busy`] while something uses it.
    pub fn close(&self, mapping: &str) -> Result<(), LuksError> {
        let mapping = mapping.to_owned();
        self.storage.run(move |_| close(&mapping))?
    }

    /// Destroys the key: every key slot is overwritten, then the whole header, and both are looked
    /// at again. What lies behind is then ciphertext without a key. A device without a header:
    /// its first MiB is overwritten all the same.
    ///
    /// # Errors
    /// When a slot or the header could not be overwritten: the key may still open it.
    pub fn destroy(&self, device: &Path) -> Result<(), LuksError> {
        let device = device.to_owned();
        self.storage.run(move |_| destroy(&device))?
    }
}

fn format(path: &Path, key: &UnlockKey) -> Result<(), LuksError> {
    let name = path.to_string_lossy();
    let mut device = by_path(path)?;
    let kdf = CryptPbkdfType {
        type_: CryptKdf::Pbkdf2,
        hash: Some(header::KDF_HASH.to_owned()),
        time_ms: 0,
        iterations: header::KDF_ITERATIONS,
        max_memory_kb: 0,
        parallel_threads: 0,
        flags: CryptPbkdf::NO_BENCHMARK,
    };
    let params = CryptParamsLuks2 {
        pbkdf: Some(kdf),
        integrity: None,
        integrity_params: None,
        data_alignment: (header::DATA_OFFSET_BYTES / 512) as usize,
        data_device: None,
        sector_size: header::SECTOR_BYTES,
        label: None,
        subsystem: None,
    };
    call("formatting", &name, || {
        // Formatting wipes the whole area of key slots, so its size is its time: one slot of 64
        // bytes takes 252 KiB, and the rest up to 1 MiB keeps the data aligned.
        let slots = KeyslotsSize::try_from(header::DATA_OFFSET_BYTES - 32 * 1024)?;
        device
            .settings_handle()
            .set_metadata_size(MetadataSize::Kb16, slots)?;
        let mut reference: CryptParamsLuks2Ref<'_> = (&params).try_into()?;
        device.context_handle().format(
            EncryptionFormat::Luks2,
            (header::CIPHER, header::CIPHER_MODE),
            None,
            Either::Right(header::KEY_BYTES),
            Some(&mut reference),
        )?;
        let flags = CryptVolumeKey::empty();
        device
            .keyslot_handle()
            .add_by_key(Some(0), None, key.bytes(), flags)
            .map(drop)
    })?;
    check_header(&mut device, &name)
}

fn open(path: &Path, mapping: &str, key: &UnlockKey) -> Result<PathBuf, LuksError> {
    let name = path.to_string_lossy();
    let mut device = load(path)?;
    check_header(&mut device, &name)?;
    if !is_open(mapping)? {
        let flags = CryptActivate::empty();
        let activate = |device: &mut CryptDevice| {
            device
                .activate_handle()
                .activate_by_passphrase(Some(mapping), Some(0), key.bytes(), flags)
        };
        wrong_key(&name, call_raw(|| activate(&mut device)))?;
    } else if !opens(path, key)? {
        return Err(LuksError::WrongKey {
            device: name.into_owned(),
        });
    }
    if let Err(error) = check_mapping(mapping, path) {
        close(mapping)?;
        return Err(error);
    }
    Ok(names::mapping_device(mapping))
}

fn opens(path: &Path, key: &UnlockKey) -> Result<bool, LuksError> {
    let name = path.to_string_lossy();
    let mut device = load(path)?;
    check_header(&mut device, &name)?;
    let result = call_raw(|| {
        device
            .activate_handle()
            .activate_by_passphrase(None, Some(0), key.bytes(), CryptActivate::empty())
    });
    match wrong_key(&name, result) {
        Ok(_) => Ok(true),
        Err(LuksError::WrongKey { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn resize(path: &Path, mapping: &str, key: &UnlockKey) -> Result<(), LuksError> {
    let name = path.to_string_lossy();
    check_mapping(mapping, path)?;
    let mut device = load(path)?;
    check_header(&mut device, &name)?;
    // Puts the volume key into this thread's keyring, from where the kernel takes it again.
    let flags = CryptActivate::KEYRING_KEY;
    let unlocked = call_raw(|| {
        device
            .activate_handle()
            .activate_by_passphrase(None, Some(0), key.bytes(), flags)
    });
    wrong_key(&name, unlocked)?;
    call("growing", mapping, || device.context_handle().resize(mapping, 0))
}

fn is_open(mapping: &str) -> Result<bool, LuksError> {
    match call("looking at", mapping, || libcryptsetup_rs::status(None, mapping))? {
        CryptStatusInfo::Active | CryptStatusInfo::Busy => Ok(true),
        CryptStatusInfo::Inactive => Ok(false),
        CryptStatusInfo::Invalid => Err(LuksError::Failed {
            what: "looking at",
            device: mapping.to_owned(),
            why: "its state is not known".to_owned(),
        }),
    }
}

fn close(mapping: &str) -> Result<(), LuksError> {
    if !is_open(mapping)? {
        return Ok(());
    }
    let mut device = by_name(mapping)?;
    let flags = CryptDeactivate::empty();
    match call_raw(|| device.activate_handle().deactivate(mapping, flags)) {
        Ok(()) => {}
        Err((LibcryptErr::IOError(error), _)) if error.raw_os_error() == Some(libc::EBUSY) => {
            return Err(LuksError::Busy {
                mapping: mapping.to_owned(),
            });
        }
        Err(failure) => return Err(failed("closing", mapping, failure)),
    }
    if is_open(mapping)? {
        Err(LuksError::Busy {
            mapping: mapping.to_owned(),
        })
    } else {
        Ok(())
    }
}

fn destroy(path: &Path) -> Result<(), LuksError> {
    let name = path.to_string_lossy();
    // Without a readable header there are no slots to address; the overwriting below takes all.
    if let Ok(mut device) = load(path) {
        let mut left = 0;
        for slot in 0..MAX_SLOTS {
            let state = |device: &mut CryptDevice| device.keyslot_handle().status(slot);
            let used = |state| !matches!(state, KeyslotInfo::Inactive | KeyslotInfo::Invalid);
            if used(call("reading slots of", &name, || state(&mut device))?) {
                call("destroying a slot of", &name, || {
                    device.keyslot_handle().destroy(slot)
                })?;
                left += u32::from(used(call("reading slots of", &name, || state(&mut device))?));
            }
        }
        if left > 0 {
            let what = format!("{left} key slots are still active");
            return Err(LuksError::NotOurs {
                device: name.into_owned(),
                what,
            });
        }
    }
    overwrite_header(path).map_err(|source| LuksError::Wipe {
        device: name.into_owned(),
        source,
    })
}

/// Zeros over header and key slots, durable, and read back.
fn overwrite_header(path: &Path) -> io::Result<()> {
    let zeros = vec![0; HEADER_BYTES as usize];
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&zeros)?;
    file.sync_all()?;
    let mut back = Vec::new();
    File::open(path)?.take(HEADER_BYTES).read_to_end(&mut back)?;
    if back == zeros {
        Ok(())
    } else {
        Err(io::Error::other("it was still there"))
    }
}

/// A mapping that is open must have the cipher, key, sector size and start that were formatted,
/// and stand on this device.
fn check_mapping(mapping: &str, path: &Path) -> Result<(), LuksError> {
    let differs = |what: String| {
        Err(LuksError::NotOurs {
            device: mapping.to_owned(),
            what,
        })
    };
    let mut device = by_name(mapping)?;
    let (cipher, mode) = call("looking at", mapping, || {
        let mut status = device.status_handle();
        Ok((status.get_cipher()?, status.get_cipher_mode()?))
    })?;
    if (cipher.as_str(), mode.as_str()) != (header::CIPHER, header::CIPHER_MODE) {
        return differs(format!("its cipher is {cipher}-{mode}"));
    }
    let key_bytes = device.status_handle().get_volume_key_size();
    if key_bytes != header::KEY_BYTES as i32 {
        return differs(format!("its key has {key_bytes} bytes"));
    }
    let sector = libcryptsetup_rs::get_sector_size(Some(&mut device));
    if sector != header::SECTOR_BYTES as i32 {
        return differs(format!("its sectors have {sector} bytes"));
    }
    let active = call("looking at", mapping, || {
        device.runtime_handle(mapping).get_active_device()
    })?;
    if active.offset * 512 != header::DATA_OFFSET_BYTES || active.iv_offset != 0 {
        return differs(format!("its data begins at sector {}", active.offset));
    }
    let below = call("looking at", mapping, || {
        device.status_handle().get_device_path().map(Path::to_owned)
    })?;
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    if same(&below, path) {
        Ok(())
    } else {
        differs(format!("it stands on {}", below.display()))
    }
}

fn check_header(device: &mut CryptDevice, name: &str) -> Result<(), LuksError> {
    let json = call("reading the header of", name, || {
        device.status_handle().dump_json()
    })?;
    header::check(&json).map_err(|what| LuksError::NotOurs {
        device: name.to_owned(),
        what,
    })
}

fn by_path(path: &Path) -> Result<CryptDevice, LuksError> {
    call("looking at", &path.to_string_lossy(), || CryptInit::init(path))
}

fn by_name(mapping: &str) -> Result<CryptDevice, LuksError> {
    call("looking at", mapping, || {
        CryptInit::init_by_name_and_header(mapping, None)
    })
}

fn load(path: &Path) -> Result<CryptDevice, LuksError> {
    let mut device = by_path(path)?;
    call("reading the header of", &path.to_string_lossy(), || {
        device
            .context_handle()
            .load::<CryptParamsLuks2Ref<'_>>(Some(EncryptionFormat::Luks2), None)
    })?;
    Ok(device)
}
