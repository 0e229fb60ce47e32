//! The way from power-on to a node that can sell, as phases: one pure type that PID 1, the agent and the client share.
//!
//! ```text
//!  power on             the kernel's clock begins                                    able to sell
//!  │ firmware │ loader │ kernel │ init │ modules ─┬─► medium ─► disks ─► journal ─┬─► desk ─► base │
//!                                      │ agent    └─► network ─► seat ────────────┴─► grid         │
//! ```
//!
//! What ran beside something slower cost nothing. [`Report::path`] follows from the last phase, at each step, the one
//! that it waited for longest; so its parts follow each other, and their sum is the whole way.
//!
//! Invariant: the moment 0 is the start of the kernel's clock. What lies before it is negative, and is known only where
//! the firmware tells it or the processor has counted it; else the report says so and invents nothing.

mod before;
mod draw;
mod line;

pub use before::{Beat, Before, before};
pub use line::LineError;

use serde::Serialize;

/// A part of the way, in the order in which most machines go it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The firmware, until it starts a loader.
    Firmware,
    /// The loader, until it leaves the machine to the kernel.
    Loader,
    /// Both, where only their sum is known.
    Before,
    /// The kernel, until PID 1 runs.
    Kernel,
    /// PID 1, until the agent is started.
    Init,
    /// The agent's own start.
    Agent,
    /// Modules for the hardware that is there.
    Modules,
    /// The boot medium and `farmer.toml`.
    Medium,
    /// The network: a card, a cable, an address, a router.
    Network,
    /// The ledger's answer.
    Ledger,
    /// What time it is.
    Clock,
    /// The disks: read, claimed, their state opened.
    Disks,
    /// Journal and machine brought together.
    Journal,
    /// The month's traffic.
    Traffic,
    /// The grid's word that this machine acts for the node.
    Seat,
    /// Joined with the grid.
    Grid,
    /// The desk that answers requests.
    Desk,
    /// The base of spaces on a disk.
    Base,
}

use Part::*;

impl Part {
    /// All of them, in order.
    pub const ALL: [Part; 18] = [
        Firmware, Loader, Before, Kernel, Init, Agent, Modules, Medium, Network, Ledger, Clock, Disks,
        Journal, Traffic, Seat, Grid, Desk, Base,
    ];

    /// What a node that can sell has gone through.
    pub const NEEDED: [Part; 15] = [
        Kernel, Init, Agent, Modules, Medium, Network, Ledger, Clock, Disks, Journal, Traffic, Seat, Grid,
        Desk, Base,
    ];

    /// Its name, one lower-case word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Firmware => "firmware",
            Loader => "loader",
            Before => "before",
            Kernel => "kernel",
            Init => "init",
            Agent => "agent",
            Modules => "modules",
            Medium => "medium",
            Network => "network",
            Ledger => "ledger",
            Clock => "clock",
            Disks => "disks",
            Journal => "journal",
            Traffic => "traffic",
            Seat => "seat",
            Grid => "grid",
            Desk => "desk",
            Base => "base",
        }
    }

    /// What it cannot do without. It may begin, and even end, before all of one of them has: the medium needs the
    /// driver of its own bus, and no other.
    #[must_use]
    pub fn waits_for(self) -> &'static [Part] {
        match self {
            Firmware | Before => &[],
            Loader => &[Firmware],
            Kernel => &[Loader, Before],
            Init => &[Kernel],
            Agent | Modules => &[Init],
            Medium | Network => &[Agent, Modules],
            Ledger | Clock => &[Medium, Network],
            Disks => &[Medium, Modules],
            Journal => &[Disks],
            Traffic => &[Journal],
            Seat => &[Disks, Network],
            Grid => &[Seat],
            Desk => &[Journal, Grid],
            Base => &[Desk],
        }
    }
}

/// A part of the way as this machine went it; milliseconds of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Which.
    pub part: Part,
    /// When it began; negative before the kernel's clock did.
    pub begin_ms: i64,
    /// When it was done.
    pub end_ms: i64,
}

/// What was gone of the way: each part at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    phases: Vec<Phase>,
}

impl Report {
    /// Keeps a phase. A part that is known already stays as it is: the way is gone once a boot. One that ends before it
    /// begins is of another clock, and is not taken.
    pub fn add(&mut self, phase: Phase) {
        if self.phase(phase.part).is_some() || phase.end_ms < phase.begin_ms {
            return;
        }
        self.phases.push(phase);
        self.phases.sort_by_key(|phase| (phase.begin_ms, phase.part));
    }

    /// The phases, the earliest first.
    #[must_use]
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// One of them.
    #[must_use]
    pub fn phase(&self, part: Part) -> Option<Phase> {
        self.phases.iter().find(|phase| phase.part == part).copied()
    }

    /// Whether all that selling needs has been gone through.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        Part::NEEDED.iter().all(|part| self.phase(*part).is_some())
    }

    /// Whether it is known what was before the kernel.
    #[must_use]
    pub fn is_from_power_on(&self) -> bool {
        self.phases.first().is_some_and(|phase| phase.begin_ms < 0)
    }

    /// From the first moment that is known to the last, in milliseconds.
    #[must_use]
    pub fn total_ms(&self) -> u64 {
        self.last()
            .map_or(0, |last| millis(last.end_ms - self.begin_ms()))
    }

    /// The parts that the whole took its time from, in order, with milliseconds: their sum is [`Report::total_ms`].
    ///
    /// Each has the time from the end of what it waited for longest to its own end.
    #[must_use]
    pub fn path(&self) -> Vec<(Part, u64)> {
        let mut path = Vec::new();
        let mut at = self.last();
        while let Some(phase) = at {
            let before = self.waited_for(phase);
            let since = before.map_or(self.begin_ms(), |before| before.end_ms);
            path.push((phase.part, millis(phase.end_ms - since)));
            at = before;
        }
        path.reverse();
        path
    }

    /// Which of those that it waits for came last, before it was done itself.
    fn waited_for(&self, phase: Phase) -> Option<Phase> {
        let before = phase.part.waits_for().iter().filter_map(|part| self.phase(*part));
        before
            .filter(|before| before.end_ms <= phase.end_ms)
            .max_by_key(|before| before.end_ms)
    }

    fn begin_ms(&self) -> i64 {
        self.phases.first().map_or(0, |first| first.begin_ms)
    }

    fn last(&self) -> Option<Phase> {
        // Of two that end together the later part waited.
        self.phases
            .iter()
            .max_by_key(|phase| (phase.end_ms, phase.part))
            .copied()
    }

    /// When a part that is done now began, if nobody took note: when the last of what it waits for was there.
    #[must_use]
    pub fn could_begin_ms(&self, part: Part, end_ms: i64) -> i64 {
        let done = Phase {
            part,
            begin_ms: end_ms,
            end_ms,
        };
        self.waited_for(done).map_or(end_ms, |before| before.end_ms)
    }
}

fn millis(span: i64) -> u64 {
    u64::try_from(span).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> Report {
        let mut report = Report::default();
        for (part, begin_ms, end_ms) in [
            (Before, -800, 0),
            (Kernel, 0, 3100),
            (Init, 3100, 3160),
            (Agent, 3160, 3400),
            (Modules, 3160, 4200),
            (Medium, 3400, 4000),
            (Network, 3400, 4500),
            (Clock, 4500, 4600),
            (Ledger, 4500, 4610),
            (Disks, 4200, 5000),
            (Journal, 5000, 5300),
            (Traffic, 5300, 5310),
            (Seat, 5000, 5500),
            (Grid, 5500, 6000),
            (Desk, 6000, 6300),
            (Base, 6300, 6400),
        ] {
            report.add(Phase {
                part,
                begin_ms,
                end_ms,
            });
        }
        report
    }

    #[test]
    fn the_path_is_what_was_waited_for_longest_and_sums_up() {
        let report = report();
        let path = report.path();
        let parts: Vec<Part> = path.iter().map(|(part, _)| *part).collect();
        assert_eq!(
            parts,
            [Before, Kernel, Init, Modules, Disks, Seat, Grid, Desk, Base]
        );
        assert_eq!(path.iter().map(|(_, ms)| ms).sum::<u64>(), report.total_ms());
        assert_eq!(report.total_ms(), 7200);
        assert!(report.is_complete() && report.is_from_power_on());
    }

    #[test]
    fn a_way_that_is_not_gone_to_its_end_is_incomplete_and_still_sums_up() {
        let mut short = Report::default();
        for phase in report()
            .phases()
            .iter()
            .filter(|phase| phase.part != Grid && phase.begin_ms >= 0)
        {
            short.add(*phase);
        }
        assert!(!short.is_complete() && !short.is_from_power_on());
        assert_eq!(
            short.path().iter().map(|(_, ms)| ms).sum::<u64>(),
            short.total_ms()
        );
        assert_eq!(Report::default().path(), []);
    }

    #[test]
    fn a_part_is_gone_once_and_never_backwards() {
        let mut once = Report::default();
        for phase in report().phases().iter().filter(|phase| phase.part != Base) {
            once.add(*phase);
        }
        let again = |begin_ms, end_ms| Phase {
            part: Base,
            begin_ms,
            end_ms,
        };
        once.add(again(9, 8));
        assert_eq!(once.phase(Base), None);
        once.add(again(6400, 6500));
        once.add(again(1, 2));
        assert_eq!(once.phase(Base), Some(again(6400, 6500)));
        assert_eq!(once.could_begin_ms(Grid, 7000), 5500);
    }

    #[test]
    fn what_a_part_waits_for_stands_before_it() {
        for part in Part::ALL {
            assert!(part.waits_for().iter().all(|before| *before < part), "{part:?}");
        }
    }
}
