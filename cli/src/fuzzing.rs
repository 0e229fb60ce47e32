//! Doors for the fuzz targets: what the client reads of strangers and of its own folders. Compiled for them alone
//! (`--cfg fuzzing`).

use market::id::Digest;
use market::message::Gives;
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};

use crate::carry::age::{Identity, Opener};
use crate::carry::{listing, manifest};
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
        snapshot: Bytes::ZERO,
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

/// What a space says that it holds: whatever is read lies below `/`, and is kept and read as the same again.
pub fn listing(bytes: &[u8]) -> bool {
    let kept = listing::read_kept(bytes).is_ok();
    let Ok(found) = listing::read(bytes, &[b"/".to_vec()]) else {
        return kept;
    };
    for entry in &found.entries {
        assert!(entry.path.starts_with(b"/") && !entry.path.windows(4).any(|part| part == b"/../"));
    }
    let plan = listing::plan(found.entries, 4096);
    assert_eq!(listing::read_kept(&listing::kept(&plan)).ok(), Some(plan.groups));
    true
}

/// `export.json`, as if its MAC held: whatever is read is in order.
pub fn manifest(bytes: &[u8]) -> bool {
    manifest::unauthenticated(bytes).is_some_and(|manifest| {
        let (group, parts) = manifest.next_group();
        group <= manifest.groups + 1 && parts.len() <= manifest.parts.len()
    })
}

/// A part, for the key that the seeds name: how many bytes it holds, if it opens.
pub fn part(bytes: &[u8]) -> Option<usize> {
    let identity = Identity::new(&zeroize::Zeroizing::new([7; 32]));
    let mut opener = Opener::new(bytes, &identity).ok()?;
    let mut count = 0;
    while let Some(more) = opener.next().ok()? {
        count += more.len();
    }
    Some(count)
}
