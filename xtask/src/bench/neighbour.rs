//! `./x bench neighbour`: a good space beside a quiet, a busy and a hostile one, and beside a hostile one without limits.
//!
//! ```text
//!   QEMU ─► guest-tests  hostile::a_good_space…, N rounds ──"neighbour: {…}"──► medians, and their ratio to the busy one's
//! ```
//!
//! The trial is the one that `./x test` runs; here it has a machine of its own, with a thread for each processor, and more
//! rounds. Phases take turns within a round, so ratios hold where absolute times do not.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use qemu::Accel;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::guest;
use crate::show::heading;
use crate::test::Built;
use crate::tree::Tree;

const MACHINE: &str = "guest-neighbour";
const TRIAL: &str = "hostile::a_good_space";
/// Before the figures of one kind beside one neighbour.
const FIGURES: &str = "neighbour: ";
/// How much slower than beside the busy one is too much.
const BOUND: f64 = 1.2;
/// Beside whom, in the order of the columns.
const BESIDE: [&str; 4] = ["quiet", "busy", "hostile", "unlimited"];

/// What was measured of one kind beside one neighbour.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Figures {
    kind: String,
    beside: String,
    seconds: Vec<f64>,
}

/// Runs the trial and prints its figures.
pub fn run(tree: &Tree, built: &Built, rounds: usize, json: Option<&Path>) -> Result<()> {
    ensure!(rounds >= 1, "--runs 0: nothing to measure; use 1 or more");
    heading(&format!(
        "{rounds} rounds beside a quiet, a busy and a hostile neighbour"
    ));
    let words = format!("guest-tests={TRIAL} neighbour={rounds}");
    let mut machine = guest::machine(tree, built, MACHINE, &words)?;
    // With one thread for both processors, whoever rests gives time to the other: no hardware does that.
    machine.accel = Accel::TcgThreads;
    let mut all = Vec::new();
    let ended = guest::boot(tree, built, machine, &mut |line| {
        if let Some(figures) = line.strip_prefix(FIGURES)
            && let Ok(figures) = serde_json::from_str::<Figures>(figures)
        {
            all.push(figures);
        }
    });
    table(&all);
    if let Some(path) = json {
        let report = json!({ "unit": "s", "bound": BOUND, "figures": all });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    ended
}

fn table(all: &[Figures]) {
    heading("Medians in milliseconds");
    print!(" {:<24}", "");
    BESIDE.iter().for_each(|beside| print!("{beside:>11}"));
    println!("{:>14}{:>17}", "hostile/busy", "unlimited/busy");
    for first in all.iter().filter(|figures| figures.beside == BESIDE[0]) {
        let of = |beside: &str| {
            let same = all
                .iter()
                .find(|figures| figures.kind == first.kind && figures.beside == beside);
            same.map_or(f64::NAN, |figures| median(&figures.seconds))
        };
        let [quiet, busy, hostile, unlimited] = BESIDE.map(of);
        let ratio = hostile / busy;
        print!(" {:<24}", first.kind);
        for seconds in [quiet, busy, hostile, unlimited] {
            print!("{:>11.1}", seconds * 1000.0);
        }
        let word = if ratio > BOUND { "  too much" } else { "" };
        println!("{ratio:>14.2}{:>17.2}{word}", unlimited / busy);
    }
}

/// The lower of two in the middle.
fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_trial_tells_them() -> Result<()> {
        let line = "neighbour: {\"kind\":\"a login\",\"beside\":\"busy\",\"seconds\":[0.5000, 0.2500]}";
        let figures: Figures = serde_json::from_str(line.strip_prefix(FIGURES).context("no figures")?)?;
        assert_eq!(median(&figures.seconds), 0.25);
        assert!(BESIDE.contains(&figures.beside.as_str()));
        assert!(median(&[]).is_nan());
        Ok(())
    }
}
