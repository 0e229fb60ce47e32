//! A folder whose content is hostile: paths in it are taken one name at a time.
//!
//! Every open is `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV`: a path
//! that leads out, through a symlink or onto another file system fails, whatever the user made of
//! the tree, and there is no moment between looking and opening.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

/// The name under which a file is made before it takes its place.
const NEW: &str = ".steading-new";

/// An open folder.
pub(super) struct Tree {
    root: File,
    /// Whether each file is durable before it takes another's place; else all are by [`Tree::sync`].
    sync_each: bool,
}

impl Tree {
    pub(super) fn open(root: &Path, sync_each: bool) -> io::Result<Self> {
        Ok(Self {
            root: File::open(root)?,
            sync_each,
        })
    }

    /// A folder with this mode that belongs to 0. What is there under its name and is no folder (a
    /// symlink, a file, an overlay's whiteout) is removed: it would only keep the space shut.
    pub(super) fn ensure_folder(&self, path: &str, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let mode = Mode::from_bits_truncate(mode);
        match mkdirat(&parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EEXIST) if is(&stat(&parent, name)?, SFlag::S_IFDIR) => {}
            Err(Errno::EEXIST) => {
                unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
                mkdirat(&parent, name, mode)?;
            }
            Err(error) => return Err(error.into()),
        }
        let folder = self.folder(path)?;
        fchown(&folder, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).or_else(unless_unprivileged)?;
        Ok(fchmod(&folder, mode)?)
    }

    /// Writes a file that belongs to 0, in the place of whatever stood there.
    pub(super) fn write(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent, NEW, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut file = File::from(open(&parent, NEW, flags, 0o600)?);
        fchown(&file, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).or_else(unless_unprivileged)?;
        file.write_all(bytes)?;
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        if self.sync_each {
            file.sync_all()?;
        }
        Ok(renameat(&parent, NEW, &parent, name)?)
    }

    /// The bytes of a regular file, `None` where there is none. A file that is longer than `most`
    /// is an error, and so is anything that is not a regular file but a symlink (which is not ours
    /// to follow, and is `None`: it will be replaced).
    pub(super) fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let (parent, name) = self.parent(path)?;
        match stat(&parent, name) {
            Ok(found) if is(&found, SFlag::S_IFREG) => {}
            Ok(found) if is(&found, SFlag::S_IFLNK) || is(&found, SFlag::S_IFCHR) => return Ok(None),
            Ok(_) => return Err(io::Error::other("it is not a regular file")),
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Nonblocking: were it exchanged for a fifo in between, nothing would wait.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(open(&parent, name, flags, 0)?);
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            Err(io::Error::other("it is too long"))
        } else {
            Ok(Some(bytes))
        }
    }

    /// Whether anything stands there.
    pub(super) fn exists(&self, path: &str) -> io::Result<bool> {
        let (parent, name) = self.parent(path)?;
        match stat(&parent, name) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes all of it durable, names included.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(&self.root)?)
    }

    fn folder(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(open(
            &self.root,
            if path.is_empty() { "." } else { path },
            flags,
            0,
        )?)
    }

    /// The open folder in which the last name of `path` stands, and that name.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.folder(folder)?, name))
    }
}

fn open(folder: impl AsFd, path: &str, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags)
        .mode(Mode::from_bits_truncate(mode))
        .resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(folder, path, how)
}

fn stat(folder: impl AsFd, name: &str) -> nix::Result<FileStat> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is(found: &FileStat, kind: SFlag) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Owners can be set by root alone. On the node we are; a test of this module may not be, and what
/// it makes belongs to its user anyway.
fn unless_unprivileged(error: Errno) -> nix::Result<()> {
    if error == Errno::EPERM && !Uid::effective().is_root() {
        Ok(())
    } else {
        Err(error)
    }
}
