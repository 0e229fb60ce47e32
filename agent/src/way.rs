//! The way of this boot to a node that can sell: what PID 1 wrote down, and what the agent does.
//!
//! ```text
//!  PID 1, loader of modules ──note──► /run/steading/boot ──┐
//!  begin(part) … done(part) ───────────────────────────────┴─► finish ──► Report ──note──► the agent's next start
//! ```
//!
//! Invariant: the way is gone once a boot. An agent that is started again finds it finished, and adds nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::boot;
use inventory::boot::{Beat, Part, Phase, Report, before};

#[derive(Debug, Default)]
struct Kept {
    report: Report,
    begun: BTreeMap<Part, i64>,
    is_finished: bool,
}

/// Cheap to clone, never waits.
#[derive(Debug, Clone, Default)]
pub struct Way(Arc<Mutex<Kept>>);

impl Way {
    /// Takes what was written down in this boot so far; the agent's own start is done.
    pub fn resume(&self) {
        let mut kept = self.lock();
        kept.take_notes(&boot::notes());
        kept.is_finished = kept.report.is_complete();
        drop(kept);
        self.done(Part::Agent);
    }

    /// A part begins now.
    pub fn begin(&self, part: Part) {
        self.lock().begun.entry(part).or_insert_with(boot::moment_ms);
    }

    /// A part is done now. Where nobody said when it began, it did when the last of what it waits for was there.
    pub fn done(&self, part: Part) {
        self.lock().done(part, boot::moment_ms());
    }

    /// The node can sell: the report, the first time in a boot that this is said.
    pub fn finish(&self) -> Option<Report> {
        let mut kept = self.lock();
        if kept.is_finished {
            return None;
        }
        kept.is_finished = true;
        let notes = boot::notes();
        kept.take_notes(&notes);
        let first = notes.lines().find_map(|line| line.parse::<Beat>().ok());
        let now = Beat {
            count: boot::counter(),
            at_us: u64::try_from(boot::moment().as_micros()).unwrap_or(u64::MAX),
        };
        for phase in before(Path::new("/"), first.map(|first| (first, now))) {
            kept.report.add(phase);
        }
        let lines: Vec<String> = kept.report.phases().iter().map(ToString::to_string).collect();
        if let Err(error) = boot::note(&lines.join("\n")) {
            tracing::warn!(%error, "the boot's report does not outlive the agent");
        }
        Some(kept.report.clone())
    }

    /// What is known so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().report.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Changes are additions of whole phases: a panic in between leaves a report that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn take_notes(&mut self, notes: &str) {
        for phase in notes.lines().filter_map(|line| line.parse().ok()) {
            self.report.add(phase);
        }
    }

    fn done(&mut self, part: Part, end_ms: i64) {
        if self.is_finished {
            return;
        }
        let begin_ms = match self.begun.get(&part) {
            Some(begin_ms) => *begin_ms,
            None => self.report.could_begin_ms(part, end_ms),
        };
        self.report.add(Phase {
            part,
            begin_ms,
            end_ms,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(notes: &str) -> Kept {
        let mut kept = Kept::default();
        kept.take_notes(notes);
        kept.is_finished = kept.report.is_complete();
        kept
    }

    #[test]
    fn what_pid_1_wrote_down_is_where_the_agent_goes_on() {
        let mut kept = ways("beat 7 8\nphase kernel 0 3000 before\nphase init 3000 3050 kernel\nnoise\n");
        kept.done(Part::Agent, 3300);
        kept.begun.insert(Part::Medium, 3310);
        kept.done(Part::Medium, 3400);
        kept.done(Part::Medium, 9000);
        let spans: Vec<(Part, i64, i64)> = kept
            .report
            .phases()
            .iter()
            .map(|phase| (phase.part, phase.begin_ms, phase.end_ms))
            .collect();
        assert_eq!(
            spans,
            [
                (Part::Kernel, 0, 3000),
                (Part::Init, 3000, 3050),
                (Part::Agent, 3050, 3300),
                (Part::Medium, 3310, 3400)
            ]
        );
    }

    #[test]
    fn an_agent_that_comes_back_adds_nothing() {
        let needed = Part::NEEDED.map(|part| {
            let (begin_ms, end_ms) = (0, 10);
            Phase {
                part,
                begin_ms,
                end_ms,
            }
            .to_string()
        });
        let mut kept = ways(&needed.join("\n"));
        let before = kept.report.clone();
        kept.done(Part::Before, 99);
        assert_eq!((kept.report, kept.is_finished), (before, true));
        let mut unfinished = ways(&needed[1..].join("\n"));
        unfinished.done(Part::Kernel, 99);
        assert!(unfinished.report.phase(Part::Kernel).is_some(), "the control");
    }
}
