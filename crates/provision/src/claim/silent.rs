//! Disks that hardly answer, found before anything waits for them: one that is dying keeps no other from being sold.
//!
//! ```text
//!   each disk, in a thread of its own: 32 blocks read past the cache ─┬─ in time, or an error ─► looked at as any other
//!                                                                     └─ not ─► out of /dev: nobody opens it until the next start
//! ```
//!
//! Invariant: a disk with our partition is never put aside. Its node would come back as another one; slow is better.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use host::names;
use inventory::Disk;

/// A sleeping disk needs ten seconds for the first of them, a sound one a blink for the rest.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// What is read of each, spread over it.
const READS: u64 = 32;
/// Bytes of each, and what they are aligned to.
const BLOCK: usize = 4096;

/// The names of those that did not answer in time; their devices are gone from /dev.
pub(crate) fn put_aside(disks: &[Disk], boot_medium: &[String]) -> BTreeSet<String> {
    let jobs = disks
        .iter()
        .filter(|disk| !boot_medium.contains(&disk.name))
        .filter_map(|disk| {
            let (name, size) = (disk.name.clone(), disk.size_bytes?);
            let path = Path::new("/dev").join(&name);
            Some((name, move || drop(read(&path, size))))
        })
        .collect();
    let mut silent = unanswered(jobs, ANSWERS_WITHIN);
    // By an agent of this boot before this one.
    let gone = disks
        .iter()
        .filter(|disk| !Path::new("/dev").join(&disk.name).exists());
    silent.extend(gone.map(|disk| disk.name.clone()));
    silent.retain(|name| !is_ours(Path::new("/sys/class/block"), name));
    for name in &silent {
        tracing::warn!(disk = name, "it hardly answers: put aside until the next start");
        for device in devices(Path::new("/sys/class/block"), name) {
            let _ = fs::remove_file(Path::new("/dev").join(device));
        }
    }
    silent
}

/// Runs all at once; the names of those that have not ended in time.
fn unanswered<F: FnOnce() + Send + 'static>(jobs: Vec<(String, F)>, within: Duration) -> BTreeSet<String> {
    let (answer, answers) = channel();
    let mut waiting = BTreeSet::new();
    for (name, job) in jobs {
        let (answer, its) = (answer.clone(), name.clone());
        let started = thread::Builder::new().spawn(move || {
            job();
            let _ = answer.send(its);
        });
        // Without a thread it is not asked, and looked at as any other.
        if started.is_ok() {
            waiting.insert(name);
        }
    }
    let end = Instant::now() + within;
    while !waiting.is_empty() {
        match answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(name) => waiting.remove(&name),
            Err(_) => break,
        };
    }
    waiting
}

/// Past the cache, which has the first blocks since the kernel looked for partitions.
fn read(path: &Path, size: u64) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(path)?;
    let mut buffer = vec![0; 2 * BLOCK];
    let start = buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
    let block = &mut buffer[start..start + BLOCK];
    for index in 0..READS {
        let at = u128::from(size) * u128::from(index) / u128::from(READS);
        let at = at as u64 / BLOCK as u64 * BLOCK as u64;
        file.read_at(block, at)?;
    }
    Ok(())
}

/// The disk and its partitions, by the kernel's names.
fn devices(sys: &Path, disk: &str) -> Vec<String> {
    let below = fs::read_dir(sys.join(disk)).into_iter().flatten().flatten();
    let partitions = below
        .filter(|entry| entry.path().join("partition").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    std::iter::once(disk.to_owned()).chain(partitions).collect()
}

/// Whether a node's partition is on it, as the kernel read the table when the disk came.
fn is_ours(sys: &Path, disk: &str) -> bool {
    devices(sys, disk).iter().any(|device| {
        let text = fs::read_to_string(sys.join(device).join("uevent")).unwrap_or_default();
        let name = text.lines().find_map(|line| line.strip_prefix("PARTNAME="));
        name.is_some_and(|name| name.starts_with(names::CLAIM_PARTITION_PREFIX))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    #[test]
    fn those_that_answer_are_waited_for_and_no_other() {
        let (held, hold): (_, Receiver<()>) = channel();
        let hold = std::sync::Arc::new(std::sync::Mutex::new(hold));
        let job = |waits: bool| {
            let hold = hold.clone();
            move || {
                if waits {
                    drop(hold.lock().map(|hold| hold.recv()));
                }
            }
        };
        let all = |second| vec![("sda".to_owned(), job(false)), ("sdb".to_owned(), job(second))];
        assert!(unanswered(all(false), Duration::from_secs(60)).is_empty());
        let silent = unanswered(all(true), Duration::from_millis(300));
        assert_eq!(silent.into_iter().collect::<Vec<_>>(), ["sdb"]);
        drop(held);
    }

    #[test]
    fn a_disk_with_our_partition_is_known_without_reading_it() {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let ours = names::claim_partition(&[0xab; 32]);
        for (disk, name) in [("sda", ours.as_str()), ("sdb", "Basic data partition")] {
            put(&format!("{disk}/uevent"), "DEVTYPE=disk\n");
            let part = format!("{disk}1");
            put(&format!("{disk}/{part}/partition"), "1\n");
            put(
                &format!("{part}/uevent"),
                &format!("DEVTYPE=partition\nPARTNAME={name}\n"),
            );
            assert_eq!(devices(sys.path(), disk), [disk, part.as_str()]);
        }
        assert!(is_ours(sys.path(), "sda") && !is_ours(sys.path(), "sdb"));
    }
}
