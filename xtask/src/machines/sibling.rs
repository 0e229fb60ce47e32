//! A second stick, made from the first one by changing bytes in place: no text gets longer, so every table stays right.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use image::disk::ESP_START_BYTES;
use image::layout::STICK_ESP_BYTES;

use super::table::Sibling;

/// What the loader says before the id.
const ID: &[u8] = b"steading.image=";
/// Hex digits of an id.
const ID_LENGTH: usize = 16;

/// Writes it to `path`.
pub fn write(stick: &Path, kind: Sibling, path: &Path) -> Result<()> {
    let mut bytes = fs::read(stick)?;
    match kind {
        Sibling::OtherSettings => replace(&mut bytes, b"\nname = \"machine\"", b"\nname = \"another\"")?,
        Sibling::OtherImage => {
            let at = find(&bytes, ID).map(|at| at + ID.len());
            let id = at
                .and_then(|at| bytes.get(at..at + ID_LENGTH))
                .map(<[u8]>::to_vec);
            let id = id.ok_or_else(|| anyhow::anyhow!("the stick has no id"))?;
            replace(&mut bytes, &id, &[b'0'; ID_LENGTH])?;
            // Who reads this one has no wallet, and a fault.
            replace(&mut bytes, b"wallet = ", b"wallex = ")?;
        }
    }
    Ok(fs::write(path, bytes)?)
}

/// Puts `new` in the place of each `old` of the system partition.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> Result<()> {
    ensure!(old.len() == new.len(), "what is put in has another length");
    let end = bytes
        .len()
        .min(usize::try_from(ESP_START_BYTES + STICK_ESP_BYTES)?);
    let (mut from, mut changed) = (0, 0);
    while let Some(at) = find(&bytes[from..end], old) {
        bytes[from + at..from + at + new.len()].copy_from_slice(new);
        from += at + new.len();
        changed += 1;
    }
    ensure!(changed > 0, "the stick has no {:?}", String::from_utf8_lossy(old));
    Ok(())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
