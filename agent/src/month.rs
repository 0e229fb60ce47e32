//! How much the uplinks have carried in this calendar month, and what follows from it.
//!
//! ```text
//!   the kernel's counters of each uplink (begin at 0 at each power-on)
//!      └─ what is new since the last look ─► Month, kept in the journal ─► within / over what the farmer said
//! ```
//!
//! Invariant: a month's figure only grows, across every restart of agent and machine; it begins anew when the month of
//! a clock that can be believed does, and never because a counter or a clock was lost.

use std::collections::BTreeMap;
use std::fmt;

use market::quantity::{Bytes, UnixMillis};
use serde::{Deserialize, Serialize};

/// A month of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Calendar {
    year: u64,
    month: u64,
}

impl Calendar {
    /// The month of a time.
    #[must_use]
    pub fn of(time: UnixMillis) -> Self {
        let (year, month, _) = time.date();
        Self { year, month }
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        if self.month < 12 {
            Self {
                month: self.month + 1,
                ..self
            }
        } else {
            Self {
                year: self.year + 1,
                month: 1,
            }
        }
    }
}

impl fmt::Display for Calendar {
    /// `2026-11`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.year, self.month)
    }
}

/// What is kept of a month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Month {
    /// Which; none before a clock could be believed.
    pub calendar: Option<Calendar>,
    /// Bytes in and out, over all uplinks.
    pub bytes: u64,
    /// The power-on in which the counters were last read.
    boot: [u8; 16],
    /// What they were then, by interface.
    counters: BTreeMap<String, u64>,
}

impl Month {
    /// Takes up what the counters say now. Counters that were not seen since power-on began at 0; one that is lower
    /// than it was is a new one of the same name.
    pub fn take(&mut self, now: Option<Calendar>, boot: [u8; 16], counters: &[(String, u64)]) {
        if self.boot != boot {
            self.counters.clear();
            self.boot = boot;
        }
        let mut new: u64 = 0;
        for (name, counter) in counters {
            let before = self.counters.insert(name.clone(), *counter).unwrap_or(0);
            new = new.saturating_add(counter.checked_sub(before).unwrap_or(*counter));
        }
        match (self.calendar, now) {
            (Some(known), Some(now)) if now > known => {
                self.calendar = Some(now);
                self.bytes = new;
                return;
            }
            (None, Some(now)) => self.calendar = Some(now),
            // A clock that went back, or none: the month goes on.
            _ => {}
        }
        self.bytes = self.bytes.saturating_add(new);
    }

    /// Whether all that the farmer allows is used.
    #[must_use]
    pub fn is_over(&self, cap: Option<Bytes>) -> bool {
        cap.is_some_and(|cap| self.bytes >= cap.0)
    }

    /// As the console shows it: `41.2 GiB of 500 GiB in 2026-11`.
    #[must_use]
    pub fn words(&self, cap: Option<Bytes>) -> String {
        let mut words = Bytes(self.bytes).human();
        if let Some(cap) = cap {
            words.push_str(&format!(" of {}", cap.human()));
        }
        match self.calendar {
            Some(calendar) => words.push_str(&format!(" in {calendar}")),
            None => words.push_str(", the month is not known yet"),
        }
        words
    }

    /// Why nothing is sold while it is over.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.calendar {
            Some(calendar) => format!(
                "this month's traffic is used up, it begins anew with {}",
                calendar.next()
            ),
            None => "this month's traffic is used up".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVEMBER: u64 = 1_795_000_000_000;

    fn eth(counter: u64) -> Vec<(String, u64)> {
        vec![("eth0".to_owned(), counter)]
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        for (ms, said) in [
            (0, "1970-01"),
            (951_782_399_999, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_735_689_599_999, "2024-12"),
            (1_735_689_600_000, "2025-01"),
            (NOVEMBER, "2026-11"),
        ] {
            assert_eq!(Calendar::of(UnixMillis(ms)).to_string(), said, "{ms}");
        }
        assert_eq!(
            Calendar::of(UnixMillis(1_735_689_599_999)).next(),
            Calendar::of(UnixMillis(1_735_689_600_000))
        );
    }

    #[test]
    fn it_grows_across_restarts_of_agent_and_machine_and_of_cards() {
        let now = Some(Calendar::of(UnixMillis(NOVEMBER)));
        let mut month = Month::default();
        month.take(None, [1; 16], &eth(100));
        month.take(now, [1; 16], &eth(150));
        assert_eq!(month.bytes, 150);
        // The agent begins anew with what it kept: nothing is counted twice.
        let kept = serde_json::to_vec(&month).unwrap();
        let mut month: Month = serde_json::from_slice(&kept).unwrap();
        month.take(now, [1; 16], &eth(150));
        assert_eq!(month.bytes, 150);
        // The machine does: what the counter has is new, though it is more than before.
        month.take(now, [2; 16], &eth(170));
        assert_eq!(month.bytes, 320);
        // The card was pulled out and came back.
        month.take(now, [2; 16], &eth(5));
        assert_eq!(month.bytes, 325);
        assert_eq!(month.words(Some(Bytes(1 << 20))), "325 B of 1 MiB in 2026-11");
    }

    #[test]
    fn it_begins_anew_with_a_new_month_alone() {
        let day = 86_400_000;
        let mut month = Month::default();
        month.take(Some(Calendar::of(UnixMillis(NOVEMBER))), [1; 16], &eth(100));
        assert!(month.is_over(Some(Bytes(100))) && !month.is_over(Some(Bytes(101))) && !month.is_over(None));
        assert_eq!(
            month.reason(),
            "this month's traffic is used up, it begins anew with 2026-12"
        );
        for now in [
            None,
            Some(Calendar::of(UnixMillis(NOVEMBER - 60 * day))),
            Some(Calendar::of(UnixMillis(0))),
        ] {
            month.take(now, [1; 16], &eth(100));
            assert_eq!(month.bytes, 100, "{now:?}");
        }
        month.take(
            Some(Calendar::of(UnixMillis(NOVEMBER + 30 * day))),
            [1; 16],
            &eth(110),
        );
        assert_eq!(month.bytes, 10);
        assert!(!month.is_over(Some(Bytes(100))));
    }
}
