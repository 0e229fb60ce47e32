//! Where everybody writes what the consoles show.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::status::Status;
use crate::way::Way;

/// Events that a console which comes late, or is slow, still gets to see.
const KEPT_EVENTS: usize = 200;
/// Longest event, in characters: three lines of a console.
const LONGEST_EVENT: usize = 240;

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

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight columns each way: 14:02:11, +0:00:12, and after ten hours without a clock +10h05.
        let parts = |all: u64| (all / 3600, all % 3600 / 60, all % 60);
        let stamp = match self.stamp {
            Stamp::Clock(all) => {
                let (hours, minutes, seconds) = parts(all);
                format!("{hours:02}:{minutes:02}:{seconds:02}")
            }
            Stamp::Uptime(all) => match parts(all) {
                (hours @ 0..10, minutes, seconds) => format!("+{hours}:{minutes:02}:{seconds:02}"),
                (hours, minutes, _) => format!("+{hours}h{minutes:02}"),
            },
        };
        write!(out, "{stamp:<8}  {}", self.text)
    }
}

/// What a console reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub status: Status,
    pub events: VecDeque<Event>,
    /// Raised by every change.
    pub version: u64,
}

/// The board: cheap to clone, never waits.
#[derive(Clone, Default)]
pub struct Board {
    inner: Arc<(Mutex<Shown>, Condvar)>,
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
            shown.version += 1;
            self.inner.1.notify_all();
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
            Stamp::Uptime(uptime().as_secs())
        };
        shown.events.push_back(Event { number, stamp, text });
        if shown.events.len() > KEPT_EVENTS {
            shown.events.pop_front();
        }
        shown.version += 1;
        self.inner.1.notify_all();
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

    /// Waits until something is newer than `seen`, at most `most`; then tells all.
    pub(super) fn newer_than(&self, seen: u64, most: Duration) -> Shown {
        let shown = self.lock();
        let (shown, _) = self
            .inner
            .1
            .wait_timeout_while(shown, most, |shown| shown.version == seen)
            .unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // A panic while the lock was held leaves a status that is whole: changes are assignments.
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time since the kernel started, suspended time included.
#[must_use]
pub(super) fn uptime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Into::into)
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
}
