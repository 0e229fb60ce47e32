//! The consoles themselves: which there are, and a thread for each.
//!
//! ```text
//!              a key                     answers with its size
//!   Lines ───────────────► Asked (1 s) ─────────────────────► Screen     a serial line
//!     ▲ ▲                    │ no answer, or too small           │
//!     │ └────────────────────┘                                   │
//!     └────── Esc on the page, or five minutes without a key ────┘
//!                                             Screen, always             a virtual terminal
//! ```
//!
//! A serial line that nobody answers on may be a log: it gets every event as a line, and the page when it changed. Each
//! console has its own dialog. Input is a stranger's: it is read a little at a time, and keys beyond a person's pace are
//! dropped, so that a flood costs neither time nor memory, and writes nothing down.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use host::terminal::Terminal;
use tokio::sync::mpsc;

use super::board::{Board, Shown};
use super::dialog::{Act, Dialog, ENDS_AFTER_SECONDS, Outcome};
use super::keys::{Key, Parser};
use super::lines::{LOG_LINES, Lines};
use super::render::Now;
use super::screen::{LEAST, Screen};

/// The screen of a terminal is drawn at least so often: its clock runs.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// And no more often than this, whatever happens or is typed.
const REDRAW_AT_MOST: Duration = Duration::from_millis(40);
/// All of a screen is written anew so often.
const REPAINT_EVERY: Duration = Duration::from_secs(10);
/// A console that cannot be opened or written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A terminal answers within this what size it has.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// A serial terminal that nobody types at becomes a log again.
const LEFT_AFTER: Duration = Duration::from_secs(300);
/// Bytes that are read at once; more than a line at 115200 bit/s brings in the time between two reads.
const READ_AT_ONCE: usize = 1024;
/// Escape alone is a key when nothing follows it for so long.
const ESCAPE_ALONE: Duration = Duration::from_millis(150);
/// Keys that may come at once, and so many more a second: a word that is pasted, and nobody types faster.
const KEYS_AT_ONCE: u32 = 128;
const KEYS_A_SECOND: u32 = 32;

/// Asks where the cursor stands when it is sent to the far corner.
const ASK_SIZE: &str = "\x1b7\x1b[999;999H\x1b[6n\x1b8";
/// A screen of its own, and back.
const ENTER: &str = "\x1b[?1049h\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[2J\x1b[H\x1b[?1049l";

/// How a console is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Terminal,
    Line,
}

/// What was confirmed at a console, and at which.
pub type Acted = (String, Act);

/// Starts a thread for every console of the machine. What is confirmed at them goes to `acts`.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(board: &Board, acts: &mpsc::Sender<Acted>) -> io::Result<Vec<String>> {
    let consoles = consoles(Path::new("/sys"));
    for (name, kind) in &consoles {
        let mut console = Console::new(board.clone(), acts.clone(), name, *kind);
        thread::Builder::new()
            .name(format!("console-{name}"))
            .spawn(move || console.serve())?;
    }
    Ok(consoles.into_iter().map(|(name, _)| name).collect())
}

/// Every console of the machine, and how it is written.
fn consoles(sys: &Path) -> Vec<(String, Kind)> {
    host::console::names(sys)
        .into_iter()
        .map(|name| {
            let digit = name
                .strip_prefix("tty")
                .is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()));
            let kind = if digit { Kind::Terminal } else { Kind::Line };
            (name, kind)
        })
        .collect()
}

/// How a console shows things now.
enum Form {
    Lines,
    /// Asked for its size; lines, if it does not answer until then.
    Asked(Instant),
    Screen(Screen),
}

/// Keys in a person's pace: a bucket that fills itself.
struct Pace {
    left: u32,
    filled: Instant,
}

impl Pace {
    fn new(at: Instant) -> Self {
        Self {
            left: KEYS_AT_ONCE,
            filled: at,
        }
    }

    fn takes(&mut self, at: Instant) -> bool {
        let since = at.duration_since(self.filled);
        let more = u32::try_from(since.as_millis() * u128::from(KEYS_A_SECOND) / 1000).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(KEYS_AT_ONCE);
            self.filled = at;
        }
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        takes
    }
}

/// One console.
struct Console {
    board: Board,
    acts: mpsc::Sender<Acted>,
    name: String,
    kind: Kind,
    form: Form,
    lines: Lines,
    dialog: Dialog,
    parser: Parser,
    pace: Pace,
    last_key: Instant,
    last_byte: Instant,
    painted: Instant,
    /// Whether the terminal was ever asked for its size.
    asked: bool,
    /// Somebody asked for the view; or typed a letter.
    wants: Wants,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wants {
    News,
    Typed,
    View,
}

impl Console {
    fn new(board: Board, acts: mpsc::Sender<Acted>, name: &str, kind: Kind) -> Self {
        let now = Instant::now();
        Self {
            board,
            acts,
            name: name.to_owned(),
            kind,
            form: Form::Lines,
            lines: Lines::default(),
            dialog: Dialog::default(),
            parser: Parser::default(),
            pace: Pace::new(now),
            last_key: now,
            last_byte: now,
            painted: now,
            asked: false,
            wants: Wants::News,
        }
    }

    /// Until the process ends: opens it again where it was lost.
    fn serve(&mut self) {
        let path = Path::new("/dev").join(&self.name);
        loop {
            let served = Terminal::open(&path).and_then(|mut terminal| self.talk(&mut terminal));
            if let Err(error) = served {
                tracing::debug!(console = self.name, %error, "console lost");
            }
            self.dialog.end();
            self.form = Form::Lines;
            thread::sleep(AGAIN_AFTER);
        }
    }

    /// Reads and writes until the console is lost.
    fn talk(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        let bell = self.board.bell()?;
        loop {
            let began = Instant::now();
            self.round(terminal, began)?;
            let limit = if self.parser.is_within() {
                ESCAPE_ALONE
            } else {
                REDRAW_EVERY
            };
            let came = terminal.wait(bell.as_fd(), limit)?;
            thread::sleep(REDRAW_AT_MOST.saturating_sub(began.elapsed()));
            silence(&bell);
            if came {
                self.read(terminal)?;
            } else if self.parser.is_within()
                && self.last_byte.elapsed() >= ESCAPE_ALONE
                && let Some(key) = self.parser.pause()
            {
                self.press(key, terminal, Instant::now())?;
            }
        }
    }

    /// Writes what there is to show, unless the console has not taken what there was.
    fn round(&mut self, terminal: &mut Terminal, at: Instant) -> io::Result<()> {
        terminal.flush()?;
        self.time_passes(terminal, at)?;
        if terminal.is_behind() || matches!(self.form, Form::Asked(_)) {
            return Ok(());
        }
        let shown = self.board.shown();
        let text = self.text(terminal, &shown, at);
        terminal.write(text.as_bytes())
    }

    fn text(&mut self, terminal: &Terminal, shown: &Shown, at: Instant) -> String {
        let now = Now::read();
        if self.kind == Kind::Terminal {
            let size = terminal.size().unwrap_or((25, 80));
            if !matches!(&self.form, Form::Screen(screen) if screen.is_of(size)) {
                self.form = Form::Screen(Screen::new(size, false));
            }
        }
        let wants = std::mem::replace(&mut self.wants, Wants::News);
        match &mut self.form {
            Form::Screen(screen) => {
                if at.duration_since(self.painted) >= REPAINT_EVERY {
                    screen.forget();
                    self.painted = at;
                }
                screen.draw(&self.dialog, shown, now)
            }
            Form::Lines | Form::Asked(_) => match wants {
                Wants::View => self.lines.show(&self.dialog, shown, now, at),
                Wants::Typed => self.lines.typed(&self.dialog),
                Wants::News => self.lines.news(&self.dialog, shown, now, at),
            },
        }
    }

    /// What ends by itself.
    fn time_passes(&mut self, terminal: &mut Terminal, at: Instant) -> io::Result<()> {
        let quiet = at.duration_since(self.last_key);
        if quiet >= Duration::from_secs(ENDS_AFTER_SECONDS) && self.dialog.end() {
            self.wants = Wants::News;
        }
        match &self.form {
            Form::Asked(until) if at >= *until => {
                self.form = Form::Lines;
                self.wants = Wants::View;
            }
            Form::Screen(_) if self.kind == Kind::Line && quiet >= LEFT_AFTER => self.leave(terminal)?,
            _ => {}
        }
        Ok(())
    }

    fn leave(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        self.form = Form::Lines;
        self.wants = Wants::View;
        terminal.write(LEAVE.as_bytes())
    }

    fn read(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        let mut bytes = [0; READ_AT_ONCE];
        let count = terminal.read(&mut bytes)?;
        let at = Instant::now();
        self.last_byte = at;
        for byte in &bytes[..count] {
            let Some(key) = self.parser.feed(*byte) else {
                continue;
            };
            if self.pace.takes(at) {
                self.press(key, terminal, at)?;
            } else if self.dialog.end() {
                // No person: whatever it was about to confirm, it does not.
                self.wants = Wants::View;
            }
        }
        Ok(())
    }

    fn press(&mut self, key: Key, terminal: &mut Terminal, at: Instant) -> io::Result<()> {
        if let Key::Report(rows, columns) = key {
            return match self.form {
                Form::Asked(_) if rows >= LEAST.0 && columns >= LEAST.1 => {
                    self.form = Form::Screen(Screen::new((rows, columns), true));
                    self.painted = at;
                    terminal.write(ENTER.as_bytes())
                }
                Form::Asked(_) => {
                    self.form = Form::Lines;
                    self.wants = Wants::View;
                    Ok(())
                }
                // Nobody asked.
                Form::Lines | Form::Screen(_) => Ok(()),
            };
        }
        let was_left = at.duration_since(self.last_key) >= Duration::from_secs(ENDS_AFTER_SECONDS);
        self.last_key = at;
        let shown = self.board.shown();
        let rows = match &self.form {
            Form::Screen(screen) => screen.page_rows(),
            Form::Lines | Form::Asked(_) => LOG_LINES,
        };
        let outcome = self.dialog.press(key, &shown.status, shown.events.len(), rows);
        let is_serial = self.kind == Kind::Line;
        // The first key after a while may be of a terminal that shows a screen; Ctrl-L asks again.
        let asks = is_serial
            && match self.form {
                Form::Lines => key == Key::Redraw || was_left || !self.asked,
                Form::Screen(_) => key == Key::Redraw,
                Form::Asked(_) => false,
            };
        match outcome {
            Outcome::Nothing => {}
            Outcome::Shown => self.wants = Wants::View,
            Outcome::Typed => self.wants = self.wants.max(Wants::Typed),
            Outcome::Left if is_serial && matches!(self.form, Form::Screen(_)) => {
                return self.leave(terminal);
            }
            Outcome::Left => {}
            Outcome::Act(act) => {
                self.wants = Wants::View;
                if self.acts.try_send((self.name.clone(), act)).is_err() {
                    self.dialog
                        .say("the node is busy with what was asked before: nothing was done");
                }
            }
        }
        if key == Key::Redraw
            && let Form::Screen(screen) = &mut self.form
        {
            screen.forget();
        }
        if asks {
            self.form = Form::Asked(at + ANSWERS_WITHIN);
            self.asked = true;
            terminal.write(ASK_SIZE.as_bytes())?;
        }
        Ok(())
    }
}

/// Takes what the bell has to say: that something is new is known by then.
fn silence(bell: &UnixStream) {
    use std::io::Read;
    let mut bell = bell;
    let mut bytes = [0; 64];
    while matches!(bell.read(&mut bytes), Ok(count) if count == bytes.len()) {}
}

#[cfg(test)]
mod tests;
