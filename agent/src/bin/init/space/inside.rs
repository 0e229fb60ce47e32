//! PID 1 of a space, from its first instruction to the exec of the user's program.
//!
//! It is root of the space's user namespace alone, in a copy of the node's mounts, and leaves that
//! copy as soon as it can:
//!
//! ```text
//!  /run/steading/start (tmpfs of its own)          then, relative to descriptors of the new root,
//!    base/    the idmapped base                    following no symlink:
//!    volume/  the idmapped volume                    proc  sys(ro)  (+ lxcfs over a few files)
//!    root/    overlay of both ── pivot_root ──►      sys/fs/cgroup  run  dev (+ pts shm mqueue, devices)
//!                                                    var/lib/containers (+ users)
//! ```
//!
//! - The overlay is mounted here, not by the node's root: what it does on the user's behalf it does
//!   with the space's own rights, and it goes away with the space's last process. The price,
//!   `userxattr`, means that the user can write the overlay's marks; they hide or show files of his
//!   own, and the kernel follows no redirect that they name.
//! - File systems of the kernel are made before the old root is let go (the kernel shows a /proc and
//!   a /sys only to who can see one already), as descriptors, and attached after it: at the second
//!   start the root was written by the user, and a symlink at /proc would send a mount elsewhere.
//! - Something at /proc, /sys, /dev or /run that is no folder is set aside as `NAME.replaced`, so the
//!   user can lock himself out of nothing by it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use host::isolate::SpaceStart;
use host::mount::{self, NewFileSystem, Tree, TreeError, open_below};
use host::{capability, names, process};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::layers::Layers;
use super::{At, Failure, Prepared};

/// Every step, in order: what an error of a start can name.
pub const STEPS: &[&str] = &[
    "leave the node's mounts",
    "make the stage",
    "mount the overlay",
    "make the kernel's file systems",
    "change the root",
    "attach the kernel's file systems",
    "lay the space's own readings over the node's",
    "make the devices",
    "make /run",
    "attach the folder of containers",
    "share mounts among its own namespaces",
    "name the host",
    "set the network's settings",
    "open the log",
    "leave the node's session",
    "drop capabilities",
    "load the seccomp filter",
    "execute",
];

const SAFE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Enters the space; comes back only to say which step failed.
pub fn enter(start: &SpaceStart, prepared: Prepared) -> Failure {
    let Prepared { layers, filter, .. } = prepared;
    let entered = || {
        mount::make_private_below(Path::new("/")).at("leave the node's mounts")?;
        stage(&layers)?;
        let kernel = Kernel::make().at("make the kernel's file systems")?;
        mount::pivot_into_current_directory().at("change the root")?;
        let root = open_root().at("change the root")?;
        kernel.attach(&root)?;
        readings(&root, &layers).at("lay the space's own readings over the node's")?;
        devices(&root, &layers)?;
        run_folder(&root, start).at("make /run")?;
        containers(&root, &layers.containers).at("attach the folder of containers")?;
        // As systemd does: what is mounted later shows in containers that run. Nobody of the node's is among the peers.
        mount::make_shared_below(Path::new("/")).at("share mounts among its own namespaces")?;
        nix::unistd::sethostname(&start.hostname).at("name the host")?;
        // ping has neither a capability nor the set-user-id bit in Debian 13.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 65535").at("set the network's settings")?;
        // Routers that drop the words "too big" are common: TCP then finds the path's size by itself.
        fs::write("/proc/sys/net/ipv4/tcp_mtu_probing", "1").at("set the network's settings")?;
        log(&root).at("open the log")?;
        leave_session().at("leave the node's session")?;
        capability::drop_denied().at("drop capabilities")?;
        // Last: the steps above make calls that it refuses.
        filter.load().at("load the seccomp filter")
    };
    if let Err(failure) = entered() {
        return failure;
    }
    let environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
    ]
    .into_iter()
    .chain(["LANG=C.UTF-8", "container=steading"])
    .map(String::from)
    .collect::<Vec<_>>();
    let program = start.argv.first().map_or("", String::as_str);
    let error = process::exec(program, &start.argv, &environment);
    Failure {
        step: "execute",
        error: crate::console::chain(&error),
    }
}

/// Mounts the overlay on a stage of its own and goes there.
fn stage(layers: &Layers) -> Result<(), Failure> {
    const STEP: &str = "make the stage";
    let stage = Path::new(names::RUN_START);
    let tmpfs =
        NewFileSystem::open("tmpfs").and_then(|t| t.set("size", "64k")?.set("mode", "0755")?.mount(SAFE));
    let here = open(
        stage,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )
    .at(STEP)?;
    tmpfs.and_then(|t| t.attach(here.as_fd())).at(STEP)?;
    let place = |name: &str, tree: &Tree| {
        let folder = stage.join(name);
        fs::create_dir(&folder).at(STEP)?;
        let folder = open(&folder, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).at(STEP)?;
        tree.attach(folder.as_fd()).at(STEP)
    };
    place("base", &layers.base)?;
    place("volume", &layers.volume)?;
    let overlay = NewFileSystem::open("overlay").and_then(|overlay| {
        overlay
            .set("source", "space")?
            .set("lowerdir", stage.join("base"))?
            .set("upperdir", stage.join("volume/upper"))?
            .set("workdir", stage.join("volume/work"))?
            .flag("userxattr")?
            .mount(libc::MOUNT_ATTR_NODEV)
    });
    let overlay = overlay.at("mount the overlay")?;
    place("root", &overlay)?;
    nix::unistd::chdir(&stage.join("root")).at("mount the overlay")?;
    // An overlay whose work folder cannot be used is mounted all the same, read-only.
    let facts = nix::sys::statvfs::statvfs(".").at("mount the overlay")?;
    if facts.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
        return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)).at("mount the overlay");
    }
    Ok(())
}

fn open_root() -> nix::Result<OwnedFd> {
    open(
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// The file systems that the kernel makes for this space.
struct Kernel {
    proc: Tree,
    sys: Tree,
    cgroup: Tree,
    run: Tree,
    dev: Tree,
    pts: Tree,
    shm: Tree,
    mqueue: Tree,
    /// The same two again, with nothing laid over: see [`Kernel::attach`].
    whole_proc: Tree,
    whole_sys: Tree,
}

impl Kernel {
    fn make() -> Result<Self, TreeError> {
        let make = |kind: &str, name: &str, options: &[(&str, &str)], attributes| {
            let mut new = NewFileSystem::open(kind)?.set("source", name)?;
            for (key, value) in options {
                new = new.set(key, value)?;
            }
            new.mount(attributes)
        };
        Ok(Self {
            proc: make("proc", "proc", &[], SAFE)?,
            sys: make("sysfs", "sys", &[], SAFE | libc::MOUNT_ATTR_RDONLY)?,
            cgroup: make("cgroup2", "cgroup", &[], SAFE)?,
            run: make(
                "tmpfs",
                "run",
                &[("mode", "0755")],
                libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            )?,
            dev: make(
                "tmpfs",
                "dev",
                &[("mode", "0755"), ("size", "1m")],
                libc::MOUNT_ATTR_NOSUID,
            )?,
            pts: make(
                "devpts",
                "devpts",
                &[("gid", "5"), ("mode", "0620"), ("ptmxmode", "0666")],
                libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
            )?,
            shm: make(
                "tmpfs",
                "shm",
                &[("mode", "1777")],
                libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            )?,
            mqueue: make("mqueue", "mqueue", &[], SAFE)?,
            whole_proc: make("proc", "proc", &[], SAFE)?,
            whole_sys: make("sysfs", "sys", &[], SAFE | libc::MOUNT_ATTR_RDONLY)?,
        })
    }

    fn attach(&self, root: &OwnedFd) -> Result<(), Failure> {
        const STEP: &str = "attach the kernel's file systems";
        for (name, tree) in [
            ("proc", &self.proc),
            ("sys", &self.sys),
            ("run", &self.run),
            ("dev", &self.dev),
        ] {
            let folder = own_folder(root.as_fd(), name).at(STEP)?;
            tree.attach(folder.as_fd()).at(STEP)?;
        }
        // Below here lies only what the kernel or we have just made: no user has written it.
        // The kernel lets a namespace below the space mount a /proc or /sys of its own only where one is seen whole:
        // with the readings laid over the usual ones, rootless containers need these.
        for (path, tree) in [
            ("sys/fs/cgroup", &self.cgroup),
            ("dev/.steading/proc", &self.whole_proc),
            ("dev/.steading/sys", &self.whole_sys),
            ("dev/pts", &self.pts),
            ("dev/shm", &self.shm),
            ("dev/mqueue", &self.mqueue),
        ] {
            if path.starts_with("dev/") {
                fs::create_dir_all(Path::new("/").join(path)).at(STEP)?;
            }
            let folder = open_below(root.as_fd(), Path::new(path)).at(STEP)?;
            tree.attach(folder.as_fd()).at(STEP)?;
        }
        Ok(())
    }
}

/// A folder directly below the root, for a file system of ours. What else stands there is set aside.
fn own_folder(root: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let opened = open_below(root, Path::new(name)).and_then(|fd| {
        let kind = nix::sys::stat::fstat(&fd)?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFDIR {
            Ok(fd)
        } else {
            Err(Errno::ENOTDIR.into())
        }
    });
    let error = match opened {
        Ok(folder) => return Ok(folder),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENOTDIR) => {
            let aside: PathBuf = format!("{name}.replaced").into();
            nix::fcntl::renameat(root, name, root, &aside)?;
        }
        Some(libc::ENOENT) => {}
        _ => return Err(error),
    }
    nix::sys::stat::mkdirat(root, name, Mode::from_bits_truncate(0o755))?;
    open_below(root, Path::new(name))
}

/// Lays what lxcfs shows over files of the kernel, which no user has written.
fn readings(root: &OwnedFd, layers: &Layers) -> io::Result<()> {
    for (path, tree) in &layers.readings {
        let place = open_below(root.as_fd(), Path::new(path))?;
        tree.attach(place.as_fd())
            .map_err(|error| io::Error::other(crate::console::chain(&error)))?;
    }
    Ok(())
}

/// Fills /dev: the node's harmless devices, and the links that programs expect.
fn devices(root: &OwnedFd, layers: &Layers) -> Result<(), Failure> {
    const STEP: &str = "make the devices";
    let dev = Path::new("/dev");
    for (name, tree) in &layers.devices {
        let path = dev.join(name);
        if let Some(folder) = path.parent().filter(|folder| *folder != dev) {
            fs::create_dir_all(folder).at(STEP)?;
            // PID 1 makes folders for root alone; net/tun is for everybody, as everywhere.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).at(STEP)?;
        }
        File::create_new(&path).at(STEP)?;
        let place = open_below(root.as_fd(), &Path::new("dev").join(name)).at(STEP)?;
        tree.attach(place.as_fd()).at(STEP)?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        symlink(target, dev.join(name)).at(STEP)?;
    }
    Ok(())
}

/// What programs expect in /run, and which base this is. /run is our own, empty tmpfs.
fn run_folder(_root: &OwnedFd, start: &SpaceStart) -> io::Result<()> {
    for (folder, mode) in [
        ("/run/sshd", 0o755),
        ("/run/lock", 0o1777),
        ("/run/steading", 0o755),
    ] {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open("/run/steading/base-digest")?;
    writeln!(file, "{}", start.base_digest.to_ascii_lowercase())
}

/// Lays the volume's folder over /var/lib/containers, unless the user has put something else there.
fn containers(root: &OwnedFd, tree: &Tree) -> io::Result<()> {
    let mut folder = root.try_clone()?;
    for name in ["var", "lib", "containers"].map(OsStr::new) {
        match nix::sys::stat::mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = match open_below(folder.as_fd(), Path::new(name)) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => return Ok(()),
            result => result?,
        };
    }
    tree.attach(folder.as_fd())
        .map_err(|error| io::Error::other(crate::console::chain(&error)))?;
    // Containers of users other than root: the base's storage.conf leads them here. A full disk keeps nobody out.
    let _ = folder_of_users(root);
    Ok(())
}

/// A folder in which everybody may make his own, unless something stands there.
fn folder_of_users(root: &OwnedFd) -> io::Result<()> {
    let folder = open_below(root.as_fd(), Path::new("var/lib/containers"))?;
    nix::sys::stat::mkdirat(&folder, "users", Mode::from_bits_truncate(0o700))?;
    let users = openat(
        &folder,
        "users",
        OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    Ok(nix::sys::stat::fchmod(&users, Mode::from_bits_truncate(0o1777))?)
}

/// Gives PID 1 nothing to read, and a file of the user's own to write to. No link on the way to it is followed, those
/// of /proc least of all: descriptors of the node are still open here.
fn log(root: &OwnedFd) -> io::Result<()> {
    const LIMIT: i64 = 1 << 20;
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    // A fifo without a reader does not hold up the start.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_CLOEXEC;
    let file = open_below(root.as_fd(), Path::new("var/log")).and_then(|folder| {
        let file = openat(&folder, "space.log", flags, Mode::from_bits_truncate(0o640))?;
        if nix::sys::stat::fstat(&file)?.st_size > LIMIT {
            nix::unistd::ftruncate(&file, 0)?;
        }
        Ok(file)
    });
    let file = file.unwrap_or_else(|_| nothing.into());
    nix::unistd::dup2_stdout(&file)?;
    nix::unistd::dup2_stderr(&file)?;
    Ok(())
}

/// Session, keyring, signals, umask, descriptors: nothing of the node's comes along.
fn leave_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    process::new_session_keyring()?;
    process::close_at_exec_from(3)?;
    process::reset_signals()
}
