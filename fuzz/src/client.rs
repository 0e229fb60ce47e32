//! What the client reads of strangers and of its own folders.

use cli::fuzzing;

use crate::text;

/// record.json.
pub fn record(bytes: &[u8]) {
    fuzzing::record(bytes);
}

/// config.toml, the seed's line, a backup.
pub fn files(bytes: &[u8]) {
    let text = text(bytes);
    fuzzing::settings(text);
    fuzzing::seed(text);
    fuzzing::backup(text);
}

/// The output of the checks. What passes names the base that was sold.
pub fn proof(bytes: &[u8]) {
    let printed = String::from_utf8_lossy(bytes);
    if fuzzing::proof(&printed) {
        assert!(printed.contains(&"ba".repeat(32)));
    }
}

/// What an export is made of: a space's listing, export.json, a part.
pub fn export(bytes: &[u8]) {
    fuzzing::listing(bytes);
    fuzzing::manifest(bytes);
    if let Some(inside) = fuzzing::part(bytes) {
        assert!(inside < bytes.len());
    }
}
