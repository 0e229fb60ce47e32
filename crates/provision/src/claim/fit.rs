//! Whether a farmer's line means a disk, and the line that would.
//!
//! A disk is named by what stays with it: its WWN, else its serial number. The kernel's name is another one after the next
//! start, for disks are looked for all at once; so where a disk has neither, its content alone says which one is meant.

use inventory::Consent;
use market::quantity::Bytes;

use super::look::{Look, Seen};

/// Before a serial number.
const SERIAL: &str = "serial ";
/// Before the kernel's name.
const DEVICE: &str = "/dev/";

/// Whether `consent` names this disk with this content.
pub(super) fn means(consent: &Consent, disk: &Seen) -> bool {
    let Look::Holds { content } = &disk.look else {
        return false;
    };
    let named = disk.path.to_str() == Some(&consent.disk)
        || disk.wwn.as_deref() == Some(&consent.disk)
        || plain(&disk.serial).is_some_and(|serial| consent.disk.strip_prefix(SERIAL) == Some(serial));
    let is_nameless = plain(&disk.wwn).is_none() && plain(&disk.serial).is_none();
    (named || is_nameless && consent.disk.starts_with(DEVICE))
        && disk.size_bytes == consent.size.0
        && content.fingerprint().is_some_and(|found| found == consent.found)
}

/// A name that can stand in a line.
fn plain(name: &Option<String>) -> Option<&str> {
    name.as_deref().filter(|text| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && !"\"'\\,".contains(c))
    })
}

/// The line that would give this disk; none where its content has no name.
pub(super) fn line_for(disk: &Seen) -> Option<String> {
    let Look::Holds { content } = &disk.look else {
        return None;
    };
    let name = match (plain(&disk.wwn), plain(&disk.serial)) {
        (Some(wwn), _) => wwn.to_owned(),
        (None, Some(serial)) => format!("{SERIAL}{serial}"),
        (None, None) => disk.path.display().to_string(),
    };
    Some(format!(
        "{name}, {}, {}",
        Bytes(disk.size_bytes),
        content.fingerprint()?
    ))
}
