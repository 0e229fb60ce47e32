//! The hand that strikes a node of the real image, which has no shell and no door for one.
//!
//! ```text
//!   the kernel ── rdinit=/usr/sbin/strike ──► strike, PID 1 ──exec──► /init, PID 1, as in the product
//!                                               └──spawn──► strike, a process of the node's root, in the first root:
//!                                                           reads orders from the serial line, answers in one line each
//! ```
//!
//! It lies beside the product's own programs in an initramfs of its own, which tests alone boot; `./x test` asserts
//! that the product has no such program. What it does is done by the kernel's own means: signals, a cgroup whose
//! memory is used up, bytes in a file, an instruction that is none in the memory of PID 1.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;

const SELF: &str = "/usr/sbin/strike";
const PROC: &str = "/strike/proc";
const LINE: &str = "/strike/line";
const HELD: &str = "/strike/held";
/// How long the kernel may take to find that a program has no memory.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return first();
    }
    match listen() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strike: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As PID 1: leaves a child, and is `init`.
fn first() -> ExitCode {
    if let Err(error) = Command::new(SELF).stdin(Stdio::null()).spawn() {
        eprintln!("strike: {error}");
    }
    let error = Command::new("/init").arg0("init").exec();
    eprintln!("strike: /init: {error}");
    ExitCode::FAILURE
}

/// What stood in the journal before it was spoilt.
#[derive(Default)]
struct Kept {
    files: Vec<(PathBuf, Option<Vec<u8>>)>,
    spoilt: Option<(PathBuf, Vec<u8>)>,
}

/// Takes one order a line for as long as the machine runs.
fn listen() -> Result<()> {
    fs::create_dir_all(PROC)?;
    nix::mount::mount(Some("proc"), PROC, Some("proc"), MsFlags::empty(), None::<&str>)
        .context("mounting /proc")?;
    mknod(
        LINE,
        SFlag::S_IFCHR,
        Mode::S_IRUSR | Mode::S_IWUSR,
        makedev(4, 64),
    )
    .context("making the serial line")?;
    // What the kernel kills for memory is not its killer.
    fs::write(format!("{PROC}/{}/oom_score_adj", std::process::id()), "-1000")?;
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NOCTTY)
        .open(LINE)?;
    let mut answers = line.try_clone()?;
    let mut kept = Kept::default();
    writeln!(answers, "strike: ready")?;
    for order in BufReader::new(line).lines() {
        let order = order?;
        let words: Vec<&str> = order.split_whitespace().collect();
        let done = match words.as_slice() {
            [] => continue,
            ["kill", signal] => kill_agent(signal),
            ["memory"] => starve_agent(),
            ["agent"] => agent().map(|pid| format!("the agent is {pid}")),
            ["spoil", how] => spoil(&mut kept, how),
            ["mend"] => mend(&mut kept),
            ["hold"] => hold(),
            ["fault"] => fault(),
            ["panic"] => panic(),
            other => bail!("{other:?} is no order"),
        };
        match done {
            Ok(said) => writeln!(answers, "strike: done: {said}")?,
            Err(error) => writeln!(answers, "strike: failed: {error:#}")?,
        }
    }
    Ok(())
}

/// A path as the node's programs see it, now that init has another root.
fn of_node(path: &str) -> PathBuf {
    Path::new(PROC).join("1/root").join(path.trim_start_matches('/'))
}

fn agent() -> Result<i32> {
    for entry in fs::read_dir(PROC)?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line == b"agent\0run\0" {
            return Ok(pid);
        }
    }
    bail!("no agent runs")
}

fn kill_agent(signal: &str) -> Result<String> {
    let signal: Signal = signal.parse().with_context(|| format!("{signal} is no signal"))?;
    let (pid, end) = (agent()?, Instant::now() + FOUND_WITHIN);
    // The runtime lets the first SEGV go by: a real one comes again, with the instruction that it ends.
    while fs::metadata(format!("{PROC}/{pid}/exe")).is_ok() && agent().is_ok_and(|now| now == pid) {
        kill(Pid::from_raw(pid), signal)?;
        ensure!(Instant::now() < end, "{signal} does not end it");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(format!("{signal} to {pid}"))
}

/// The kernel kills the agent for memory: it gets a cgroup that may have none.
fn starve_agent() -> Result<String> {
    let cgroup = of_node("/sys/fs/cgroup/strike");
    fs::create_dir_all(&cgroup)?;
    let pid = agent()?;
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())?;
    fs::write(cgroup.join("memory.max"), "0")?;
    let end = Instant::now() + FOUND_WITHIN;
    loop {
        let events = fs::read_to_string(cgroup.join("memory.events"))?;
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        if killed.is_some_and(|killed| killed != "0") {
            // Empty once its memory is given back.
            while fs::remove_dir(&cgroup).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(format!("the kernel killed {pid} for memory"));
        }
        ensure!(Instant::now() < end, "the kernel does not kill it: {events}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The journal of the first disk, and its log.
fn journal() -> Result<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(of_node("/run/steading/state")).context("looking for the journal")?;
    let folder = entries
        .flatten()
        .map(|entry| entry.path())
        .next()
        .context("no state")?;
    Ok((folder.join("journal.sqlite"), folder.join("journal.sqlite-wal")))
}

/// Stops the agent, spoils its journal, and kills it: the next one finds that.
fn spoil(kept: &mut Kept, how: &str) -> Result<String> {
    let pid = Pid::from_raw(agent()?);
    kill(pid, Signal::SIGSTOP)?;
    let (file, log) = journal()?;
    if kept.files.is_empty() {
        kept.files = vec![
            (file.clone(), fs::read(&file).ok()),
            (log.clone(), fs::read(&log).ok()),
        ];
    }
    if let Some((file, bytes)) = kept.spoilt.take() {
        ensure!(fs::read(&file)? == bytes, "somebody wrote to the spoilt journal");
    }
    let mut bytes = kept.files[0].1.clone().context("no journal")?;
    match how {
        "corrupt" => {
            // All pages but the first: what SQLite looks at when it opens a file is as it was.
            let from = 4096.min(bytes.len());
            bytes[from..].fill(0xa5);
        }
        // `user_version`: bytes 60 to 63 of the header, big-endian.
        "newer" => bytes[60..64].copy_from_slice(&99u32.to_be_bytes()),
        "older" => bytes[60..64].copy_from_slice(&0u32.to_be_bytes()),
        "absent" => {}
        other => bail!("{other} is no way to spoil it"),
    }
    let _ = fs::remove_file(&log);
    if how == "absent" {
        fs::remove_file(&file)?;
    } else {
        write(&file, &bytes)?;
        kept.spoilt = Some((file, bytes));
    }
    kill(pid, Signal::SIGKILL)?;
    Ok(format!("the journal is {how}"))
}

/// Puts the journal back as it was, says whether somebody wrote to the spoilt one, and kills the agent.
fn mend(kept: &mut Kept) -> Result<String> {
    let pid = Pid::from_raw(agent()?);
    kill(pid, Signal::SIGSTOP)?;
    let touched = match kept.spoilt.take() {
        Some((file, bytes)) => fs::read(&file)? != bytes,
        None => journal()?.0.exists(),
    };
    for (path, bytes) in kept.files.drain(..) {
        match bytes {
            Some(bytes) => write(&path, &bytes)?,
            None => drop(fs::remove_file(&path)),
        }
    }
    kill(pid, Signal::SIGKILL)?;
    Ok(format!(
        "mended, it was {}",
        if touched { "touched" } else { "as left" }
    ))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

/// The state of the first disk is mounted a second time, where nobody looks for it.
fn hold() -> Result<String> {
    let (file, _) = journal()?;
    let state = file.parent().context("no state")?;
    fs::create_dir_all(HELD)?;
    nix::mount::mount(Some(state), HELD, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("mounting the state once more")?;
    Ok("the state is in use".into())
}

/// An instruction that is none, where PID 1 goes on when it wakes; then it is woken.
fn fault() -> Result<String> {
    let end = Instant::now() + FOUND_WITHIN;
    let at = loop {
        // "NUMBER SIX ARGUMENTS STACK INSTRUCTION" while it waits in a system call.
        let text = fs::read_to_string(format!("{PROC}/1/syscall"))?;
        let last = text
            .split_whitespace()
            .nth(8)
            .and_then(|word| word.strip_prefix("0x"));
        if let Some(word) = last {
            break u64::from_str_radix(word, 16)?;
        }
        ensure!(Instant::now() < end, "PID 1 does not wait: {text}");
    };
    let memory = OpenOptions::new().write(true).open(format!("{PROC}/1/mem"))?;
    // ud2
    memory
        .write_all_at(&[0x0f, 0x0b], at)
        .context("writing to PID 1")?;
    kill(Pid::from_raw(1), Signal::SIGCHLD)?;
    Ok("PID 1 has a fault".into())
}

/// The kernel panics.
fn panic() -> Result<String> {
    fs::write(format!("{PROC}/sysrq-trigger"), "c")?;
    bail!("the kernel did not panic")
}
