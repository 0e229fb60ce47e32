//! Doors for the fuzz targets: what the client reads of strangers and of its own folders. Compiled for them alone
//! (`--cfg fuzzing`).

use market::id::Digest;
use market::message::Gives;
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};

use crate::proof::{Sold, check};
use crate::store::record::Record;

/// What a space printed, against a sale; the nonce is the empty one that the seeds name.
pub fn proof(output: &str) -> bool {
    let gives = Gives {
        cpu: MilliCpus(500),
        memory: Bytes(512 << 20),
        disk: Bytes(2 << 30),
        rate: BitsPerSecond(100_000_000),
        pids: 1024,
    };
    let sold = Sold {
        gives,
        base: Digest([0xba; 32]),
    };
    check(output, &sold, "nonce").is_ok()
}

/// `record.json` of a sale: whatever is read is written and read as the same again.
pub fn record(bytes: &[u8]) -> bool {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else {
        return false;
    };
    let text = serde_json::to_vec(&record).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<Record>(&text).ok(), Some(record));
    true
}

/// `config.toml`.
pub fn settings(text: &str) -> bool {
    crate::settings::is_file(text)
}

/// The line that a backup of the wallet keeps.
pub fn seed(line: &str) -> bool {
    crate::keys::Seed::from_line(line).is_ok()
}

/// A backup file.
pub fn backup(text: &str) -> bool {
    crate::verb::is_backup(text)
}
