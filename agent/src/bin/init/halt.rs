//! The way out, the same for every reason: each phase has a bound, none stops the ones after it.
//!
//! ```text
//!  services: TERM, 5 s, KILL ─► spaces: TERM, 5 s, cgroup.kill ─► `agent close`, 20 s (volumes)
//!      ─► kill all ─► unmount, last first ─► sync, 10 s ─► reboot or power off
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use host::mount;
use host::names;
use host::power::{End, end_now};
use host::process::{Clone, Fork, Pidfd, clone3, exit_now};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::console::{chain, say};
use crate::supervise::{AGENT, reap, spawn};

/// What the services have to finish what they do.
const GRACE: Duration = Duration::from_secs(5);
/// What closing all volumes may take.
const CLOSE: Duration = Duration::from_secs(20);
/// What the disks have to take what is in memory.
const SYNC: Duration = Duration::from_secs(10);

/// Ends everything and the machine. Comes back only where the kernel refuses.
pub fn halt(end: End) {
    say(match end {
        End::PowerOff => "init: powers off: ends what runs",
        End::Reboot => "init: starts again: ends what runs",
    });
    phase("services", end_services);
    phase("spaces", end_spaces);
    phase("volumes", close_volumes);
    phase("processes", kill_all);
    phase("mounts", unmount_all);
    phase("sync", sync);
    say(match end {
        End::PowerOff => "init: off",
        End::Reboot => "init: and again",
    });
    say(&format!("init: the kernel refuses: {}", end_now(end)));
}

/// Runs one phase; says how long it took when that is worth a line, and what it could not do.
fn phase(name: &str, run: fn() -> Result<(), String>) {
    let start = Instant::now();
    match run() {
        Err(error) => say(&format!("init: {name}: {error}")),
        Ok(()) if start.elapsed() > Duration::from_secs(1) => {
            say(&format!("init: {name}: {} ms", start.elapsed().as_millis()));
        }
        Ok(()) => {}
    }
}

/// Asks all that is in no space to end, and ends what does not: the agent would start spaces again,
/// and a PID 1 that took the place of another knows no numbers of services.
fn end_services() -> Result<(), String> {
    let running = host::process::running().map_err(|e| e.to_string())?;
    let inside = host::cgroup::processes(Path::new(names::CGROUP_SPACES));
    let open: Vec<Pidfd> = running
        .iter()
        .filter(|pid| !inside.contains(pid))
        .filter_map(|pid| Pidfd::open(*pid).ok())
        .collect();
    for service in &open {
        let _ = service.kill(Signal::SIGTERM);
    }
    let end = Instant::now() + GRACE;
    for service in &open {
        if !matches!(
            service.wait_ended(end.saturating_duration_since(Instant::now())),
            Ok(true)
        ) {
            let _ = service.kill(Signal::SIGKILL);
            let _ = service.wait_ended(GRACE);
        }
    }
    reap();
    Ok(())
}

/// Every process in a space gets a moment to save what it has; then the kernel ends all at once.
fn end_spaces() -> Result<(), String> {
    let spaces = Path::new(names::CGROUP_SPACES);
    for pid in host::cgroup::processes(spaces) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if wait_empty_reaping(spaces, GRACE).is_err() {
        host::cgroup::kill(spaces).map_err(|e| chain(&e))?;
    }
    wait_empty_reaping(spaces, GRACE)
}

/// Waits until a cgroup is empty; those who die are ours to reap meanwhile.
fn wait_empty_reaping(cgroup: &Path, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    loop {
        reap();
        match host::cgroup::wait_empty(cgroup, Duration::from_millis(100)) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(chain(&error)),
            Err(_) => {}
        }
    }
}

/// A fresh agent closes the volumes: it alone knows LUKS and LVM.
fn close_volumes() -> Result<(), String> {
    if !Path::new(AGENT).exists() {
        return Ok(());
    }
    let pid = spawn("agent", AGENT, Some("close")).map_err(|e| e.to_string())?;
    let agent = Pidfd::open(pid.as_raw()).map_err(|e| e.to_string())?;
    let ended = agent.wait_ended(CLOSE).map_err(|e| e.to_string())?;
    if !ended {
        let _ = agent.kill(Signal::SIGKILL);
        let _ = agent.wait_ended(GRACE);
    }
    let status = reap()
        .into_iter()
        .find(|(ended, _)| *ended == pid)
        .map(|(_, status)| status);
    match (ended, status) {
        (false, _) => Err(format!("not closed within {} s", CLOSE.as_secs())),
        (true, Some(nix::sys::wait::WaitStatus::Exited(_, 0)) | None) => Ok(()),
        (true, Some(status)) => Err(format!("agent close: {}", crate::supervise::describe(&status))),
    }
}

/// Ends every process but PID 1, and waits until they are gone.
fn kill_all() -> Result<(), String> {
    let running = host::process::running().map_err(|e| e.to_string())?;
    let open: Vec<Pidfd> = running.iter().filter_map(|pid| Pidfd::open(*pid).ok()).collect();
    // To all, by the kernel: those that were born since are among them.
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => return Err(error.to_string()),
    }
    let end = Instant::now() + GRACE;
    let left = |process: &&Pidfd| {
        !matches!(
            process.wait_ended(end.saturating_duration_since(Instant::now())),
            Ok(true)
        )
    };
    let left = open.iter().filter(left).count();
    reap();
    if left == 0 {
        Ok(())
    } else {
        Err(format!("{left} do not die (a disk that does not answer?)"))
    }
}

/// Unmounts, the last mounted first: what lies on disks must be gone, the rest may stay.
fn unmount_all() -> Result<(), String> {
    let mut points = mount::mount_points().map_err(|e| e.to_string())?;
    points.reverse();
    let mut left = Vec::new();
    for point in points.iter().filter(|p| p.starts_with(names::RUN)) {
        if let Err(error) = mount::ensure_unmounted(point) {
            left.push(chain(&error));
            let _ = mount::detach(point);
        }
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(left.join("; "))
    }
}

/// Writes out what is in memory, in a child: a dead disk would hold the call for ever.
fn sync() -> Result<(), String> {
    match clone3(&Clone::default()).map_err(|e| e.to_string())? {
        Fork::Child => {
            nix::unistd::sync();
            exit_now(0)
        }
        Fork::Parent(_, child) => match child.wait_ended(SYNC) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "a disk did not take everything within {} s",
                SYNC.as_secs()
            )),
            Err(error) => Err(error.to_string()),
        },
    }
}
