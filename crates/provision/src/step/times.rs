//! What the steps of a run took.

use std::fmt::Write;
use std::time::Duration;

/// When a step began, and how long it took, its two records included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTime {
    /// The step.
    pub step: &'static str,
    /// From the start of the run.
    pub began: Duration,
    /// From there.
    pub took: Duration,
}

impl StepTime {
    pub(super) fn new(step: &'static str, began: Duration, took: Duration) -> Self {
        Self { step, began, took }
    }
}

/// The times in one line, in milliseconds, in the order in which the steps ended: `network 2+408` says that `network`
/// began 2 ms after the start and took 408.
pub fn in_words(times: &[StepTime]) -> String {
    let mut line = String::new();
    for time in times {
        let (began, took) = (time.began.as_millis(), time.took.as_millis());
        let comma = if line.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(line, "{comma}{} {began}+{took}", time.step);
    }
    line
}
