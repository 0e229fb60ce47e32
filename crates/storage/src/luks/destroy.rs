//! The end of a volume: no slot, no header, and a look that there is none.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use libcryptsetup_rs::CryptDevice;
use libcryptsetup_rs::consts::vals::KeyslotInfo;

use super::call::call;
use super::{HEADER_BYTES, LuksError, load};
use crate::direct::Direct;

/// LUKS2 has at most this many key slots.
const MAX_SLOTS: u32 = 32;

pub(super) fn destroy(path: &Path) -> Result<(), LuksError> {
    let name = path.to_string_lossy();
    // Without a readable header there are no slots to address; the overwriting below takes all.
    if let Ok(mut device) = load(path) {
        for slot in used_slots(&mut device, &name)? {
            call("destroying a slot of", &name, || {
                device.keyslot_handle().destroy(slot)
            })?;
        }
        let left = used_slots(&mut device, &name)?;
        if !left.is_empty() {
            let what = format!("{} key slots are still active", left.len());
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

/// The numbers of the slots that some key opens.
pub(super) fn used_slots(device: &mut CryptDevice, name: &str) -> Result<Vec<u32>, LuksError> {
    let mut used = Vec::new();
    for slot in 0..MAX_SLOTS {
        let state = call("reading slots of", name, || device.keyslot_handle().status(slot))?;
        if !matches!(state, KeyslotInfo::Inactive | KeyslotInfo::Invalid) {
            used.push(slot);
        }
    }
    Ok(used)
}

/// Zeros over header and key slots, durable, and read back from the disk.
fn overwrite_header(path: &Path) -> io::Result<()> {
    let zeros = vec![0; HEADER_BYTES as usize];
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&zeros)?;
    file.sync_all()?;
    if Direct::open(path)?.read(0, zeros.len())? == zeros {
        Ok(())
    } else {
        Err(io::Error::other("it was still there"))
    }
}
