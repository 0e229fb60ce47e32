//! Memory that a space waits for instead of working: its largest program is ended before all of it stands still.
//!
//! ```text
//!   the kernel: for 6 s of 10 s all that would run in the space waited for memory
//!        │ once                         │ twice within 30 s
//!        ▼                              ▼
//!   it may be over by itself       the largest process of the space is ended; counted from nothing again
//! ```
//!
//! Why not leave it to the kernel: at `memory.max` it kills when nothing can be reclaimed, and as long as a page of a
//! program's file can be dropped and read again, something can. Without swap a space then reads its own programs from
//! the disk over and over, for minutes, in which no login comes. The bounds are those of systemd-oomd (60% of the time,
//! for half a minute), somewhat earlier: whoever waits for a login gives up after that half minute.
//!
//! Invariant: what is ended lives in the space, and is not its first process: the space goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use host::cgroup::{self, CgroupError, Pressure};
use host::process::Pidfd;
use market::quantity::Bytes;
use nix::sys::signal::Signal;

/// Of each [`WINDOW`], so much is too much.
const STALLED: Duration = Duration::from_secs(6);
/// The longest window that the kernel takes.
const WINDOW: Duration = Duration::from_secs(10);
/// Notices that lie closer together than this are of one trouble.
const SAME: Duration = Duration::from_secs(30);
/// So many notices of one trouble are enough.
const NOTICES: u32 = 2;
/// How often a waiting thread looks whether anybody still wants to know.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A process that was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name, as it gave it to itself: letters, digits, and little else.
    pub name: String,
    /// What it held in memory.
    pub memory: Bytes,
}

/// Watches the space in `cgroup` until `wanted` says no or the cgroup is gone; tells of each process that it ended.
/// Blocks: it wants a thread, which sleeps.
///
/// # Errors
/// When the kernel does not take the watch; afterwards, when the cgroup is gone.
pub fn watch(
    cgroup: &Path,
    wanted: impl Fn() -> bool,
    mut ended: impl FnMut(Ended),
) -> Result<(), CgroupError> {
    let pressure = Pressure::watch(cgroup, STALLED, WINDOW)?;
    let mut trouble: Option<(u32, Instant)> = None;
    while wanted() {
        if !pressure.wait(LOOK_EVERY)? {
            continue;
        }
        let notices = match trouble {
            Some((notices, last)) if last.elapsed() < SAME => notices + 1,
            _ => 1,
        };
        if notices < NOTICES {
            trouble = Some((notices, Instant::now()));
            continue;
        }
        trouble = None;
        if let Some(one) = end_largest(cgroup) {
            ended(one);
        }
    }
    Ok(())
}

/// Ends the process of the space that holds the most memory, as the kernel would choose; never its first.
fn end_largest(space: &Path) -> Option<Ended> {
    let seen = cgroup::processes(space).into_iter().filter_map(|pid| {
        // Opened before it is looked at: what is ended is what was seen.
        let process = Pidfd::open(pid).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let (name, memory) = read(&status)?;
        cgroup::processes(space)
            .contains(&pid)
            .then_some((memory, name, process))
    });
    let (memory, name, process) = seen.max_by_key(|(memory, ..)| memory.0)?;
    process.kill(Signal::SIGKILL).ok()?;
    Some(Ended { name, memory })
}

/// Name and memory out of a `/proc/PID/status`; nothing of a space's first process, nor of one that has ended.
fn read(status: &str) -> Option<(String, Bytes)> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let numbers: Vec<&str> = field("NSpid")?.split_whitespace().collect();
    if numbers.len() == 2 && numbers.last() == Some(&"1") {
        return None;
    }
    let kib = |name: &str| field(name)?.split_whitespace().next()?.parse::<u64>().ok();
    let memory = kib("VmRSS")?.saturating_add(kib("VmPTE").unwrap_or(0));
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = field("Name")?.chars().filter(plain).collect();
    Some((name, Bytes(memory.saturating_mul(1024))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tpy\u{1b}[2J thon\nState:\tD\nNSpid:\t412\t17\nVmRSS:\t   2048 kB\nVmPTE:\t  64 kB\n";

    #[test]
    fn a_process_is_measured_as_the_kernel_does_and_its_name_is_plain() {
        assert_eq!(read(STATUS), Some(("py2Jthon".to_owned(), Bytes(2112 << 10))));
    }

    #[test]
    fn the_first_process_of_a_space_and_dead_ones_are_left_out() {
        assert_eq!(read(&STATUS.replace("\t17", "\t1")), None);
        // One that a space started in a namespace below its own is no first of the space.
        assert!(read(&STATUS.replace("\t17", "\t17\t1")).is_some());
        assert_eq!(read("Name:\tx\nState:\tZ\nNSpid:\t412\t17\n"), None);
    }
}
