//! Whether a farmer's line means a disk, and the line that would.

use inventory::Consent;
use market::quantity::Bytes;

use super::look::{Look, Seen};

/// Whether `consent` names this disk with this content.
pub(super) fn means(consent: &Consent, disk: &Seen) -> bool {
    let named = disk.path.to_str() == Some(&consent.disk) || disk.wwn.as_deref() == Some(&consent.disk);
    let Look::Holds { content } = &disk.look else {
        return false;
    };
    named
        && disk.size_bytes == consent.size.0
        && content.fingerprint().is_some_and(|found| found == consent.found)
}

/// The line that would give this disk; none where its content has no name.
pub(super) fn line_for(disk: &Seen) -> Option<String> {
    let Look::Holds { content } = &disk.look else {
        return None;
    };
    let plain = |text: &&String| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && !"\"'\\,".contains(c))
    };
    let name = disk.wwn.as_ref().filter(plain).cloned();
    let name = name.unwrap_or_else(|| disk.path.display().to_string());
    Some(format!(
        "{name}, {}, {}",
        Bytes(disk.size_bytes),
        content.fingerprint()?
    ))
}
