//! Keeps services alive, reaps everything, and listens for how to end. The one owner of `waitpid`
//! in PID 1.
//!
//! ```text
//!            start                  ended (ran for t)
//!  Waiting ─────────► Running(pid) ──────────────────► Waiting(delay)
//!     ▲ delay is over                                      │ 1 s, doubled each time to 30 s;
//!     └────────────────────────────────────────────────────┘ 1 s again after 10 s of running
//! ```

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::power::End;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::console::say;

/// The agent's file.
pub const AGENT: &str = "/sbin/agent";

/// How long a service waits before it is started again.
#[derive(Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);
    /// Who ran this long was well: a node that is struck now and then offers again at once, and one
    /// that cannot start does not use up its processor.
    const WELL: Duration = Duration::from_secs(10);

    /// The delay after a run that lasted `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        let delay = match self.last {
            Some(last) if ran < Self::WELL => (last * 2).min(Self::LONGEST),
            _ => Self::FIRST,
        };
        self.last = Some(delay);
        delay
    }
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Running(Pid, Instant),
}

/// A program that is kept alive.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    program: &'static str,
    argument: Option<&'static str>,
    /// How unwilling the kernel is to kill it when memory is short (-1000 to 1000). Spaces stand at
    /// 0: a node without memory loses processes of spaces first. Not -1000: a service whose own
    /// memory grows without end is better killed and started again than the machine stopped, for
    /// the kernel panics where nothing may be killed.
    oom_score: i32,
    backoff: Backoff,
    state: State,
}

impl Service {
    /// Everything that is not `init`.
    pub fn agent() -> Self {
        Self::new("agent", AGENT, Some("run"), -900)
    }

    /// The loader of modules: beside the agent, never before it, so that PID 1 and the screen wait
    /// for no driver.
    pub fn hardware() -> Self {
        Self::new(crate::hardware::NAME, "/init", None, -900)
    }

    /// The server of what spaces read about themselves. It may be killed: it comes back.
    pub fn readings() -> Self {
        Self::new(crate::readings::NAME, "/init", None, -500)
    }

    fn new(
        name: &'static str,
        program: &'static str,
        argument: Option<&'static str>,
        oom_score: i32,
    ) -> Self {
        let state = State::Waiting(Instant::now());
        Self {
            name,
            program,
            argument,
            oom_score,
            backoff: Backoff::default(),
            state,
        }
    }

    fn start(&mut self) {
        let started = spawn(self.name, self.program, self.argument);
        self.state = match started {
            Ok(pid) => {
                let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), self.oom_score.to_string());
                State::Running(pid, Instant::now())
            }
            Err(error) => {
                let delay = self.backoff.after(Duration::ZERO);
                say(&format!(
                    "init: {} cannot be started: {error}; tries again in {} s",
                    self.name,
                    delay.as_secs()
                ));
                State::Waiting(Instant::now() + delay)
            }
        };
    }

    fn ended(&mut self, since: Instant, how: &WaitStatus) {
        let delay = self.backoff.after(since.elapsed());
        say(&format!(
            "init: {} ended ({}), starts again in {} s",
            self.name,
            describe(how),
            delay.as_secs()
        ));
        self.state = State::Waiting(Instant::now() + delay);
    }

    /// The number of its process, while it has one.
    #[cfg(test)]
    fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running(pid, _) => Some(pid),
            State::Waiting(_) => None,
        }
    }
}

/// Starts a program with nothing to read, whose words go to the console.
pub fn spawn(name: &str, program: &str, argument: Option<&str>) -> io::Result<Pid> {
    let console = || match OpenOptions::new().write(true).open("/dev/console") {
        Ok(file) => Stdio::from(file),
        Err(_) => Stdio::null(),
    };
    let child = Command::new(program)
        .arg0(name)
        .args(argument)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(console())
        .stderr(console())
        .spawn()?;
    // Its end is seen by `reap`; letting go of the handle ends nothing.
    Ok(Pid::from_raw(child.id() as i32))
}

/// Runs the services until a signal says how the machine ends; then ends them.
pub fn supervise(services: &mut [Service]) -> io::Result<End> {
    let signals = listen()?;
    loop {
        let now = Instant::now();
        for service in services
            .iter_mut()
            .filter(|s| matches!(s.state, State::Waiting(until) if until <= now))
        {
            service.start();
        }
        host::process::wait_readable(signals.as_fd(), next_start(services, now))?;
        while let Some(signal) = signals.read_signal()? {
            let asked = Signal::try_from(signal.ssi_signo as i32)
                .ok()
                .and_then(End::from_signal);
            if let Some(end) = asked {
                return Ok(end);
            }
        }
        for (pid, status) in reap() {
            for service in services.iter_mut() {
                if let State::Running(own, since) = service.state
                    && own == pid
                {
                    service.ended(since, &status);
                }
            }
        }
    }
}

/// How long until somebody has to be started.
fn next_start(services: &[Service], now: Instant) -> Duration {
    let waits = services.iter().filter_map(|service| match service.state {
        State::Waiting(until) => Some(until.saturating_duration_since(now)),
        State::Running(..) => None,
    });
    waits.min().unwrap_or(Duration::from_secs(3600))
}

/// Blocks the signals that mean something to PID 1 and gives them as a descriptor.
fn listen() -> nix::Result<SignalFd> {
    let signals: SigSet = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPWR,
    ]
    .into_iter()
    .collect();
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Takes every child that has ended.
pub fn reap() -> Vec<(Pid, WaitStatus)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(status) => ended.extend(status.pid().map(|pid| (pid, status))),
            Err(Errno::EINTR) => {}
            Err(error) => {
                say(&format!("init: cannot wait for children: {error}"));
                return ended;
            }
        }
    }
}

/// How a process ended, in words.
pub fn describe(status: &WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_to_its_bound_and_health_resets_it() {
        let mut backoff = Backoff::default();
        let ran = Duration::from_secs(2);
        let delays: Vec<u64> = (0..7).map(|_| backoff.after(ran).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.after(Duration::from_secs(10)).as_secs(), 1);
        assert_eq!(backoff.after(ran).as_secs(), 2);
    }

    #[test]
    fn the_next_start_is_the_earliest() {
        let now = Instant::now();
        let mut services = [Service::agent(), Service::hardware()];
        services[0].state = State::Running(Pid::from_raw(7), now);
        services[1].state = State::Waiting(now + Duration::from_secs(4));
        assert_eq!(next_start(&services, now), Duration::from_secs(4));
        assert_eq!(services[0].pid(), Some(Pid::from_raw(7)));
    }
}
