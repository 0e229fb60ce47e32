//! Long work as a line that moves and leaves one line behind, on standard error.
//!
//! ```text
//!  building  volume · network · limits · ssh                    3 s …      while it works
//!  building  volume · network · limits · ssh                       1.9 s   once it is done
//! ```
//! Off a terminal nothing moves: a line when a step is done, and one every twenty seconds until
//! then, so that no minute is silent.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Colour;

const LABEL: usize = 9;
const WORDS: usize = 56;
const WIDTH: usize = 79;
const MOVES_EVERY: Duration = Duration::from_millis(250);
const SAYS_EVERY: Duration = Duration::from_secs(20);

/// The steps of one command.
pub struct Steps {
    shared: Arc<Mutex<Shared>>,
    colour: Colour,
    is_terminal: bool,
}

struct Shared {
    now: Option<Now>,
    is_over: bool,
}

struct Now {
    label: String,
    doing: String,
    since: Instant,
    said: Instant,
    colour: Colour,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A line on a screen has no invariant that a panic elsewhere could break.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Steps {
    fn default() -> Steps {
        Steps::new()
    }
}

impl Steps {
    /// Starts the thread that moves the line.
    pub fn new() -> Steps {
        let shared = Arc::new(Mutex::new(Shared {
            now: None,
            is_over: false,
        }));
        let is_terminal = std::io::stderr().is_terminal();
        let moving = shared.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(MOVES_EVERY);
                let mut shared = lock(&moving);
                if shared.is_over {
                    return;
                }
                if let Some(now) = &mut shared.now {
                    now.show(is_terminal);
                }
            }
        });
        Steps {
            shared,
            colour: Colour::of(&std::io::stderr()),
            is_terminal,
        }
    }

    /// A step begins.
    pub fn begin(&mut self, label: &str, doing: impl Into<String>) {
        self.clear();
        let (since, said) = (Instant::now(), Instant::now());
        let now = Now {
            label: label.to_owned(),
            doing: doing.into(),
            since,
            said,
            colour: self.colour,
        };
        if self.is_terminal {
            now.draw();
        }
        lock(&self.shared).now = Some(now);
    }

    /// What it is doing now.
    pub fn doing(&mut self, doing: impl Into<String>) {
        if let Some(now) = &mut lock(&self.shared).now {
            now.doing = doing.into();
        }
    }

    /// It is done: one line stays.
    pub fn done(&mut self, label: &str, words: impl AsRef<str>) {
        self.leave(&line(label, words.as_ref()));
    }

    /// It is done, and how long it took matters.
    pub fn done_in(&mut self, label: &str, words: &str, seconds: f64) {
        self.leave(&format!(
            "{:<width$}{seconds:>6.1} s",
            line(label, words),
            width = LABEL + WORDS
        ));
    }

    /// It failed: the line stays, and is seen.
    pub fn failed(&mut self, label: &str, words: impl AsRef<str>) {
        let text = self.colour.accent(&line(label, words.as_ref()));
        self.leave(&text);
    }

    /// It is done, and there is nothing to say.
    pub fn quiet(&mut self) {
        self.clear();
    }

    fn leave(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    fn clear(&mut self) {
        let had = lock(&self.shared).now.take().is_some();
        if had && self.is_terminal {
            eprint!("\r\u{1b}[K");
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.clear();
        lock(&self.shared).is_over = true;
    }
}

fn line(label: &str, words: &str) -> String {
    format!(" {label:<LABEL$} {words}")
}

impl Now {
    fn show(&mut self, is_terminal: bool) {
        if is_terminal {
            self.draw();
        } else if self.said.elapsed() >= SAYS_EVERY {
            self.said = Instant::now();
            eprintln!(
                "{} ({} s so far)",
                line(&self.label, &self.doing),
                self.since.elapsed().as_secs()
            );
        }
    }

    fn draw(&self) {
        let text = moving_line(&self.label, &self.doing, self.since.elapsed().as_secs());
        eprint!("\r\u{1b}[K{}", self.colour.dim(&text));
        let _ = std::io::stderr().flush();
    }
}

/// Never wider than the screen, or it would not be one line.
fn moving_line(label: &str, doing: &str, seconds: u64) -> String {
    let time = format!("{seconds} s …");
    let room = WIDTH - LABEL - 3 - time.chars().count();
    let words: String = doing.chars().take(room).collect();
    let line = line(label, &words);
    let pad = WIDTH - time.chars().count() - line.chars().count().min(WIDTH - time.chars().count());
    format!("{line}{}{time}", " ".repeat(pad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_line_fits_the_screen_whatever_it_says() {
        for (doing, seconds) in [("short", 3), (&"long ".repeat(40)[..], 12_345), ("", 0)] {
            let text = moving_line("building", doing, seconds);
            assert_eq!(text.chars().count(), WIDTH, "{text:?}");
        }
        assert_eq!(
            line("sale", "9c41…d07e signed by both"),
            " sale      9c41…d07e signed by both"
        );
    }
}
