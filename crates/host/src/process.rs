//! Processes: descriptors for them, the one fork that exists, and waiting.
//!
//! ```text
//!   agent run (threads) ──exec──► init as helper (one thread) ──clone3──► a space's PID 1
//!        │ follows it by Pidfd + cgroup.events                            │
//!        └────────────── PID 1 reaps it ◄──── reparented ◄────────────────┘
//! ```
//!
//! [`clone3`] copies the process, so it refuses to run where there is more than one thread: a
//! lock held by another thread would never be released in the copy.

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

/// A process that cannot be mistaken for another one that got its number later.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens a process by its number.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        Ok(Self(owned(fd)?))
    }

    /// Waits until it has ended, for at most `limit`; says whether it has. It is not reaped.
    pub fn wait_ended(&self, limit: Duration) -> io::Result<bool> {
        wait_readable(self.0.as_fd(), limit)
    }

    /// Sends a signal; a process that has ended already is no error.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: integers and a null siginfo; the descriptor is open for the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                std::ptr::null::<u8>(),
                0,
            )
        };
        match Errno::result(done) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Reaps it, if it is a child of the caller that has ended.
    pub fn reap(&self) -> io::Result<WaitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        waitid(Id::PIDFd(self.0.as_fd()), flags).map_err(Into::into)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Pidfd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// The numbers of all processes that run a program, the caller left out: kernel threads have none.
pub fn running() -> io::Result<Vec<i32>> {
    let own = std::process::id() as i32;
    let numbers = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok());
    Ok(numbers.collect())
}

/// Waits until a descriptor can be read or is hung up, for at most `limit`.
pub fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    wait_events(fd, PollFlags::POLLIN, limit)
}

pub(crate) fn wait_events(fd: BorrowedFd<'_>, events: PollFlags, limit: Duration) -> io::Result<bool> {
    let end = std::time::Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, events)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}

/// A descriptor returned by a system call, or its error.
pub(crate) fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Which side of [`clone3`] one is on.
#[derive(Debug)]
pub enum Fork {
    /// The caller: the child's number, as the caller's namespace sees it, and its descriptor.
    Parent(i32, Pidfd),
    /// The new process.
    Child,
}

/// What a clone gets; `namespaces` are `CLONE_NEW*` flags of libc.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEWUSER | CLONE_NEWPID ...`
    pub namespaces: i32,
    /// The cgroup, an open directory, in which it is born.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it becomes the caller's sibling: its parent is the caller's parent.
    pub sibling: bool,
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Copies the process. Fails with `EBUSY` where it has more than one thread.
pub fn clone3(clone: &Clone<'_>) -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "a process with threads is never forked",
        ));
    }
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: libc::CLONE_PIDFD as u64 | u64::from(clone.namespaces as u32),
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = clone.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    if clone.sibling {
        // The exit signal is then the caller's own, and must be given as none.
        arguments.flags |= libc::CLONE_PARENT as u64;
        arguments.exit_signal = 0;
    }
    // SAFETY: no CLONE_VM, so the child has a copy of everything, like fork; there is one thread
    // (checked above), so no lock is held by a thread that the copy lacks. `pidfd` outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) };
    match Errno::result(result)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as i32, Pidfd(owned(pidfd.into())?))),
    }
}

/// `CLONE_INTO_CGROUP`, which libc has as a truncated `c_int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Ends the process at once: no destructors, no buffers. The way out of a [`Fork::Child`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Why a program could not take the process's place.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// An argument has a zero byte.
    #[error("an argument holds a zero byte")]
    Argument(#[from] NulError),
    /// The kernel refused.
    #[error("{program} cannot be executed")]
    Exec {
        /// What was to run.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Puts a program in the process's place; comes back only to say why not.
pub fn exec(program: &str, arguments: &[String], environment: &[String]) -> ExecError {
    let strings = |list: &[String]| {
        list.iter()
            .map(|s| CString::new(s.as_str()))
            .collect::<Result<Vec<_>, _>>()
    };
    let prepared = CString::new(program).and_then(|p| Ok((p, strings(arguments)?, strings(environment)?)));
    match prepared {
        Err(e) => ExecError::Argument(e),
        Ok((path, arguments, environment)) => {
            let Err(errno) = nix::unistd::execve(&path, &arguments, &environment);
            ExecError::Exec {
                program: program.to_owned(),
                source: errno.into(),
            }
        }
    }
}

/// What ends a process by its own fault: a wild pointer, an instruction that is none, an abort.
const FAULTS: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];

/// The program and, for each of [`FAULTS`], its arguments: made before the fault, for after it nothing can be.
static AT_FAULT: OnceLock<(CString, [[CString; 2]; FAULTS.len()])> = OnceLock::new();

/// From now on a fault of this process executes `program` in its place, called `name`, with the
/// name of the fault as its argument and without environment. The process keeps its number, and the
/// fault its signal blocked: a fault of the new program ends it as ever.
pub fn execute_at_fault(program: &str, name: &str) -> Result<(), ExecError> {
    let program = CString::new(program)?;
    let name = CString::new(name)?;
    let mut arguments = FAULTS.map(|_| [name.clone(), CString::default()]);
    for (fault, arguments) in FAULTS.iter().zip(&mut arguments) {
        arguments[1] = CString::new(fault.as_str())?;
    }
    // The first call counts; a second one finds handlers that do the same.
    let _ = AT_FAULT.set((program, arguments));
    let action = SigAction::new(
        SigHandler::Handler(at_fault),
        SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    for fault in FAULTS {
        // SAFETY: the handler makes one system call on memory that was made before, and returns or is gone.
        unsafe { sigaction(fault, &action) }.map_err(|errno| ExecError::Exec {
            program: fault.as_str().to_owned(),
            source: errno.into(),
        })?;
    }
    Ok(())
}

/// Async-signal-safe: reads a cell that is set, and calls execve. Where that fails the process ends: it returns into
/// the fault, whose default action the kernel takes for a signal that is blocked.
extern "C" fn at_fault(number: libc::c_int) {
    let Some((program, arguments)) = AT_FAULT.get() else {
        return;
    };
    let index = FAULTS.iter().position(|fault| *fault as libc::c_int == number);
    if let Some([name, fault]) = index.and_then(|index| arguments.get(index)) {
        let arguments = [name.as_ptr(), fault.as_ptr(), std::ptr::null()];
        let environment = [std::ptr::null()];
        // SAFETY: three strings and two lists, each ended by a zero, that live until the call is over.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    }
    // SAFETY: integers alone; what the fault would have done without us.
    unsafe { libc::signal(number, libc::SIG_DFL) };
}

/// Makes every descriptor from `first` on close at exec.
pub fn close_at_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range with CLOEXEC only marks descriptors; integers alone.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(done).map(drop).map_err(Into::into)
}

/// How much of the processor this thread gets beside others: from -20 (before them) to 19 (what they leave). sched(7)
///
/// # Errors
/// Less than now needs `CAP_SYS_NICE`.
pub fn set_nice(nice: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers alone; 0 stands for the calling thread.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    Ok(())
}

/// Undoes what the Rust runtime and a parent left: default handlers, no blocked signal.
pub fn reset_signals() -> io::Result<()> {
    use nix::sys::signal::{SigmaskHow, signal, sigprocmask};
    for number in Signal::iterator() {
        if !matches!(number, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default handler runs no code of ours.
            unsafe { signal(number, SigHandler::SigDfl) }?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Sets the calling process up as the first of a space, while it still has the node's rights: many
/// files where asked for, no core file by default, killed like any other when memory is short.
pub fn limits_of_a_space() -> io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    // The hard limit is what systemd gives; select(2) breaks above the soft one.
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 524_288)?;
    setrlimit(Resource::RLIMIT_CORE, 0, libc::RLIM_INFINITY)?;
    // pids.max of the cgroup is the limit; this one would count over all spaces of a range.
    setrlimit(Resource::RLIMIT_NPROC, libc::RLIM_INFINITY, libc::RLIM_INFINITY)?;
    std::fs::write("/proc/self/oom_score_adj", "0")
}

/// Becomes root of the user namespace that the process is in, with no other group.
pub fn become_root() -> io::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(root, root, root)?;
    Ok(())
}

/// What the calling thread makes from here on the kernel counts as this id's, against the bounds that each id has
/// (`/proc/sys/user`, user_namespaces(7)); the thread keeps its rights. For the rest of its life: a thread made for it.
pub fn count_as(id: u32) -> io::Result<()> {
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    let kept: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: numbers alone are passed; libc's setresuid would change every thread, the system call changes this one.
    let done = unsafe {
        if libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0 {
            libc::syscall(libc::SYS_setresuid, kept, id, kept)
        } else {
            -1
        }
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives the process a session keyring of its own, so that it holds none of its parent's keys.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
    match Errno::result(done) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_child_is_seen_through_its_descriptor() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = Pidfd::open(child.id() as i32).unwrap();
        assert!(
            !pidfd.wait_ended(Duration::ZERO).unwrap(),
            "cat waits for its input"
        );
        drop(child.stdin.take());
        assert!(pidfd.wait_ended(Duration::from_secs(10)).unwrap());
        assert!(child.wait().unwrap().success());
        pidfd.kill(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_fault_executes_the_program_in_its_place() {
        use std::os::unix::process::ExitStatusExt;
        const HOW: &str = "HOST_FAULT";
        if let Ok(how) = std::env::var(HOW) {
            let (fault, handled) = how.split_once(' ').unwrap();
            if handled == "handled" {
                execute_at_fault("/bin/echo", "echo").unwrap();
            }
            // The runtime lets the first SEGV go by where nobody else handles it.
            for _ in 0..2 {
                nix::sys::signal::raise(fault.parse().unwrap()).unwrap();
            }
            unreachable!("{how} did not end it");
        }
        let faulty = |how: String| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "process::tests::a_fault_executes_the_program_in_its_place",
                    "--nocapture",
                ])
                .env(HOW, how)
                .output()
                .unwrap()
        };
        for fault in FAULTS {
            let handled = faulty(format!("{fault} handled"));
            let said = String::from_utf8_lossy(&handled.stdout).into_owned();
            assert!(
                handled.status.success() && said.ends_with(&format!("{fault}\n")),
                "{said}"
            );
            let left = faulty(format!("{fault} left"));
            assert_eq!(left.status.signal(), Some(fault as i32), "the control");
        }
    }

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness runs this on a thread beside its main one.
        let error = clone3(&Clone::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }
}
