//! Mounts: by path for what boots and lives long, by descriptor for what users could redirect.
//!
//! ```text
//!  Mount (a value: source, target, type, flags)     Tree (a descriptor: attached nowhere)
//!    │ ensure                                          ▲ clone_of(path)   ▲ NewFileSystem::mount
//!    ▼                                                 │ idmap, restrict  │
//!  the node's tree ◄── ensure_unmounted(path)          └── attach(directory descriptor, name)
//! ```
//!
//! A [`Tree`] is placed relative to a descriptor, and no symlink is followed on the way: what a
//! user left in a space's root file system cannot send a mount elsewhere.

mod tree;

pub use tree::{NewFileSystem, Tree, TreeError, open_below};

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

/// One mount of a table: everything about it stands in the value.
#[derive(Debug, Clone, Copy)]
pub struct Mount {
    /// What the first column of `/proc/mounts` says.
    pub source: &'static str,
    /// Where.
    pub target: &'static str,
    /// The file system.
    pub kind: &'static str,
    /// Flags.
    pub flags: MsFlags,
    /// Options of the file system, "" for none.
    pub data: &'static str,
    /// Whether the boot goes on without it.
    pub optional: bool,
}

/// A mount, an unmount or a move that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path:?}")]
pub struct MountError {
    /// "mount", "unmount", "move".
    pub what: &'static str,
    /// The mount point.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> MountError {
    let path = path.to_owned();
    move |source| MountError {
        what,
        path: path.clone(),
        source,
    }
}

impl Mount {
    /// Makes the folder and mounts, unless it is mounted already.
    pub fn ensure(&self) -> Result<(), MountError> {
        let target = Path::new(self.target);
        fs::create_dir_all(target).map_err(failed("mount", target))?;
        if is_mount_point(target).unwrap_or(false) {
            return Ok(());
        }
        mount(self.source, target, self.kind, self.flags, self.data)
    }
}

/// Mounts a file system at a path that exists.
pub fn mount(
    source: impl AsRef<Path>,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    data: &str,
) -> Result<(), MountError> {
    let data = (!data.is_empty()).then_some(data);
    nix::mount::mount(Some(source.as_ref()), target, Some(kind), flags, data)
        .map_err(|e| failed("mount", target)(e.into()))
}

/// Mounts a block device, making the folder; a mount of that very device there is left as it is.
pub fn ensure_mounted(
    device: &Path,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    data: &str,
) -> Result<(), MountError> {
    use std::os::unix::fs::MetadataExt;
    fs::create_dir_all(target).map_err(failed("mount", target))?;
    if is_mount_point(target).map_err(failed("mount", target))? {
        let there = fs::metadata(target).map_err(failed("mount", target))?.dev();
        let wanted = fs::metadata(device).map_err(failed("mount", target))?.rdev();
        return if there == wanted {
            Ok(())
        } else {
            Err(failed("mount", target)(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another file system is mounted there",
            )))
        };
    }
    mount(device, target, kind, flags, data)
}

/// Shows a path at a second place.
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| failed("bind", target)(e.into()))
}

/// Unmounts whatever is mounted at `target`, all layers of it. Nothing there is no error; busy is.
pub fn ensure_unmounted(target: &Path) -> Result<(), MountError> {
    unmount_all(target, MntFlags::UMOUNT_NOFOLLOW)
}

/// Takes whatever is mounted at `target` out of the tree; it ends when its last user does. For
/// what pins no device (namespaces), and for halt.
pub fn detach(target: &Path) -> Result<(), MountError> {
    unmount_all(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

fn unmount_all(target: &Path, flags: MntFlags) -> Result<(), MountError> {
    loop {
        match nix::mount::umount2(target, flags) {
            Ok(()) => {}
            // EINVAL: not a mount point. ENOENT: no such folder.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(failed("unmount", target)(e.into())),
        }
    }
}

/// Whether something is mounted exactly at `path` (the last symlink is not followed).
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    use std::os::unix::ffi::OsStrExt;
    let text = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: statx writes one struct of its size; zero is a valid value for every field.
    let (result, facts) = unsafe {
        let mut facts: libc::statx = std::mem::zeroed();
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
        (
            libc::statx(
                libc::AT_FDCWD,
                text.as_ptr(),
                flags,
                libc::STATX_BASIC_STATS,
                &raw mut facts,
            ),
            facts,
        )
    };
    match Errno::result(result) {
        Ok(_) => Ok(facts.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether a FUSE file system is at `path` and its server answers. Waits for the answer.
pub fn is_fuse_alive(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|facts| facts.filesystem_type() == nix::sys::statfs::FUSE_SUPER_MAGIC)
}

/// What the end of a killed process takes that nobody holds.
const KILLED_WITHIN: Duration = Duration::from_millis(100);

/// Whether it answers within this time: asked in a child, for a server that says nothing holds whoever asks, and not even
/// a kill ends that. A child that such a server holds is left to whoever reaps the caller's, and ends with the server. For
/// a process of one thread.
pub fn fuse_answers(path: &Path, within: Duration) -> io::Result<bool> {
    use crate::process::{Clone, Fork, clone3, exit_now};
    match clone3(&Clone::default())? {
        Fork::Child => exit_now(if is_fuse_alive(path) { 0 } else { 1 }),
        Fork::Parent(_, child) => {
            if !child.wait_ended(within)? {
                child.kill(nix::sys::signal::Signal::SIGKILL)?;
                if child.wait_ended(KILLED_WITHIN)? {
                    child.reap()?;
                }
                return Ok(false);
            }
            Ok(matches!(child.reap()?, nix::sys::wait::WaitStatus::Exited(_, 0)))
        }
    }
}

/// Waits until a FUSE file system is at `path` and answers, woken by the kernel; says whether it came within `limit`.
pub fn wait_for_fuse(path: &Path, limit: Duration) -> io::Result<bool> {
    use nix::poll::PollFlags;
    let mounts = fs::File::open("/proc/self/mountinfo")?;
    let end = Instant::now() + limit;
    while !is_fuse_alive(path) {
        let left = end.saturating_duration_since(Instant::now());
        // The kernel tells of a change by an error and an urgent word at once.
        if left.is_zero() || !crate::process::wait_events(mounts.as_fd(), PollFlags::POLLPRI, left)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns when what was written below a mount point is on its disk.
///
/// # Errors
/// The kernel's: not there, or the disk failed.
pub fn sync(target: &Path) -> io::Result<()> {
    let folder = std::fs::File::open(target)?;
    Ok(nix::unistd::syncfs(folder)?)
}

/// The mount points that the caller sees, in the order in which they were mounted.
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(parse_mount_points(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// The fifth column of mountinfo, with its octal escapes undone.
fn parse_mount_points(mountinfo: &str) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let unescape = |field: &str| {
        let (mut bytes, mut rest) = (Vec::new(), field.as_bytes());
        while let Some((&first, tail)) = rest.split_first() {
            let octal = (first == b'\\')
                .then(|| {
                    tail.get(..3)
                        .and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok())
                })
                .flatten();
            match octal {
                Some(byte) => (bytes.push(byte), rest = &tail[3..]).0,
                None => (bytes.push(first), rest = tail).0,
            }
        }
        PathBuf::from(std::ffi::OsString::from_vec(bytes))
    };
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .collect()
}

/// Keeps mounts made from here on from travelling to other namespaces and back.
pub fn make_private_below(path: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .map_err(|e| failed("make private", path)(e.into()))
}

/// Lets mounts made from here on show in the namespaces that copy this one later, as every Debian has it. For a tree
/// that no namespace of the node's shares.
pub fn make_shared_below(path: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SHARED;
    nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .map_err(|e| failed("make shared", path)(e.into()))
}

/// Moves the process off the initramfs, onto a mount of the same files: `pivot_root`, which every
/// container runtime needs, is impossible where the root is the rootfs itself. Comes before every
/// other mount, or those would stay behind.
pub fn leave_rootfs() -> Result<(), MountError> {
    let (root, stage) = (Path::new("/"), Path::new("/run"));
    let step = |what| {
        move |e: Errno| MountError {
            what,
            path: stage.to_owned(),
            source: e.into(),
        }
    };
    fs::create_dir_all(stage).map_err(failed("make", stage))?;
    bind(root, stage)?;
    nix::unistd::chdir(stage).map_err(step("enter"))?;
    nix::mount::mount(Some("."), root, None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(step("move"))?;
    nix::unistd::chroot(".").map_err(step("chroot to"))?;
    nix::unistd::chdir("/").map_err(step("enter"))?;
    Ok(())
}

/// Makes the current directory, a mount, the root, and lets go of the root before it. From then
/// on nothing outside of it can be named.
pub fn pivot_into_current_directory() -> io::Result<()> {
    // The old root is stacked onto the new one and taken off from there: no folder is needed for it.
    nix::unistd::pivot_root(".", ".")?;
    nix::mount::umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text =
            "22 1 0:21 / /proc rw - proc proc rw\n23 1 0:22 / /a\\040b\\134c rw shared:1 - tmpfs x rw\n";
        assert_eq!(
            parse_mount_points(text),
            [PathBuf::from("/proc"), PathBuf::from("/a b\\c")]
        );
    }

    #[test]
    fn a_mount_point_is_known_without_reading_a_table() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/proc/self")).unwrap());
        assert!(!is_mount_point(Path::new("/no/such/path")).unwrap());
    }
}
