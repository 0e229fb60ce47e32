//! Where everybody writes what the consoles show.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::status::Status;
use crate::way::Way;

/// Events that a console which comes late, or is slow, still gets to see.
const KEPT_EVENTS: usize = 200;
/// Longest event, in characters: the line of a farmer's consent, which may be copied from it, and words around it.
const LONGEST_EVENT: usize = 1300;

/// When something happened, as well as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    /// Seconds since midnight, UTC.
    Clock(u64),
    /// Seconds since the kernel started: the clock is not known yet.
    Uptime(u64),
}

/// One line of what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counted from 1, so that a console knows which it has shown.
    pub number: u64,
    stamp: Stamp,
    /// One printable line.
    pub text: String,
}

impl Event {
    /// When, in eight columns: `14:02:11`; `+0:00:12`, and after ten hours without a clock `+10h05`.
    #[must_use]
    pub fn time(&self) -> String {
        let parts = |all: u64| (all / 3600, all % 3600 / 60, all % 60);
        match self.stamp {
            Stamp::Clock(all) => {
                let (hours, minutes, seconds) = parts(all);
                format!("{hours:02}:{minutes:02}:{seconds:02}")
            }
            Stamp::Uptime(all) => match parts(all) {
                (hours @ 0..10, minutes, seconds) => format!("+{hours}:{minutes:02}:{seconds:02}"),
                (hours, minutes, _) => format!("+{hours}h{minutes:02}"),
            },
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<8}  {}", self.time(), self.text)
    }
}

/// What a console reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub status: Status,
    pub events: VecDeque<Event>,
}

/// The board: cheap to clone, never waits.
#[derive(Clone, Default)]
pub struct Board {
    shown: Arc<Mutex<Shown>>,
    bells: Arc<Mutex<Vec<UnixStream>>>,
    way: Way,
}

impl Board {
    /// A board of an image with this version.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let board = Self::default();
        board.update(|status| status.version = version.to_owned());
        board
    }

    /// Changes what the screen shows.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut shown = self.lock();
        let before = shown.status.clone();
        change(&mut shown.status);
        if shown.status != before {
            drop(shown);
            self.ring();
        }
    }

    /// Says what happened, in one line: printed at once on every console.
    pub fn event(&self, text: impl AsRef<str>) {
        let text: String = text
            .as_ref()
            .chars()
            .map(|c| if market::is_plain(c) { c } else { ' ' })
            .take(LONGEST_EVENT)
            .collect();
        tracing::info!(target: "console", "{text}");
        let mut shown = self.lock();
        let number = shown.events.back().map_or(1, |last| last.number + 1);
        let stamp = if shown.status.clock_is_right {
            Stamp::Clock(seconds_of_day())
        } else {
            Stamp::Uptime(host::boot::moment().as_secs())
        };
        shown.events.push_back(Event { number, stamp, text });
        if shown.events.len() > KEPT_EVENTS {
            shown.events.pop_front();
        }
        drop(shown);
        self.ring();
    }

    /// The way from power-on to here.
    #[must_use]
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// What the screen shows now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status.clone()
    }

    /// The events that are still kept, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.iter().cloned().collect()
    }

    /// All that there is to show now.
    pub(super) fn shown(&self) -> Shown {
        self.lock().clone()
    }

    /// What can be read from when something is new; what is read means nothing. It does not block.
    ///
    /// # Errors
    /// When the kernel has no descriptors left.
    pub(super) fn bell(&self) -> io::Result<UnixStream> {
        let (rings, heard) = UnixStream::pair()?;
        rings.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        self.bells().push(rings);
        Ok(heard)
    }

    /// Rings for all who listen. One that is full rings already; one whose other end is gone is forgotten.
    fn ring(&self) {
        self.bells().retain_mut(|bell| match bell.write(&[1]) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
    }

    fn bells(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // A panic while the lock was held leaves a status that is whole: changes are assignments.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds_of_day() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() % 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_below_each_other_however_long_it_runs() {
        let shown = |stamp| {
            let text = "text".to_owned();
            Event {
                number: 1,
                stamp,
                text,
            }
            .to_string()
        };
        assert_eq!(shown(Stamp::Clock(50_531)), "14:02:11  text");
        assert_eq!(shown(Stamp::Uptime(12)), "+0:00:12  text");
        assert_eq!(shown(Stamp::Uptime(35_999)), "+9:59:59  text");
        assert_eq!(shown(Stamp::Uptime(36_300)), "+10h05    text");
        assert_eq!(shown(Stamp::Uptime(3_600_000)), "+1000h00  text");
    }

    #[test]
    fn an_event_is_one_printable_line() {
        let board = Board::new("0");
        board.event("a\r\nb\x1b[2J");
        board.update(|status| status.clock_is_right = true);
        board.event("x".repeat(5000));
        let events = board.events();
        assert_eq!(events[0].text, "a  b [2J");
        assert!(events[1].text.len() <= LONGEST_EVENT);
        assert_eq!(events[1].to_string().as_bytes()[2], b':');
        assert_eq!(
            events[0].to_string().find("  a"),
            events[1].to_string().find("  x")
        );
    }
}
