//! The consoles themselves: which there are, and a thread for each.
//!
//! A virtual terminal gets the whole screen, drawn again every second. A serial
//! line gets every event as a line, and the screen when it changed, at most every
//! few seconds: it may be a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::board::{Board, Event, Shown, uptime};
use super::render::{Now, full_screen, render};

/// A serial line shows the screen no more often.
const SCREEN_EVERY: Duration = Duration::from_secs(5);
/// The screen of a terminal is drawn at least so often: its clock runs.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// Rows of a terminal: what the oldest has.
const ROWS: usize = 25;
/// A console that cannot be opened or written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How a console is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Terminal,
    Line,
}

/// Starts a thread for every console of the machine.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(board: &Board) -> io::Result<Vec<String>> {
    let consoles = consoles(Path::new("/sys"));
    for (name, kind) in &consoles {
        let board = board.clone();
        let (name, kind) = (name.clone(), *kind);
        thread::Builder::new()
            .name(format!("console-{name}"))
            .spawn(move || serve(&board, &name, kind))?;
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

fn serve(board: &Board, name: &str, kind: Kind) {
    let path = Path::new("/dev").join(name);
    let mut memory = Memory::default();
    loop {
        let served = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| write_for_ever(board, &mut file, kind, &mut memory));
        if let Err(error) = served {
            tracing::debug!(console = name, %error, "console lost");
        }
        thread::sleep(AGAIN_AFTER);
    }
}

/// What a console has shown.
#[derive(Default)]
struct Memory {
    version: u64,
    event: u64,
    screen: Option<(Instant, Vec<String>)>,
}

fn write_for_ever(board: &Board, file: &mut File, kind: Kind, memory: &mut Memory) -> io::Result<()> {
    loop {
        let shown = board.newer_than(memory.version, REDRAW_EVERY);
        memory.version = shown.version;
        let now = Now {
            uptime_seconds: uptime().as_secs(),
            resident_bytes: resident_bytes(),
        };
        let text = match kind {
            Kind::Terminal => terminal(&shown, now),
            Kind::Line => lines(&shown, now, memory, Instant::now()),
        };
        file.write_all(text.as_bytes())?;
    }
}

/// The whole screen, drawn over the old one without a flicker.
fn terminal(shown: &Shown, now: Now) -> String {
    let events: Vec<Event> = shown.events.iter().cloned().collect();
    let mut text = String::from("\x1b[?25l\x1b[H");
    for (index, line) in full_screen(&shown.status, now, &events, ROWS - 1)
        .iter()
        .enumerate()
    {
        // The kernel's own font has no ellipsis.
        let line = line.replace('…', "~");
        match index {
            0 => text.push_str(&format!("\x1b[1m{line}\x1b[0m\x1b[K\r\n")),
            _ => text.push_str(&format!("{line}\x1b[K\r\n")),
        }
    }
    text.push_str("\x1b[J");
    text
}

/// New events, and the screen if it changed and some time has passed.
fn lines(shown: &Shown, now: Now, memory: &mut Memory, at: Instant) -> String {
    let mut text = String::new();
    for event in shown.events.iter().filter(|event| event.number > memory.event) {
        text.push_str(&format!("{event}\r\n"));
    }
    memory.event = shown.events.back().map_or(memory.event, |last| last.number);
    // Time and memory change by themselves: they are no reason to print.
    let timeless = render(&shown.status, Now::default());
    let due = match &memory.screen {
        None => true,
        Some((when, last)) => at.duration_since(*when) >= SCREEN_EVERY && *last != timeless,
    };
    if due {
        for line in render(&shown.status, now) {
            text.push_str(&format!("{line}\r\n"));
        }
        memory.screen = Some((at, timeless));
    }
    text
}

/// `VmRSS` of this process.
#[must_use]
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_line_says_each_event_once_and_the_screen_when_it_changed() {
        let board = Board::new("0.1.0");
        let mut memory = Memory::default();
        let start = Instant::now();
        let mut say = |board: &Board, after: u64| {
            let shown = board.newer_than(u64::MAX, Duration::ZERO);
            lines(
                &shown,
                Now::default(),
                &mut memory,
                start + Duration::from_secs(after),
            )
        };
        board.event("disks claimed: vda");
        let first = say(&board, 0);
        assert!(
            first.starts_with('+') && first.contains("  disks claimed: vda\r\n"),
            "{first}"
        );
        assert!(first.contains(" Steading 0.1.0"));
        assert_eq!(say(&board, 9), "", "nothing new, nothing said");
        board.update(|status| status.grid = "joined \"demo\"".into());
        board.event("joined \"demo\"");
        let second = say(&board, 10);
        assert!(second.contains("  joined \"demo\"\r\n") && second.contains(" grid      joined"));
        assert!(!second.contains("disks claimed"), "said before");
        board.update(|status| status.grid = "alone".into());
        assert_eq!(say(&board, 12), "", "too soon for another screen");
        assert!(say(&board, 15).contains("alone"), "but it comes");
    }

    #[test]
    fn an_event_is_one_printable_line() {
        let board = Board::new("0");
        board.event("a\r\nb\x1b[2J");
        board.update(|status| status.clock_is_right = true);
        board.event("x".repeat(5000));
        let events = board.events();
        assert_eq!(events[0].text, "a  b [2J");
        assert!(events[1].text.len() <= 240);
        assert_eq!(events[1].to_string().as_bytes()[2], b':');
        assert_eq!(
            events[0].to_string().find("  a"),
            events[1].to_string().find("  x")
        );
    }

    #[test]
    fn every_console_of_the_machine_is_found() {
        let root = tempfile::tempdir().expect("a scratch folder");
        let class = root.path().join("class/tty");
        for (name, kind) in [
            ("console", ""),
            ("tty0", ""),
            ("tty1", ""),
            ("ttyS0", "4"),
            ("ttyS1", "4"),
            ("ttyS2", "0"),
        ] {
            fs::create_dir_all(class.join(name)).expect("made");
            fs::write(class.join(name).join("type"), format!("{kind}\n")).expect("written");
        }
        fs::write(class.join("console/active"), "ttyS0\n").expect("written");
        let mut found = consoles(root.path());
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            found,
            vec![
                ("tty0".into(), Kind::Terminal),
                ("ttyS0".into(), Kind::Line),
                ("ttyS1".into(), Kind::Line),
            ]
        );
        assert_eq!(consoles(Path::new("/nowhere")), vec![]);
    }
}
