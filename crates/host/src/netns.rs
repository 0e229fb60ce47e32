//! Network namespaces that outlive who made them: each is bound to a file under
//! [`names::RUN_NETNS`].
//!
//! Two kinds. A user's namespace (`u-…`) routes and filters: the node owns it. A space's namespace
//! (`s-…`) is owned by the space's user namespace, or root inside could not bind port 22, mount
//! `/sys`, or use nft; the user namespace lives through it and is found from it ([`owner`]).
//!
//! A namespace is entered on a thread made for it, which then exits: never on a worker of a
//! runtime, whose next task would be somewhere else.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{isolate, mount, names, process};

/// Why a network namespace was not made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It exists already.
    #[error("the network namespace {0:?} exists already")]
    Exists(PathBuf),
    /// A step on it failed.
    #[error("cannot {what} the network namespace {path:?}")]
    Step {
        /// "create", "enter", "bind", "count".
        what: &'static str,
        /// Where it is bound.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its file could not be mounted or unmounted.
    #[error("the network namespace {path:?} cannot be bound or let go")]
    Mount {
        /// Where it is bound.
        path: PathBuf,
        /// Why.
        #[source]
        source: mount::MountError,
    },
    /// The helper did not make it.
    #[error("the helper did not make the network namespace {path:?}")]
    Helper {
        /// Where it was to be bound.
        path: PathBuf,
        /// Why.
        #[source]
        source: isolate::IsolateError,
    },
    /// The thread that went into it panicked.
    #[error("the work inside the network namespace {0:?} panicked")]
    Panicked(PathBuf),
}

fn step(what: &'static str, path: &Path) -> impl Fn(io::Error) -> NetnsError {
    let path = path.to_owned();
    move |source| NetnsError::Step {
        what,
        path: path.clone(),
        source,
    }
}

/// The file on which the namespace `name` is bound.
pub fn path(name: &str) -> PathBuf {
    names::netns_path(name)
}

/// Whether the namespace `name` is there.
pub fn exists(name: &str) -> bool {
    mount::is_mount_point(&path(name)).unwrap_or(false)
}

/// The kernel bounds how many namespaces one id makes, and what a space makes inside is counted as its first id's. The
/// node's own are counted as ids from here, which nobody has: as root's, the bound of a space would be that of all users.
const COUNTED_FROM: u32 = 0x7000_0000;

fn counted_as(name: &str) -> u32 {
    let sum = name
        .bytes()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COUNTED_FROM + (sum & 0xffff)
}

/// Makes the namespace `name`, owned by the node.
pub fn create(name: &str) -> Result<(), NetnsError> {
    let path = path(name);
    prepare(&path)?;
    let (place, id) = (path.clone(), counted_as(name));
    let made = on_thread(&path, move || {
        process::count_as(id).map_err(step("count", &place))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| step("create", &place)(e.into()))?;
        mount::bind(Path::new("/proc/thread-self/ns/net"), &place).map_err(|source| NetnsError::Mount {
            path: place.clone(),
            source,
        })
    })?;
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
    made
}

/// Makes the namespace `name`, owned by a new user namespace of the 65536 ids from `first_id`;
/// both live as long as it. Through the helper, for a process with threads cannot fork.
pub fn create_owned(name: &str, first_id: u32) -> Result<(), NetnsError> {
    let path = path(name);
    prepare(&path)?;
    let request = isolate::Request::Network(isolate::NetworkStart {
        path: path.clone(),
        first_id,
    });
    isolate::ask(&request, Duration::from_secs(20))
        .map(drop)
        .map_err(|source| {
            let _ = fs::remove_file(&path);
            NetnsError::Helper { path, source }
        })
}

/// Lets go of the namespace `name`; the kernel ends it with its last process. Idempotent.
pub fn delete(name: &str) -> Result<(), NetnsError> {
    let path = path(name);
    mount::detach(&path).map_err(|source| NetnsError::Mount {
        path: path.clone(),
        source,
    })?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(step("remove", &path)(e)),
        _ => Ok(()),
    }
}

/// The file to bind on: made here, left from a crash, or in use.
fn prepare(path: &Path) -> Result<(), NetnsError> {
    if mount::is_mount_point(path).map_err(step("look at", path))? {
        return Err(NetnsError::Exists(path.to_owned()));
    }
    fs::create_dir_all(names::RUN_NETNS).map_err(step("create", path))?;
    File::create(path).map(drop).map_err(step("create", path))
}

/// Runs `work` inside the namespace bound at `path`, on a thread of its own, and waits for it.
pub fn run_in<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NetnsError> {
    let file = File::open(path).map_err(step("open", path))?;
    let place = path.to_owned();
    on_thread(path, move || {
        enter(file.as_fd()).map_err(step("enter", &place))?;
        Ok(work())
    })?
}

/// Joins the calling thread to a network namespace, for the rest of its life.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(Into::into)
}

/// The user namespace that owns a namespace.
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: this ioctl takes no argument and returns a new descriptor or -1.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    crate::process::owned(fd.into())
}

fn on_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NetnsError> {
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(work)
        .map_err(step("make a thread for", path))?
        .join()
        .map_err(|_| NetnsError::Panicked(path.to_owned()))
}
