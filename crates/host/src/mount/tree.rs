//! The mount API by descriptor: make a file system, change it, place it.
//!
//! Source: Linux 6.12, `fs/namespace.c`, `fs/fsopen.c`; the manual pages fsopen(2), fsconfig(2),
//! fsmount(2), open_tree(2), mount_setattr(2), move_mount(2), openat2(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::process::owned;

/// A step on a tree that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {name}{}", if .kernel.is_empty() { String::new() } else { format!(" (the kernel says: {kernel})") })]
pub struct TreeError {
    /// "open", "configure", "idmap", "attach".
    pub what: &'static str,
    /// What it was about: a file system or a path.
    pub name: String,
    /// What the kernel wrote into the log of the file system's context.
    pub kernel: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn failed(what: &'static str, name: &str) -> impl Fn(io::Error) -> TreeError {
    let name = name.to_owned();
    move |source| TreeError {
        what,
        name: name.clone(),
        kernel: String::new(),
        source,
    }
}

/// A mount that is attached nowhere; it goes away with the descriptor unless it is attached.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
    name: String,
}

impl Tree {
    /// A copy of the mount at `path`, rooted there; what is mounted below it is not in it. A last
    /// symlink is not followed.
    pub fn clone_of(path: &Path) -> Result<Self, TreeError> {
        Self::clone_below(None, path)
    }

    /// The same, for a path relative to an open directory.
    pub fn clone_below(directory: Option<BorrowedFd<'_>>, path: &Path) -> Result<Self, TreeError> {
        let name = path.to_string_lossy().into_owned();
        let error = failed("open", &name);
        let text = CString::new(path.as_os_str().as_bytes()).map_err(|e| error(e.into()))?;
        let at = directory.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_SYMLINK_NOFOLLOW as u32;
        // SAFETY: the path is a C string that lives for the call; the rest are integers.
        let fd = unsafe { libc::syscall(libc::SYS_open_tree, at, text.as_ptr(), flags) };
        Ok(Self {
            fd: owned(fd).map_err(error)?,
            name,
        })
    }

    /// Shows files with ids shifted as the map of `user_namespace` says: 0 on disk is its root.
    pub fn idmap(&self, user_namespace: BorrowedFd<'_>) -> Result<(), TreeError> {
        self.set(libc::MOUNT_ATTR_IDMAP, user_namespace.as_raw_fd() as u64)
            .map_err(failed("idmap", &self.name))
    }

    /// Adds attributes (`MOUNT_ATTR_*` of libc) to the mount.
    pub fn restrict(&self, attributes: u64) -> Result<(), TreeError> {
        self.set(attributes, 0).map_err(failed("restrict", &self.name))
    }

    fn set(&self, attributes: u64, userns_fd: u64) -> io::Result<()> {
        let value = libc::mount_attr {
            attr_set: attributes,
            attr_clr: 0,
            propagation: 0,
            userns_fd,
        };
        // SAFETY: the struct lives for the call and its size is passed; an empty path with
        // AT_EMPTY_PATH names the descriptor itself.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.fd.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const value,
                size_of_val(&value),
            )
        };
        Errno::result(done).map(drop).map_err(Into::into)
    }

    /// Places it onto an open directory or file: no path is walked.
    pub fn attach(&self, place: BorrowedFd<'_>) -> Result<(), TreeError> {
        let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
        // SAFETY: two descriptors, two empty C strings, integers.
        let done = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.fd.as_raw_fd(),
                c"".as_ptr(),
                place.as_raw_fd(),
                c"".as_ptr(),
                flags,
            )
        };
        Errno::result(done)
            .map(drop)
            .map_err(|e| failed("attach", &self.name)(e.into()))
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file system being made.
#[derive(Debug)]
pub struct NewFileSystem {
    fd: OwnedFd,
    kind: String,
}

impl NewFileSystem {
    /// Begins one of the type `kind`.
    pub fn open(kind: &str) -> Result<Self, TreeError> {
        let error = failed("open the file system", kind);
        let text = CString::new(kind).map_err(|e| error(e.into()))?;
        // SAFETY: a C string that lives for the call, and a flag.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, text.as_ptr(), FSOPEN_CLOEXEC) };
        Ok(Self {
            fd: owned(fd).map_err(error)?,
            kind: kind.to_owned(),
        })
    }

    /// Sets an option with a value ("size", "64m"); "source" is the device.
    pub fn set(self, key: &str, value: impl AsRef<Path>) -> Result<Self, TreeError> {
        let value = CString::new(value.as_ref().as_os_str().as_bytes());
        let value = value.map_err(|e| failed("configure", &self.kind)(e.into()))?;
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(&value))?;
        Ok(self)
    }

    /// Sets an option without a value ("ro", "userxattr").
    pub fn flag(self, key: &str) -> Result<Self, TreeError> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)?;
        Ok(self)
    }

    /// Makes it, and a mount of it with the given attributes that is attached nowhere.
    pub fn mount(self, attributes: u64) -> Result<Tree, TreeError> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: a descriptor and integers.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.fd.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            )
        };
        let fd = owned(fd).map_err(|source| self.explained("mount", source))?;
        Ok(Tree { fd, name: self.kind })
    }

    fn configure(&self, command: u32, key: Option<&str>, value: Option<&CString>) -> Result<(), TreeError> {
        let key = key
            .map(CString::new)
            .transpose()
            .map_err(|e| self.explained("configure", e.into()))?;
        let (key_pointer, value_pointer) = (
            key.as_ref().map_or(std::ptr::null(), |k| k.as_ptr()),
            value.map_or(std::ptr::null(), |v| v.as_ptr()),
        );
        // SAFETY: both pointers are null or C strings that live for the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                command,
                key_pointer,
                value_pointer,
                0,
            )
        };
        Errno::result(done)
            .map(drop)
            .map_err(|e| self.explained("configure", e.into()))
    }

    /// The error, with what the kernel wrote to the context's log.
    fn explained(&self, what: &'static str, source: io::Error) -> TreeError {
        let mut buffer = [0u8; 512];
        let kernel = match nix::unistd::read(&self.fd, &mut buffer) {
            Ok(n) => String::from_utf8_lossy(&buffer[..n]).trim().to_owned(),
            Err(_) => String::new(),
        };
        TreeError {
            what,
            name: self.kind.clone(),
            kernel,
            source,
        }
    }
}

/// Opens `path` below `root` for being mounted on; no symlink is followed, nothing above `root` or
/// through `/proc` is reached.
pub fn open_below(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let resolve =
        ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_BENEATH;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(resolve);
    openat2(root, path, how).map_err(Into::into)
}

const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
