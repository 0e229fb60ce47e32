//! Tests that run beside each other, because each waits more than it computes.
//!
//! ```text
//!   cargo test --no-run ─► programs of tests ─┬─► [`whole`]: as many at once as are asked for, what each said in one piece
//!                                             └─► [`line_by_line`]: all at once, each line with the name before it
//! ```

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::failures::Failures;

/// One program to run.
pub struct Job {
    /// What people call it.
    pub name: String,
    /// The program, ready to start.
    pub command: Command,
}

/// What a build of tests made: the program, the package's folder, where its tests expect to run.
pub struct Program {
    /// As its target in Cargo.toml.
    pub name: String,
    /// To be started.
    pub path: PathBuf,
    /// The folder of the package.
    pub folder: PathBuf,
}

/// Compiles tests (`cargo test --no-run` with these words) and says what to start.
pub fn compiled(mut cargo: Command, words: &[String]) -> Result<Vec<Program>> {
    let output = cargo
        .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(
        output.status.success(),
        "cargo test --no-run {} ended with {}",
        words.join(" "),
        output.status
    );
    let mut programs = Vec::new();
    for line in output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: serde_json::Value = serde_json::from_slice(line).context("a line of cargo")?;
        let (true, Some(path)) = (message["profile"]["test"] == true, message["executable"].as_str()) else {
            continue;
        };
        let text =
            |value: &serde_json::Value| value.as_str().map(str::to_owned).context("cargo left a name out");
        let manifest = PathBuf::from(text(&message["manifest_path"])?);
        let folder = manifest.parent().context("a manifest in no folder")?.to_owned();
        let package = folder
            .file_name()
            .context("a folder without a name")?
            .to_string_lossy()
            .into_owned();
        let target = text(&message["target"]["name"])?;
        programs.push(Program {
            name: if package == target {
                target
            } else {
                format!("{package}/{target}")
            },
            path: path.into(),
            folder,
        });
    }
    Ok(programs)
}

/// Runs them, as many at once as said; prints what each said when it ends. Those that failed are the error.
pub fn whole(jobs: Vec<Job>, at_once: usize) -> Result<()> {
    let jobs: Vec<_> = jobs
        .into_iter()
        .map(|job| (job.name, std::sync::Mutex::new(job.command)))
        .collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut failed = Vec::new();
        while let Some((name, command)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Ok(mut command) = command.lock() else { continue };
            let started = Instant::now();
            let word = match command.stdin(Stdio::null()).output() {
                Ok(output) => {
                    let said = [output.stdout, output.stderr].concat();
                    let said = String::from_utf8_lossy(&said);
                    let took = started.elapsed().as_secs_f64();
                    println!("\n     Running {name}: {took:.1} s\n{said}");
                    (!output.status.success()).then(|| {
                        format!(
                            "{name} ended with {}{}",
                            output.status,
                            Failures::of(&said).text()
                        )
                    })
                }
                Err(error) => Some(format!("{name} did not start: {error}")),
            };
            failed.extend(word);
        }
        failed
    };
    let failed = all(std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join()).collect()
    }));
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Runs all at once, and prints each line when it comes. Those that failed are the error.
pub fn line_by_line(jobs: Vec<Job>) -> Result<()> {
    let failed = all(std::thread::scope(|scope| {
        let workers: Vec<_> = jobs
            .into_iter()
            .map(|mut job| {
                scope.spawn(move || {
                    let ended = follow(&job.name, &mut job.command);
                    let word = ended.map(|(status, failures)| {
                        (!status.success()).then(|| format!("ended with {status}{}", failures.text()))
                    });
                    let word = word.unwrap_or_else(|error| Some(format!("{error:#}")));
                    word.map(|word| format!("{} {word}", job.name))
                        .into_iter()
                        .collect()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join()).collect()
    }));
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn all(workers: Vec<std::thread::Result<Vec<String>>>) -> Vec<String> {
    let panicked = |_| vec!["a thread that ran tests panicked".to_owned()];
    workers
        .into_iter()
        .flat_map(|said| said.unwrap_or_else(panicked))
        .collect()
}

fn follow(name: &str, command: &mut Command) -> Result<(ExitStatus, Failures)> {
    let (reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn().context("did not start")?;
    // The command holds the writing end: with it the last line would never come.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut failures = Failures::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{name:<5}| {line}");
        failures.read(&line);
    }
    Ok((child.wait()?, failures))
}
