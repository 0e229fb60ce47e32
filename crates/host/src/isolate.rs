//! How a space's processes are asked for: the request that `provision` writes and the helper
//! (`init` under the name [`HELPER_NAME`]) reads, in JSON, on standard input; one line answers.
//!
//! ```text
//!  agent run ── exec /init as steading-space, Request on stdin ──► helper ──► the space's PID 1
//!      ▲                                                             │
//!      └────────── {"pid":N} or {"error":"…","step":"…"} ────────────┘ then it exits
//! ```
//!
//! The helper is a fresh program with one thread, for the agent has many and must not fork.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{CommandError, Program, Run};

/// The name under which `init` is the helper.
pub const HELPER_NAME: &str = "steading-space";
/// Ids of one range: 0 to 65535 inside.
pub const RANGE: u32 = 65536;
/// The lowest first id of a range: below are the node's own.
pub const LOWEST_FIRST_ID: u32 = 100_000;

/// What the helper is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make a network namespace owned by a new user namespace.
    Network(NetworkStart),
    /// Start a space.
    Space(SpaceStart),
}

/// A network namespace for a space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkStart {
    /// An empty file: the namespace is bound there.
    pub path: PathBuf,
    /// The first id of the range that root inside is.
    pub first_id: u32,
}

/// Everything that the start of a space needs. The agent has prepared all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceStart {
    /// The base: a block device or file with an erofs, or a folder on which one is mounted.
    pub base: PathBuf,
    /// The base's SHA-256 in hex; written to `/run/steading/base-digest` inside.
    pub base_digest: String,
    /// The mounted volume, ids as on disk; `upper`, `work` and `data` on it are made if missing.
    pub volume: PathBuf,
    /// The first id of the space's range, the one its network namespace was made with.
    pub first_id: u32,
    /// The network namespace, made by [`crate::netns::create_owned`].
    pub netns: PathBuf,
    /// The cgroup, with its limits set and nobody in it.
    pub cgroup: PathBuf,
    /// The host name inside.
    pub hostname: String,
    /// PID 1 and its arguments; the first is an absolute path inside.
    #[serde(default = "default_argv")]
    pub argv: Vec<String>,
    /// A seccomp filter in the kernel's form (an array of `struct sock_filter`) that replaces the
    /// built-in one ([`crate::seccomp`]).
    #[serde(default)]
    pub seccomp: Option<PathBuf>,
}

/// The base's own first program: it becomes catatonit, which reaps, with sshd and what the user enabled below it.
pub fn default_argv() -> Vec<String> {
    vec!["/usr/lib/steading/start".to_owned()]
}

/// The helper's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The space's PID 1 runs what was asked; its number on the node.
    Started {
        /// The number.
        pid: i32,
    },
    /// Nothing runs and nothing is left mounted.
    Failed {
        /// Which step: "read the request", "mount the base", "execute".
        step: String,
        /// Why, with all causes.
        error: String,
    },
    /// It was made.
    Made {
        /// Always true.
        made: bool,
    },
}

/// A field of a request that no start can work with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {why}")]
pub struct InvalidStart {
    /// Which field.
    pub field: &'static str,
    /// What would be right.
    pub why: &'static str,
}

/// A range that no other space and nobody on the node has: from 100000 on, not wrapping.
pub fn check_range(first_id: u32) -> Result<(), InvalidStart> {
    let field = "first_id";
    if first_id < LOWEST_FIRST_ID {
        return Err(InvalidStart {
            field,
            why: "ids below 100000 are the node's own",
        });
    }
    // The last id of all, 4294967295, is the one that means "none".
    match first_id.checked_add(RANGE) {
        Some(_) => Ok(()),
        None => Err(InvalidStart {
            field,
            why: "the range of 65536 ids must end before 4294967295",
        }),
    }
}

impl SpaceStart {
    /// Refuses what cannot be meant, before anything is done.
    pub fn check(&self) -> Result<(), InvalidStart> {
        let refuse = |field, why| Err(InvalidStart { field, why });
        check_range(self.first_id)?;
        for (field, path) in [
            ("base", &self.base),
            ("volume", &self.volume),
            ("netns", &self.netns),
            ("cgroup", &self.cgroup),
        ] {
            if !path.is_absolute() {
                return refuse(field, "must be an absolute path");
            }
        }
        let label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if self.hostname.is_empty() || self.hostname.len() > 63 || !self.hostname.chars().all(label) {
            return refuse("hostname", "must be 1 to 63 letters, digits, hyphens or dots");
        }
        if !self.argv.first().is_some_and(|program| program.starts_with('/')) {
            return refuse("argv", "must begin with an absolute path");
        }
        if self.base_digest.len() != 64 || !self.base_digest.chars().all(|c| c.is_ascii_hexdigit()) {
            return refuse("base_digest", "must be 64 hex digits");
        }
        Ok(())
    }
}

/// Why the helper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IsolateError {
    /// The request itself is wrong.
    #[error("the request is wrong")]
    Invalid(#[from] InvalidStart),
    /// The helper did not run.
    #[error("the helper that starts spaces failed")]
    Helper(#[from] CommandError),
    /// It ran, and its answer cannot be read.
    #[error("the helper's answer cannot be read: {answer:?}")]
    Answer {
        /// The first bytes of it.
        answer: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A step of the start failed.
    #[error("step \"{step}\": {error}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        error: String,
    },
}

/// Starts a space; gives the number of its PID 1. Blocks.
pub fn start(space: &SpaceStart, limit: Duration) -> Result<i32, IsolateError> {
    space.check()?;
    match ask(&Request::Space(space.clone()), limit)? {
        Answer::Started { pid } => Ok(pid),
        other => Err(IsolateError::Step {
            step: "read the answer".into(),
            error: format!("{other:?} is no start"),
        }),
    }
}

/// Runs the helper with a request. Blocks.
pub fn ask(request: &Request, limit: Duration) -> Result<Answer, IsolateError> {
    let unreadable = |answer: &[u8], source| IsolateError::Answer {
        answer: String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned(),
        source,
    };
    let bytes = serde_json::to_vec(request).map_err(|e| unreadable(b"", e))?;
    let output = Run::new(Program::SpaceHelper)
        .stdin(bytes)
        .limit(limit)
        .accept(&[0, 1])
        .run()?;
    match serde_json::from_slice(&output.stdout).map_err(|e| unreadable(&output.stdout, e))? {
        Answer::Failed { step, error } => Err(IsolateError::Step { step, error }),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> SpaceStart {
        SpaceStart {
            base: "/run/steading/base/b".into(),
            base_digest: "0".repeat(64),
            volume: "/run/steading/volume/v".into(),
            first_id: 100_000,
            netns: "/run/steading/netns/s".into(),
            cgroup: "/sys/fs/cgroup/steading/c".into(),
            hostname: "calm-otter".into(),
            argv: default_argv(),
            seccomp: None,
        }
    }

    #[test]
    fn a_request_travels_as_json() {
        let request = Request::Space(start());
        let text = serde_json::to_string(&request).unwrap();
        assert!(text.starts_with("{\"space\":{\"base\":"), "{text}");
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    #[test]
    fn argv_and_seccomp_may_be_left_out() {
        let mut value = serde_json::to_value(start()).unwrap();
        value
            .as_object_mut()
            .unwrap()
            .retain(|key, _| key != "argv" && key != "seccomp");
        assert_eq!(serde_json::from_value::<SpaceStart>(value).unwrap(), start());
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(
            serde_json::from_str::<Answer>("{\"pid\":7}").unwrap(),
            Answer::Started { pid: 7 }
        );
        let failed: Answer = serde_json::from_str("{\"step\":\"execute\",\"error\":\"no\"}").unwrap();
        assert_eq!(
            failed,
            Answer::Failed {
                step: "execute".into(),
                error: "no".into()
            }
        );
        assert_eq!(
            serde_json::from_str::<Answer>("{\"made\":true}").unwrap(),
            Answer::Made { made: true }
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let with = |change: fn(&mut SpaceStart)| {
            let mut changed = start();
            change(&mut changed);
            changed.check().unwrap_err().field
        };
        assert_eq!(start().check(), Ok(()));
        assert_eq!(with(|s| s.first_id = 0), "first_id");
        assert_eq!(with(|s| s.first_id = 99_999), "first_id");
        assert_eq!(with(|s| s.first_id = u32::MAX - 65535), "first_id");
        assert_eq!(with(|s| s.volume = "relative".into()), "volume");
        assert_eq!(with(|s| s.hostname = "a\nb".into()), "hostname");
        assert_eq!(with(|s| s.argv = vec!["sh".into()]), "argv");
        assert_eq!(with(|s| s.base_digest = "zz".into()), "base_digest");
    }
}
