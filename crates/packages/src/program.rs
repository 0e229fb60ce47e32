//! The one place that starts external programs: what ran and what it said travel in the error.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// A command with the locale fixed, so that what it prints can be read.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
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
