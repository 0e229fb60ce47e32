//! When PID 1 and the loader of modules did what, written down for the agent, which makes the boot's report of it.

use host::boot;
use inventory::boot::{Beat, Part, Phase};

/// A moment of the kernel's clock, and the processor's counter at it.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    ms: i64,
    beat: Beat,
}

impl Stamp {
    /// Now.
    pub fn here() -> Self {
        let moment = boot::moment();
        Self {
            ms: boot::moment_ms(),
            beat: Beat {
                count: boot::counter(),
                at_us: u64::try_from(moment.as_micros()).unwrap_or(u64::MAX),
            },
        }
    }
}

/// PID 1 has done what comes before its services; `first` is when it began.
pub fn started(first: &Stamp) {
    note(&first.beat.to_string());
    phase(Part::Kernel, 0, first.ms);
    phase(Part::Init, first.ms, boot::moment_ms());
}

/// A part is done now that began at `begin_ms`.
pub fn done(part: Part, begin_ms: i64) {
    phase(part, begin_ms, boot::moment_ms());
}

fn phase(part: Part, begin_ms: i64, end_ms: i64) {
    let phase = Phase {
        part,
        begin_ms,
        end_ms,
    };
    note(&phase.to_string());
}

/// A report that lacks a line is worth no word on the console.
fn note(line: &str) {
    let _ = boot::note(line);
}
