//! The stage `fuzz`: every target in `fuzz/fuzz_targets` for some seconds (`--long`: minutes), by libFuzzer.
//!
//! cargo-fuzz is not needed. Our own crates alone are compiled with coverage: xtask stands before rustc as
//! `RUSTC_WORKSPACE_WRAPPER`, so what we depend on is the same that every other stage uses. A stable toolchain does.
//!
//! ```text
//!   cargo build ──► xtask (as the wrapper) ──► rustc + coverage, for crates of the target
//!   run TARGET: artefacts/fuzz/TARGET (grows) ◄── fuzz/corpus/TARGET (seeds, in git)
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::tree::Tree;

/// What tells xtask that cargo calls it in the place of rustc.
const AS_COMPILER: &str = "STEADING_FUZZ_COMPILER";
/// What libFuzzer needs of the code that it drives.
const COVERAGE: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];
/// A target that grows beyond this has a leak or believes a length.
const MOST_MIB: u32 = 1024;
/// No input may take longer.
const SLOWEST: Duration = Duration::from_secs(10);

/// How long each target runs.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Of one target.
    pub each: Duration,
}

impl Budget {
    /// Seconds, or minutes.
    pub fn of(long: bool) -> Budget {
        let seconds = if long { 120 } else { 3 };
        Budget {
            each: Duration::from_secs(seconds),
        }
    }
}

/// What came of one target.
struct Ran {
    name: String,
    executions: u64,
    fault: Option<String>,
}

/// Where cargo calls us in the place of rustc: rustc with coverage. None elsewhere.
pub fn as_compiler() -> Option<ExitCode> {
    std::env::var_os(AS_COMPILER)?;
    build::run_compiler(COVERAGE.map(str::to_owned))
}

/// Builds all targets and runs those whose name contains the filter.
pub fn run(tree: &Tree, filter: Option<&str>, budget: Budget) -> Result<()> {
    let chosen: Vec<String> = targets(tree)?
        .into_iter()
        .filter(|name| filter.is_none_or(|part| name.contains(part)))
        .collect();
    ensure!(!chosen.is_empty(), "no fuzz target has such a name");
    compile(tree, &chosen)?;
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let ran: Vec<Result<Ran>> = std::thread::scope(|scope| {
        let worker = || {
            let mut ran = Vec::new();
            while let Some(name) = chosen.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                ran.push(drive(tree, name, budget));
            }
            ran
        };
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    report(ran, chosen.len())
}

/// The folder is the list.
fn targets(tree: &Tree) -> Result<Vec<String>> {
    let folder = tree.root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn compile(tree: &Tree, targets: &[String]) -> Result<()> {
    let mut cargo = build::cargo(tree);
    cargo
        .arg("build")
        .args(build::everything())
        .args(["--features", "fuzz/engine"]);
    cargo.args(targets.iter().flat_map(|name| ["--bin", name]));
    cargo.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?);
    cargo
        .env(AS_COMPILER, "1")
        .env("CXX_x86_64_unknown_linux_gnu", "clang++");
    let status = cargo.status().context("starting cargo")?;
    ensure!(status.success(), "the fuzz targets do not compile");
    Ok(())
}

fn drive(tree: &Tree, name: &str, budget: Budget) -> Result<Ran> {
    let grown = fresh(&tree.artefact(&format!("fuzz/{name}")))?;
    let seeds = tree.root().join("fuzz/corpus").join(name);
    let crashes = tree.artefact("fuzz/crashes");
    std::fs::create_dir_all(&crashes)?;
    let mut target = Command::new(build::program(tree, name)?);
    target.arg(&grown).arg(&seeds).stdin(Stdio::null());
    target.arg(format!("-artifact_prefix={}/{name}-", crashes.display()));
    target.arg(format!("-max_total_time={}", budget.each.as_secs()));
    target.arg(format!("-timeout={}", SLOWEST.as_secs()));
    target.arg(format!("-rss_limit_mb={MOST_MIB}"));
    target.args([
        "-print_final_stats=1",
        "-verbosity=0",
        "-max_len=4096",
        "-close_fd_mask=1",
    ]);
    let output = target
        .output()
        .with_context(|| format!("starting the target {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let executions = said.lines().find_map(|line| {
        line.strip_prefix("stat::number_of_executed_units:")?
            .trim()
            .parse()
            .ok()
    });
    Ok(Ran {
        name: name.to_owned(),
        executions: executions.unwrap_or(0),
        fault: (!output.status.success() || executions.unwrap_or(0) == 0).then(|| last_lines(&said)),
    })
}

/// An empty folder: each run grows from the seeds, so that runs can be compared.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn report(ran: Vec<Result<Ran>>, chosen: usize) -> Result<()> {
    let mut ran = ran.into_iter().collect::<Result<Vec<Ran>>>()?;
    ran.sort_by(|a, b| a.name.cmp(&b.name));
    let mut faults = Vec::new();
    for one in &ran {
        let word = if one.fault.is_some() { "FAILED" } else { "ok" };
        println!(" {:<18}{:>12} executions  {word}", one.name, one.executions);
        if let Some(fault) = &one.fault {
            faults.push(format!("{}:\n{fault}", one.name));
        }
    }
    let all: u64 = ran.iter().map(|one| one.executions).sum();
    println!(
        "fuzz: {chosen} targets, {all} executions, {} failed",
        faults.len()
    );
    ensure!(ran.len() == chosen, "{} of {chosen} targets ran", ran.len());
    if !faults.is_empty() {
        bail!("{}", faults.join("\n\n"));
    }
    Ok(())
}
