//! One reading of the medium for every disk.
//!
//! ```text
//!   medium ── read, hashed, 1 MiB at a time ──┬─► thread of a disk: write … write, flush ─► told
//!                                             └─► thread of a disk: at most WAITING parts behind, or it is left
//! ```
//!
//! Devices are read and written past the page cache: spaces read the base through its tree of hashes, so a copy of it in
//! memory would serve nobody, and making one costs half as much as hashing it.
//!
//! Invariants: what is hashed is what is written; a disk that keeps no pace with another one delays it by [`PATIENCE`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use market::id::Digest;
use sha2::{Digest as _, Sha256};

/// Bytes of one read.
const PART_BYTES: usize = 1 << 20;
/// What a device past the page cache wants of addresses and lengths, whatever its sectors are.
const ALIGNED: usize = 4096;
/// Parts that may wait for one disk.
const WAITING: usize = 4;
/// So long, in all, disks that have room wait for one that has none.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whether there is room is asked so often.
const ASK: Duration = Duration::from_millis(1);

/// Why nothing, or not to this disk.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The medium.
    Read(io::Error),
    /// The disk.
    Write(io::Error),
    /// The disk keeps no pace with the others.
    Slow,
}

/// What was read at once.
struct Part {
    buffer: Vec<u8>,
    begin: usize,
    length: usize,
}

impl Part {
    /// Room that begins where a device wants it.
    fn of(length: usize) -> Self {
        let buffer = vec![0; length + ALIGNED];
        let begin = buffer.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self {
            buffer,
            begin,
            length,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.begin..self.begin + self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.begin..self.begin + self.length]
    }
}

/// One disk while it is written.
struct Target {
    parts: Sender<Arc<Part>>,
    waiting: Arc<AtomicUsize>,
    /// How long others waited for it.
    held: Duration,
}

/// Copies the first `bytes` of `from` to all of `to`. `told` hears of each as soon as it is written and flushed: the digest of
/// all that was read, or what failed. Blocking.
pub(super) fn copy(
    from: &Path,
    bytes: u64,
    to: &[PathBuf],
    mut told: impl FnMut(usize, Result<Digest, CopyError>),
) {
    let (done, outcomes) = mpsc::channel();
    let mut targets: Vec<Option<Target>> = Vec::new();
    for (index, path) in to.iter().enumerate() {
        let (parts, queue) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (path, done, left) = (path.clone(), done.clone(), waiting.clone());
        // Never joined: a disk that does not answer keeps its thread, and nobody else.
        thread::spawn(move || {
            let written = write(&path, bytes, &queue, &left);
            // Room for ever: who waits for it learns at the next part that it ended.
            left.store(0, Ordering::Release);
            let _ = done.send((index, written));
        });
        targets.push(Some(Target {
            parts,
            waiting,
            held: Duration::ZERO,
        }));
    }
    drop(done);
    let mut awaited: Vec<bool> = vec![true; to.len()];
    let read = read(from, bytes, |part| {
        for slow in wait_for_room(&mut targets) {
            (targets[slow], awaited[slow]) = (None, false);
            told(slow, Err(CopyError::Slow));
        }
        for target in &mut targets {
            // One that ended says why by itself.
            if target.as_ref().is_some_and(|target| !target.give(part)) {
                *target = None;
            }
        }
        targets.iter().any(Option::is_some)
    });
    // No more parts come: each flushes, and ends.
    drop(targets);
    while awaited.contains(&true) {
        let Ok((index, written)) = outcomes.recv() else {
            break;
        };
        if std::mem::take(&mut awaited[index]) {
            let outcome = match (&read, written) {
                (Err(error), _) => Err(CopyError::Read(same(error))),
                (Ok(_), Err(error)) => Err(CopyError::Write(error)),
                (Ok(digest), Ok(())) => Ok(*digest),
            };
            told(index, outcome);
        }
    }
    let cut = awaited.iter().enumerate().filter(|(_, awaited)| **awaited);
    cut.for_each(|(index, _)| told(index, Err(CopyError::Write(cut_off()))));
}

impl Target {
    /// Whether the disk still takes anything.
    fn give(&self, part: &Arc<Part>) -> bool {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.parts.send(part.clone()).is_ok()
    }
}

/// Returns when every disk has room for a part; gives those that others waited too long for.
fn wait_for_room(targets: &mut [Option<Target>]) -> Vec<usize> {
    loop {
        let begun = Instant::now();
        let is_full = |target: &Target| target.waiting.load(Ordering::Acquire) >= WAITING;
        let full: Vec<usize> = (0..targets.len())
            .filter(|index| targets[*index].as_ref().is_some_and(is_full))
            .collect();
        let (Some(_), all) = (full.first(), targets.iter().flatten().count()) else {
            return Vec::new();
        };
        thread::sleep(ASK);
        // Disks that are all full are written as fast as they go.
        if full.len() == all {
            continue;
        }
        let mut slow = Vec::new();
        for index in full {
            if let Some(target) = &mut targets[index] {
                target.held += begun.elapsed();
                slow.extend((target.held > PATIENCE).then_some(index));
            }
        }
        if !slow.is_empty() {
            return slow;
        }
    }
}

/// Reads and hashes; a taker that says no ends it. A device is opened anew for what no whole number of blocks is.
fn read(from: &Path, bytes: u64, mut take: impl FnMut(&Arc<Part>) -> bool) -> io::Result<Digest> {
    let mut source = open(from, bytes, File::options().read(true))?;
    let (mut hash, mut left) = (Sha256::new(), bytes);
    while left > 0 {
        let mut part = Part::of(usize::try_from(left).map_or(PART_BYTES, |left| left.min(PART_BYTES)));
        source.read_exact(part.bytes_mut())?;
        hash.update(part.bytes());
        left -= part.length as u64;
        if !take(&Arc::new(part)) {
            break;
        }
    }
    Ok(Digest::from(<[u8; 32]>::from(hash.finalize())))
}

/// Writes what comes, `bytes` in all, and flushes.
fn write(to: &Path, bytes: u64, parts: &Receiver<Arc<Part>>, waiting: &AtomicUsize) -> io::Result<()> {
    let target = open(to, bytes, File::options().write(true))?;
    let mut offset = 0;
    while offset < bytes {
        let part = parts.recv().map_err(|_| cut_off())?;
        target.write_all_at(part.bytes(), offset)?;
        offset += part.length as u64;
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
    target.sync_all()
}

/// Past the page cache where it is a device and a whole number of its blocks is wanted.
fn open(path: &Path, bytes: u64, options: &mut fs::OpenOptions) -> io::Result<File> {
    let is_device = fs::metadata(path)?.file_type().is_block_device();
    if is_device && bytes.is_multiple_of(ALIGNED as u64) {
        options.custom_flags(nix::libc::O_DIRECT);
    }
    options.open(path)
}

fn cut_off() -> io::Error {
    io::Error::other("copying was cut off")
}

fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    /// What became of each target, in the order in which it was told.
    fn outcomes(from: &Path, bytes: u64, to: &[PathBuf]) -> Vec<(usize, Result<Digest, String>)> {
        let mut told = Vec::new();
        copy(from, bytes, to, |index, outcome| {
            told.push((index, outcome.map_err(|error| format!("{error:?}"))));
        });
        told.sort_by_key(|(index, _)| *index);
        told
    }

    #[test]
    fn every_disk_gets_exactly_the_bytes_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let source: Vec<u8> = (0..PART_BYTES + 1000).map(|i| (i % 251) as u8).collect();
        fs::write(path("source"), &source).unwrap();
        let to = [path("a"), path("b")];
        to.iter().for_each(|path| drop(File::create(path).unwrap()));
        let bytes = PART_BYTES as u64 + 5;
        let right = &source[..bytes as usize];
        let digest = Digest::from(<[u8; 32]>::from(Sha256::digest(right)));
        assert_eq!(
            outcomes(&path("source"), bytes, &to),
            [(0, Ok(digest)), (1, Ok(digest))]
        );
        assert!(to.iter().all(|path| fs::read(path).unwrap() == right));
        let short = outcomes(&path("source"), source.len() as u64 + 1, &to);
        assert!(
            short
                .iter()
                .all(|(_, outcome)| outcome.as_ref().is_err_and(|e| e.starts_with("Read"))),
            "{short:?}"
        );
    }

    #[test]
    fn a_disk_that_fails_keeps_no_other_from_its_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("source"), vec![7; 3 * PART_BYTES]).unwrap();
        File::create(path("a")).unwrap();
        let told = outcomes(&path("source"), 3 * PART_BYTES as u64, &[path("none"), path("a")]);
        assert!(
            told[0].1.as_ref().is_err_and(|error| error.starts_with("Write")),
            "{told:?}"
        );
        assert!(told[1].1.is_ok(), "{told:?}");
        let alone = outcomes(&path("source"), 3 * PART_BYTES as u64, &[path("none")]);
        assert!(alone[0].1.is_err(), "{alone:?}");
    }

    #[test]
    fn a_disk_that_keeps_no_pace_is_left_and_one_that_is_alone_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("source"), vec![7; 16 * PART_BYTES]).unwrap();
        File::create(path("a")).unwrap();
        // A pipe that is read slowly stands for the disk; it takes writes at no offset, so it is a fifo opened by nobody:
        // its opening waits, as a disk does that answers nothing.
        nix::unistd::mkfifo(&path("stuck"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let begun = Instant::now();
        let told = outcomes(
            &path("source"),
            16 * PART_BYTES as u64,
            &[path("stuck"), path("a")],
        );
        assert_eq!(told[0].1.as_ref().err().map(String::as_str), Some("Slow"));
        assert!(told[1].1.is_ok(), "{told:?}");
        assert!(begun.elapsed() >= PATIENCE, "it had its time");
        // Lets the thread go.
        let _ = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path("stuck"));
    }
}
