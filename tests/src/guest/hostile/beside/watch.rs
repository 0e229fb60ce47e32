//! Whose the processors' time was while something was measured: spaces, the kernel's own threads, interrupts.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::figures::Phase;
use super::{SALES, cgroup};

/// A clock tick as `/proc` counts: 10 ms.
const TICK_US: u64 = 10_000;
/// What took less is not told.
const LEAST_US: u64 = 50_000;

/// Microseconds by name.
#[derive(Default)]
pub struct Watch {
    before: BTreeMap<String, u64>,
}

impl Watch {
    pub fn begin(&mut self) {
        self.before = look().unwrap_or_default();
    }

    /// Tells what was used since.
    pub fn end(&self, phase: Phase) -> Result<()> {
        let now = look()?;
        let used = now.iter().filter_map(|(name, us)| {
            let used = us.saturating_sub(self.before.get(name).copied().unwrap_or_default());
            (used >= LEAST_US).then(|| format!("{name} {}", used / 1000))
        });
        let used: Vec<String> = used.collect();
        println!("time beside {phase}, in ms: {}", used.join(", "));
        Ok(())
    }
}

fn look() -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for (sale, name) in SALES.into_iter().zip(["good", "busy", "hostile"]) {
        for (file, part) in [
            ("cpu.stat", "usage_usec"),
            ("cpu.pressure", "some"),
            ("io.pressure", "some"),
        ] {
            let text = fs::read_to_string(cgroup(sale).join(file))?;
            let line = text
                .lines()
                .find(|line| line.starts_with(part))
                .unwrap_or_default();
            let figure = line.rsplit([' ', '=']).next().unwrap_or_default();
            found.insert(format!("{name}:{file}"), figure.parse().unwrap_or_default());
        }
    }
    let stat = fs::read_to_string("/proc/stat")?;
    for line in stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (place, part) in [(1, "user"), (3, "system"), (4, "idle"), (7, "softirq")] {
            let ticks: u64 = words.get(place).context("too few figures")?.parse()?;
            found.insert(format!("{}:{part}", words[0]), ticks * TICK_US);
        }
    }
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = text.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else {
            continue;
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        // The parent of the kernel's threads is 2.
        if words.get(1) != Some(&"2") {
            continue;
        }
        let name = name.split(['/', '-', ':']).next().unwrap_or(name);
        let ticks = |place: usize| {
            words
                .get(place)
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or_default()
        };
        *found.entry(format!("[{name}]")).or_default() += (ticks(11) + ticks(12)) * TICK_US;
    }
    Ok(found)
}
