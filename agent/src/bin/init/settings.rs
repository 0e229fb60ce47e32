//! What the kernel is told once at boot. A setting that this kernel lacks is passed over: none of
//! them is worth a machine that does not start.

use std::fs;
use std::path::Path;

use host::names;

/// Files below `/proc/sys`, and what they get.
const SYSCTLS: [(&str, &str); 29] = [
    // A node whose kernel panicked comes back by itself.
    ("kernel/panic", "10"),
    ("kernel/modprobe", "/sbin/modprobe"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/sysrq", "0"),
    // What spaces can learn about, and do to, the kernel below them.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    // Nor what they can write onto the farmer's console: each death for want of a space's own memory is an error to the
    // kernel, told with a name of the space's choice, and all wait while a serial line takes it.
    ("kernel/printk", "3"),
    ("kernel/unprivileged_bpf_disabled", "2"),
    ("net/core/bpf_jit_harden", "2"),
    // The defaults that every distribution sets; spaces cannot set them themselves.
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
    // Open files are memory of the cgroup that opened them: a count over all spaces would let one of
    // them close the door for the others.
    ("fs/file-max", "9223372036854775807"),
    // Likewise: each terminal and ring is its space's memory, and few for all by default.
    ("kernel/pty/max", "1048576"),
    ("fs/aio-max-nr", "1073741824"),
    // More than all spaces' `pids` together.
    ("kernel/threads-max", "65536"),
    // One table for all: a space that asks for every address of its cable must not crowd out the uplink's gateway.
    ("net/ipv4/neigh/default/gc_thresh1", "8192"),
    ("net/ipv4/neigh/default/gc_thresh2", "32768"),
    ("net/ipv4/neigh/default/gc_thresh3", "65536"),
    ("net/ipv6/neigh/default/gc_thresh1", "8192"),
    ("net/ipv6/neigh/default/gc_thresh2", "32768"),
    ("net/ipv6/neigh/default/gc_thresh3", "65536"),
    // Counted for each space by itself, for its namespace is made by an id of its own.
    ("user/max_inotify_instances", "1024"),
    ("user/max_inotify_watches", "65536"),
    ("user/max_user_namespaces", "1024"),
    // Each has a table of connections of its own, which is memory of nobody.
    ("user/max_net_namespaces", "32"),
    ("user/max_mnt_namespaces", "1024"),
    ("vm/max_map_count", "1048576"),
];

/// Files of the kernel's workers, and what they get. What a space wrote and did not wait for is encrypted and written
/// later, by workers that are charged to nobody: on the processor on which it was left behind, which is one of the
/// space's own, and not where another's happens to have room.
const WORKERS: [(&str, &str); 2] = [
    ("writeback/affinity_scope", "cpu"),
    ("writeback/affinity_strict", "1"),
];

/// Devices that spaces get, whose modules are loaded when somebody opens them: (path, minor of 10).
const DEVICES: [(&str, u64); 2] = [("/dev/fuse", 229), ("/dev/net/tun", 200)];

/// Applies all of it and makes the folders and the cgroup that the rooms above rely on.
pub fn apply() {
    for (name, value) in SYSCTLS {
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
    for (name, value) in WORKERS {
        let _ = fs::write(Path::new(names::WORKERS).join(name), value);
    }
    buffers();
    for folder in [
        names::RUN_BASE,
        names::RUN_VOLUME,
        names::RUN_STATE,
        names::RUN_NETNS,
        names::RUN_START,
    ]
    .into_iter()
    .chain([names::RUN_LVM_LOCK])
    {
        complain(folder, fs::create_dir_all(folder));
    }
    for (path, minor) in DEVICES {
        complain(path, device(Path::new(path), minor));
    }
    cgroups();
    let _ = host::power::soften_ctrl_alt_del();
}

/// Room for what sockets hold: the kernel counts all spaces' and the node's together and then refuses everybody. Each
/// space's are in its memory already, so the bound for all is the machine's.
fn buffers() {
    const PAGE: u64 = 4096;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let Some(pages) = kib.map(|kib| kib * 1024 / PAGE) else {
        return;
    };
    for name in ["tcp_mem", "udp_mem"] {
        let _ = fs::write(
            format!("/proc/sys/net/ipv4/{name}"),
            format!("{pages} {pages} {pages}"),
        );
    }
}

/// Every controller for the spaces' cgroup and those below it. Ours and the agent's processes stay
/// in the root, the only one that may have both processes and children with limits.
fn cgroups() {
    complain(names::CGROUP_SPACES, fs::create_dir_all(names::CGROUP_SPACES));
    for folder in [names::CGROUP_MOUNT, names::CGROUP_SPACES] {
        for controller in ["+cpu", "+memory", "+io", "+pids", "+cpuset"] {
            let file = Path::new(folder).join("cgroup.subtree_control");
            complain(
                &format!("{} {controller}", file.display()),
                fs::write(file, controller),
            );
        }
    }
}

fn device(path: &Path, minor: u64) -> std::io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(10, minor)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

fn complain(what: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        crate::console::say(&format!("init: {what}: {error}"));
    }
}
