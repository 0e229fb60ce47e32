//! Ending FUSE file systems whose server does not answer.
//!
//! ```text
//!   a thread asks ─► the server has read it and says nothing ─► the thread waits, and not even a kill ends that
//!   write "1" to /sys/fs/fuse/connections/N/abort ─► every request fails ─► the thread ends
//! ```
//!
//! A process that is both server and asker holds the connection open by the very thread that waits, so the kernel never
//! aborts it by itself (Documentation/filesystems/fuse.rst, "malicious deadlocks").

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use crate::mount;

const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Aborts every FUSE connection that a thread of these processes has mounted, but that at `kept`. Says how many.
pub fn abort(processes: &[i32], kept: &Path) -> usize {
    // Only where the module is loaded is there a folder for it.
    let control = Path::new(CONNECTIONS);
    if mount::ensure_mounted(Path::new("fusectl"), control, "fusectl", MsFlags::empty(), "").is_err() {
        return 0;
    }
    // Off the list of mounts: to ask the file system itself is to wait for its server.
    let kept = fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .and_then(|mounts| minor_at(&mounts, kept));
    let mut minors = BTreeSet::new();
    for thread in in_own_mounts(processes) {
        // One that has ended has no mounts.
        if let Ok(mounts) = File::open(thread.join("mountinfo")) {
            fuse_minors(BufReader::new(mounts), &mut minors);
        }
    }
    minors
        .iter()
        .filter(|minor| Some(**minor) != kept)
        .filter(|minor| fs::write(control.join(format!("{minor}/abort")), "1").is_ok())
        .count()
}

/// One thread of these processes for each set of mounts that they have: most share one, and it may be long.
fn in_own_mounts(processes: &[i32]) -> Vec<PathBuf> {
    let threads = processes.iter().flat_map(|pid| {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        threads.into_iter().flatten().flatten()
    });
    let mut seen = HashSet::new();
    threads
        .map(|thread| thread.path())
        .filter(|thread| fs::metadata(thread.join("ns/mnt")).is_ok_and(|mounts| seen.insert(mounts.ino())))
        .collect()
}

/// The minor of what is mounted at `path`: the third column; the fifth is the mount point. The last one lies on top.
fn minor_at(mounts: &str, path: &Path) -> Option<u64> {
    let at = |line: &str| {
        let mut columns = line.split(' ').skip(2);
        let device = columns.next()?;
        let is_there = Path::new(columns.nth(1)?) == path;
        device.split_once(':')?.1.parse().ok().filter(|_| is_there)
    };
    mounts.lines().rev().find_map(at)
}

/// Adds the minor of each mount of FUSE. The third column is `major:minor`; what stands behind ` - ` is the type. A line at a
/// time, and each minor once, of which there are 2^20 at most: whoever is inside decides how many mounts there are.
fn fuse_minors(mut mountinfo: impl BufRead, minors: &mut BTreeSet<u64>) {
    let minor = |line: &str| -> Option<u64> {
        let (fields, kind) = line.split_once(" - ")?;
        let is_fuse = kind == "fuse" || kind.starts_with("fuse ") || kind.starts_with("fuse.");
        let device = fields.split(' ').nth(2)?;
        is_fuse.then(|| device.split_once(':')?.1.parse().ok()).flatten()
    };
    let mut line = Vec::new();
    while mountinfo.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        minors.extend(minor(&String::from_utf8_lossy(&line)));
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minors(text: &str) -> Vec<u64> {
        let mut minors = BTreeSet::new();
        fuse_minors(text.as_bytes(), &mut minors);
        minors.into_iter().collect()
    }

    #[test]
    fn fuse_is_known_by_its_type() {
        let text = "36 35 0:32 / / rw - overlay overlay rw\n\
            37 36 0:57 / /mnt rw,relatime shared:1 - fuse.sshfs a - fuse rw\n\
            38 36 0:58 / /x rw - fuse x rw\n39 36 0:59 / /sys rw - fusectl c rw\nnonsense\n";
        assert_eq!(minors(text), [57, 58]);
    }

    #[test]
    fn one_that_is_mounted_a_hundred_thousand_times_is_kept_once() {
        let line = "37 36 0:57 / /mnt rw,relatime - fuse.sshfs a rw\n";
        assert_eq!(minors(&line.repeat(100_000)), [57]);
    }

    #[test]
    fn mounts_that_threads_share_are_read_once() {
        let (stop, waits) = std::sync::mpsc::channel::<()>();
        let waits = std::sync::Arc::new(std::sync::Mutex::new(waits));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let waits = waits.clone();
                std::thread::spawn(move || drop(waits.lock().map(|waits| waits.recv())))
            })
            .collect();
        let own = std::process::id() as i32;
        let all = fs::read_dir("/proc/self/task").unwrap().count();
        let once = in_own_mounts(&[own, own]);
        drop(stop);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(all > 8, "the control: {all} threads");
        assert_eq!(once.len(), 1);
    }
}
