//! Each limit of a space, proven by exceeding it.
//!
//! Whoever exceeds it is this program itself, started anew as a child that waits until it has been put into the cgroup.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::names;
use libtest_mimic::Trial;
use market::quantity::{Bytes, MilliCpus};
use provision::limits::{self, Device, DiskLimit, Limits};

use crate::trial;

const FIRST_ID: u32 = 1_000_000;
const MIB: u64 = 1 << 20;
/// How long a child keeps a CPU busy.
const LOOP: Duration = Duration::from_secs(5);
const BLANK: &str = "/dev/vdc";
/// Where the base of all spaces lies.
const BASE: &str = "/dev/vdd2";
/// How much of it is read.
const READ_MIB: u64 = 40;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("limits::they_read_back_and_are_delegated", read_back),
        trial("limits::memory_beyond_the_limit_is_death", memory),
        trial("limits::processes_beyond_the_limit_are_refused", processes),
        trial("limits::the_disk_is_as_slow_as_was_said", disk),
        trial("limits::the_base_is_read_no_faster_than_was_said", base),
        trial("limits::cpu_beyond_the_limit_is_waited_for", cpu),
        trial("limits::spaces_are_spread_over_processors", spread),
        trial("limits::cgroups_beyond_the_limit_are_refused", cgroups),
        trial("limits::an_end_leaves_nothing_of_a_tree", tree),
    ]
}

/// Where direct reads and writes begin in memory.
const ALIGNED: usize = 4096;

/// What this program does as a child: `agent exceed memory|pids|disk|base|cpu`. `None`: it is no such child.
pub fn child() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("exceed") {
        return None;
    }
    // Until the parent has put us into the cgroup.
    std::io::stdin().read_exact(&mut [0]).ok()?;
    match words.next().as_deref() {
        Some("memory") => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            for _ in 0..256 {
                held.push(vec![1; MIB as usize]);
            }
            println!("{}", held.len());
        }
        Some("pids") => {
            let threads = (0..100).map_while(|_| std::thread::Builder::new().spawn(std::thread::park).ok());
            println!("{}", threads.count());
        }
        Some("processors") => {
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let list = |line: &str| Some(line.strip_prefix("Cpus_allowed_list:")?.trim().to_owned());
            println!("{}", status.lines().find_map(list)?);
        }
        Some("disk") => {
            if let Err(error) = write_directly() {
                println!("{error:#}");
            }
        }
        Some("base") => match read_directly() {
            Ok(took) => println!("{took:.3}"),
            Err(error) => println!("{error:#}"),
        },
        _ => {
            // Both figures are taken in here: what the start of this program costs is none of the loop's.
            let before = used_here()?;
            let (start, mut turns) = (Instant::now(), 0u64);
            while start.elapsed() < LOOP {
                turns = std::hint::black_box(turns + 1);
            }
            println!("{}", used_here()? - before);
        }
    }
    // Threads that are parked end with the process.
    std::process::exit(0)
}

/// Microseconds of CPU time of the cgroup that this process is in.
fn used_here() -> Option<u64> {
    let own = host::cgroup::of(std::process::id().cast_signed())?;
    Some(limits::observe(&own).ok()?.cpu_us)
}

/// Zeros to a blank disk, past the page cache, so that it is blank afterwards as well.
fn write_directly() -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(BLANK)?;
    let bytes = vec![0u8; MIB as usize + ALIGNED];
    let start = bytes.as_ptr().align_offset(ALIGNED);
    for _ in 0..16 {
        file.write_all(
            bytes
                .get(start..start + MIB as usize)
                .context("no aligned bytes")?,
        )?;
    }
    println!("written");
    Ok(())
}

/// The base from the disk, past the page cache, again and again; how many seconds it took.
fn read_directly() -> Result<f64> {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(BASE)?;
    let mut bytes = vec![0u8; MIB as usize + ALIGNED];
    let start = bytes.as_ptr().align_offset(ALIGNED);
    let piece = bytes
        .get_mut(start..start + MIB as usize)
        .context("no aligned bytes")?;
    let (began, mut read) = (Instant::now(), 0);
    while read < READ_MIB * MIB {
        match file.read(piece)? {
            0 => {
                file.seek(SeekFrom::Start(0))?;
            }
            some => read += some as u64,
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

fn cgroup(number: u8) -> PathBuf {
    names::cgroup(&[number; 32])
}

fn small() -> Limits {
    Limits {
        cpu: MilliCpus(250),
        memory: Bytes(128 * MIB),
        pids: 64,
        disks: Vec::new(),
    }
}

/// Runs a child in a cgroup with these limits.
fn exceed(path: &std::path::Path, what: &str) -> Result<(ExitStatus, String)> {
    let mut child = Command::new("/proc/self/exe")
        .args(["exceed", what])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the child")?;
    let moved = move_into(&child, path);
    if moved.is_err() {
        child.kill()?;
    }
    moved?;
    child.stdin.take().context("the child's input")?.write_all(b"!")?;
    let output = child.wait_with_output()?;
    Ok((
        output.status,
        String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    ))
}

fn move_into(child: &Child, path: &std::path::Path) -> Result<()> {
    std::fs::write(path.join("cgroup.procs"), child.id().to_string()).context("moving the child")
}

fn read_back() -> Result<()> {
    let path = cgroup(0xc0);
    let disk = Device::of(std::path::Path::new("/dev/vdb"))?;
    let limits = Limits {
        disks: vec![DiskLimit::usual(disk)],
        ..small()
    };
    limits::ensure(&path, &limits, FIRST_ID)?;
    let read = |file: &str| std::fs::read_to_string(path.join(file)).map(|text| text.trim().to_owned());
    ensure!(
        read("cpu.max")? == "25000 100000",
        "cpu.max is {}",
        read("cpu.max")?
    );
    ensure!(
        read("memory.max")? == (128 * MIB).to_string(),
        "memory.max is {}",
        read("memory.max")?
    );
    ensure!(
        read("memory.swap.max")? == "0",
        "memory.swap.max is {}",
        read("memory.swap.max")?
    );
    ensure!(read("pids.max")? == "64", "pids.max is {}", read("pids.max")?);
    ensure!(
        read("io.max")?.starts_with(&format!("{}:{} rbps=", disk.major, disk.minor)),
        "io.max {}",
        read("io.max")?
    );
    for (file, owner) in [
        (".", FIRST_ID),
        ("cgroup.procs", FIRST_ID),
        ("memory.max", 0),
        ("pids.max", 0),
        ("cpu.max", 0),
    ] {
        let uid = std::fs::metadata(path.join(file))?.uid();
        ensure!(uid == owner, "{file} belongs to {uid}");
    }
    // Again, with another figure: what stands is replaced.
    limits::ensure(&path, &Limits { pids: 65, ..limits }, FIRST_ID)?;
    ensure!(read("pids.max")? == "65", "pids.max is {}", read("pids.max")?);
    limits::ensure_absent(&path)?;
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

fn memory() -> Result<()> {
    let path = cgroup(0xc1);
    limits::ensure(&path, &small(), FIRST_ID)?;
    let (status, said) = exceed(&path, "memory")?;
    ensure!(
        status.signal() == Some(9),
        "it was not killed: {status}, it held {said} MiB"
    );
    let seen = limits::observe(&path)?;
    ensure!(
        seen.oom_kills >= 1 && seen.memory_peak <= Bytes(128 * MIB),
        "{seen:?}"
    );
    // The kernel tells it, with a name of the space's choice: not on the farmer's console, where it was before.
    let level = told_at("Killed process")?;
    let text = std::fs::read_to_string("/proc/sys/kernel/printk")?;
    let shown_below: u8 = text.split_whitespace().next().unwrap_or_default().parse()?;
    ensure!(
        level >= shown_below && level < 4,
        "told at {level}, shown below {shown_below}"
    );
    // The control: with four times as much it comes through.
    limits::ensure(
        &path,
        &Limits {
            memory: Bytes(512 * MIB),
            ..small()
        },
        FIRST_ID,
    )?;
    let (status, said) = exceed(&path, "memory")?;
    ensure!(
        status.success() && said == "256",
        "{status}, it held {said} MiB of 256"
    );
    Ok(limits::ensure_absent(&path)?)
}

/// At which level the kernel said last what has these words in it.
fn told_at(words: &str) -> Result<u8> {
    let mut log = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    // One record a read; the first number is its facility and level.
    let (mut record, mut level) = (vec![0; 8192], None);
    while let Ok(bytes) = log.read(&mut record) {
        let text = String::from_utf8_lossy(&record[..bytes]);
        if let Some((head, said)) = text.split_once(';')
            && said.contains(words)
        {
            let number: u32 = head.split(',').next().unwrap_or_default().parse()?;
            level = Some((number & 7) as u8);
        }
    }
    level.with_context(|| format!("the kernel did not say {words:?}"))
}

fn processes() -> Result<()> {
    let path = cgroup(0xc2);
    limits::ensure(&path, &small(), FIRST_ID)?;
    let (_, said) = exceed(&path, "pids")?;
    ensure!(
        said == "63",
        "with room for 64 it made {said} threads beside its first"
    );
    let seen = limits::observe(&path)?;
    ensure!(seen.pids_refused >= 1, "nothing was counted: {seen:?}");
    limits::ensure(&path, &Limits { pids: 200, ..small() }, FIRST_ID)?;
    let (_, said) = exceed(&path, "pids")?;
    ensure!(said == "100", "with room for 200 it made {said} threads of 100");
    Ok(limits::ensure_absent(&path)?)
}

fn disk() -> Result<()> {
    let path = cgroup(0xc5);
    let device = Device::of(std::path::Path::new(BLANK))?;
    let with = |bytes_per_second| Limits {
        disks: vec![DiskLimit {
            bytes_per_second,
            ..DiskLimit::usual(device)
        }],
        cpu: MilliCpus(2000),
        ..small()
    };
    let timed = |limits: &Limits| -> Result<f64> {
        limits::ensure(&path, limits, FIRST_ID)?;
        let start = Instant::now();
        let (_, said) = exceed(&path, "disk")?;
        ensure!(said == "written", "{said}");
        Ok(start.elapsed().as_secs_f64())
    };
    let mut slow = f64::MAX;
    // Never sooner. Later is once in a while the computer's that emulates this machine: then it is measured again.
    for _ in 0..3 {
        let took = timed(&with(4 * MIB))?;
        ensure!(took > 3.6, "16 MiB at 4 MiB/s took {took:.2} s");
        slow = slow.min(took);
        if slow < 6.0 {
            break;
        }
    }
    ensure!(slow < 6.0, "16 MiB at 4 MiB/s took {slow:.2} s");
    let usual = timed(&with(200 * MIB))?;
    println!("16 MiB at 4 MiB/s: {slow:.2} s; without that limit {usual:.2} s");
    ensure!(
        usual < slow * 0.8,
        "without the limit they took {usual:.2} s as well"
    );
    Ok(limits::ensure_absent(&path)?)
}

/// All spaces read one base, and its unpacking is nobody's CPU time: so what one may read of it a second is limited.
fn base() -> Result<()> {
    let path = cgroup(0xc8);
    let timed = |disks: Vec<DiskLimit>| -> Result<f64> {
        limits::ensure(
            &path,
            &Limits {
                disks,
                cpu: MilliCpus(2000),
                ..small()
            },
            FIRST_ID,
        )?;
        let (_, said) = exceed(&path, "base")?;
        limits::ensure_absent(&path)?;
        said.parse().with_context(|| said.clone())
    };
    // A fifth of what is sold: any disk gives more than that.
    let usual = DiskLimit::of_base(Device::of(std::path::Path::new(BASE))?);
    let sold = DiskLimit {
        bytes_per_second: usual.bytes_per_second / 5,
        ..usual
    };
    let (held, free) = (timed(vec![sold])?, timed(Vec::new())?);
    let allowed = (READ_MIB * MIB) as f64 / sold.bytes_per_second as f64;
    println!(
        "{READ_MIB} MiB of the base: {held:.2} s, at least {allowed:.2} s by the limit; without the limit {free:.2} s"
    );
    ensure!(
        held > allowed * 0.9,
        "{READ_MIB} MiB of the base took {held:.2} s"
    );
    ensure!(
        free < allowed * 0.8,
        "without the limit they took {free:.2} s as well"
    );
    Ok(())
}

fn cpu() -> Result<()> {
    let path = cgroup(0xc3);
    limits::ensure(&path, &small(), FIRST_ID)?;
    let used = |(status, said): (ExitStatus, String)| -> Result<u64> {
        said.parse()
            .with_context(|| format!("the child ended with {status} and said {said:?}"))
    };
    let held = used(exceed(&path, "cpu")?)?;
    let seen = limits::observe(&path)?;
    println!("a quarter of a CPU, {LOOP:?} long: {held} us");
    // 1.25 s of 5 s.
    let wanted = 1_250_000.0;
    ensure!(
        (held as f64 - wanted).abs() < wanted * 0.15 && seen.throttled_periods > 25,
        "{held} us: {seen:?}"
    );
    limits::ensure(
        &path,
        &Limits {
            cpu: MilliCpus(2000),
            ..small()
        },
        FIRST_ID,
    )?;
    let free = used(exceed(&path, "cpu")?)?;
    ensure!(free > 2_500_000, "without the limit {free} us, with it {held} us");
    Ok(limits::ensure_absent(&path)?)
}

fn spread() -> Result<()> {
    let on = |path: &PathBuf| std::fs::read_to_string(path.join("cpuset.cpus")).map(|t| t.trim().to_owned());
    let with = |cpu| Limits {
        cpu: MilliCpus(cpu),
        ..small()
    };
    let paths: Vec<PathBuf> = (0xc7..0xca).map(cgroup).collect();
    for path in &paths {
        limits::ensure(path, &with(600), FIRST_ID)?;
    }
    let seen: Vec<String> = paths.iter().map(on).collect::<Result<_, _>>()?;
    // The third fits on neither alone.
    ensure!(seen == ["0", "1", "0-1"], "{seen:?}");
    ensure!(
        std::fs::metadata(paths[0].join("cpuset.cpus"))?.uid() == 0,
        "a space may move itself"
    );
    // Again, and with more: who is right stays, who grew moves.
    limits::ensure(&paths[1], &with(600), FIRST_ID)?;
    limits::ensure(&paths[0], &with(1200), FIRST_ID)?;
    ensure!(on(&paths[0])? == "0-1" && on(&paths[1])? == "1");
    // What runs there sees as many.
    let (_, said) = exceed(&paths[1], "processors")?;
    ensure!(said == "1", "on one processor it sees {said}");
    let (_, said) = exceed(&paths[0], "processors")?;
    ensure!(said == "0-1", "on two it sees {said}");
    for path in &paths {
        limits::ensure_absent(path)?;
    }
    Ok(())
}

fn cgroups() -> Result<()> {
    let path = cgroup(0xc6);
    limits::ensure(&path, &small(), FIRST_ID)?;
    // How many can be made side by side, and one in the other.
    let make = |deep: bool| -> u32 {
        let (mut at, mut made) = (path.clone(), 0);
        while made < 400 {
            let next = at.join(format!("c{made}"));
            if std::fs::create_dir(&next).is_err() {
                break;
            }
            made += 1;
            if deep {
                at = next;
            }
        }
        made
    };
    let wide = make(false);
    limits::ensure(&path, &small(), FIRST_ID)?;
    let deep = make(true);
    ensure!(
        wide == limits::MOST_CGROUPS && deep == limits::DEEPEST_CGROUP,
        "{wide} side by side, {deep} deep"
    );
    // The control.
    limits::ensure(&path, &small(), FIRST_ID)?;
    for file in ["cgroup.max.descendants", "cgroup.max.depth"] {
        std::fs::write(path.join(file), "max")?;
    }
    let wide = make(false);
    ensure!(wide == 400, "without the limit: {wide}");
    limits::ensure_absent(&path)?;
    limits::ensure_absent(&path).context("the second time")
}

fn tree() -> Result<()> {
    let path = cgroup(0xc4);
    limits::ensure(&path, &small(), FIRST_ID)?;
    // As systemd inside would: controllers on for children, and a process far below.
    let below = path.join("inside").join("deeper");
    std::fs::create_dir_all(&below)?;
    let mut child = Command::new("/proc/self/exe")
        .args(["exceed", "cpu"])
        .stdin(Stdio::piped())
        .spawn()?;
    std::fs::write(below.join("cgroup.procs"), child.id().to_string())?;
    std::fs::write(path.join("cgroup.subtree_control"), "+memory +pids")?;
    ensure!(limits::observe(&path)?.populated, "the child is not in it");
    limits::ensure_absent(&path)?;
    ensure!(!path.exists(), "{} is still there", path.display());
    ensure!(child.wait()?.signal() == Some(9), "the child was not killed");
    limits::ensure_absent(&path).context("the second time")
}
