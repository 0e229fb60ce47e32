//! Phases and beats as lines: how PID 1 hands them to the agent, and a node to its farmer.
//!
//! `phase NAME BEGIN END WAITS`: milliseconds, and the names of what it waited for, or `-`.

use std::fmt;
use std::str::FromStr;

use super::{Beat, Part, Phase};

/// `beat COUNT MICROSECONDS`
const BEAT: &str = "beat";

impl fmt::Display for Beat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{BEAT} {} {}", self.count, self.at_us)
    }
}

impl FromStr for Beat {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, LineError> {
        let read = || {
            let mut words = line.strip_prefix(BEAT)?.strip_prefix(' ')?.split(' ');
            let (count, at_us) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            words.next().is_none().then_some(Beat { count, at_us })
        };
        read().ok_or_else(|| LineError(line.chars().take(80).collect()))
    }
}

/// No machine took longer than a year to start; what says so is no figure of this clock.
const MOST_MS: i64 = 366 * 86_400_000;
const MARK: &str = "phase";

/// A line that is no phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a phase of a boot: {0:?}")]
pub struct LineError(String);

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits: Vec<&str> = self.part.waits_for().iter().map(|part| part.word()).collect();
        let waits = if waits.is_empty() {
            "-".into()
        } else {
            waits.join(",")
        };
        write!(
            out,
            "{MARK} {} {} {} {waits}",
            self.part.word(),
            self.begin_ms,
            self.end_ms
        )
    }
}

impl FromStr for Phase {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, LineError> {
        let read = || {
            let mut words = line.split(' ');
            if words.next()? != MARK {
                return None;
            }
            let name = words.next()?;
            let part = Part::ALL.into_iter().find(|part| part.word() == name)?;
            let mut moment = || {
                words
                    .next()?
                    .parse()
                    .ok()
                    .filter(|ms| (-MOST_MS..=MOST_MS).contains(ms))
            };
            let (begin_ms, end_ms) = (moment()?, moment()?);
            // What it waits for is this program's own knowledge: an older node may have known less.
            words.next()?;
            (words.next().is_none() && begin_ms <= end_ms).then_some(Phase {
                part,
                begin_ms,
                end_ms,
            })
        };
        read().ok_or_else(|| LineError(line.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn every_phase_reads_back() {
        for phase in report().phases() {
            assert_eq!(phase.to_string().parse(), Ok(*phase));
        }
        let beat = Beat {
            count: u64::MAX,
            at_us: 7,
        };
        assert_eq!(beat.to_string().parse(), Ok(beat));
        assert!("beat 1".parse::<Beat>().is_err() && "beat 1 2 3".parse::<Beat>().is_err());
        let first = report().phases()[0].to_string();
        assert_eq!(first, "phase before -800 0 -");
    }

    #[test]
    fn what_is_no_phase_is_refused() {
        for bad in [
            "",
            "phase",
            "14:02:11  selling",
            "phase kernel 0 9",
            "phase kernel 9 0 -",
            "phase kernel 0 9 - more",
            "phase nothing 0 9 -",
            "phase kernel 0 9223372036854775807 -",
            "phase kernel -9223372036854775808 0 -",
        ] {
            assert!(bad.parse::<Phase>().is_err(), "{bad}");
        }
    }
}
