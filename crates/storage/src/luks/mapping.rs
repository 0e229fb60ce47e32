//! What an open mapping must be: what was formatted, on its own device.

use std::path::Path;

use super::call::call;
use super::{LuksError, by_name, header};

/// A mapping that is open must have the cipher, key, sector size and start that were formatted,
/// and stand on this device.
pub(super) fn check_mapping(mapping: &str, path: &Path) -> Result<(), LuksError> {
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
