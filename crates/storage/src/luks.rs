//! LUKS2 volumes through libcryptsetup, in this process.
//!
//! ```text
//!   0        16K       32K                         1M                              end
//!   ├ header ─┼ its twin ┼ key slot 0 ─ (no others) ─┼ data: aes-xts-plain64, 4 KiB ─┤
//!
//!   unlock key (the user's, 64 random bytes) ─ pbkdf2 ─► key slot 0 ─► volume key (made here)
//! ```
//!
//! A volume can be made and opened before the user's key is there ([`Luks::create`]); its volume key is then in the
//! library's own locked memory, until the user's key gets the one slot ([`Luks::add_key`]) or the volume goes.
//!
//! Invariants: the volume key is made by libcryptsetup, goes to the kernel and never anywhere
//! else; there is exactly one key slot; a header that does not say what we formatted is not opened
//! (see `header`); destroying leaves neither slots nor header, and looks.

mod call;
mod destroy;
mod header;
mod key;
mod mapping;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use call::call;
use call::{call_raw, failed, wrong_key};
use destroy::{destroy, used_slots};
#[cfg(fuzzing)]
pub use header::fuzz_header;
use host::names;
pub use key::{UNLOCK_KEY_BYTES, UnlockKey};
use libcryptsetup_rs::consts::flags::{CryptActivate, CryptDeactivate, CryptPbkdf, CryptVolumeKey};
use libcryptsetup_rs::consts::vals::{
    CryptKdf, CryptStatusInfo, EncryptionFormat, KeyslotsSize, MetadataSize,
};
use libcryptsetup_rs::{
    CryptDevice, CryptInit, CryptParamsLuks2, CryptParamsLuks2Ref, CryptPbkdfType, Either, LibcryptErr,
};
use mapping::check_mapping;

use crate::lvm::mapper;
use crate::owner::{OwnerError, Storage};

/// How a mapping is opened. Whoever writes encrypts, in his own time: the kernel's default hands it to workers of nobody's,
/// which run on every processor beside those who bought it, outside the writer's limit of CPU. Reads stay with the
/// workers, for without them they would be decrypted in an interrupt; but with those of the processor on which the answer
/// came in, which is the reader's.
const OPEN: CryptActivate = CryptActivate::NO_WRITE_WORKQUEUE.union(CryptActivate::SAME_CPU_CRYPT);

/// What the header takes from a volume: data begins after it.
pub const HEADER_BYTES: u64 = header::DATA_OFFSET_BYTES;

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
        self.storage.run(move |_| {
            let mut made = format(&device)?;
            add_key(&mut made, &device, &key)
        })?
    }

    /// Makes `device` a LUKS2 volume with a fresh volume key and no key slot, open as `/dev/mapper/<mapping>`, and
    /// returns that path. What was there is lost; so is this, unless [`Luks::add_key`] follows before it is closed.
    ///
    /// # Errors
    /// When libcryptsetup fails, or the mapping exists.
    pub fn create(&self, device: &Path, mapping: &str) -> Result<PathBuf, LuksError> {
        let (device, mapping) = (device.to_owned(), mapping.to_owned());
        self.storage.run(move |libraries| {
            // No header is read back here, so there is none that could lie about what is opened.
            let mut made = format(&device)?;
            call("opening", &mapping, || {
                made.activate_handle()
                    .activate_by_volume_key(Some(&mapping), None, OPEN)
            })?;
            let path = names::mapping_device(&mapping);
            libraries.made.insert(mapping, Some(made));
            Ok(path)
        })?
    }

    /// Whether this process made and opened the mapping by [`Luks::create`], and has not closed it since.
    ///
    /// # Errors
    /// When the owner thread has ended.
    pub fn is_made_here(&self, mapping: &str) -> Result<bool, LuksError> {
        let mapping = mapping.to_owned();
        Ok(self
            .storage
            .run(move |libraries| libraries.made.contains_key(&mapping))?)
    }

    /// Whether its volume key is in this process's memory, since it has no key slot yet.
    ///
    /// # Errors
    /// When the owner thread has ended.
    pub fn holds_volume_key(&self, mapping: &str) -> Result<bool, LuksError> {
        let mapping = mapping.to_owned();
        Ok(self
            .storage
            .run(move |libraries| libraries.made.get(&mapping).is_some_and(Option::is_some))?)
    }

    /// Gives what [`Luks::create`] made its one key slot, which `key` opens, and forgets the volume key. A volume that
    /// this key opens already: done.
    ///
    /// # Errors
    /// [`LuksError::WrongKey`] where another key has the slot; when libcryptsetup fails.
    pub fn add_key(&self, device: &Path, mapping: &str, key: &UnlockKey) -> Result<(), LuksError> {
        let (device, mapping, key) = (device.to_owned(), mapping.to_owned(), key.another_handle());
        self.storage.run(move |libraries| {
            let Some(made) = libraries.made.get_mut(&mapping).and_then(Option::as_mut) else {
                return match opens(&device, &key)? {
                    true => Ok(()),
                    false => Err(LuksError::WrongKey {
                        device: device.to_string_lossy().into_owned(),
                    }),
                };
            };
            add_key(made, &device, &key)?;
            // Dropping it wipes the volume key.
            libraries.made.insert(mapping, None);
            Ok(())
        })?
    }

    /// Whether `device` has a LUKS2 header with a key slot in use: somebody's key opens it.
    ///
    /// # Errors
    /// When libcryptsetup cannot tell; no header is an answer.
    pub fn has_key(&self, device: &Path) -> Result<bool, LuksError> {
        Ok(!self.slots(device)?.is_empty())
    }

    /// The numbers of the key slots of `device` that some key opens; none where there is no LUKS2 header.
    ///
    /// # Errors
    /// When libcryptsetup cannot tell.
    pub fn slots(&self, device: &Path) -> Result<Vec<u32>, LuksError> {
        let device = device.to_owned();
        self.storage.run(move |_| {
            let Ok(mut loaded) = load(&device) else {
                return Ok(Vec::new());
            };
            used_slots(&mut loaded, &device.to_string_lossy())
        })?
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
        self.storage.run(move |libraries| {
            close(&mapping)?;
            libraries.made.remove(&mapping);
            Ok(())
        })?
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

/// A header with a volume key and no slot. The volume key stays in what is returned.
fn format(path: &Path) -> Result<CryptDevice, LuksError> {
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
        )
    })?;
    Ok(device)
}

/// The one slot of what [`format`] has made.
fn add_key(device: &mut CryptDevice, path: &Path, key: &UnlockKey) -> Result<(), LuksError> {
    let name = path.to_string_lossy();
    call("adding the key of", &name, || {
        let flags = CryptVolumeKey::empty();
        device
            .keyslot_handle()
            .add_by_key(Some(0), None, key.bytes(), flags)
            .map(drop)
    })?;
    check_header(device, &name)
}

fn open(path: &Path, mapping: &str, key: &UnlockKey) -> Result<PathBuf, LuksError> {
    let name = path.to_string_lossy();
    let mut device = load(path)?;
    check_header(&mut device, &name)?;
    if !is_open(mapping)? {
        let activate = |device: &mut CryptDevice| {
            device
                .activate_handle()
                .activate_by_passphrase(Some(mapping), Some(0), key.bytes(), OPEN)
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

/// Whether it is open. One without a table is what an agent left that was killed while it opened it: nothing can be read
/// through it, so it goes.
pub(crate) fn is_open(mapping: &str) -> Result<bool, LuksError> {
    match call("looking at", mapping, || libcryptsetup_rs::status(None, mapping))? {
        CryptStatusInfo::Active | CryptStatusInfo::Busy => Ok(true),
        CryptStatusInfo::Inactive => Ok(false),
        CryptStatusInfo::Invalid if mapper::let_go_of_empty(mapping) => Ok(false),
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

pub(crate) fn by_name(mapping: &str) -> Result<CryptDevice, LuksError> {
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
