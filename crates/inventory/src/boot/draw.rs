//! The way as a person reads it: one sentence, and a timeline of 80 columns.

use super::{Part, Report};

/// Columns of the bars; with the names and figures before them a line has 80.
const BAR: u64 = 50;
/// Parts of the path that are shorter than this are told together.
const WORTH_A_WORD_MS: u64 = 50;

impl Report {
    /// `able to sell 7.2 s after power on: kernel 3.1, modules 1.0, …`; what took less than a blink is told together.
    #[must_use]
    pub fn sentence(&self) -> String {
        let since = if self.is_from_power_on() {
            "power on"
        } else {
            "the kernel's start"
        };
        let mut parts = Vec::new();
        let mut rest = 0;
        for (part, ms) in self.path() {
            if ms < WORTH_A_WORD_MS {
                rest += ms;
            } else {
                parts.push(format!("{} {}", self.words(part), seconds(ms)));
            }
        }
        if rest > 0 {
            parts.push(format!("rest {}", seconds(rest)));
        }
        format!(
            "able to sell {} s after {since}: {}",
            seconds(self.total_ms()),
            parts.join(", ")
        )
    }

    /// A line a phase: its name, when it began, how long it took, and both as a bar. `#` is what the whole waited for,
    /// `-` what ran beside it.
    #[must_use]
    pub fn timeline(&self) -> String {
        let path: Vec<Part> = self.path().into_iter().map(|(part, _)| part).collect();
        let (first, total) = (self.begin_ms(), self.total_ms().max(1));
        let column = |ms: i64| super::millis(ms - first).min(total) * BAR / total;
        let mut out = format!(" {:<10}{:>8}{:>8}\n", "", "from s", "took s");
        for phase in self.phases() {
            let (from, to) = (column(phase.begin_ms), column(phase.end_ms));
            let mark = if path.contains(&phase.part) { "#" } else { "-" };
            let bar = mark.repeat(usize::try_from((to - from).max(1)).unwrap_or(1));
            let indent = usize::try_from(from.min(BAR - 1)).unwrap_or(0);
            let line = format!(
                " {:<10}{:>8}{:>8}  {:indent$}{bar}",
                self.words(phase.part),
                seconds(super::millis(phase.begin_ms - first)),
                seconds(super::millis(phase.end_ms - phase.begin_ms)),
                "",
            );
            out.push_str(line.trim_end());
            out.push('\n');
        }
        if !self.is_from_power_on() {
            out.push_str(" what firmware and loader took is not known: neither tells it\n");
        }
        out
    }

    /// As a person calls it.
    fn words(&self, part: Part) -> &'static str {
        match part {
            Part::Before => "firmware",
            other => other.word(),
        }
    }
}

/// Seconds with one decimal; two where it is less than one.
fn seconds(ms: u64) -> String {
    if ms < 1000 {
        format!("{:.2}", ms as f64 / 1000.0)
    } else {
        format!("{:.1}", ms as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_sentence_names_what_it_waited_for() {
        assert_eq!(
            report().sentence(),
            "able to sell 7.2 s after power on: firmware 0.80, kernel 3.1, init 0.06, modules 1.0, disks 0.80, seat 0.50, \
             grid 0.50, desk 0.30, base 0.10"
        );
        let mut short = Report::default();
        short.add(Phase {
            part: Part::Kernel,
            begin_ms: 0,
            end_ms: 3000,
        });
        short.add(Phase {
            part: Part::Init,
            begin_ms: 3000,
            end_ms: 3020,
        });
        assert_eq!(
            short.sentence(),
            "able to sell 3.0 s after the kernel's start: kernel 3.0, rest 0.02"
        );
        assert!(short.timeline().contains("not known"));
    }

    #[test]
    fn a_timeline_has_80_columns_and_a_line_a_phase() {
        let report = report();
        let drawn = report.timeline();
        assert_eq!(drawn.lines().count(), report.phases().len() + 1);
        assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{drawn}");
        assert!(drawn.contains("####") && drawn.contains(" -"), "{drawn}");
        assert!(!drawn.contains("not known"));
        assert!(Report::default().timeline().lines().count() <= 2);
    }
}
