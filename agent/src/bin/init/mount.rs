//! The mounts of a node, as a table.
//!
//! The process first leaves the rootfs (a space's start needs `pivot_root`), so that all mounts lie
//! on the tree that it has from then on. `/proc`, `/sys` and `/dev` come before the first line, for
//! consoles are found by them; nothing of this waits for a module.

use host::mount::{Mount, MountError};
use nix::mount::MsFlags;

const SAFE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// A space's cgroup namespace is a border, and memory.min of a parent protects its children.
const CGROUP: &str = "nsdelegate,memory_recursiveprot";

const FIRST: [Mount; 3] = [
    entry("proc", "/proc", "proc", SAFE, ""),
    entry("sys", "/sys", "sysfs", SAFE, ""),
    entry(
        "dev",
        "/dev",
        "devtmpfs",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "mode=0755",
    ),
];

const REST: [Mount; 6] = [
    entry(
        "devpts",
        "/dev/pts",
        "devpts",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "mode=0620,ptmxmode=0666",
    ),
    entry("shm", "/dev/shm", "tmpfs", SAFE, "mode=1777"),
    entry(
        "run",
        "/run",
        "tmpfs",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        "mode=0755",
    ),
    entry("cgroup", "/sys/fs/cgroup", "cgroup2", SAFE, CGROUP),
    optional(
        "tmp",
        "/tmp",
        "tmpfs",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        "mode=1777",
    ),
    // Whether Secure Boot is on is read here; a machine with a BIOS has no such folder.
    optional(
        "efivars",
        "/sys/firmware/efi/efivars",
        "efivarfs",
        SAFE.union(MsFlags::MS_RDONLY),
        "",
    ),
];

const fn entry(
    source: &'static str,
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    data: &'static str,
) -> Mount {
    Mount {
        source,
        target,
        kind,
        flags,
        data,
        optional: false,
    }
}

const fn optional(
    source: &'static str,
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    data: &'static str,
) -> Mount {
    Mount {
        optional: true,
        ..entry(source, target, kind, flags, data)
    }
}

/// Leaves the rootfs and mounts what the first line needs.
pub fn first() -> Result<(), MountError> {
    host::mount::leave_rootfs()?;
    mount_all(&FIRST)
}

/// Mounts the rest.
pub fn rest() -> Result<(), MountError> {
    mount_all(&REST)
}

/// Sets the options of cgroup2 again: whoever mounts it elsewhere sets them for all.
pub fn cgroup_again() -> Result<(), MountError> {
    host::mount::mount(
        "cgroup",
        std::path::Path::new("/sys/fs/cgroup"),
        "cgroup2",
        SAFE.union(MsFlags::MS_REMOUNT),
        CGROUP,
    )
}

fn mount_all(table: &[Mount]) -> Result<(), MountError> {
    for mount in table {
        let parent = std::path::Path::new(mount.target).parent();
        if mount.optional && !parent.is_some_and(std::path::Path::exists) {
            continue;
        }
        match mount.ensure() {
            Err(error) if mount.optional => {
                crate::console::say(&format!(
                    "init: goes on without it: {}",
                    crate::console::chain(&error)
                ));
            }
            result => result?,
        }
    }
    Ok(())
}
