//! What a space reads about itself: memory, processors, age and load as it has them, where the kernel shows the node's.
//!
//! ```text
//!  PID 1 ── starts it, again after each end ──► steading-readings
//!                                                 │ clone3 into a cgroup of its own, namespaces, few capabilities
//!                                                 ├────────► lxcfs ── FUSE ──► /run/steading/readings
//!                                                 │ its mount answers
//!                                                 └────────► for every space that runs, a child in its cgroup joins its
//!                                                            user and mount namespaces and lays the files over its /proc
//! ```
//!
//! - Readings are a display, no limit. A space starts without them where lxcfs does not answer; they are laid into
//!   all that run as soon as it does. So its end heals: what is dead inside is taken away and laid anew.
//! - What is laid into a running space is laid with the rights of its own root, in its own mounts: a user who moved
//!   /proc elsewhere misleads himself alone. Where a file system of his own lies there and does not answer, whoever looks
//!   is held, and no kill ends that: so nobody waits for the child, it is one of the space's processes, and while one is
//!   left there is no second.
//! - lxcfs serves strangers, and must join their namespaces to count for them, so it cannot be without SYS_ADMIN.
//!   What it does not need it has not: no network, no capability but three more, no way to get one back, the system
//!   calls that spaces have and no others, bounded memory, processes and CPU.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use host::capability::{Capability, keep_only};
use host::cgroup;
use host::mount::{self, Tree, TreeError, open_below};
use host::names::{CGROUP_READINGS, CGROUP_SPACES, RUN_READINGS};
use host::process::{self, Clone, Fork, Pidfd, clone3, exit_now};
use host::seccomp::Filter;
use nix::errno::Errno;
use nix::mount::MntFlags;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::sys::wait::WaitStatus;

use crate::console::chain;

/// The name under which `init` is this.
pub const NAME: &str = "steading-readings";

/// What is laid over the kernel's own, by path below the root of a space and below lxcfs's mount.
const FILES: [&str; 8] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "sys/devices/system/cpu/online",
];

const PROGRAM: &str = "/usr/bin/lxcfs";
/// How long lxcfs may take to answer: it starts while the machine boots, and may have thousands of readers before us.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How long a space that starts waits for it.
const SOON: Duration = Duration::from_secs(1);
/// How often it is asked whether it still answers.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The longest start of a space: one that began while lxcfs was away has its mounts by then.
const START: Duration = Duration::from_secs(60);
/// What the end of an lxcfs that was killed takes.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// What lxcfs may use, whoever asks: files of its cgroup.
const LIMITS: [(&str, &str); 4] = [
    ("memory.max", "67108864"),
    ("pids.max", "128"),
    ("cpu.max", "50000 100000"),
    ("cpu.weight", "50"),
];
/// SYS_CHROOT and SYS_ADMIN to join namespaces; SYS_PTRACE and DAC_READ_SEARCH to see what a process of another id is.
const CAPABILITIES: [Capability; 4] = [Capability(2), Capability(18), Capability(19), Capability(21)];

type Failure = Box<dyn std::error::Error>;

/// Never ends but with an error; PID 1 then starts it again.
pub fn run() -> ExitCode {
    let Err(error) = serve();
    eprintln!("init: readings of spaces: {}", chain(&*error));
    ExitCode::FAILURE
}

/// Copies of the mounts of all files, attached nowhere; none where lxcfs does not answer soon.
pub fn trees() -> Result<Vec<(&'static str, Tree)>, Failure> {
    if mount::fuse_answers(Path::new(RUN_READINGS), SOON)? {
        Ok(copies()?)
    } else {
        Ok(Vec::new())
    }
}

/// The same, waiting for lxcfs.
fn copies() -> Result<Vec<(&'static str, Tree)>, TreeError> {
    let copy = |file| {
        let tree = Tree::clone_of(&Path::new(RUN_READINGS).join(file))?;
        tree.restrict(
            libc::MOUNT_ATTR_RDONLY
                | libc::MOUNT_ATTR_NOSUID
                | libc::MOUNT_ATTR_NODEV
                | libc::MOUNT_ATTR_NOEXEC,
        )?;
        Ok((file, tree))
    };
    FILES.into_iter().map(copy).collect()
}

fn serve() -> Result<Infallible, Failure> {
    let (root, own) = (Path::new(RUN_READINGS), Path::new(CGROUP_READINGS));
    // First: a folder under a dead mount is neither there nor not there.
    mount::detach(root)?;
    fs::create_dir_all(root)?;
    fs::create_dir_all(own)?;
    for (file, value) in LIMITS {
        fs::write(own.join(file), value)?;
    }
    // One that outlived whoever started it.
    cgroup::kill(own)?;
    cgroup::wait_empty(own, ENDED_WITHIN)?;
    let place = File::open(own)?;
    let born = Clone {
        namespaces: libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
        cgroup: Some(place.as_fd()),
        sibling: false,
    };
    let lxcfs = match clone3(&born)? {
        Fork::Child => become_lxcfs(),
        Fork::Parent(_, lxcfs) => lxcfs,
    };
    let end = Instant::now() + ANSWERS_WITHIN;
    while !mount::wait_for_fuse(root, Duration::from_secs(1))? {
        if Instant::now() > end || lxcfs.wait_ended(Duration::ZERO)? {
            lxcfs.kill(Signal::SIGKILL)?;
            return Err("lxcfs does not answer".into());
        }
    }
    // It mounts cgroup2 for itself without options, and those are the whole machine's.
    crate::mount::cgroup_again()?;
    let mut laying = Laying::default();
    laying.round();
    if !lxcfs.wait_ended(START)? {
        laying.round();
        watch(&lxcfs, root, laying)?;
    }
    Err(format!("lxcfs ended: {:?}", lxcfs.reap()).into())
}

/// Returns when it has ended: by itself, or because it was silent. A space that started while it was slow gets its files
/// here.
fn watch(lxcfs: &Pidfd, root: &Path, mut laying: Laying) -> io::Result<()> {
    while !lxcfs.wait_ended(LOOK_EVERY)? {
        if mount::fuse_answers(root, ANSWERS_WITHIN)? {
            laying.round();
        } else {
            eprintln!("init: lxcfs says nothing: it is ended and started anew");
            lxcfs.kill(Signal::SIGKILL)?;
        }
    }
    Ok(())
}

/// Never comes back: lxcfs, or an exit code.
fn become_lxcfs() -> ! {
    let confined = || -> Result<Infallible, Failure> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid().as_raw() == 1 {
            return Err("its starter has ended".into());
        }
        // Whoever asks can make it complain: not on the node's console.
        let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(&nothing)?;
        nix::unistd::dup2_stdout(&nothing)?;
        process::close_at_exec_from(3)?;
        process::reset_signals()?;
        let arguments = [
            PROGRAM,
            "-f",
            "-l",
            "-u",
            "--enable-pidfd",
            "-p",
            "/run/steading/lxcfs.pid",
            RUN_READINGS,
        ];
        keep_only(&CAPABILITIES)?;
        nix::sys::prctl::set_no_new_privs()?;
        Filter::built_in().load()?;
        nix::unistd::dup2_stderr(&nothing)?;
        Err(process::exec(PROGRAM, &arguments.map(String::from), &[]).into())
    };
    let Err(error) = confined();
    eprintln!("init: {PROGRAM}: {}", chain(&*error));
    exit_now(1)
}

/// The children that lay the files, one a space.
#[derive(Default)]
struct Laying(Vec<Pidfd>);

impl Laying {
    /// Ends what the last round left, and begins to lay the files into every space that runs. What one of them makes
    /// impossible or slow does not keep them from another.
    fn round(&mut self) {
        self.0.retain(|child| {
            let killed = child.kill(Signal::SIGKILL).and_then(|()| child.reap());
            matches!(killed, Ok(WaitStatus::StillAlive))
        });
        for space in fs::read_dir(CGROUP_SPACES).into_iter().flatten().flatten() {
            let path = space.path();
            if !path.is_dir() {
                continue;
            }
            match begin(&path) {
                Ok(child) => self.0.extend(child),
                Err(error) => eprintln!("init: readings of {}: {}", path.display(), chain(&*error)),
            }
        }
    }
}

/// The child that lays the files into the space of this cgroup; none where nobody runs, or where one is held.
fn begin(cgroup: &Path) -> Result<Option<Pidfd>, Failure> {
    let Some(pid) = cgroup::first_process(cgroup) else {
        return Ok(None);
    };
    let first = Pidfd::open(pid)?;
    // Where its processes are there may be more: the space's own cgroup takes none if those below it have limits.
    let place = cgroup::of(pid).filter(|place| place.starts_with(cgroup));
    // The number could have become another's before it was opened.
    let (Some(place), true) = (place, cgroup::is_first_process(cgroup, pid)) else {
        return Ok(None);
    };
    if !cgroup::own_processes(cgroup).is_empty() {
        return Ok(None);
    }
    let place = File::open(place)?;
    let born = Clone {
        cgroup: Some(place.as_fd()),
        ..Clone::default()
    };
    match clone3(&born)? {
        Fork::Child => match lay(&first) {
            Ok(()) => exit_now(0),
            Err(error) => {
                eprintln!("init: readings of {}: {}", cgroup.display(), chain(&*error));
                exit_now(1)
            }
        },
        Fork::Parent(_, child) => Ok(Some(child)),
    }
}

/// Joins the space of `first` and lays each file, unless one that answers lies there.
fn lay(first: &Pidfd) -> Result<(), Failure> {
    // One of the space's processes, and no other than they: where its memory is short, what uses most goes.
    fs::write("/proc/self/oom_score_adj", "0")?;
    let trees = copies()?;
    setns(first, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    process::become_root()?;
    let root = File::open("/")?;
    for (file, tree) in &trees {
        while let Some(place) = place(&root, file)? {
            match fstatfs(&place) {
                Ok(facts) if facts.filesystem_type() == FUSE_SUPER_MAGIC => break,
                Err(Errno::ENOTCONN | Errno::ECONNABORTED) => {
                    let dead = Path::new("/").join(file);
                    nix::mount::umount2(&dead, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
                }
                Ok(_) => {
                    tree.attach(place.as_fd())?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The file to lay over; none where the user has none.
fn place(root: &File, file: &str) -> io::Result<Option<OwnedFd>> {
    match open_below(root.as_fd(), Path::new(file)) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
