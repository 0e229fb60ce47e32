//! Ending FUSE file systems whose server does not answer.
//!
//! ```text
//!   a thread asks ─► the server has read it and says nothing ─► the thread waits, and not even a kill ends that
//!   write "1" to /sys/fs/fuse/connections/N/abort ─► every request fails ─► the thread ends
//! ```
//!
//! A process that is both server and asker holds the connection open by the very thread that waits, so the kernel never
//! aborts it by itself (Documentation/filesystems/fuse.rst, "malicious deadlocks").

use std::fs;
use std::path::Path;

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
    let kept = nix::sys::stat::stat(kept)
        .map(|stat| nix::sys::stat::minor(stat.st_dev))
        .ok();
    let mut minors: Vec<u64> = processes
        .iter()
        .flat_map(|pid| {
            fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter_map(|thread| fs::read_to_string(thread.path().join("mountinfo")).ok())
        .flat_map(|text| fuse_minors(&text))
        .filter(|minor| Some(*minor) != kept)
        .collect();
    minors.sort_unstable();
    minors.dedup();
    minors
        .iter()
        .filter(|minor| fs::write(control.join(format!("{minor}/abort")), "1").is_ok())
        .count()
}

/// The third column is `major:minor`; what stands behind ` - ` is the type.
fn fuse_minors(mountinfo: &str) -> Vec<u64> {
    let minor = |line: &str| {
        let (fields, kind) = line.split_once(" - ")?;
        let is_fuse = kind == "fuse" || kind.starts_with("fuse ") || kind.starts_with("fuse.");
        let device = fields.split(' ').nth(2)?;
        is_fuse.then(|| device.split_once(':')?.1.parse().ok()).flatten()
    };
    mountinfo.lines().filter_map(minor).collect()
}

#[cfg(test)]
mod tests {
    use super::fuse_minors;

    #[test]
    fn fuse_is_known_by_its_type() {
        let text = "36 35 0:32 / / rw - overlay overlay rw\n\
            37 36 0:57 / /mnt rw,relatime shared:1 - fuse.sshfs a - fuse rw\n\
            38 36 0:58 / /x rw - fuse x rw\n39 36 0:59 / /sys rw - fusectl c rw\nnonsense\n";
        assert_eq!(fuse_minors(text), [57, 58]);
    }
}
