//! What the node's root prepares outside: copies of mounts, attached nowhere, that travel into the
//! space as descriptors.
//!
//! ```text
//!  volume (ext4, unmapped, mounted by the agent)      base (erofs)
//!    upper/  work/  ──┐ one copy, idmapped              │ one copy, idmapped
//!    data/containers ─┤ one copy, idmapped ─► /var/lib/containers (an overlay cannot hold the upper
//!                     ▼                          layer of another one: podman's would fail)
//!                  overlay: mounted inside, by the space's own root (`inside`)
//! ```
//!
//! The folders are made through the unmapped mount, so they belong to 0 on disk. The user never
//! sees the top of the volume, so no link of his can stand there.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use host::isolate::SpaceStart;
use host::mount::{NewFileSystem, Tree};

use super::{At, Failure};
use crate::console::chain;

/// Devices that a space gets, as the node's own files shown again: (name below /dev, wanted always).
const DEVICES: [(&str, bool); 8] = [
    ("null", true),
    ("zero", true),
    ("full", true),
    ("random", true),
    ("urandom", true),
    ("tty", true),
    ("fuse", false),
    ("net/tun", false),
];

/// The prepared mounts.
pub struct Layers {
    /// The read-only base.
    pub base: Tree,
    /// The volume: `upper` and `work`.
    pub volume: Tree,
    /// The volume's folder for /var/lib/containers.
    pub containers: Tree,
    /// Each device with its name below /dev.
    pub devices: Vec<(&'static str, Tree)>,
    /// What the space reads about itself, each with its path; none where lxcfs does not answer.
    pub readings: Vec<(&'static str, Tree)>,
}

impl Layers {
    /// Makes the folders and all copies.
    pub fn prepare(start: &SpaceStart, userns: BorrowedFd<'_>) -> Result<Self, Failure> {
        let folder = |name: &str, mode| ensure_folder(&start.volume.join(name), mode);
        folder("upper", 0o755).at("make the folders of the volume")?;
        folder("work", 0o700).at("make the folders of the volume")?;
        folder("data", 0o755).at("make the folders of the volume")?;
        folder("data/containers", 0o755).at("make the folders of the volume")?;

        let base = base(&start.base)?;
        base.idmap(userns).at("shift the ids of the base")?;
        base.restrict(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV)
            .at("shift the ids of the base")?;
        let mapped = |path: &Path| {
            let tree = Tree::clone_of(path).at("copy the mount of the volume")?;
            tree.idmap(userns).at("shift the ids of the volume")?;
            tree.restrict(libc::MOUNT_ATTR_NODEV)
                .at("shift the ids of the volume")?;
            Ok(tree)
        };
        Ok(Self {
            base,
            volume: mapped(&start.volume)?,
            containers: mapped(&start.volume.join("data/containers"))?,
            devices: devices()?,
            // A display, no limit: a space starts without it, and gets it when lxcfs is there again.
            readings: crate::readings::trees().unwrap_or_else(|error| {
                eprintln!("init: a space starts without readings: {}", chain(&*error));
                Vec::new()
            }),
        })
    }
}

/// A mounted base, or an erofs in a block device or file. A block device's file system is shared by
/// all its spaces (and its cache with it); a file's is not.
fn base(path: &Path) -> Result<Tree, Failure> {
    let kind = fs::metadata(path).at("find the base")?.file_type();
    if kind.is_dir() {
        return Tree::clone_of(path).at("copy the mount of the base");
    }
    NewFileSystem::open("erofs")
        .and_then(|erofs| {
            erofs
                .set("source", path)?
                .flag("ro")?
                .mount(libc::MOUNT_ATTR_RDONLY)
        })
        .at("mount the base")
}

fn devices() -> Result<Vec<(&'static str, Tree)>, Failure> {
    let mut trees = Vec::new();
    for (name, always) in DEVICES {
        let path = Path::new("/dev").join(name);
        if always || path.exists() {
            if !always {
                // As udev has it; the kernel alone leaves net/tun to root. Without it a space is as good as before.
                let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o666));
            }
            let tree = Tree::clone_of(&path).at("copy the mounts of devices")?;
            tree.restrict(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)
                .at("copy the mounts of devices")?;
            trees.push((name, tree));
        }
    }
    Ok(trees)
}

/// A folder with the mode; a symlink in its place is refused, as anything else that is no folder.
fn ensure_folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        }
        Err(error) => Err(error),
        // The umask may have taken bits.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    }
}
