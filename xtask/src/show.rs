//! What a person at the terminal sees while things take their time.
//!
//! On a terminal a long step is one line that moves, with what it does and for how long;
//! it leaves one line behind. Off a terminal there is one line when it ends, and one every
//! twenty seconds until then, so that no minute is silent.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A step that takes its time. Dropped without `done`, it says that it failed.
pub struct Step {
    what: String,
    started: Instant,
    end: Option<Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

const WIDTH: usize = 62;

impl Step {
    /// Begins it.
    pub fn start(what: &str) -> Step {
        let (end, ended) = channel::<()>();
        let (text, started) = (what.to_string(), Instant::now());
        let terminal = std::io::stderr().is_terminal();
        let ticker = thread::spawn(move || {
            let pause = if terminal {
                Duration::from_millis(200)
            } else {
                Duration::from_secs(20)
            };
            loop {
                match ended.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {
                        let seconds = started.elapsed().as_secs();
                        if terminal {
                            eprint!("\r {text:<WIDTH$} {seconds:>5} s …");
                            let _ = std::io::stderr().flush();
                        } else {
                            eprintln!(" {text} … {seconds} s");
                        }
                    }
                    _ => return,
                }
            }
        });
        Step {
            what: what.into(),
            started: Instant::now(),
            end: Some(end),
            ticker: Some(ticker),
        }
    }

    /// Ends it; the line stays, with the time it took.
    pub fn done(self) {
        let what = self.what.clone();
        self.done_as(&what);
    }

    /// Ends it with other words: what came of it.
    pub fn done_as(mut self, words: &str) {
        self.stop();
        let seconds = self.started.elapsed().as_secs_f64();
        eprintln!("{} {words:<WIDTH$} {seconds:>5.1} s", clear());
    }

    fn stop(&mut self) -> bool {
        let running = self.end.take().is_some();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        running
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.stop() {
            eprintln!("{} {:<WIDTH$} failed", clear(), self.what);
        }
    }
}

fn clear() -> &'static str {
    if std::io::stderr().is_terminal() {
        "\r\u{1b}[K"
    } else {
        ""
    }
}

/// A heading between parts.
pub fn heading(text: &str) {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        eprintln!("\n\u{1b}[1m{text}\u{1b}[0m");
    } else {
        eprintln!("\n{text}");
    }
}
