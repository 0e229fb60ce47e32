//! A program that serves until it is dropped, and says on its first line how to reach it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A running service.
#[derive(Debug)]
pub struct Service {
    child: Child,
    first_line: String,
    log: PathBuf,
}

/// Two busy cores and a cold disk: a start takes milliseconds, but not always.
const START_WITHIN: Duration = Duration::from_secs(60);

impl Service {
    /// Starts it; standard error goes to `log`; returns after its first line on standard output.
    pub fn start(name: &str, program: &Path, arguments: &[&str], log: &Path) -> Result<Service> {
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("writing {}", log.display()))?;
        // A service must not outlive whoever started it, however that one ended.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let out = child.stdout.take().context("no standard output")?;
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(out).lines();
            let _ = sender.send(lines.next());
            // The rest is read so that the service never blocks on a full pipe.
            for _ in lines {}
        });
        match receiver.recv_timeout(START_WITHIN) {
            Ok(Some(Ok(first_line))) => Ok(Service {
                child,
                first_line,
                log: log.to_path_buf(),
            }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{name} did not start; it said:\n{said}")
            }
        }
    }

    /// How to reach it, as it says itself.
    pub fn first_line(&self) -> &str {
        self.first_line.trim()
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
