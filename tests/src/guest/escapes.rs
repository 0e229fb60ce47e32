//! The ways out of a container that are publicly known, each tried by root inside a space, and each tried by the node's
//! own root in the same base: the control, in which none of the walls stands.
//!
//! ```text
//!   tries.py ──► in a space (user namespace, fewer capabilities, filter)   ──► the errno that the wall answers with
//!       └──────► on the node (none of them)                                ──► goes through, or fails for another reason
//!   holder.py    on the node and in a second space: keys, sockets, shared memory that others have
//! ```

mod key;
mod wire;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::{cgroup, isolate, mount};
use libtest_mimic::Trial;
use nix::libc;
use nix::mount::MsFlags;

use crate::provisioner::bench::Bench as ProvisionerBench;
use crate::spaces::bench::{Bench, START, value};
use crate::trial;

/// What is tried.
const TRIES: &str = include_str!("escapes/tries.py");
/// What others hold meanwhile.
const HOLDER: &str = include_str!("escapes/holder.py");
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
const WALLS: [(&str, &[i32], Wall, bool); 82] = [
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
    ("key_of_node_described", &[libc::EACCES], Wall::Owner, true),
    ("key_of_node_read", &[libc::EACCES], Wall::Owner, true),
    ("key_of_node_linked", &[libc::EACCES], Wall::Owner, true),
    ("key_of_node_given", &[libc::EACCES], Wall::Owner, true),
    ("keyring_of_node_read", &[libc::EACCES], Wall::Owner, true),
    ("keyring_of_node_searched", &[libc::EACCES], Wall::Owner, true),
    ("keyring_of_other_described", &[libc::EACCES], Wall::Owner, true),
    ("keyring_of_other_read", &[libc::EACCES], Wall::Owner, true),
    ("keyring_of_other_cleared", &[libc::EACCES], Wall::Owner, true),
    ("ptrace", &[libc::ESRCH], Wall::NotThere, true),
    ("kill", &[libc::ESRCH], Wall::NotThere, true),
    ("environ", &[libc::ENOENT], Wall::NotThere, true),
    ("pidfd_open", &[libc::ESRCH], Wall::NotThere, true),
    ("process_vm_readv", &[libc::ESRCH], Wall::NotThere, true),
    ("priority_of_node", &[libc::ESRCH], Wall::NotThere, true),
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
    ("abstract_of_node", &[libc::ECONNREFUSED], Wall::NotThere, true),
    ("socket_of_node", &[libc::ENOENT], Wall::NotThere, true),
    ("loopback_of_node", &[libc::ECONNREFUSED], Wall::NotThere, true),
    ("abstract_of_other", &[libc::ECONNREFUSED], Wall::NotThere, true),
    ("socket_of_other", &[libc::ENOENT], Wall::NotThere, true),
    ("loopback_of_other", &[libc::ECONNREFUSED], Wall::NotThere, true),
    ("sockets_listed", &[0], Wall::NotThere, true),
    ("sockets_asked_for", &[0], Wall::NotThere, true),
    ("memory_of_node", &[libc::ENOENT], Wall::NotThere, true),
    ("memory_of_other", &[libc::ENOENT], Wall::NotThere, true),
    ("queue_of_node", &[libc::ENOENT], Wall::NotThere, true),
    ("queue_of_other", &[libc::ENOENT], Wall::NotThere, true),
    ("vsock", &[libc::EAFNOSUPPORT], Wall::Filter, false),
    ("kernel_crypto", &[libc::EAFNOSUPPORT], Wall::Filter, false),
    // Not there on the node either: no module for it. Where an ordinary link is not made, the try says that it is broken.
    ("encrypting_link", &[libc::EOPNOTSUPP], Wall::NotThere, false),
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
    let own = std::process::id();
    ensure!(own > 100, "a process inside may have number {own} as well");
    let room = Path::new(ROOM);
    std::fs::create_dir_all(room)?;
    mount::ensure_mounted(Path::new(BASE), room, "erofs", MsFlags::MS_RDONLY, "")?;
    let (mut holder, of_node) = hold_on_node()?;
    let (other, of_other) = hold_in_a_space()?;
    let first = cgroup::first_process(&other.cgroup()).context("the other space has no process")?;
    let words = [
        format!("pid={own}"),
        format!("node_key={}", value(&of_node, "key")?),
        format!("node_keyring={}", value(&of_node, "keyring")?),
        format!("other_keyring={}", value(&of_other, "keyring")?),
        format!("other_id={}", other.first_id()),
        format!("other_pid={first}"),
    ]
    .join(" ");
    let bench = Bench::new(1)?;
    put(&bench, "tries.py", TRIES)?;
    let script = format!("ip link set lo up; python3 /root/tries.py space {words}");
    let inside = read(&bench.run(&script)?)?;
    let outside = read(&control(&words)?)?;
    drop(holder.stdin.take());
    holder.wait()?;
    drop(other);
    mount::ensure_unmounted(room)?;
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

fn put(bench: &Bench, name: &str, text: &str) -> Result<()> {
    let folder = bench.volume().join("upper/root");
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(name), text)?)
}

/// The base's Python by the node's root; the base's own loader starts it, for the node has none.
fn python(script: &str) -> Command {
    let room = Path::new(ROOM);
    let mut command = Command::new(room.join("usr/lib64/ld-linux-x86-64.so.2"));
    command
        .env("PYTHONHOME", room.join("usr"))
        .arg("--library-path")
        .arg(room.join("usr/lib/x86_64-linux-gnu"))
        .arg(room.join("usr/bin/python3"))
        .args(["-c", script]);
    command
}

/// What the node holds, until the input of its holder ends.
fn hold_on_node() -> Result<(Child, String)> {
    let mut child = python(HOLDER)
        .arg("node")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the holder")?;
    let output = child.stdout.take().context("the holder has no output")?;
    let mut found = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line == "held=all" {
            return Ok((child, found));
        }
        found += &line;
        found.push('\n');
    }
    anyhow::bail!("the holder on the node ended with {}: {found}", child.wait()?)
}

/// What another space holds, while the bench lives.
fn hold_in_a_space() -> Result<(Bench, String)> {
    let bench = Bench::new(2)?;
    put(&bench, "holder.py", HOLDER)?;
    let script = "exec >/root/found 2>&1; sleep 600 | python3 /root/holder.py other";
    isolate::start(
        &bench.space(&["/usr/bin/catatonit", "--", "/bin/sh", "-c", script]),
        START,
    )?;
    let end = Instant::now() + Duration::from_secs(60);
    while !bench.found().is_ok_and(|found| found.contains("held=all")) {
        ensure!(
            Instant::now() < end,
            "the other space holds nothing after 60 s: {}",
            bench.found().unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = bench.found()?;
    Ok((bench, found))
}

/// The same tries by the node's root.
fn control(words: &str) -> Result<String> {
    let output = python(TRIES)
        .arg("node")
        .args(words.split(' '))
        .output()
        .context("starting the control")?;
    ensure!(
        output.status.success(),
        "the control ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
