//! What the base has beyond its packages, and what it must not have.

use anyhow::{Context, Result};
use packages::Mirror;
use packages::program::{command, run};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A file of ours.
#[derive(Debug)]
pub struct File {
    /// Absolute path inside.
    pub path: &'static str,
    /// Content.
    pub text: String,
    /// Permission bits.
    pub mode: u32,
}

/// The daemon of every space. Host key and user's keys are written for each space, before its first start.
const SSHD: &str = "\
# Ours; what stands here wins over sshd_config.
HostKey /etc/ssh/ssh_host_ed25519_key
# PAM doubles the time of a login, and only keys are let in.
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
X11Forwarding no
UseDNS no
PrintMotd no
SetEnv LANG=C.UTF-8
# All logins come through the node's tunnel, so from one address: it must not be punished for another's failure.
PerSourcePenaltyExemptList 127.0.0.1
MaxStartups 100:30:200
MaxSessions 100
";

/// PID 1 of a space, for its first moment.
const START: &str = r#"#!/bin/sh
# The first program of this space, run by its node; what it leaves running is sshd and what you enabled.
# Whoever has installed systemd as init gets it; sshd does not wait for it, and its own unit is masked.
if [ -x /usr/sbin/init ] && [ -x /usr/lib/systemd/systemd ]; then
    /usr/sbin/sshd
    exec /usr/sbin/init
fi
# Limits of your own, a container's for example, need a root of the cgroups that has no processes itself.
mkdir /sys/fs/cgroup/init.scope && echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
exec /usr/bin/catatonit -- /usr/lib/steading/services
"#;

/// What stays when there is no other init.
const SERVICES: &str = r#"#!/bin/sh
# What update-rc.d enabled, and /etc/rc.local; what they print is in /var/log/space.log.
(
    for script in /etc/rc2.d/S*; do
        case $script in *ssh) continue ;; esac
        if [ -x "$script" ]; then "$script" start </dev/null; fi
    done
    if [ -x /etc/rc.local ]; then /etc/rc.local </dev/null; fi
) &
# A login must be possible as long as the space lives, whatever ended the last sshd.
while :; do
    /usr/sbin/sshd -D -e
    sleep 1
done
"#;

/// Where podman keeps images: on the volume itself, for the overlay that is a space's root cannot hold another's layers.
const STORAGE: &str = r#"# Ours: /var/lib/containers lies on the volume itself, the homes lie on an overlay, which cannot hold another one.
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
rootless_storage_path = "/var/lib/containers/users/$UID"
"#;

/// The files.
pub fn all(version: &str, mirror: &Mirror) -> Vec<File> {
    let suite = packages::apt::SUITE;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.pgp";
    let text = |path, text: String| File {
        path,
        text,
        mode: 0o644,
    };
    let program = |path, text: &str| File {
        path,
        text: text.to_owned(),
        mode: 0o755,
    };
    vec![
        text("/etc/ssh/sshd_config.d/00-steading.conf", SSHD.to_owned()),
        program("/usr/lib/steading/start", START),
        program("/usr/lib/steading/services", SERVICES),
        text("/etc/containers/storage.conf", STORAGE.to_owned()),
        text("/etc/steading-base", format!("{version}\n")),
        text("/etc/default/locale", "LANG=C.UTF-8\n".to_owned()),
        text(
            "/etc/apt/sources.list",
            "# See sources.list.d/debian.sources.\n".to_owned(),
        ),
        text(
            "/etc/apt/sources.list.d/debian.sources",
            format!(
                "Types: deb\nURIs: {}\nSuites: {suite} {suite}-updates\nComponents: main\nSigned-By: {keyring}\n\n\
                 Types: deb\nURIs: {}\nSuites: {suite}-security\nComponents: main\nSigned-By: {keyring}\n",
                mirror.debian, mirror.security
            ),
        ),
        // The agent binds what it tells a space here; the folder must be there.
        text(
            "/etc/steading/README",
            "Facts about this space, written by its node.\n".to_owned(),
        ),
    ]
}

/// Shell lines of mmdebstrap's hooks; `$1` is the tree.
pub const CHANGES: &[&str] = &[
    // A client's locale that is not installed here makes every Perl program complain.
    "sed -i 's/^AcceptEnv/#&/' \"$1\"/etc/ssh/sshd_config",
    // A space has 65536 ids: ranges for its users' own containers must lie inside. 14 users, then useradd refuses.
    "sed -i -E -e 's/^#?[[:space:]]*SUB_([UG])ID_MIN.*/SUB_\\1ID_MIN 5000/' \
     -e 's/^#?[[:space:]]*SUB_([UG])ID_MAX.*/SUB_\\1ID_MAX 65000/' \
     -e 's/^#?[[:space:]]*SUB_([UG])ID_COUNT.*/SUB_\\1ID_COUNT 4096/' \"$1\"/etc/login.defs",
    "grep -q '^SUB_UID_COUNT 4096' \"$1\"/etc/login.defs && grep -q '^SUB_GID_MIN 5000' \"$1\"/etc/login.defs",
    // rsync is used over SSH; to ask whether its own daemon is wanted would take every space a tenth of its start.
    "rm -f \"$1\"/etc/rc[0-6].d/[SK][0-9][0-9]rsync && test -e \"$1\"/etc/init.d/rsync",
    // These terminals ask for `xterm-NAME`; ncurses knows them by their own name.
    "cd \"$1\"/usr/share/terminfo/x && test -e ../k/kitty && test -e ../g/ghostty && \
     ln -sf ../k/kitty xterm-kitty && ln -sf ../g/ghostty xterm-ghostty",
    // `!` would lock root out, as UsePAM is off; `*` has no password and lets keys in.
    "sed -i 's/^root:[^:]*:/root:*:/' \"$1\"/etc/shadow",
    // For whoever installs systemd: sshd runs already.
    "mkdir -p \"$1\"/etc/systemd/system && ln -sf /dev/null \"$1\"/etc/systemd/system/ssh.service && \
     ln -sf /dev/null \"$1\"/etc/systemd/system/ssh.socket",
    "mkdir -p -m 755 \"$1\"/run/sshd \"$1\"/etc/steading \"$1\"/var/lib/containers && mkdir -p -m 700 \"$1\"/root/.ssh",
];

/// Made by the build, meant for no space: keys, names, lists, logs, what was passed to apt and dpkg for the build.
pub const DROPPED: &[&str] = &[
    "/etc/ssh/ssh_host_*",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/var/lib/apt/lists/*",
    "/var/cache/apt/*.bin",
    "/var/cache/apt/archives/*",
    "/var/cache/debconf/*-old",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dpkg/*-old",
    "/var/log/*.log",
    "/var/log/apt",
    "/etc/*-",
    // Compiled while it ran, differently each time; what packages compile is the same each time and stays.
    "/usr/share/python3/debpython/__pycache__",
];

/// Not unpacked while the base is built; a user's own apt brings manual pages again.
pub const NOT_UNPACKED: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
];

/// Writes the files as an archive that belongs to root.
pub fn write_tar(files: &[File], work: &Path, tar: &Path) -> Result<()> {
    let folder = work.join("files");
    for file in files {
        let to = folder.join(file.path.trim_start_matches('/'));
        let parent = to.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(parent)?;
        std::fs::write(&to, &file.text)?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(file.mode))?;
    }
    run(command("tar")
        .args([
            "--create",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=u=rwX,go=rX",
            "--sort=name",
        ])
        .args(["--mtime=@1767225600", "--file"])
        .arg(tar)
        .arg("--directory")
        .arg(&folder)
        .args(files.iter().map(|file| file.path.trim_start_matches('/'))))
}
