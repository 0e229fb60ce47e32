//! A space's processes on the real kernel: what is seen inside, what outside, what stays behind.
//!
//! Uses /dev/vdc: two partitions on it, which only the kernel is told of, hold two volumes; the
//! disk is blank again afterwards. The base is the second partition of the boot medium (vdd2).
//!
//! What runs inside writes its findings to `/root/found` and ends; the trial then reads the file
//! through the unmapped volume, as provision would.

pub mod bench;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::isolate::{self, SpaceStart};
use host::process::Pidfd;
use host::{cgroup, mount, names, netns};
use libtest_mimic::Trial;

use self::bench::{Bench, DIGEST, DISK, START, expect, value};
use crate::trial;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("spaces::a_partition_is_told_and_forgotten", partitions),
        trial("spaces::a_space_is_root_inside_and_nobody_outside", root_inside),
        trial("spaces::a_space_sees_its_own_mounts_alone", own_mounts),
        trial("spaces::tools_work_inside", tools),
        trial("spaces::doors_are_shut_inside", doors),
        trial("spaces::links_of_the_user_lead_nowhere", links),
        trial("spaces::a_second_start_finds_the_files", second_start),
        trial(
            "spaces::a_start_that_fails_names_its_step_and_leaves_nothing",
            refused,
        ),
        trial("spaces::sshd_answers_in_its_namespace", sshd),
        trial("spaces::the_first_of_two_spaces_ends_and_lets_go", first_of_two),
    ]
}

fn partitions() -> Result<()> {
    let disk = host::block::Device::open(Path::new(DISK))?;
    disk.add_partition(7, 1 << 20, 64 << 20)?;
    let part = host::block::Device::open_writable(Path::new("/dev/vdc7"))?;
    ensure!(part.size()? == 64 << 20, "{}", part.size()?);
    ensure!(part.logical_sector()? == 512 && disk.size()? >= 1 << 30);
    ensure!(host::block::disk_of("vdc7").as_deref() == Some("vdc"));
    disk.add_partition(7, 1 << 20, 64 << 20)
        .context("the second time")?;
    let mut bytes = [0u8; 4];
    let mut file = fs::OpenOptions::new().read(true).write(true).open("/dev/vdc7")?;
    file.write_all(b"mark")?;
    file.sync_all()?;
    part.discard(0, 1 << 20)?;
    drop((file, part));
    disk.forget_partition(7)?;
    disk.forget_partition(7).context("the second time")?;
    ensure!(!Path::new("/dev/vdc7").exists());
    let mut whole = fs::File::open(DISK)?;
    whole.seek(SeekFrom::Start(1 << 20))?;
    whole.read_exact(&mut bytes)?;
    ensure!(&bytes != b"mark", "the discarded bytes are still there");
    Ok(())
}

fn root_inside() -> Result<()> {
    let bench = Bench::new(1)?;
    let script = "touch /root/mine; echo uid=$(id -u); echo etc=$(stat -c %u /etc); echo pid=$$; echo host=$(hostname); \
        echo digest=$(cat /run/steading/base-digest); echo rss=$(cat /proc/self/oom_score_adj); \
        echo fds=$(ls /proc/1/fd | wc -l); echo groups=$(id -G); sleep 30";
    let argv = ["/usr/bin/catatonit", "--", "/bin/sh", "-c"];
    let script = format!("exec >/root/found 2>&1; {script}");
    let argv: Vec<&str> = argv.into_iter().chain([script.as_str()]).collect();
    let pid = isolate::start(&bench.space(&argv), START)?;
    let process = Pidfd::open(pid)?;
    let outside = fs::metadata(format!("/proc/{pid}"))?.uid();
    ensure!(outside == bench.first_id(), "outside it is {outside}");
    ensure!(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() == "catatonit");
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(
        Path::new(names::CGROUP_MOUNT).join(cgroup.trim().trim_start_matches("0::/")) == bench.cgroup(),
        "{cgroup}"
    );
    wait_for(
        || bench.found().is_ok_and(|f| f.contains("groups=")),
        "the script's findings",
    )?;
    ensure!(!process.wait_ended(Duration::ZERO)?, "it ended before its time");
    cgroup::kill(&bench.cgroup())?;
    ensure!(process.wait_ended(Duration::from_secs(10))?);
    let found = bench.found()?;
    for (key, wanted) in [
        ("uid", "0"),
        ("etc", "0"),
        ("host", "space-1"),
        ("digest", DIGEST),
        ("rss", "0"),
        ("groups", "0"),
    ] {
        expect(&found, key, wanted)?;
    }
    // catatonit: 0, 1, 2 and its own signal and timer descriptors; nothing of the node.
    let descriptors: u32 = value(&found, "fds")?.parse()?;
    ensure!(descriptors <= 6, "PID 1 holds {descriptors} descriptors");
    let mine = fs::metadata(bench.volume().join("upper/root/mine"))?;
    ensure!(mine.uid() == 0, "on disk its file belongs to {}", mine.uid());
    Ok(())
}

fn own_mounts() -> Result<()> {
    let bench = Bench::new(1)?;
    let found = bench.run("cat /proc/self/mountinfo; echo root=$(ls -a / | tr '\\n' ' '); echo end=1")?;
    expect(&found, "end", "1")?;
    let points: Vec<&str> = found
        .lines()
        .filter_map(|l| l.split(' ').nth(4).filter(|p| p.starts_with('/')))
        .collect();
    for wanted in [
        "/",
        "/proc",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/pts",
        "/dev/null",
        "/run",
        "/var/lib/containers",
    ] {
        ensure!(
            points.contains(&wanted),
            "{wanted} is not mounted inside:\n{found}"
        );
    }
    for point in &points {
        let known = ["/proc", "/sys", "/dev", "/run", "/var/lib/containers"]
            .iter()
            .any(|top| point.starts_with(top));
        ensure!(*point == "/" || known, "{point} is mounted inside:\n{found}");
    }
    for line in found.lines().filter(|l| l.contains(" - ")) {
        ensure!(
            !line.contains("/run/steading") || line.contains("lowerdir="),
            "a mount of the node: {line}"
        );
        ensure!(
            !line.contains(" rootfs ") && !line.contains("devtmpfs rw,nosuid,noexec"),
            "{line}"
        );
    }
    ensure!(
        found.lines().any(|l| l.contains(" /sys ro,")),
        "/sys is not read-only:\n{found}"
    );
    Ok(())
}

fn tools() -> Result<()> {
    let bench = Bench::new(1)?;
    let found = bench.run(
        "set -x; ip link set lo up && ip -br addr show lo; \
         ping -c1 -W5 127.0.0.1 >/dev/null && echo ping=yes; \
         useradd -m -s /bin/bash ann && su ann -c 'ping -c1 -W5 127.0.0.1' >/dev/null && echo userping=yes; \
         echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann; echo '127.0.0.1 space-1' >>/etc/hosts; \
         su ann -c 'sudo id -u' >/root/sudo; echo sudo=$(cat /root/sudo); \
         cp /usr/bin/cat /usr/local/bin/kitty && setcap cap_dac_read_search+ep /usr/local/bin/kitty; \
         echo secret >/root/secret; chmod 600 /root/secret; chmod 700 /root; \
         echo setcap=$(su ann -c '/usr/local/bin/kitty /root/secret'); \
         mv /etc/cron.daily /etc/cron.moved && rm -rf /usr/share/doc/bash && ls /usr/share/doc/bash; \
         mkdir /usr/share/doc/bash && echo opaque=$(ls /usr/share/doc/bash | wc -l); \
         groupadd g1 && touch /root/sg && chgrp g1 /root/sg && chmod 2755 /root/sg && echo setgid=$(stat -c %a /root/sg); \
         mkdir -p /mnt/t && mount -t tmpfs t /mnt/t && echo mount=yes; \
         unshare -U -r true && echo userns=yes; \
         mkdir /sys/fs/cgroup/child && echo cgroup=yes; \
         echo dpkg=$(dpkg -l bash | grep -c ^ii); \
         dpkg-deb --version >/dev/null && apt-get --version >/dev/null && echo apt=yes; \
         mkdir -p /root/p/DEBIAN /root/p/usr/share/mine && printf 'Package: mine\\nVersion: 1\\nArchitecture: all\\nMaintainer: m\\nDescription: m\\n' >/root/p/DEBIAN/control && \
         dpkg-deb -b /root/p /root/mine.deb >/dev/null && dpkg -i /root/mine.deb >/dev/null && echo install=$(dpkg -s mine | grep -c 'install ok installed'); \
         mknod /root/null c 1 3 || echo mknod=refused; \
         echo ports=$(python3 -c 'import socket;s=socket.socket();s.bind((\"0.0.0.0\",80));print(s.getsockname()[1])'); \
         script -qc true /dev/null && echo pty=yes; echo shm=$(python3 -c 'import multiprocessing as m;print(m.Value(\"i\",7).value)')",
    )?;
    for (key, wanted) in [
        ("ping", "yes"),
        ("userping", "yes"),
        ("sudo", "0"),
        ("setcap", "secret"),
        ("opaque", "0"),
        ("setgid", "2755"),
        ("mount", "yes"),
        ("userns", "yes"),
        ("cgroup", "yes"),
        ("dpkg", "1"),
        ("apt", "yes"),
        ("install", "1"),
        ("mknod", "refused"),
        ("ports", "80"),
        ("pty", "yes"),
        ("shm", "7"),
    ] {
        expect(&found, key, wanted)?;
    }
    Ok(())
}

fn doors() -> Result<()> {
    let bench = Bench::new(1)?;
    fs::write(bench.cgroup().join("memory.max"), (256u64 << 20).to_string())?;
    let found = bench.run(
        "grep -E 'Cap(Bnd|Eff|Prm)|NoNewPrivs|Seccomp:' /proc/self/status | sed 's/:[ \t]*/=/'; \
         (echo 1 >/proc/sys/kernel/panic) 2>/dev/null || echo sysctl=refused; \
         dmesg >/dev/null 2>&1 || echo dmesg=refused; \
         (echo b >/proc/sysrq-trigger) 2>/dev/null || echo sysrq=refused; \
         head -c1 /proc/kcore >/dev/null 2>&1 || echo kcore=refused; \
         cat /dev/vda >/dev/null 2>&1 || echo disk=refused; \
         date -s 2020-01-01 >/dev/null 2>&1 || echo clock=refused; \
         python3 -c 'import os;os.sched_yield()'; \
         python3 -c 'import ctypes,os;l=ctypes.CDLL(None,use_errno=True);print(\"uring=%d\"%(0 if l.syscall(425,8,0)>=0 else ctypes.get_errno()));print(\"module=%d\"%(0 if l.syscall(313,0,b\"\",0)>=0 else ctypes.get_errno()));print(\"kexec=%d\"%(0 if l.syscall(246,0,0,0,0)>=0 else ctypes.get_errno()));print(\"ptrace=%d\"%(0 if l.syscall(101,16,99999,0,0)>=0 else ctypes.get_errno()))'; \
         echo limit=$(cat /sys/fs/cgroup/memory.max); (echo max >/sys/fs/cgroup/memory.max) 2>/dev/null || echo memory=refused; \
         echo nodes=$(ls /proc | grep -c '^[0-9]'); echo keys=$(wc -l </proc/keys)",
    )?;
    for key in ["sysctl", "dmesg", "sysrq", "kcore", "disk", "clock", "memory"] {
        expect(&found, key, "refused")?;
    }
    expect(&found, "limit", &(256u64 << 20).to_string())?;
    // A filter is loaded (mode 2); io_uring is answered with ENOSYS (38), so programs fall back.
    for (key, wanted) in [
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("uring", "38"),
        ("ptrace", "3"),
    ] {
        expect(&found, key, wanted)?;
    }
    ensure!(
        value(&found, "module")? != "0" && value(&found, "kexec")? != "0",
        "{found}"
    );
    let bits = u64::from_str_radix(value(&found, "CapBnd")?, 16)?;
    for denied in host::capability::DENIED {
        ensure!(bits & 1 << denied.0 == 0, "{denied:?} is in the bounding set");
    }
    expect(&found, "CapEff", value(&found, "CapBnd")?)?;
    let processes: u32 = value(&found, "nodes")?.parse()?;
    ensure!(processes < 10, "{processes} processes are seen");
    Ok(())
}

fn links() -> Result<()> {
    let bench = Bench::new(1)?;
    let upper = bench.volume().join("upper");
    fs::create_dir_all(upper.join("root"))?;
    fs::create_dir_all(upper.join("var/lib"))?;
    let aim = Path::new("/run/steading/aim");
    fs::create_dir_all(aim)?;
    for name in ["proc", "sys", "run", "dev", "var/lib/containers"] {
        symlink("/run/steading/aim", upper.join(name))?;
    }
    // The way that led out of a well-known runtime: a folder that is a link to a descriptor of whoever starts.
    symlink("/proc/self/fd/3/../../../../../dev/shm", upper.join("var/log"))?;
    let before = mount::mount_points()?;
    let found = bench.run("echo proc=$(stat -f -c %T /proc); echo run=$(stat -f -c %T /run); readlink /proc.replaced; echo null=$(stat -c %F /dev/null)")?;
    expect(&found, "proc", "proc")?;
    expect(&found, "run", "tmpfs")?;
    expect(&found, "null", "character special file")?;
    ensure!(
        found.contains("/run/steading/aim"),
        "the user's link was not set aside:\n{found}"
    );
    ensure!(mount::mount_points()? == before, "the node's mounts changed");
    ensure!(
        fs::read_dir(aim)?.count() == 0,
        "something was made where the link leads"
    );
    ensure!(!mount::is_mount_point(aim)?);
    ensure!(
        !Path::new("/dev/shm/space.log").exists() && !Path::new("/tmp/space.log").exists(),
        "the log went to the node"
    );
    // All of /var is a link: that is no reason not to start.
    cgroup::ensure_absent(&bench.cgroup(), Duration::from_secs(10))?;
    fs::create_dir_all(bench.cgroup())?;
    fs::remove_dir_all(upper.join("var"))?;
    symlink(aim, upper.join("var"))?;
    let found = bench.run("echo var=$(readlink /var)")?;
    expect(&found, "var", "/run/steading/aim")?;
    ensure!(fs::read_dir(aim)?.count() == 0, "something was made through it");
    fs::remove_dir(aim)?;
    Ok(())
}

fn second_start() -> Result<()> {
    let bench = Bench::new(1)?;
    expect(
        &bench.run("echo hello >/root/kept; rm /etc/motd; echo first=1")?,
        "first",
        "1",
    )?;
    cgroup::ensure_absent(&bench.cgroup(), Duration::from_secs(10))?;
    fs::create_dir_all(bench.cgroup())?;
    let found = bench
        .run("echo kept=$(cat /root/kept); test -e /etc/motd || echo motd=gone; ls /var/log/space.log")?;
    expect(&found, "kept", "hello")?;
    expect(&found, "motd", "gone")
}

fn refused() -> Result<()> {
    let bench = Bench::new(1)?;
    let before = mount::mount_points()?;
    let step = |start: &SpaceStart| match isolate::start(start, START) {
        Err(isolate::IsolateError::Step { step, error }) => Ok((step, error)),
        other => bail!("{other:?}"),
    };
    let (failed, error) = step(&bench.space(&["/usr/bin/no-such-program"]))?;
    ensure!(
        failed == "execute" && error.contains("no-such-program"),
        "{failed}: {error}"
    );
    let mut start = bench.space(&["/bin/true"]);
    start.first_id += 65_536;
    let (failed, error) = step(&start)?;
    ensure!(failed == "check the user namespace", "{failed}: {error}");
    let mut start = bench.space(&["/bin/true"]);
    start.base = "/dev/vda".into();
    let (failed, error) = step(&start)?;
    ensure!(failed == "mount the base", "{failed}: {error}");
    let mut start = bench.space(&["/bin/true"]);
    start.cgroup = "/sys/fs/cgroup/steading/nowhere".into();
    ensure!(step(&start)?.0 == "open the cgroup");
    ensure!(!cgroup::is_populated(&bench.cgroup())?, "a process is left");
    ensure!(mount::mount_points()? == before, "a mount is left");
    ensure!(bench.run("echo after=1")?.contains("after=1"));
    Ok(())
}

/// Gives a space what `provision` writes into it for sshd.
/// The host key of a space, as `files` would write it.
pub fn keys(bench: &Bench) -> Result<()> {
    let ssh = bench.volume().join("upper/etc/ssh");
    fs::create_dir_all(&ssh)?;
    let key = ssh.join("ssh_host_ed25519_key");
    fs::write(&key, HOST_KEY)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A key for this trial alone, made by ssh-keygen.
pub const HOST_KEY: &str = include_str!("spaces/host_key");

fn banner(bench: &Bench) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(60);
    let netns = bench.netns();
    netns::run_in(&netns, move || {
        loop {
            let banner = TcpStream::connect(("127.0.0.1", 22)).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                let mut bytes = [0u8; 64];
                let length = stream.read(&mut bytes)?;
                Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
            });
            match banner {
                Ok(banner) if !banner.is_empty() => return Ok(banner),
                Err(error) if Instant::now() > end => bail!("sshd does not answer: {error}"),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    })?
}

fn sshd() -> Result<()> {
    let bench = Bench::new(1)?;
    keys(&bench)?;
    loopback(&bench)?;
    let mut start = bench.space(&[]);
    start.argv = isolate::default_argv();
    let began = Instant::now();
    let pid = isolate::start(&start, START)?;
    let started = began.elapsed();
    let banner = banner(&bench)?;
    println!(
        "start {} ms, banner {} ms",
        started.as_millis(),
        began.elapsed().as_millis()
    );
    ensure!(banner.starts_with("SSH-2.0-OpenSSH_"), "{banner}");
    let seen = fs::metadata(format!("/proc/{pid}"))?.uid();
    ensure!(seen == bench.first_id());
    Ok(())
}

/// Sets the loopback up, as the node's network step does.
fn loopback(bench: &Bench) -> Result<()> {
    let script = "ip link set lo up; echo up=1";
    expect(&bench.run(script)?, "up", "1")?;
    cgroup::ensure_absent(&bench.cgroup(), Duration::from_secs(10))?;
    fs::create_dir_all(bench.cgroup())?;
    Ok(())
}

fn first_of_two() -> Result<()> {
    let (first, second) = (Bench::new(1)?, Bench::new(2)?);
    let argv = ["/usr/bin/catatonit", "--", "/bin/sleep", "600"];
    let one = isolate::start(&first.space(&argv), START)?;
    let two = isolate::start(&second.space(&argv), START)?;
    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}")).map(|m| m.uid());
    ensure!(owner(one)? != owner(two)? && owner(one)? >= 100_000 && owner(two)? >= 100_000);
    let namespace = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    for kind in ["user", "pid", "mnt", "ipc", "uts", "cgroup", "net"] {
        ensure!(
            namespace(one, kind)? != namespace(two, kind)?,
            "both are in one {kind} namespace"
        );
        ensure!(
            namespace(one, kind)? != fs::read_link(format!("/proc/self/ns/{kind}"))?,
            "{kind} is the node's"
        );
    }
    first.end()?;
    // Opening a block device exclusively fails while any mount of it lives anywhere.
    host::block::Device::open_exclusive(&first.device()).context("the first volume is still held")?;
    ensure!(owner(two).is_ok(), "the second space ended with the first");
    ensure!(
        host::block::Device::open_exclusive(&second.device()).is_err(),
        "so this shows nothing"
    );
    Ok(())
}

/// Asks again and again, up to a bound: for what only a file inside a space announces.
fn wait_for(what: impl Fn() -> bool, name: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !what() {
        ensure!(Instant::now() < end, "waited 30 s for {name}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
