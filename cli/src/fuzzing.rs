//! Doors for the fuzz targets: what the client reads of strangers and of its own folders. Compiled for them alone
//! (`--cfg fuzzing`).

use std::io::{self, Read};
use std::panic;
use std::path::Path;

use market::id::Digest;
use market::message::Gives;
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};

use crate::carry::age::{Identity, Opener};
use crate::carry::{listing, manifest};
use crate::flash::medium::Medium;
use crate::flash::source::{self, Source};
use crate::flash::{Progress, write};
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

/// An image for `flash`, and what lies beside it: how much of it can be unpacked, up to `most` bytes. None where it is
/// refused.
pub fn image(path: &Path, most: u64) -> Option<u64> {
    let source = Source::check(path, None, &Progress::default()).ok()?;
    io::copy(&mut source.open().ok()?.take(most), &mut io::sink()).ok()
}

/// The checksum of this name in such a file.
pub fn sum(text: &str, name: &str) -> Option<String> {
    source::sum_of(text, name)
}

/// Sets a key in the `farmer.toml` of a medium; whether that could be done, and what is on it then.
pub fn stick(bytes: Vec<u8>) -> (bool, Vec<u8>) {
    let mut medium = Memory(bytes);
    let keys = [("name".to_owned(), "fuzz".to_owned())];
    // The file system's code is not ours, and may panic: who calls it catches that. The engine's own hook would end all
    // of it; a panic of ours still does.
    let engine = std::sync::Arc::new(panic::take_hook());
    let ours = engine.clone();
    panic::set_hook(Box::new(move |info| {
        let foreign = info
            .location()
            .is_some_and(|place| place.file().contains("fatfs"));
        if !foreign {
            ours(info);
        }
    }));
    let done = write::change(&mut medium, &keys).is_ok();
    drop(panic::take_hook());
    panic::set_hook(Box::new(move |info| engine(info)));
    (done, medium.0)
}

struct Memory(Vec<u8>);

impl Memory {
    fn part(&mut self, at: u64, length: usize) -> io::Result<&mut [u8]> {
        let start = usize::try_from(at).map_err(io::Error::other)?;
        let end = start.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        self.0
            .get_mut(start..end)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Medium for Memory {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn may_lie(&self) -> bool {
        false
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(self.part(at, into.len())?);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.part(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_back(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read(at, into)
    }
}
