//! The ways out of a container that are publicly known, each tried by root inside a space, and each tried by the node's
//! own root in the same base: the control, in which none of the walls stands.
//!
//! ```text
//!   tries.py ──► in a space (user namespace, fewer capabilities, filter)   ──► the errno that the wall answers with
//!       └──────► on the node (none of them)                                ──► goes through, or fails for another reason
//! ```

mod key;
mod wire;

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use host::mount;
use libtest_mimic::Trial;
use nix::libc;
use nix::mount::MsFlags;

use crate::provisioner::bench::Bench as ProvisionerBench;
use crate::spaces::bench::Bench;
use crate::trial;

/// What is tried.
const TRIES: &str = include_str!("escapes/tries.py");
/// Where the base is mounted for the control.
const ROOM: &str = "/run/escape-room";
const BASE: &str = "/dev/vdd2";

/// Which wall answers.
#[derive(Clone, Copy, Debug)]
enum Wall {
    /// The list of system calls.
    Filter,
    /// A capability that a space does not have, over the node or at all.
    Capability,
    /// The file belongs to an id outside the space's range.
    Owner,
    /// The kernel lets only the first user namespace do it.
    FirstUser,
    /// It is not in the space's namespaces: there is nothing to reach.
    NotThere,
}

/// Name, what root inside is told, by which wall, and whether the node's root is told otherwise.
const WALLS: [(&str, &[i32], Wall, bool); 58] = [
    ("init_module", &[libc::EPERM], Wall::Filter, true),
    ("finit_module", &[libc::EPERM], Wall::Filter, true),
    ("delete_module", &[libc::EPERM], Wall::Filter, true),
    // Switched off for everybody at boot.
    ("kexec_file_load", &[libc::EPERM], Wall::Filter, false),
    ("reboot", &[libc::EPERM], Wall::Capability, true),
    ("bpf", &[libc::EPERM], Wall::Capability, true),
    ("perf_event_open", &[libc::EPERM], Wall::Filter, true),
    ("userfaultfd", &[libc::EPERM], Wall::Filter, true),
    ("io_uring", &[libc::ENOSYS], Wall::Filter, true),
    ("iopl", &[libc::EPERM], Wall::Filter, true),
    ("ioperm", &[libc::EPERM], Wall::Filter, true),
    ("swapon", &[libc::EPERM], Wall::Filter, true),
    ("acct", &[libc::EPERM], Wall::Filter, true),
    ("syslog", &[libc::EPERM], Wall::Capability, true),
    ("settime", &[libc::EPERM], Wall::Filter, true),
    ("add_key", &[libc::ENOSYS], Wall::Filter, true),
    ("request_key", &[libc::ENOSYS], Wall::Filter, true),
    ("ptrace", &[libc::ESRCH], Wall::NotThere, true),
    ("kill", &[libc::ESRCH], Wall::NotThere, true),
    ("environ", &[libc::ENOENT], Wall::NotThere, true),
    ("setns", &[libc::ENOENT], Wall::NotThere, true),
    ("mount_disk", &[libc::EPERM], Wall::FirstUser, true),
    ("mount_devtmpfs", &[libc::EPERM], Wall::FirstUser, true),
    ("mount_debugfs", &[libc::EPERM], Wall::FirstUser, true),
    ("mount_tracefs", &[libc::EPERM], Wall::FirstUser, true),
    ("mount_cgroup1", &[libc::EPERM], Wall::FirstUser, true),
    ("nested_mount_disk", &[libc::EPERM], Wall::FirstUser, false),
    ("foreign_id", &[libc::EPERM], Wall::Owner, true),
    ("mknod_disk", &[libc::EPERM], Wall::FirstUser, true),
    ("mknod_memory", &[libc::EPERM], Wall::FirstUser, true),
    ("mknod_mapper", &[libc::EPERM], Wall::FirstUser, true),
    ("open_disk", &[libc::ENOENT], Wall::NotThere, true),
    // Not there on the node either before its first volume.
    ("open_mapper", &[libc::ENOENT], Wall::NotThere, false),
    ("open_kmsg", &[libc::ENOENT], Wall::NotThere, true),
    ("open_console", &[libc::ENOENT], Wall::NotThere, true),
    ("folder_of_node", &[libc::ENOENT], Wall::NotThere, true),
    ("sysrq", &[libc::EACCES], Wall::Owner, true),
    ("core_pattern", &[libc::EACCES], Wall::Owner, true),
    ("modprobe_path", &[libc::EACCES], Wall::Owner, true),
    ("panic", &[libc::EACCES], Wall::Owner, true),
    ("overcommit", &[libc::EACCES], Wall::Owner, true),
    ("file_max", &[libc::EACCES], Wall::Owner, true),
    ("kcore", &[libc::EACCES, libc::EPERM], Wall::Owner, true),
    ("power_state", &[libc::EACCES, libc::EROFS], Wall::Owner, true),
    // Hidden from everybody at boot.
    ("kernel_addresses", &[0], Wall::Capability, false),
    ("hard_limit", &[libc::EPERM], Wall::Capability, true),
    ("real_time", &[libc::EPERM], Wall::Capability, true),
    ("nice", &[libc::EACCES, libc::EPERM], Wall::Capability, true),
    ("oom_score", &[libc::EACCES], Wall::Capability, true),
    ("abstract_socket", &[libc::ECONNREFUSED], Wall::NotThere, true),
    ("vsock", &[libc::EAFNOSUPPORT], Wall::Filter, false),
    ("kernel_crypto", &[libc::EAFNOSUPPORT], Wall::Filter, false),
    ("kernel_threads", &[0], Wall::NotThere, true),
    ("keys_of_node", &[0], Wall::NotThere, true),
    ("cgroup_memory.max", &[libc::EACCES], Wall::Owner, false),
    ("cgroup_cpu.max", &[libc::EACCES], Wall::Owner, false),
    ("cgroup_pids.max", &[libc::EACCES], Wall::Owner, false),
    ("cgroup_memory.swap.max", &[libc::EACCES], Wall::Owner, false),
];

/// Of a space alone, with what the kernel may say; no control, for the node has no such files.
const OF_A_SPACE: [(&str, &[i32]); 3] = [
    // Only below the mount itself, so never at the top of the volume.
    ("handle", &[libc::EPERM, libc::ESTALE]),
    // Its own mount it may change; the files in it stay the node's.
    ("remount_sys", &[libc::EACCES, libc::EPERM, libc::EROFS]),
    ("detach_root", &[libc::EINVAL]),
];

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("escapes::every_known_way_out_is_shut", every_way),
        trial("escapes::no_frame_gets_beyond_its_cable", || {
            crate::network::run(wire::stays())
        }),
        trial("escapes::the_unlock_key_is_in_no_readable_place", || {
            ProvisionerBench::with(key::nowhere)
        }),
    ]
}

fn every_way() -> Result<()> {
    // Of this process, and of the node's network: both are tried from inside.
    let own = std::process::id();
    ensure!(own > 100, "a process inside may have number {own} as well");
    let address = SocketAddr::from_abstract_name("steading-escape")?;
    let _listener = UnixListener::bind_addr(&address)?;
    let bench = Bench::new(1)?;
    let folder = bench.volume().join("upper/root");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("tries.py"), TRIES)?;
    let inside = read(&bench.run(&format!("python3 /root/tries.py {} space", own))?)?;
    let outside = read(&control(own)?)?;
    let mut faults = Vec::new();
    for (name, wanted, wall, differs) in WALLS {
        let said = inside.get(name).map_or("nothing", String::as_str);
        if !wanted.iter().any(|errno| errno.to_string() == said) {
            faults.push(format!("{name}: inside {said}, wanted {wanted:?} of {wall:?}"));
        }
        let control = outside.get(name).map_or("nothing", String::as_str);
        if differs && (control == said || control == "nothing" || control.starts_with("broken")) {
            faults.push(format!(
                "{name}: without the walls it is {control} as well, so nothing is shown"
            ));
        }
    }
    for (name, wanted) in OF_A_SPACE {
        let said = inside.get(name).map_or("nothing", String::as_str);
        if !wanted.iter().any(|errno| errno.to_string() == said) {
            faults.push(format!("{name}: inside {said}, wanted {wanted:?}"));
        }
    }
    let shut = WALLS.len() + OF_A_SPACE.len() - faults.len();
    println!("escapes: {shut} of {} shut", WALLS.len() + OF_A_SPACE.len());
    ensure!(
        faults.is_empty(),
        "{}\ninside: {inside:?}\noutside: {outside:?}",
        faults.join("\n")
    );
    Ok(())
}

fn read(found: &str) -> Result<BTreeMap<String, String>> {
    ensure!(
        found.contains("tried=all"),
        "the tries did not come to an end:\n{found}"
    );
    Ok(found
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, said)| (name.to_owned(), said.to_owned()))
        .collect())
}

/// The same tries by the node's root, with the base's Python, which the base's own loader starts: the node has none.
fn control(own: u32) -> Result<String> {
    let room = Path::new(ROOM);
    std::fs::create_dir_all(room)?;
    mount::ensure_mounted(Path::new(BASE), room, "erofs", MsFlags::MS_RDONLY, "")?;
    let output = Command::new(room.join("usr/lib64/ld-linux-x86-64.so.2"))
        .env("PYTHONHOME", room.join("usr"))
        .arg("--library-path")
        .arg(room.join("usr/lib/x86_64-linux-gnu"))
        .arg(room.join("usr/bin/python3"))
        .args(["-c", TRIES, &own.to_string()])
        .output();
    mount::ensure_unmounted(room)?;
    let output = output.context("starting the control")?;
    ensure!(
        output.status.success(),
        "the control ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
