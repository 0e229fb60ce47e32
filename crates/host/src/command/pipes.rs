//! The talk with a child over its three pipes: fed and read at once, so that neither side waits for
//! the other for ever; bounded in time and in size.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CommandError, Output, Run};

/// Most that is kept of standard output.
const OUTPUT_LIMIT: usize = 4 << 20;
/// Most that is kept of standard error: its end.
const ERROR_LIMIT: usize = 2048;

impl Run {
    /// Feeds and reads until both outputs are closed, then waits, all within the bound.
    pub(super) fn converse(&self, child: &mut Child) -> Result<Output, CommandError> {
        let program = self.program.name();
        let broken = |source: io::Error| CommandError::Pipe { program, source };
        let end = Instant::now() + self.limit;
        let (mut stdin, mut stdout, mut stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        for fd in [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| broken(e.into()))?;
        }
        let (mut fed, mut output, mut errors) = (0, Vec::new(), Vec::new());
        if self.input.is_empty() {
            stdin = None;
        }
        while stdout.is_some() || stderr.is_some() {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return Err(CommandError::Late {
                    program,
                    limit: self.limit,
                    last_lines: last_lines(&errors),
                });
            };
            let input = stdin.as_ref().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLOUT));
            let out = stdout.as_ref().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN));
            let err = stderr.as_ref().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN));
            let mut fds: Vec<PollFd> = [input, out, err].into_iter().flatten().collect();
            wait_for(&mut fds, left).map_err(broken)?;
            if let Some(pipe) = stdin.as_mut() {
                match pipe.write(&self.input[fed..]) {
                    Ok(n) => fed += n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    // It closed its input: what it thinks of it, its exit code says.
                    Err(_) => fed = self.input.len(),
                }
                if fed == self.input.len() {
                    stdin = None;
                }
            }
            if read_some(&mut stdout, &mut output).map_err(broken)? > OUTPUT_LIMIT {
                return Err(CommandError::TooMuch {
                    program,
                    limit: OUTPUT_LIMIT,
                });
            }
            if read_some(&mut stderr, &mut errors).map_err(broken)? > 2 * ERROR_LIMIT {
                errors.drain(..errors.len() - ERROR_LIMIT);
            }
        }
        self.reap(child, end, output, &errors)
    }

    /// Waits for the end of a child that has closed its outputs.
    fn reap(
        &self,
        child: &mut Child,
        end: Instant,
        stdout: Vec<u8>,
        errors: &[u8],
    ) -> Result<Output, CommandError> {
        let program = self.program.name();
        let broken = |source: io::Error| CommandError::Pipe { program, source };
        let pidfd = crate::process::Pidfd::open(child.id() as i32).map_err(broken)?;
        let left = end.saturating_duration_since(Instant::now());
        if !pidfd.wait_ended(left).map_err(broken)? {
            return Err(CommandError::Late {
                program,
                limit: self.limit,
                last_lines: last_lines(errors),
            });
        }
        let status = child.wait().map_err(broken)?;
        match status.code() {
            Some(code) if self.accepted.contains(&code) => Ok(Output {
                code,
                stdout,
                last_lines: last_lines(errors),
            }),
            code => Err(CommandError::Failed {
                program,
                arguments: self.arguments.clone(),
                how: match (code, status.signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, signal) => format!("signal {}", signal.unwrap_or(0)),
                },
                last_lines: last_lines(errors),
            }),
        }
    }
}
/// Polls for at most `left`, again after a signal.
fn wait_for(fds: &mut [PollFd<'_>], left: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(left.min(Duration::from_secs(3600)).as_millis() as i32 + 1)
        .unwrap_or(PollTimeout::MAX);
    match poll(fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Reads what is there; at the end of the stream the pipe becomes `None`. Gives the length so far.
fn read_some<R: Read>(pipe: &mut Option<R>, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0u8; 8192];
    if let Some(reader) = pipe.as_mut() {
        match reader.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) => into.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(into.len())
}

/// The last four lines that say anything, in one line.
fn last_lines(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(ERROR_LIMIT)..];
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_one_line() {
        assert_eq!(
            last_lines(b"one\ntwo\n\n three \nfour\nfive\n"),
            "two | three | four | five"
        );
        assert_eq!(last_lines(b""), "");
    }
}
