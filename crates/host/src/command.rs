//! The one owner of external programs.
//!
//! A program is named by a [`Program`], run with an empty environment (`PATH`, `LC_ALL=C`), fed
//! its input, and bound in time and in output. Its error says what was run, how it ended, and the
//! last lines of what it said. Nothing in Steading calls `std::process::Command` beside this file
//! and `process`, and nothing calls a shell.
//!
//! Safe in a threaded process: the standard library starts children without running our code in
//! them. The child is waited for by its own pid alone.
//!
//! ```text
//!   agent    open(disk, O_EXCL) ──────────────────► close     open again ─► EBUSY
//!                        └─ a child begins: it has the disk open too, until it executes
//!                           its program, and for its whole life where C opened without O_CLOEXEC
//! ```
//!
//! So whoever opens disks, in C or alone, holds [`Starts`] meanwhile: no child begins until it is dropped.

mod pipes;
mod starts;

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub use starts::Starts;

/// The programs that the image carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Firewall rules, from standard input.
    Nft,
    /// Makes a file system.
    MkfsExt4,
    /// Checks one.
    E2fsck,
    /// Grows one.
    Resize2fs,
    /// Prints and sets its parameters.
    Tune2fs,
    /// `init`, executed anew as the helper that starts a space.
    SpaceHelper,
}

impl Program {
    /// The file that is executed.
    pub fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Nft => "/usr/sbin/nft",
            Self::MkfsExt4 => "/usr/sbin/mkfs.ext4",
            Self::E2fsck => "/usr/sbin/e2fsck",
            Self::Resize2fs => "/usr/sbin/resize2fs",
            Self::Tune2fs => "/usr/sbin/tune2fs",
            Self::SpaceHelper => "/init",
        })
    }

    /// The name under which it is called, and under which errors speak of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::MkfsExt4 => "mkfs.ext4",
            Self::E2fsck => "e2fsck",
            Self::Resize2fs => "resize2fs",
            Self::Tune2fs => "tune2fs",
            Self::SpaceHelper => crate::isolate::HELPER_NAME,
        }
    }
}

/// Why a program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there or cannot be executed.
    #[error("{program} cannot be started")]
    Start {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The pipes to it broke in an unexpected way.
    #[error("the pipes to {program} failed")]
    Pipe {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran into its time bound and was killed.
    #[error("{program} was still running after {} s and was killed{}", limit.as_secs(), said(.last_lines))]
    Late {
        /// Which.
        program: &'static str,
        /// The bound.
        limit: Duration,
        /// The last lines that it wrote to standard error.
        last_lines: String,
    },
    /// It wrote more than was expected of it.
    #[error("{program} wrote more than {limit} bytes")]
    TooMuch {
        /// Which.
        program: &'static str,
        /// The bound.
        limit: usize,
    },
    /// It ended with an exit code that is no success, or by a signal.
    #[error("{program} {} ended with {how}{}", arguments.join(" "), said(.last_lines))]
    Failed {
        /// Which.
        program: &'static str,
        /// Its arguments.
        arguments: Vec<String>,
        /// "exit code 1", "signal 9".
        how: String,
        /// The last lines that it wrote to standard error.
        last_lines: String,
    },
}

fn said(lines: &str) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!(": {lines}")
    }
}

/// What a program that succeeded left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code: 0, or one of [`Run::accept`].
    pub code: i32,
    /// Its standard output, at most 4 MiB.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error.
    pub last_lines: String,
}

/// One run of a program.
#[derive(Debug)]
pub struct Run {
    program: Program,
    arguments: Vec<String>,
    input: Vec<u8>,
    limit: Duration,
    accepted: &'static [i32],
}

impl Run {
    /// A run with no arguments, no input and 60 s.
    pub fn new(program: Program) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            input: Vec::new(),
            limit: Duration::from_secs(60),
            accepted: &[0],
        }
    }

    /// Adds arguments. No secret belongs here: `/proc` shows them.
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a path as an argument.
    pub fn path(mut self, path: &Path) -> Self {
        self.arguments.push(path.to_string_lossy().into_owned());
        self
    }

    /// Sets what it reads from standard input.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Sets how long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the exit codes that are a success (`e2fsck` says 1 for "corrected").
    pub fn accept(mut self, codes: &'static [i32]) -> Self {
        self.accepted = codes;
        self
    }

    /// Runs it and waits for it. Blocks: on a tokio runtime call it in `spawn_blocking`.
    pub fn run(self) -> Result<Output, CommandError> {
        let program = self.program.name();
        let mut child = starts::begin(
            Command::new(self.program.path())
                .arg0(program)
                .args(&self.arguments)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("LC_ALL", "C")
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
        .map_err(|source| CommandError::Start { program, source })?;
        let result = self.converse(&mut child);
        if result.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        result
    }
}

/// Replaces firewall rules: one transaction from `rules`, in the network namespace bound at
/// `netns`, or in the caller's.
pub fn nft(rules: &str, netns: Option<&Path>) -> Result<Output, NftError> {
    let run = Run::new(Program::Nft)
        .args(["-f", "-"])
        .stdin(rules)
        .limit(Duration::from_secs(30));
    match netns {
        None => run.run().map_err(NftError::Command),
        Some(path) => crate::netns::run_in(path, move || run.run())
            .map_err(NftError::Netns)?
            .map_err(NftError::Command),
    }
}

/// Lists the rules of a namespace, as `nft -j list ruleset` does.
pub fn nft_ruleset(netns: Option<&Path>) -> Result<Output, NftError> {
    let run = Run::new(Program::Nft)
        .args(["-j", "list", "ruleset"])
        .limit(Duration::from_secs(30));
    match netns {
        None => run.run().map_err(NftError::Command),
        Some(path) => crate::netns::run_in(path, move || run.run())
            .map_err(NftError::Netns)?
            .map_err(NftError::Command),
    }
}

/// Why rules were not set.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program refused them.
    #[error("the firewall rules were refused")]
    Command(#[source] CommandError),
    /// The namespace could not be entered.
    #[error("the network namespace of the rules cannot be entered")]
    Netns(#[source] crate::netns::NetnsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_program_and_what_it_said() {
        let error = Run::new(Program::E2fsck)
            .args(["-n", "/nonexistent"])
            .run()
            .unwrap_err();
        match error {
            CommandError::Failed {
                program: "e2fsck",
                how,
                last_lines,
                ..
            } => {
                assert_eq!(how, "exit code 8");
                assert!(last_lines.contains("nonexistent"), "{last_lines}");
            }
            CommandError::Start {
                program: "e2fsck", ..
            } => assert!(!Program::E2fsck.path().exists()),
            other => panic!("{other:?}"),
        }
    }
}
