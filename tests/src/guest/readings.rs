//! What a space reads about itself is what it has, and the node's figures stay the node's.
//!
//! The control lies in each space itself: `/dev/.steading/proc` is the same kernel's, with nothing laid over.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::isolate;
use host::process::{self, Pidfd};
use host::{cgroup, mount, names};
use libtest_mimic::Trial;
use market::quantity::{Bytes, MilliCpus};
use nix::sys::signal::Signal;
use provision::limits::{self, Limits};

use crate::spaces::bench::{Bench, START, expect, value};
use crate::trial;

const MEMORY: u64 = 256 << 20;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("readings::a_space_starts_beside_a_silent_one", silent),
        trial("readings::a_space_sees_what_it_has", own_size),
        trial("readings::they_come_back_when_lxcfs_was_killed", killed),
        trial("readings::a_space_starts_without_them", started_without),
        trial("readings::a_silent_proc_holds_one_of_the_nodes_at_most", held),
        trial("readings::containers_inside_may_mount_a_proc", nested),
        trial("readings::lxcfs_has_few_rights", rights),
    ]
}

/// A bench whose space has a quarter of a CPU and 256 MiB.
fn bench(number: u32) -> Result<Bench> {
    wait("lxcfs", || mount::is_fuse_alive(Path::new(names::RUN_READINGS)))?;
    let bench = Bench::new(number)?;
    let limits = Limits {
        cpu: MilliCpus(250),
        memory: Bytes(MEMORY),
        pids: 256,
        disks: Vec::new(),
    };
    limits::ensure(&bench.cgroup(), &limits, bench.first_id())?;
    // As while a space starts.
    limits::set_cpu(&bench.cgroup(), None)?;
    Ok(bench)
}

/// Asks again and again, up to a bound: neither a mount in a space nor a file in it announces itself out here.
fn wait(what: &str, is: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !is() {
        ensure!(Instant::now() < end, "waited 60 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn own_size() -> Result<()> {
    let bench = bench(1)?;
    let found = bench.run(
        "echo memory=$(awk '/^MemTotal/{print $2}' /proc/meminfo); echo free=$(free -k | awk '/^Mem/{print $2}'); \
         echo nodes=$(awk '/^MemTotal/{print $2}' /dev/.steading/proc/meminfo); \
         echo nproc=$(nproc) sudo=$(sudo -n nproc) python=$(python3 -c 'import os;print(os.cpu_count())') \
         cpuinfo=$(grep -c ^processor /proc/cpuinfo) stat=$(grep -c '^cpu[0-9]' /proc/stat) \
         online=$(getconf _NPROCESSORS_ONLN) | tr ' ' '\\n'; \
         echo nodes_cpus=$(grep -c '^cpu[0-9]' /dev/.steading/proc/stat); \
         echo top=$(TERM=dumb top -bn1 -E k | awk '/^KiB Mem/{print $4}'); \
         echo age=$(cut -d. -f1 /proc/uptime) node_age=$(cut -d. -f1 /dev/.steading/proc/uptime) | tr ' ' '\\n'; \
         uptime -p >/dev/null && echo uptime=yes; echo swap=$(free | awk '/^Swap/{print $2}')",
    )?;
    let kib = (MEMORY / 1024).to_string();
    for key in ["memory", "free", "top"] {
        expect(&found, key, &kib)?;
    }
    for key in ["nproc", "sudo", "python", "cpuinfo", "stat", "online"] {
        expect(&found, key, "1")?;
    }
    expect(&found, "uptime", "yes")?;
    expect(&found, "swap", "0")?;
    let figure = |key| -> Result<u64> { Ok(value(&found, key)?.parse()?) };
    ensure!(figure("nodes")? > MEMORY / 1024, "the node has no more: {found}");
    ensure!(figure("nodes_cpus")? > 1, "the node has no more CPUs: {found}");
    ensure!(
        figure("age")? < 60 && figure("node_age")? > figure("age")?,
        "the space is as old as the node: {found}"
    );
    Ok(())
}

/// Writes each second what `free` and a login would read.
const WATCH: &str = "while :; do head -n1 /proc/meminfo 2>&1; sleep 0.1; done";

/// Starts a space that runs `script` for a while.
fn running(bench: &Bench, script: &str) -> Result<()> {
    let script = format!("exec >/root/found 2>&1; {script}");
    let argv = ["/usr/bin/catatonit", "--", "/bin/sh", "-c", script.as_str()];
    isolate::start(&bench.space(&argv), START)?;
    Ok(())
}

fn own_line() -> String {
    format!("MemTotal:{:>15} kB", MEMORY / 1024)
}

/// Ends lxcfs as a fault would; its supervisor is not told.
fn kill_lxcfs() -> Result<()> {
    let own = Path::new(names::CGROUP_READINGS);
    let before = cgroup::processes(own);
    ensure!(!before.is_empty(), "no lxcfs runs");
    cgroup::kill(own)?;
    Ok(())
}

fn killed() -> Result<()> {
    let bench = bench(1)?;
    running(&bench, WATCH)?;
    let found = || bench.found().unwrap_or_default();
    wait("the space's own figure", || found().contains(&own_line()))?;
    kill_lxcfs()?;
    let start = Instant::now();
    wait("the figure to go", || !found().trim_end().ends_with(&own_line()))?;
    wait("the figure to come back", || {
        found().trim_end().ends_with(&own_line())
    })?;
    println!("without readings for {} ms", start.elapsed().as_millis());
    let broken = found().matches("not connected").count();
    ensure!(
        broken > 0,
        "nothing was broken, so this shows nothing:\n{}",
        found()
    );
    // Nothing piles up: one mount a file.
    let found = found();
    ensure!(!found.contains("No such file"), "{found}");
    let pid = cgroup::first_process(&bench.cgroup()).context("no PID 1")?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let laid = mounts
        .lines()
        .filter(|line| line.contains(" /proc/meminfo "))
        .count();
    ensure!(laid == 1, "{laid} mounts over /proc/meminfo:\n{mounts}");
    Ok(())
}

/// lxcfs put where nobody finds it; back again when dropped.
struct Away;

const PROGRAM: [&str; 2] = ["/usr/bin/lxcfs", "/usr/bin/lxcfs.away"];

impl Away {
    fn put() -> Result<Self> {
        fs::rename(PROGRAM[0], PROGRAM[1])?;
        Ok(Self)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if let Err(error) = fs::rename(PROGRAM[1], PROGRAM[0]) {
            println!("lxcfs is lost: {error}");
        }
    }
}

fn started_without() -> Result<()> {
    let bench = bench(1)?;
    let away = Away::put()?;
    kill_lxcfs()?;
    running(&bench, WATCH)?;
    let found = || bench.found().unwrap_or_default();
    wait("the first figure", || found().contains("MemTotal"))?;
    let first = found().lines().next().unwrap_or_default().to_owned();
    drop(away);
    wait("the space's own figure", || found().contains(&own_line()))?;
    println!("first {first:?}, then {:?}", own_line());
    ensure!(first != own_line(), "lxcfs was there, so this shows nothing");
    Ok(())
}

/// One that says nothing at all, as under a crowd of readers or after a fault of its own: the space starts without it.
fn silent() -> Result<()> {
    let bench = bench(1)?;
    let frozen = Path::new(names::CGROUP_READINGS).join("cgroup.freeze");
    let found = || bench.found().unwrap_or_default();
    fs::write(&frozen, "1")?;
    let begun = Instant::now();
    let started = running(&bench, WATCH).and_then(|()| wait("a figure", || found().contains("MemTotal")));
    let took = begun.elapsed();
    let events = fs::read_to_string(Path::new(names::CGROUP_READINGS).join("cgroup.events"));
    // Before it speaks again, for then it is laid over the kernel's.
    let figures = found();
    fs::write(&frozen, "0")?;
    started?;
    println!("started beside a silent one in {} ms", took.as_millis());
    ensure!(
        events?.contains("frozen 1"),
        "it was not silent, so this shows nothing"
    );
    ensure!(!figures.contains(&own_line()), "a figure of its own: {figures}");
    wait("lxcfs", || mount::is_fuse_alive(Path::new(names::RUN_READINGS)))
}

/// The node's own processes that are in these mounts.
fn nodes_own_in(mounts: &Path) -> Vec<i32> {
    let here = fs::read_link("/proc/self/ns/pid").ok();
    let is_in = |pid: &i32| {
        let namespace = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        namespace("mnt").as_deref() == Some(mounts) && namespace("pid") == here
    };
    process::running()
        .unwrap_or_default()
        .into_iter()
        .filter(is_in)
        .collect()
}

/// Root in a space lays a file system of his own over /proc, which reads what it is asked and does not answer: whoever
/// asks is held, and a kill does not end that. So many times as the node lays the readings, one of its processes waits
/// there; it is one of the space's, and ends with it. Another space gets its readings each time.
fn held() -> Result<()> {
    const ROUNDS: usize = 4;
    let (bad, good) = (bench(1)?, bench(2)?);
    fs::create_dir_all(bad.volume().join("upper/root"))?;
    let program = include_str!("readings/silent.py");
    fs::write(bad.volume().join("upper/root/silent.py"), program)?;
    running(&bad, "exec python3 /root/silent.py /proc")?;
    let said = |what: &str| bad.found().is_ok_and(|found| found.contains(what));
    wait("the file system", || said("mounted="))?;
    expect(&bad.found()?, "mounted", "0")?;
    running(&good, WATCH)?;
    let figure = || {
        good.found()
            .is_ok_and(|found| found.trim_end().ends_with(&own_line()))
    };
    wait("the other space's own figure", figure)?;
    let pid = cgroup::first_process(&bad.cgroup()).context("no PID 1")?;
    let mounts = fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
    let mut numbers = Vec::new();
    for _ in 0..ROUNDS {
        kill_lxcfs()?;
        wait("the other's figure to go", || !figure())?;
        wait("the other's figure to come back", figure)?;
        wait("one that asks", || said("asked="))?;
        numbers.push(nodes_own_in(&mounts).len());
    }
    println!("of the node's, after each round: {numbers:?}");
    let left = nodes_own_in(&mounts);
    ensure!(
        numbers.iter().all(|number| *number <= 1) && left.len() == 1,
        "{numbers:?}, then {left:?}"
    );
    ensure!(
        cgroup::own_processes(&bad.cgroup()) == left,
        "it is not the space's"
    );
    // The control: nothing but the end of the file system ends it.
    let waits = Pidfd::open(left[0])?;
    waits.kill(Signal::SIGKILL)?;
    ensure!(
        !waits.wait_ended(Duration::from_secs(1))?,
        "a kill is enough, so this shows nothing"
    );
    cgroup::ensure_absent(&bad.cgroup(), Duration::from_secs(10))?;
    ensure!(nodes_own_in(&mounts).is_empty(), "one is left");
    Ok(())
}

fn nested() -> Result<()> {
    let bench = bench(1)?;
    let found = bench.run(
        "useradd -m ann; try='unshare -Urmpf --mount-proc true'; su ann -c \"$try\" && echo nested=yes; \
         umount /dev/.steading/proc; su ann -c \"$try\" || echo control=refused",
    )?;
    expect(&found, "nested", "yes")?;
    // Without the whole one the kernel shows no new /proc to whoever sees only one with files laid over.
    expect(&found, "control", "refused")
}

fn rights() -> Result<()> {
    wait("lxcfs", || mount::is_fuse_alive(Path::new(names::RUN_READINGS)))?;
    let all = cgroup::processes(Path::new(names::CGROUP_READINGS));
    let pid = all.first().context("no lxcfs runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("no {name} in {status}"))
    };
    let wanted = 1 << 2 | 1 << 18 | 1 << 19 | 1 << 21;
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        let bits = u64::from_str_radix(field(set)?, 16)?;
        ensure!(bits == wanted, "{set} {bits:x}");
    }
    ensure!(
        field("NoNewPrivs:")? == "1" && field("Seccomp:")? == "2",
        "{status}"
    );
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net"));
    ensure!(
        namespace(&pid.to_string())? != namespace("self")?,
        "it is on the node's network"
    );
    let links = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    ensure!(
        links.lines().filter(|line| line.contains(':')).count() == 1,
        "{links}"
    );
    // It mounts cgroup2 for itself, and the options of that are the machine's.
    wait("the border of cgroup namespaces", || {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        mounts
            .lines()
            .any(|line| line.contains(" cgroup2 ") && line.contains("nsdelegate,memory_recursiveprot"))
    })?;
    let most = fs::read_to_string(Path::new(names::CGROUP_READINGS).join("memory.max"))?;
    ensure!(most.trim() == "67108864", "memory.max is {most}");
    Ok(())
}
