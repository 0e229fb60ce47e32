//! The helper that starts spaces: `init` executed anew, for it has one thread and the agent many.
//!
//! ```text
//!  helper (the node's root)                     carrier (born in the space's cgroup)
//!    base, volume: copied mounts, idmapped        joins the network namespace and the
//!    devices: copied mounts                       user namespace that owns it, becomes its
//!    clone3 INTO_CGROUP ───────────────────────►  root, clone3 of pid, mount, ipc, uts,
//!    waits for the pipe to close                  cgroup namespaces ─► exits
//!        ▲                                                │ (the helper's child, its sibling)
//!        │  a failed step, or the end of the pipe         ▼
//!        └──────────────────────────────────────────  PID 1 of the space (`inside`): mounts, pivot,
//!                                                      drops capabilities, seccomp, exec
//! ```
//!
//! - The user namespace is older than the space: `network` makes it together with the network
//!   namespace that it owns (else root inside could not bind port 22, mount /sys or use nft), and
//!   the start finds it there. Both are made before the user's key arrives.
//! - Base and volume are idmapped with that very namespace, so ids on disk stay 0 to 65535.
//! - The carrier exists because joining a cgroup and a network namespace takes the node's root, and
//!   the new namespaces must belong to the space's.
//! - A start that fails leaves no process; all mounts lived in its mount namespace alone.

mod inside;
mod layers;
mod network;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use host::isolate::{Answer, RANGE, Request, SpaceStart};
use host::process::{Clone, Fork, Pidfd, clone3, exit_now, wait_readable};
use host::seccomp::Filter;
use host::{cgroup, isolate, netns, process};

use layers::Layers;

/// Longest request that is read.
const REQUEST_LIMIT: u64 = 64 << 10;
/// What a start may take: mounts and one exec, on a disk that may be slow.
const START: Duration = Duration::from_secs(60);

/// A step that failed, with all causes in one line.
#[derive(Debug)]
pub struct Failure {
    step: &'static str,
    error: String,
}

/// Names the step in which an error happened.
pub trait At<T> {
    /// The value, or a failure of `step`.
    fn at(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step,
            error: crate::console::chain(&error),
        })
    }
}

/// Reads one request from standard input, answers in one line on standard output.
pub fn run() -> ExitCode {
    let answer = match read_request().and_then(serve) {
        Ok(answer) => answer,
        Err(Failure { step, error }) => Answer::Failed {
            step: step.into(),
            error,
        },
    };
    let failed = matches!(answer, Answer::Failed { .. });
    match serde_json::to_string(&answer) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("{error}"),
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn read_request() -> Result<Request, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(REQUEST_LIMIT)
        .read_to_end(&mut bytes)
        .at("read the request")?;
    serde_json::from_slice(&bytes).at("read the request")
}

fn serve(request: Request) -> Result<Answer, Failure> {
    match request {
        Request::Network(start) => network::make(&start).map(|()| Answer::Made { made: true }),
        Request::Space(start) => start_space(&start).map(|pid| Answer::Started { pid }),
    }
}

/// Everything that PID 1 of the space is handed.
struct Prepared {
    netns: File,
    userns: OwnedFd,
    layers: Layers,
    filter: Filter,
}

fn start_space(start: &SpaceStart) -> Result<i32, Failure> {
    start.check().at("check the request")?;
    let netns = File::open(&start.netns).at("open the network namespace")?;
    let userns = netns::owner(netns.as_fd()).at("find the user namespace")?;
    let cgroup = File::open(&start.cgroup).at("open the cgroup")?;
    cgroup::delegate(&start.cgroup, start.first_id).at("hand over the cgroup")?;
    let filter = match &start.seccomp {
        Some(path) => Filter::read(path).at("read the seccomp filter")?,
        None => Filter::built_in(),
    };
    let layers = Layers::prepare(start, userns.as_fd())?;
    let prepared = Prepared {
        netns,
        userns,
        layers,
        filter,
    };

    let (pipe, status) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).at("make a pipe")?;
    let clone = Clone {
        cgroup: Some(cgroup.as_fd()),
        ..Clone::default()
    };
    match clone3(&clone).at("be born in the cgroup")? {
        Fork::Child => {
            drop(pipe);
            carry(start, prepared, File::from(status))
        }
        Fork::Parent(_, carrier) => {
            drop((status, prepared));
            let result = await_start(File::from(pipe));
            let _ = carrier.wait_ended(START);
            let _ = carrier.reap();
            if result.is_err() {
                let _ = cgroup::kill(&start.cgroup);
                let _ = cgroup::wait_empty(&start.cgroup, Duration::from_secs(5));
            }
            result
        }
    }
}

/// Reads what carrier and PID 1 say until the pipe closes: at exec, or at a failure's exit.
fn await_start(mut pipe: File) -> Result<i32, Failure> {
    const STEP: &str = "wait for the start";
    let refuse = |error: &str| Failure {
        step: STEP,
        error: error.into(),
    };
    let (end, mut said) = (Instant::now() + START, Vec::new());
    loop {
        if !wait_readable(pipe.as_fd(), end.saturating_duration_since(Instant::now())).at(STEP)? {
            return Err(refuse("nothing happened within 60 s"));
        }
        let mut buffer = [0u8; 4096];
        match pipe.read(&mut buffer).at(STEP)? {
            0 => break,
            n => said.extend_from_slice(&buffer[..n]),
        }
    }
    let said = String::from_utf8_lossy(&said);
    let mut pid = None;
    for line in said.lines() {
        let mut words = line.splitn(3, '\t');
        match (words.next(), words.next(), words.next()) {
            (Some("pid"), Some(number), _) => pid = number.parse().ok(),
            (Some("failed"), Some(step), Some(error)) => {
                return Err(Failure {
                    step: step_named(step),
                    error: error.into(),
                });
            }
            _ => {}
        }
    }
    let pid: i32 =
        pid.ok_or_else(|| refuse("the carrier ended without a word (out of the space's memory?)"))?;
    match Pidfd::open(pid).and_then(|process| process.wait_ended(Duration::ZERO)) {
        Ok(false) => Ok(pid),
        _ => Err(refuse("PID 1 of the space ended at once (out of its memory?)")),
    }
}

/// A step's name that came over the pipe, as the static text that it was.
fn step_named(step: &str) -> &'static str {
    inside::STEPS
        .iter()
        .chain(CARRIER_STEPS)
        .copied()
        .find(|known| *known == step)
        .unwrap_or("start")
}

const CARRIER_STEPS: &[&str] = &[
    "join the network namespace",
    "join the user namespace",
    "check the user namespace",
    "set limits of processes",
    "become root of the space",
    "make the namespaces",
];

/// The carrier: never comes back.
fn carry(start: &SpaceStart, prepared: Prepared, mut status: File) -> ! {
    let failure = match make_namespaces(start, &prepared) {
        Ok(Fork::Parent(pid, _)) => {
            let _ = writeln!(status, "pid\t{pid}");
            exit_now(0)
        }
        Ok(Fork::Child) => inside::enter(start, prepared),
        Err(failure) => failure,
    };
    let _ = writeln!(
        status,
        "failed\t{}\t{}",
        failure.step,
        failure.error.replace('\n', " ")
    );
    exit_now(1)
}

fn make_namespaces(start: &SpaceStart, prepared: &Prepared) -> Result<Fork, Failure> {
    use nix::sched::{CloneFlags, setns};
    netns::enter(prepared.netns.as_fd()).at("join the network namespace")?;
    process::limits_of_a_space().at("set limits of processes")?;
    setns(&prepared.userns, CloneFlags::CLONE_NEWUSER).at("join the user namespace")?;
    check_map(start.first_id)?;
    process::become_root().at("become root of the space")?;
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    clone3(&Clone {
        namespaces,
        cgroup: None,
        sibling: true,
    })
    .at("make the namespaces")
}

/// The namespace must have exactly the range that the request names: nobody else's ids.
fn check_map(first_id: u32) -> Result<(), Failure> {
    for file in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let map = std::fs::read_to_string(file).at("check the user namespace")?;
        let words: Vec<&str> = map.split_whitespace().collect();
        if words != ["0", &first_id.to_string(), &RANGE.to_string()] {
            let error = format!("{file} says {words:?}, wanted 0 {first_id} {RANGE}");
            return Err(Failure {
                step: "check the user namespace",
                error,
            });
        }
    }
    Ok(())
}

const _: () = assert!(isolate::LOWEST_FIRST_ID > isolate::RANGE);
