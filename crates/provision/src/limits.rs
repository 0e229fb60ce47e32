//! What a space may use: one cgroup (v2) a space, made anew for each start.
//!
//! ```text
//! /sys/fs/cgroup/steading/            +cpu +memory +pids +io for the children
//!   <space>/                          limits: owned by root, read from inside as they are
//!     cgroup.procs, ...               the files of /sys/kernel/cgroup/delegate: owned by the range's first id
//!     (what the space makes inside)   its own children, its own controllers
//! ```
//!
//! - The limits stand on the very cgroup in which the space's cgroup namespace is rooted, so that `memory.max` read
//!   inside is the limit and not `max`. Root inside may not write them: the files stay root's.
//! - A limit that the kernel did not take is an error: each one is read back.
//! - A cgroup whose `subtree_control` was set inside is no place to start into again (`EBUSY`), so a start makes a
//!   fresh one: [`ensure`] removes what an earlier start left, unless processes live in it.
//! - `memory.oom.group` stays 0 and is delegated: one process too many is the death of that process, not of the
//!   session that would have found out why. Whoever wants the whole space to go down with it may write 1 inside.
//! - Swap is off: a node has none, and a space's memory must never reach a disk unencrypted.

mod disk;
mod place;
mod read;

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::hierarchies::V2;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue};
use host::cgroup::{self, CgroupError};
use host::names::{CGROUP_MOUNT, CGROUP_SPACES};
use market::quantity::{Bytes, MilliCpus};

pub use disk::{BASE_BYTES_PER_SECOND, DISK_BYTES_PER_SECOND, Device, DiskLimit};
pub use place::place;
pub use read::{Observed, ReadLimitsError, cpu_used, in_use, observe};

/// Controllers that every space has.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];

/// Length of one accounting period of `cpu.max`, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Cgroups that a space may make inside its own, and how deep: each costs the node memory and time at the end.
pub const MOST_CGROUPS: u32 = 256;
/// How deep they may be nested: what systemd and a container runtime inside it need, several times.
pub const DEEPEST_CGROUP: u32 = 16;

/// Limits of the tree that a space makes below its own cgroup.
const TREE: [(&str, u32); 2] = [
    ("cgroup.max.descendants", MOST_CGROUPS),
    ("cgroup.max.depth", DEEPEST_CGROUP),
];

/// How long killed processes may take to be gone: they may hold gigabytes that have to be freed first.
const EMPTY_WITHIN: Duration = Duration::from_secs(30);

/// The limits of one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time: 1000 is one CPU's worth.
    pub cpu: MilliCpus,
    /// Memory, page cache and kernel memory included.
    pub memory: Bytes,
    /// Processes and threads together.
    pub pids: u32,
    /// The devices that it reads and writes: its volume's, that is the space's own mapping, so that no neighbour's
    /// share is counted; and the base's, which all read and whose unpacking is nobody's CPU time.
    pub disks: Vec<DiskLimit>,
}

/// Why a cgroup with its limits could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// The path is not below the place where cgroups are mounted.
    #[error("cgroup {path}: not below {CGROUP_SPACES}")]
    Path {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// What an earlier start left could not be removed.
    #[error("cgroup {path}: what an earlier start left could not be removed")]
    Clear {
        /// The cgroup.
        path: PathBuf,
        /// What the removal said.
        #[source]
        source: CgroupError,
    },
    /// The cgroup could not be made.
    #[error("cgroup {path} could not be made")]
    Create {
        /// The cgroup.
        path: PathBuf,
        /// What the library said.
        #[source]
        source: Box<cgroups_rs::fs::error::Error>,
    },
    /// The kernel has no such controller here, so the limit would not hold.
    #[error("cgroup {path}: no {controller} controller, so its limit would not hold")]
    Controller {
        /// The cgroup.
        path: PathBuf,
        /// The controller's name.
        controller: &'static str,
    },
    /// A limit could not be written.
    #[error("cgroup {path}: {file} could not be set to {value}")]
    Set {
        /// The cgroup.
        path: PathBuf,
        /// The limit's file.
        file: &'static str,
        /// What was written.
        value: String,
        /// What the library said.
        #[source]
        source: Box<cgroups_rs::fs::error::Error>,
    },
    /// A limit was written and reads back otherwise.
    #[error("cgroup {path}: {file} should be {expected} and reads {found}")]
    NotTaken {
        /// The cgroup.
        path: PathBuf,
        /// The limit's file.
        file: &'static str,
        /// What was written.
        expected: String,
        /// What the kernel says.
        found: String,
    },
    /// A limit's file could not be written.
    #[error("{path} could not be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The cgroup could not be handed to the space.
    #[error("cgroup {path}: {file} could not be given to id {first_id}")]
    Delegate {
        /// The cgroup.
        path: PathBuf,
        /// The file.
        file: String,
        /// The first id of the space's range.
        first_id: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the kernel could not be read.
    #[error("{path} could not be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Makes the space's cgroup at `path` with these limits, owned inside by `first_id`. Where processes live in it, only
/// the limits are set anew; where none does, it is a fresh one. Blocks.
pub fn ensure(path: &Path, limits: &Limits, first_id: u32) -> Result<(), LimitsError> {
    let name = match path.strip_prefix(CGROUP_MOUNT) {
        Ok(name) if path.starts_with(CGROUP_SPACES) => name,
        _ => {
            return Err(LimitsError::Path {
                path: path.to_owned(),
            });
        }
    };
    let clear = |source| LimitsError::Clear {
        path: path.to_owned(),
        source,
    };
    if !cgroup::is_populated(path).map_err(clear)? {
        cgroup::ensure_absent(path, EMPTY_WITHIN).map_err(clear)?;
    }
    let wanted = CONTROLLERS.iter().map(|name| (*name).to_owned()).collect();
    Cgroup::new_with_specified_controllers(Box::new(V2::new()), name, Some(wanted)).map_err(|source| {
        LimitsError::Create {
            path: path.to_owned(),
            source: Box::new(source),
        }
    })?;
    // A handle made with names does not know `io`, which the library calls blkio everywhere else.
    let cgroup = Cgroup::load(Box::new(V2::new()), name);
    apply(path, &cgroup, limits)?;
    verify(path, limits)?;
    place(path, limits.cpu)?;
    delegate(path, first_id)
}

/// Lets the cgroup use all CPUs (`None`), or as much as was sold. Blocks.
pub fn set_cpu(path: &Path, cpu: Option<MilliCpus>) -> Result<(), LimitsError> {
    let file = path.join("cpu.max");
    let value = cpu.map_or_else(|| "max".to_owned(), |cpu| cpu_quota(cpu).to_string());
    let expected = format!("{value} {CPU_PERIOD_US}");
    fs::write(&file, &expected).map_err(|source| LimitsError::Write {
        path: file.clone(),
        source,
    })?;
    let found = read_file(&file)?.trim().to_owned();
    if found == expected {
        return Ok(());
    }
    Err(LimitsError::NotTaken {
        path: path.to_owned(),
        file: "cpu.max",
        expected,
        found,
    })
}

/// Ends all that runs in the cgroup at `path` and removes it with everything below. Absent already: fine. Blocks.
pub fn ensure_absent(path: &Path) -> Result<(), CgroupError> {
    cgroup::ensure_absent(path, EMPTY_WITHIN)
}

fn controller<'a, T>(path: &Path, cgroup: &'a Cgroup, name: &'static str) -> Result<&'a T, LimitsError>
where
    &'a T: From<&'a cgroups_rs::fs::Subsystem>,
    T: cgroups_rs::fs::Controller + cgroups_rs::fs::ControllIdentifier,
{
    cgroup.controller_of::<T>().ok_or(LimitsError::Controller {
        path: path.to_owned(),
        controller: name,
    })
}

fn apply(path: &Path, cgroup: &Cgroup, limits: &Limits) -> Result<(), LimitsError> {
    let set = |file: &'static str, value: String, result: Result<(), cgroups_rs::fs::error::Error>| {
        result.map_err(|source| LimitsError::Set {
            path: path.to_owned(),
            file,
            value,
            source: Box::new(source),
        })
    };
    let quota = cpu_quota(limits.cpu);
    let cpu: &CpuController = controller(path, cgroup, "cpu")?;
    let quota_us = i64::try_from(quota).unwrap_or(i64::MAX);
    set(
        "cpu.max",
        quota.to_string(),
        cpu.set_cfs_quota_and_period(Some(quota_us), Some(CPU_PERIOD_US)),
    )?;
    let memory: &MemController = controller(path, cgroup, "memory")?;
    let bytes = page_aligned(limits.memory);
    set(
        "memory.max",
        bytes.to_string(),
        memory.set_limit(i64::try_from(bytes).unwrap_or(i64::MAX)),
    )?;
    set("memory.swap.max", "0".to_owned(), memory.set_memswap_limit(0))?;
    let pids: &PidController = controller(path, cgroup, "pids")?;
    set(
        "pids.max",
        limits.pids.to_string(),
        pids.set_pid_max(MaxValue::Value(i64::from(limits.pids))),
    )?;
    for (file, most) in TREE {
        let path = path.join(file);
        fs::write(&path, most.to_string()).map_err(|source| LimitsError::Write { path, source })?;
    }
    for disk in &limits.disks {
        let Device { major, minor } = disk.device;
        let io: &BlkIoController = controller(path, cgroup, "io")?;
        let bytes = disk.bytes_per_second;
        for result in [
            io.throttle_read_bps_for_device(major, minor, bytes),
            io.throttle_write_bps_for_device(major, minor, bytes),
            io.throttle_read_iops_for_device(major, minor, disk.reads_per_second),
            io.throttle_write_iops_for_device(major, minor, disk.writes_per_second),
        ] {
            set("io.max", disk.line(), result)?;
        }
    }
    Ok(())
}

/// Compares every limit with what the kernel says about it.
fn verify(path: &Path, limits: &Limits) -> Result<(), LimitsError> {
    for (file, expected) in expected(limits) {
        let text = read_file(&path.join(file))?;
        let found = match file {
            "io.max" => read::line_of_device(&text, &expected),
            _ => text.trim().to_owned(),
        };
        if found != expected {
            return Err(LimitsError::NotTaken {
                path: path.to_owned(),
                file,
                expected,
                found,
            });
        }
    }
    Ok(())
}

/// The limit files and what each must read.
fn expected(limits: &Limits) -> Vec<(&'static str, String)> {
    let mut files = vec![
        ("cpu.max", format!("{} {CPU_PERIOD_US}", cpu_quota(limits.cpu))),
        ("memory.max", page_aligned(limits.memory).to_string()),
        ("memory.swap.max", "0".to_owned()),
        ("pids.max", limits.pids.to_string()),
    ];
    files.extend(TREE.map(|(file, most)| (file, most.to_string())));
    files.extend(limits.disks.iter().map(|disk| ("io.max", disk.line())));
    files
}

/// Microseconds of CPU in each period. The kernel takes no less than 1000: 10 thousandths of a CPU.
fn cpu_quota(cpu: MilliCpus) -> u64 {
    u64::from(cpu.0) * CPU_PERIOD_US / 1000
}

/// The kernel keeps memory limits in whole pages, rounded down.
fn page_aligned(memory: Bytes) -> u64 {
    memory.0 / 4096 * 4096
}

/// Gives the directory and the files that the kernel lists as safe to delegate to the space's root.
fn delegate(path: &Path, first_id: u32) -> Result<(), LimitsError> {
    let list = read_file(Path::new("/sys/kernel/cgroup/delegate"))?;
    let give = |file: &str, at: &Path| {
        chown(at, Some(first_id), Some(first_id)).map_err(|source| LimitsError::Delegate {
            path: path.to_owned(),
            file: file.to_owned(),
            first_id,
            source,
        })
    };
    give(".", path)?;
    for file in list.lines() {
        let at = path.join(file);
        // Files of controllers that this kernel has and this cgroup has not are listed as well.
        if at.exists() {
            give(file, &at)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<String, LimitsError> {
    fs::read_to_string(path).map_err(|source| LimitsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            cpu: MilliCpus(500),
            memory: Bytes(512 * 1024 * 1024 + 1),
            pids: 512,
            disks: vec![DiskLimit::usual(Device {
                major: 254,
                minor: 16,
            })],
        }
    }

    #[test]
    fn half_a_cpu_is_half_of_each_period() {
        assert_eq!(expected(&limits())[0], ("cpu.max", "50000 100000".to_owned()));
    }

    #[test]
    fn memory_is_compared_in_whole_pages() {
        assert_eq!(
            expected(&limits())[1],
            ("memory.max", (512 * 1024 * 1024).to_string())
        );
    }

    #[test]
    fn the_disk_is_limited_both_ways() {
        assert_eq!(
            expected(&limits())[6].1,
            "254:16 rbps=209715200 wbps=209715200 riops=5000 wiops=5000"
        );
    }

    #[test]
    fn a_path_elsewhere_is_refused_before_anything_is_made() {
        let error = ensure(Path::new("/tmp/elsewhere"), &limits(), 100_000).unwrap_err();
        assert!(matches!(error, LimitsError::Path { .. }), "{error}");
    }
}
