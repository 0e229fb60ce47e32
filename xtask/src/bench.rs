//! `./x bench sale`: the demo several times over, and where the time of a sale goes.
//!
//! Every figure is the gap between two steps of the demo's own report; all runs are kept beside the summary, so that an
//! outlier can be seen and not only averaged away. Emulated figures compare with each other, not with hardware.

pub mod boot;
pub mod neighbour;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stage::Artefacts;

use crate::demo;
use crate::show::heading;

/// What was asked for on the command line.
pub struct Options {
    /// How many sales, or rounds.
    pub runs: usize,
    /// Where all figures go.
    pub json: Option<PathBuf>,
    /// Hardware virtualisation, on explicit wish only.
    pub kvm: bool,
    /// Where the demo keeps its state.
    pub dir: PathBuf,
}

/// What is measured: words, from which step, to which.
const GAPS: [(&str, &str, &str); 9] = [
    ("power on to PID 1", "power_on", "pid1"),
    ("power on to disks claimed", "power_on", "disks_claimed"),
    ("power on to joined", "power_on", "joined"),
    ("request to first offer", "request", "first_offer"),
    ("agreed to money locked", "agreed", "funded"),
    ("money locked to ready", "funded", "ready"),
    ("ready to logged in", "ready", "logged_in"),
    ("logged in to first payment", "logged_in", "unlocked"),
    ("cancel to receipt", "cancelled", "receipt"),
];

/// Runs them and prints one line a figure.
pub fn sale(options: &Options, artefacts: &Artefacts) -> Result<()> {
    ensure!(options.runs >= 1, "--runs 0: nothing to measure; use 1 or more");
    let mut reports = Vec::new();
    for run in 1..=options.runs {
        heading(&format!("Sale {run} of {}", options.runs));
        let report = options.dir.with_extension("json");
        let once = demo::Options {
            once: true,
            nodes: 1,
            json: Some(report.clone()),
            kvm: options.kvm,
            dir: options.dir.clone(),
        };
        demo::run(&once, artefacts.clone())?;
        reports.push(read(&report)?);
    }
    let figures: Vec<(&str, Vec<u64>)> = GAPS
        .iter()
        .map(|(words, from, to)| {
            let gaps: Result<Vec<u64>> = reports.iter().map(|report| gap(report, from, to)).collect();
            Ok((*words, gaps?))
        })
        .collect::<Result<_>>()?;

    heading("Milliseconds");
    println!(" {:<28}{:>8}{:>8}{:>8}   all runs", "", "min", "median", "max");
    for (words, gaps) in &figures {
        let (min, median, max) = summary(gaps);
        println!(" {words:<28}{min:>8}{median:>8}{max:>8}   {gaps:?}");
    }
    if let Some(path) = &options.json {
        let figures: serde_json::Map<String, Value> = figures
            .iter()
            .map(|(words, gaps)| (words.replace(' ', "_"), json!(gaps)))
            .collect();
        let all = json!({ "unit": "ms", "figures": figures, "reports": reports });
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no report", path.display()))
}

fn gap(report: &Value, from: &str, to: &str) -> Result<u64> {
    let at = |name: &str| {
        let steps = report["steps"].as_array()?;
        steps.iter().find(|step| step["name"] == name)?["at_ms"].as_u64()
    };
    let (from, to) = (
        at(from).with_context(|| format!("the report has no step {from}"))?,
        at(to).with_context(|| format!("the report has no step {to}"))?,
    );
    Ok(to.saturating_sub(from))
}

/// Minimum, median (the lower of two in the middle), maximum.
pub fn summary(values: &[u64]) -> (u64, u64, u64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    (
        at(0),
        at(sorted.len().saturating_sub(1) / 2),
        at(sorted.len().saturating_sub(1)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lies_between_two_steps() {
        let report = json!({"steps": [{"name": "pid1", "at_ms": 20}, {"name": "joined", "at_ms": 95}]});
        assert_eq!(gap(&report, "pid1", "joined").ok(), Some(75));
        assert!(gap(&report, "pid1", "receipt").is_err());
    }

    #[test]
    fn the_summary_is_of_sorted_values() {
        assert_eq!(summary(&[9, 1, 5]), (1, 5, 9));
        assert_eq!(summary(&[4, 2]), (2, 2, 4));
        assert_eq!(summary(&[7]), (7, 7, 7));
    }
}
