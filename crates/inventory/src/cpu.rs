//! Processors: `/proc/cpuinfo` for the name and flags, the topology for the count.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::tree::{Tree, clean};

/// Enough for 1024 threads of 3 KiB each.
const CPUINFO_MOST: u64 = 4 << 20;
/// The kernel knows fewer than 700 flags.
const MOST_FLAGS: usize = 1024;

/// All processors of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `AMD EPYC`, as the processor says it.
    pub model: Option<String>,
    /// `AuthenticAMD`, `GenuineIntel`, …
    pub vendor: Option<String>,
    /// Processors that can be held in a hand.
    pub sockets: Option<u32>,
    /// Cores in all sockets.
    pub cores: Option<u32>,
    /// Threads that the kernel schedules on (online ones).
    pub threads: Option<u32>,
    /// What the processor can, sorted; of the first one, they are alike.
    pub flags: Option<Vec<String>>,
}

pub(crate) fn read(tree: &Tree) -> Cpu {
    let info = tree.long_text("proc/cpuinfo", CPUINFO_MOST).unwrap_or_default();
    let topology = topology(tree);
    let count = |n: usize| u32::try_from(n).ok().filter(|n| *n > 0);
    let threads = info.lines().filter(|line| key_of(line) == "processor").count();
    Cpu {
        model: value(&info, "model name").and_then(clean),
        vendor: value(&info, "vendor_id").and_then(clean),
        sockets: count(
            topology
                .iter()
                .map(|(socket, _)| socket)
                .collect::<BTreeSet<_>>()
                .len(),
        ),
        cores: count(topology.len()).or_else(|| cores_from_info(&info)),
        threads: count(threads).or_else(|| online(tree)),
        flags: value(&info, "flags").map(|flags| {
            let sorted: BTreeSet<&str> = flags.split_whitespace().take(MOST_FLAGS).collect();
            sorted.into_iter().filter_map(clean).collect()
        }),
    }
}

/// Each core once, as (socket, core): two threads of one core are one entry.
fn topology(tree: &Tree) -> BTreeSet<(u32, u32)> {
    let base = "sys/devices/system/cpu";
    tree.names(base)
        .unwrap_or_default()
        .iter()
        .filter(|name| {
            name.strip_prefix("cpu")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
        .filter_map(|name| {
            Some((
                tree.number(&format!("{base}/{name}/topology/physical_package_id"))?,
                tree.number(&format!("{base}/{name}/topology/core_id"))?,
            ))
        })
        .collect()
}

/// `cpu cores` is per socket: count each socket (`physical id`) once.
fn cores_from_info(info: &str) -> Option<u32> {
    let mut sockets = BTreeSet::new();
    let mut cores = 0_u32;
    for block in info.split("\n\n") {
        let socket = value(block, "physical id").unwrap_or("0");
        if let Some(n) = value(block, "cpu cores").and_then(|n| n.parse::<u32>().ok())
            && sockets.insert(socket)
        {
            cores = cores.checked_add(n)?;
        }
    }
    (cores > 0).then_some(cores)
}

/// The length of a list such as `0-1,4-7`.
fn online(tree: &Tree) -> Option<u32> {
    let list = tree.text("sys/devices/system/cpu/online")?;
    let mut threads = 0_u32;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        threads = threads.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(threads)
}

fn key_of(line: &str) -> &str {
    line.split_once(':').map_or("", |(key, _)| key.trim())
}

/// The first value of a key in `key : value` lines.
fn value<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines()
        .filter(|line| key_of(line) == key)
        .find_map(|line| line.split_once(':').map(|(_, value)| value.trim()))
}
