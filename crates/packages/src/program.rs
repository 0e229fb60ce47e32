//! The one place that starts external programs: what ran and what it said travel in the error.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command with locale and time zone fixed, so that what it prints can be read, and what it writes is the same everywhere.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

/// A program of unpacked packages, under the loader and the libraries of these trees: `trees` in the order in which both are
/// looked for. What it makes does not depend on what is installed here.
pub fn pinned(trees: &[&Path], program: &str) -> Result<Command> {
    let find = |name: &str| {
        let found = trees
            .iter()
            .map(|tree| tree.join(name))
            .find(|path| path.exists());
        found.with_context(|| format!("no package of the lock brings {name}"))
    };
    let libraries: Vec<String> = trees
        .iter()
        .map(|tree| tree.join("usr/lib/x86_64-linux-gnu").display().to_string())
        .collect();
    let mut command = command(find("usr/lib64/ld-linux-x86-64.so.2")?);
    command
        .arg("--library-path")
        .arg(libraries.join(":"))
        .arg(find(program)?);
    Ok(command)
}

/// Runs to the end and returns standard output; an exit code other than 0 is an error with the last lines of stderr.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .output()
        .with_context(|| format!("cannot start {name}; ./x installs what is missing"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
        bail!("{name} failed ({}):\n  {tail}", out.status);
    }
    Ok(out.stdout)
}

/// The same, output as text.
pub fn text(command: &mut Command) -> Result<String> {
    String::from_utf8(output(command)?).context("output is not UTF-8")
}

/// The same, output dropped.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}
