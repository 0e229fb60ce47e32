//! On which processors a space runs: as many as its CPUs come to, rounded up, so that `nproc`, Python and a build with
//! a job for each processor see what was sold and not what the node has.
//!
//! ```text
//!   sold  0.5  0.5  1.5      least loaded first       load of 0   load of 1
//!         ───  ───  ─────    ─────────────────►       0.5 + .75   0.5 + .75
//!          0    1    0, 1
//! ```
//!
//! - `cpu.max` is the limit, and stays it. This is where the limit may be used up.
//! - What was sold comes first: where the least loaded processors cannot give it, the space gets more of them, and its
//!   `nproc` says so. (Three times 0.6 on two processors fit in no other way.)
//! - Chosen at each start and when its CPUs change, never while it runs otherwise: a program that has counted the
//!   processors goes on with that number.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use host::names::CGROUP_SPACES;
use market::quantity::MilliCpus;

use super::{LimitsError, read_file};

const FILE: &str = "cpuset.cpus";
/// One processor, in thousandths.
const WHOLE: u64 = 1000;

/// Puts the cgroup at `path` on the least loaded processors for `cpu`, unless it is on as many as it should be. Blocks.
pub fn place(path: &Path, cpu: MilliCpus) -> Result<(), LimitsError> {
    // Two spaces that are made at once would both choose what is idle now.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let online = parse(&read_file(
        &Path::new(CGROUP_SPACES).join("cpuset.cpus.effective"),
    )?);
    let have = parse(&read_file(&path.join(FILE))?);
    let mut load: BTreeMap<u32, u64> = online.iter().map(|processor| (*processor, 0)).collect();
    for other in fs::read_dir(CGROUP_SPACES).into_iter().flatten().flatten() {
        let other = other.path();
        if other == path {
            continue;
        }
        // One that ends meanwhile loads nothing.
        let (Ok(on), Ok(most)) = (
            fs::read_to_string(other.join(FILE)),
            fs::read_to_string(other.join("cpu.max")),
        ) else {
            continue;
        };
        add(&mut load, &parse(&on), quota(&most));
    }
    let chosen = choose(&load, cpu, &have);
    if chosen == have {
        return Ok(());
    }
    let file = path.join(FILE);
    let value = list(&chosen);
    fs::write(&file, &value).map_err(|source| LimitsError::Write {
        path: file.clone(),
        source,
    })?;
    let found = read_file(&file)?;
    if parse(&found) == chosen {
        return Ok(());
    }
    Err(LimitsError::NotTaken {
        path: path.to_owned(),
        file: FILE,
        expected: value,
        found: found.trim().to_owned(),
    })
}

/// Spreads what a space may use over the processors that it is on.
fn add(load: &mut BTreeMap<u32, u64>, on: &[u32], quota: Option<u64>) {
    let Some(count) = u64::try_from(on.len()).ok().filter(|count| *count > 0) else {
        return;
    };
    let each = quota.map_or(WHOLE, |quota| quota / count);
    for processor in on {
        if let Some(load) = load.get_mut(processor) {
            *load += each;
        }
    }
}

/// The processors for `cpu`, where others load them so; `have` where that is right already.
fn choose(load: &BTreeMap<u32, u64>, cpu: MilliCpus, have: &[u32]) -> Vec<u32> {
    let wanted = u64::from(cpu.0).div_ceil(WHOLE).max(1);
    let count = usize::try_from(wanted).unwrap_or(usize::MAX).min(load.len());
    if have.len() == count && have.iter().all(|processor| load.contains_key(processor)) {
        return have.to_owned();
    }
    let mut by_load: Vec<(u64, u32)> = load.iter().map(|(processor, load)| (*load, *processor)).collect();
    by_load.sort_unstable();
    let mut room = 0;
    let mut chosen = Vec::new();
    for (load, processor) in by_load {
        if chosen.len() >= count && room >= u64::from(cpu.0) {
            break;
        }
        room += WHOLE.saturating_sub(load);
        chosen.push(processor);
    }
    chosen.sort_unstable();
    chosen
}

/// What `cpu.max` allows, in thousandths; `None` without a limit.
fn quota(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let (quota, period): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    quota.checked_mul(WHOLE)?.checked_div(period)
}

/// A list of the kernel's: `0-2,5`. What is no number is passed over.
fn parse(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse::<u32>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn list(processors: &[u32]) -> String {
    let numbers: Vec<String> = processors.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places spaces one after the other on a node with so many processors.
    fn placed(processors: u32, sold: &[u32]) -> Vec<Vec<u32>> {
        let mut load: BTreeMap<u32, u64> = (0..processors).map(|processor| (processor, 0)).collect();
        sold.iter()
            .map(|cpu| {
                let chosen = choose(&load, MilliCpus(*cpu), &[]);
                add(&mut load, &chosen, Some(u64::from(*cpu)));
                chosen
            })
            .collect()
    }

    #[test]
    fn as_many_processors_as_were_sold_rounded_up() {
        for (cpu, count) in [
            (10, 1),
            (250, 1),
            (1000, 1),
            (1001, 2),
            (1500, 2),
            (4000, 4),
            (9000, 4),
        ] {
            assert_eq!(placed(4, &[cpu])[0].len(), count, "{cpu}");
        }
    }

    #[test]
    fn the_least_loaded_are_taken() {
        // The fourth finds half a processor free on 0 and on 3, and a quarter on the others.
        assert_eq!(
            placed(4, &[500, 1500, 500, 500, 250]),
            [vec![0], vec![1, 2], vec![3], vec![0], vec![3]]
        );
    }

    #[test]
    fn what_was_sold_is_given_though_it_takes_one_more() {
        assert_eq!(placed(2, &[600, 600, 600]), [vec![0], vec![1], vec![0, 1]]);
    }

    #[test]
    fn who_is_on_as_many_as_he_should_be_stays() {
        let load = BTreeMap::from([(0, 0), (1, 900), (2, 0)]);
        assert_eq!(choose(&load, MilliCpus(500), &[1]), [1]);
        assert_eq!(
            choose(&load, MilliCpus(500), &[7]),
            [0],
            "a processor that is gone"
        );
        assert_eq!(choose(&load, MilliCpus(2000), &[1]), [0, 2]);
    }

    #[test]
    fn lists_and_limits_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse("\n"), [] as [u32; 0]);
        assert_eq!(quota("25000 100000\n"), Some(250));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(list(&[0, 2]), "0,2");
    }
}
