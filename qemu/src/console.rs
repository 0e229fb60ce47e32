//! A running machine: its console line by line, and the ways in which it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::monitor::{Monitor, MonitorError};

/// One line of the console.
#[derive(Debug, Clone)]
pub struct Line {
    /// When its last byte arrived.
    pub at: SystemTime,
    /// The text, without escape sequences and line end; at most 4 KiB.
    pub text: String,
}

/// What was waited for did not come. The last lines of the console are in the message.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time ran out.
    #[error("{machine}: no line with \"{needle}\" within {} s; the console's last lines:\n{tail}", within.as_secs())]
    TimedOut {
        /// The machine.
        machine: String,
        /// What was looked for.
        needle: String,
        /// How long it was waited for.
        within: Duration,
        /// The last lines.
        tail: String,
    },
    /// The guest's kernel gave up.
    #[error("{machine}: the guest's kernel panicked before \"{needle}\"; the console's last lines:\n{tail}")]
    Panicked {
        /// The machine.
        machine: String,
        /// What was looked for.
        needle: String,
        /// The last lines.
        tail: String,
    },
    /// QEMU ended.
    #[error("{machine}: the machine ended before \"{needle}\"; the console's last lines:\n{tail}")]
    Ended {
        /// The machine.
        machine: String,
        /// What was looked for.
        needle: String,
        /// The last lines.
        tail: String,
    },
}

/// A running machine. Dropping it cuts its power.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    history: Vec<Line>,
    started: SystemTime,
    monitor: Option<PathBuf>,
}

const TAIL: usize = 60;
const HISTORY: usize = 20_000;
const LINE_MAX: usize = 4096;

impl Running {
    pub(crate) fn new(
        name: String,
        mut child: Child,
        log: Option<File>,
        monitor: Option<PathBuf>,
    ) -> Running {
        let (sender, lines) = channel();
        let log = Arc::new(Mutex::new(log));
        if let Some(out) = child.stdout.take() {
            read_lines(out, sender.clone(), Arc::clone(&log));
        }
        if let Some(err) = child.stderr.take() {
            read_lines(err, sender, log);
        }
        let stdin = child.stdin.take();
        Running {
            name,
            child,
            stdin,
            lines,
            history: Vec::new(),
            started: SystemTime::now(),
            monitor,
        }
    }

    /// Opens the machine's monitor: what a hand at the machine does.
    pub fn monitor(&self) -> Result<Monitor, MonitorError> {
        Monitor::open(self.monitor.as_deref())
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When QEMU was started: the moment of power-on.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// QEMU's process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The next line, or `None` when `deadline` passed or the machine ended.
    pub fn next_line(&mut self, deadline: Instant) -> Option<Line> {
        self.receive(deadline).ok()
    }

    /// Waits for a line that contains `needle`; lines before it go to the history.
    pub fn wait_for(&mut self, needle: &str, within: Duration) -> Result<Line, WaitError> {
        let deadline = Instant::now() + within;
        loop {
            match self.receive(deadline) {
                Ok(line) if line.text.contains(needle) => return Ok(line),
                Ok(line) if is_panic(&line.text) => {
                    // The rest of the report follows at once: it belongs into the error.
                    let until = Instant::now() + Duration::from_secs(2);
                    while self.receive(until).is_ok() {}
                    return Err(WaitError::Panicked {
                        machine: self.name.clone(),
                        needle: needle.into(),
                        tail: self.tail(),
                    });
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(WaitError::TimedOut {
                        machine: self.name.clone(),
                        needle: needle.into(),
                        within,
                        tail: self.tail(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(WaitError::Ended {
                        machine: self.name.clone(),
                        needle: needle.into(),
                        tail: self.tail(),
                    });
                }
            }
        }
    }

    /// The first line already seen that contains `needle`.
    pub fn seen(&mut self, needle: &str) -> Option<Line> {
        self.drain();
        self.history
            .iter()
            .find(|line| line.text.contains(needle))
            .cloned()
    }

    /// All lines so far.
    pub fn history(&mut self) -> &[Line] {
        self.drain();
        &self.history
    }

    /// Forgets the lines so far, so that `seen` speaks of what comes after.
    pub fn forget(&mut self) {
        self.drain();
        self.history.clear();
    }

    /// Types text into the console.
    pub fn type_text(&mut self, text: &str) -> std::io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()),
            None => Ok(()),
        }
    }

    /// Whether QEMU still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Pulls the plug: nothing in the guest is told. Returns when the process is gone.
    pub fn cut_power(mut self) {
        self.end();
    }

    /// Waits until the guest has powered itself off; `None` when it did not within the time.
    pub fn wait_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        // Both readers end with the process, so a closed channel is its end.
        while Instant::now() < deadline {
            match self.receive(deadline) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().ok(),
            }
        }
        None
    }

    fn receive(&mut self, deadline: Instant) -> Result<Line, RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left)?;
        self.keep(line.clone());
        Ok(line)
    }

    fn drain(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(line);
        }
    }

    fn keep(&mut self, line: Line) {
        if self.history.len() == HISTORY {
            self.history.drain(..HISTORY / 2);
        }
        self.history.push(line);
    }

    /// The last lines; all of a kernel's last report of a fault, which names the fault first.
    fn tail(&self) -> String {
        let last = self.history.len().saturating_sub(TAIL);
        let report = self.history.iter().rposition(|line| line.text.contains("Oops: "));
        self.history[report.map_or(last, |report| last.min(report))..]
            .iter()
            .map(|line| format!("  | {}\n", line.text))
            .collect()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_panic(line: &str) -> bool {
    line.contains("Kernel panic - not syncing") || line.contains("end Kernel panic")
}

fn read_lines(source: impl Read + Send + 'static, sender: Sender<Line>, log: Arc<Mutex<Option<File>>>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(source);
        loop {
            let mut raw = Vec::new();
            // A guest that never ends its line is cut into pieces instead of filling memory.
            match reader.by_ref().take(LINE_MAX as u64).read_until(b'\n', &mut raw) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = Line {
                at: SystemTime::now(),
                text: plain(&raw),
            };
            if let Ok(mut log) = log.lock()
                && let Some(file) = log.as_mut()
            {
                let _ = writeln!(file, "{}", line.text);
            }
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

/// The text of a console line without escape sequences (ECMA-48), carriage returns and other controls.
fn plain(raw: &[u8]) -> String {
    let mut out = String::new();
    let text = String::from_utf8_lossy(raw);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if rest.peek() == Some(&'[') {
                    rest.next();
                    for c in rest.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&c) {
                            break;
                        }
                    }
                } else {
                    rest.next();
                }
            }
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn running(script: &str) -> Running {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Running::new("sh".into(), child.expect("sh starts"), None, None)
    }

    #[test]
    fn colours_and_carriage_returns_are_gone() {
        assert_eq!(plain(b"\x1b[1;32m ok \x1b[0m\x1b[2Jdone\r\n"), " ok done");
    }

    #[test]
    fn waits_for_a_line_and_keeps_those_before() {
        let mut machine = running("echo one; echo two; read x; echo got $x");
        assert_eq!(
            machine.wait_for("two", Duration::from_secs(5)).expect("two").text,
            "two"
        );
        assert!(machine.seen("one").is_some());
        machine.type_text("three\n").expect("typed");
        machine
            .wait_for("got three", Duration::from_secs(5))
            .expect("got");
        assert!(
            machine
                .wait_exit(Duration::from_secs(5))
                .expect("ended")
                .success()
        );
    }

    #[test]
    fn a_panic_ends_the_wait_with_the_console() {
        let mut machine = running(
            "echo 'Oops: int3: 0000'; seq 1000; echo 'Kernel panic - not syncing: x'; echo trace; read x",
        );
        let error = machine
            .wait_for("never", Duration::from_secs(20))
            .expect_err("a panic");
        assert!(
            matches!(&error, WaitError::Panicked { tail, .. } if tail.contains("trace") && tail.contains("int3"))
        );
    }

    #[test]
    fn the_end_of_the_machine_ends_the_wait() {
        let mut machine = running("echo bye");
        let error = machine
            .wait_for("never", Duration::from_secs(20))
            .expect_err("an end");
        assert!(matches!(&error, WaitError::Ended { tail, .. } if tail.contains("bye")));
    }
}
