//! What was measured beside whom, and what of it has to hold.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

/// How many times slower a space may be beside a hostile neighbour than beside a busy one: the mean of all that its user
/// does. What is aimed at is 1.2; but here one thread emulates both processors, and others compute beside it: two runs say
/// 0.8 and 1.6 of the same. `./x bench neighbour` tells all figures, on a thread for each processor.
const WORSE_AT_MOST: f64 = 2.5;
/// How many times worse yet it has to be without limits: less would show nothing.
const HARM: f64 = 1.5;
/// How long the agent may take, whoever runs beside it.
const AGENT_WITHIN: f64 = 10.0;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Login,
    Line,
    Work,
    Megabyte,
    Agent,
}

/// What the neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Quiet,
    Busy,
    Hostile,
    Unlimited,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Login, Self::Line, Self::Work, Self::Megabyte, Self::Agent];
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Quiet, Self::Busy, Self::Hostile, Self::Unlimited];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Login => "a login",
            Self::Line => "a line there and back",
            Self::Work => "work and an fsync",
            Self::Megabyte => "a megabyte",
            Self::Agent => "the agent's own work",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quiet => "quiet",
            Self::Busy => "busy",
            Self::Hostile => "hostile",
            Self::Unlimited => "unlimited",
        })
    }
}

/// Seconds, by kind and phase.
#[derive(Default)]
pub struct Figures {
    seconds: [[Vec<f64>; 4]; 5],
}

impl Figures {
    pub fn add(&mut self, kind: Kind, phase: Phase, took: Duration) {
        self.seconds[kind as usize][phase as usize].push(took.as_secs_f64());
    }

    fn of(&self, kind: Kind, phase: Phase) -> &[f64] {
        &self.seconds[kind as usize][phase as usize]
    }

    /// Every figure, for whoever reads the console.
    pub fn tell(&self) {
        for kind in Kind::ALL {
            for phase in Phase::ALL {
                let seconds = self.of(kind, phase);
                println!(
                    "neighbour: {{\"kind\":\"{kind}\",\"beside\":\"{phase}\",\"seconds\":{seconds:.4?}}}"
                );
            }
        }
    }

    /// The medians, and whether they hold.
    pub fn judge(&self) -> Result<()> {
        let (mut hostile, mut unlimited) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let of = |phase| median(self.of(kind, phase));
            let [quiet, busy, beside, control] = Phase::ALL.map(of);
            println!(
                "{kind:<22} quiet {quiet:.3} s, busy {busy:.3} s, hostile {beside:.3} s ({:.2}), \
                 without limits {control:.3} s ({:.2})",
                beside / busy,
                control / busy
            );
            if kind != Kind::Agent {
                hostile.push(beside / busy);
                unlimited.push(control / busy);
            }
        }
        let slowest = self
            .of(Kind::Agent, Phase::Hostile)
            .iter()
            .copied()
            .fold(0.0, f64::max);
        let (hostile, unlimited) = (mean(&hostile), mean(&unlimited));
        println!(
            "all of it: hostile/busy {hostile:.2}, without limits {unlimited:.2}; the agent at most {slowest:.2} s"
        );
        ensure!(
            hostile <= WORSE_AT_MOST,
            "{hostile:.2} times as long as beside a busy one"
        );
        ensure!(
            slowest <= AGENT_WITHIN,
            "the agent's own work took {slowest:.2} s"
        );
        ensure!(
            unlimited > hostile * HARM,
            "without its limits the hostile one is hardly felt more ({unlimited:.2}): nothing is shown"
        );
        Ok(())
    }
}

/// The geometric mean, which is what ratios have.
fn mean(ratios: &[f64]) -> f64 {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (sum / ratios.len().max(1) as f64).exp()
}

/// The lower of two in the middle.
fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len().saturating_sub(1) / 2;
    figures.get(middle).copied().unwrap_or(f64::NAN)
}
