//! Ending cgroups: kill all in one, wait until it is empty, remove it with what grew below it.
//! (Limits are `provision`'s, through cgroups-rs.)

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

/// Why a cgroup was not ended.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// One of its files failed.
    #[error("{path:?} failed")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it would not die within the bound.
    #[error("{path:?} still has processes {} ms after they were killed", limit.as_millis())]
    Populated {
        /// Which.
        path: PathBuf,
        /// The bound.
        limit: Duration,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> CgroupError + '_ {
    move |source| CgroupError::File {
        path: path.to_owned(),
        source,
    }
}

/// Kills every process in `cgroup` and below it. One that is not there is no error.
pub fn kill(cgroup: &Path) -> Result<(), CgroupError> {
    let file = cgroup.join("cgroup.kill");
    match fs::write(&file, "1") {
        Err(e) if absent(&e) => Ok(()),
        result => result.map_err(at(&file)),
    }
}

/// Whether any process is in `cgroup` or below it; one that is not there has none.
pub fn is_populated(cgroup: &Path) -> Result<bool, CgroupError> {
    let file = cgroup.join("cgroup.events");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(populated(&text)),
        Err(e) if absent(&e) => Ok(false),
        Err(e) => Err(at(&file)(e)),
    }
}

/// Hands a cgroup over to `owner`, the first id of a space's range: its root may then make children
/// and give them parts of what it has. The limits of the cgroup itself stay root's. Which files
/// those are, the kernel says in `/sys/kernel/cgroup/delegate`. Its other users may read them, as on any machine:
/// podman does not start where they cannot.
pub fn delegate(cgroup: &Path, owner: u32) -> Result<(), CgroupError> {
    const LIST: &str = "/sys/kernel/cgroup/delegate";
    let list = fs::read_to_string(LIST).map_err(at(Path::new(LIST)))?;
    for name in std::iter::once("").chain(list.lines()) {
        let path = if name.is_empty() {
            cgroup.to_owned()
        } else {
            cgroup.join(name)
        };
        match std::os::unix::fs::chown(&path, Some(owner), Some(owner)) {
            // A controller that is not enabled has none of its files.
            Err(e) if absent(&e) && !name.is_empty() => {}
            result => result.map_err(at(&path))?,
        }
    }
    fs::set_permissions(cgroup, fs::Permissions::from_mode(0o755)).map_err(at(cgroup))
}

/// Waits until `cgroup` has no process, for at most `limit`, woken by the kernel.
pub fn wait_empty(cgroup: &Path, limit: Duration) -> Result<(), CgroupError> {
    let path = cgroup.join("cgroup.events");
    let mut file = match File::open(&path) {
        Err(e) if absent(&e) => return Ok(()),
        result => result.map_err(at(&path))?,
    };
    let end = Instant::now() + limit;
    loop {
        let mut text = String::new();
        file.rewind().map_err(at(&path))?;
        match file.read_to_string(&mut text) {
            // The cgroup has been removed while we looked.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            result => result.map_err(at(&path))?,
        };
        if !populated(&text) {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CgroupError::Populated {
                path: cgroup.to_owned(),
                limit,
            });
        }
        crate::process::wait_events(file.as_fd(), PollFlags::POLLPRI, left).map_err(at(&path))?;
    }
}

/// Kills all, waits, removes the tree. Idempotent; what it leaves behind is nothing or an error.
pub fn ensure_absent(cgroup: &Path, limit: Duration) -> Result<(), CgroupError> {
    kill(cgroup)?;
    wait_empty(cgroup, limit)?;
    remove_tree(cgroup)
}

/// Removes a cgroup and its children, deepest first.
fn remove_tree(cgroup: &Path) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(cgroup) {
        Err(e) if absent(&e) => return Ok(()),
        result => result.map_err(at(cgroup))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(cgroup) {
        Err(e) if absent(&e) => Ok(()),
        result => result.map_err(at(cgroup)),
    }
}

/// Every process number in `cgroup` and below it.
pub fn processes(cgroup: &Path) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

/// The number of the process that is PID 1 of the space in `cgroup`, if one runs. Looks at every process there; who
/// knows the number asks [`is_first_process`].
pub fn first_process(cgroup: &Path) -> Option<i32> {
    processes(cgroup).into_iter().find(|pid| is_first(*pid))
}

/// Whether `pid` is still PID 1 of the space in `cgroup`: another may have its number by now.
pub fn is_first_process(cgroup: &Path, pid: i32) -> bool {
    of(pid).is_some_and(|place| place.starts_with(cgroup)) && is_first(pid)
}

/// The cgroup in which a process is; none where it has ended.
pub fn of(pid: i32) -> Option<PathBuf> {
    let places = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = places.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(crate::names::CGROUP_MOUNT).join(path))
}

/// The processes in `cgroup` and below it that are of no namespace below the caller's: what runs in a space for the
/// node, and not of the space's doing.
pub fn own_processes(cgroup: &Path) -> Vec<i32> {
    let all = processes(cgroup).into_iter();
    all.filter(|pid| numbers(*pid).len() == 1).collect()
}

fn is_first(pid: i32) -> bool {
    // One that a space started in a namespace below its own has two more numbers than one, not one more.
    let numbers = numbers(pid);
    numbers.len() == 2 && numbers.last() == Some(&1)
}

/// What a process is called in the caller's namespace and in each below it that it is in; none for one that has ended.
fn numbers(pid: i32) -> Vec<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = numbers.into_iter().flat_map(str::split_whitespace);
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

fn absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_the_end_that_was_asked_for() {
        let nowhere = Path::new("/sys/fs/cgroup/no-such-cgroup-here");
        assert!(!is_populated(nowhere).unwrap());
        wait_empty(nowhere, Duration::ZERO).unwrap();
        ensure_absent(nowhere, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_process_is_known_by_its_numbers() {
        let own = std::process::id() as i32;
        assert_eq!(
            numbers(own).last(),
            Some(&own),
            "nobody is below the caller's namespace"
        );
        assert!(!is_first(own) && of(own).is_some());
        // Above what the kernel gives.
        assert!(numbers(i32::MAX).is_empty() && of(i32::MAX).is_none());
    }

    #[test]
    fn events_are_read_by_line() {
        assert!(populated("populated 1\nfrozen 0\n"));
        assert!(!populated("populated 0\nfrozen 1\n"));
    }
}
