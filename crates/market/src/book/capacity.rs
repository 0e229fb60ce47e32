//! How much of everything; disks one by one, for a space lies on one.

use std::collections::BTreeMap;

use crate::id::GroupId;
use crate::message::{DeclineCode, Gives, Reason};
use crate::quantity::{BitsPerSecond, Bytes, MilliCpus};

/// What a node has to sell, or what is free of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capacity {
    /// CPU time.
    pub cpu: MilliCpus,
    /// Memory.
    pub memory: Bytes,
    /// Network rate, each way.
    pub rate: BitsPerSecond,
    /// Processes and threads.
    pub pids: u32,
    /// Spaces (of id ranges, namespaces and ports there are only so many).
    pub spaces: u32,
    /// Free on each disk.
    pub disks: BTreeMap<GroupId, Bytes>,
    /// What each volume takes of its disk beside what is sold of it.
    pub a_volume: Bytes,
}

impl Capacity {
    /// What remains when this is taken; nothing goes below zero.
    pub(super) fn less(mut self, gives: &Gives, group: &GroupId) -> Capacity {
        self.cpu = self.cpu.saturating_sub(gives.cpu);
        self.memory = self.memory.saturating_sub(gives.in_memory());
        self.rate = self.rate.saturating_sub(gives.rate);
        self.pids = self.pids.saturating_sub(gives.pids);
        self.spaces = self.spaces.saturating_sub(1);
        if let Some(free) = self.disks.get_mut(group) {
            *free = free.saturating_sub(gives.on_disk()).saturating_sub(self.a_volume);
        }
        self
    }

    /// Half of everything, rounded down; of spaces up, so that the last one can be held.
    pub(super) fn half(&self) -> Capacity {
        Capacity {
            cpu: MilliCpus(self.cpu.0 / 2),
            memory: Bytes(self.memory.0 / 2),
            rate: BitsPerSecond(self.rate.0 / 2),
            pids: self.pids / 2,
            spaces: self.spaces.div_ceil(2),
            disks: self
                .disks
                .iter()
                .map(|(group, free)| (group.clone(), Bytes(free.0 / 2)))
                .collect(),
            a_volume: self.a_volume,
        }
    }

    /// The most that is free on one disk.
    fn largest_disk(&self) -> Bytes {
        self.disks.values().copied().max().unwrap_or(Bytes::ZERO)
    }

    /// The fullest disk on which it still fits, so that large room stays whole.
    pub(super) fn best_group(&self, disk: Bytes) -> Option<GroupId> {
        let fits = |free: &Bytes| free.saturating_sub(self.a_volume) >= disk;
        let fitting = self.disks.iter().filter(|(_, free)| fits(free));
        fitting
            .min_by_key(|(group, free)| (**free, (*group).clone()))
            .map(|(group, _)| group.clone())
    }

    /// Whether it fits, with the volume on this disk.
    pub(super) fn fits_on(&self, gives: &Gives, group: &GroupId) -> bool {
        self.refuses_on(gives, group).is_empty()
    }

    /// Every reason why it does not fit with the volume on this disk.
    pub(super) fn refuses_on(&self, gives: &Gives, group: &GroupId) -> Vec<Reason> {
        let disk = self.disks.get(group).copied().unwrap_or(Bytes::ZERO);
        self.lacks(gives, disk)
    }

    /// Every reason why it does not fit, or none.
    pub fn refuses(&self, gives: &Gives) -> Option<Vec<Reason>> {
        let reasons = self.lacks(gives, self.largest_disk());
        (!reasons.is_empty()).then_some(reasons)
    }

    fn lacks(&self, gives: &Gives, disk: Bytes) -> Vec<Reason> {
        let rows = [
            (DeclineCode::Cpu, u64::from(gives.cpu.0), u64::from(self.cpu.0)),
            (DeclineCode::Memory, gives.in_memory().0, self.memory.0),
            (
                DeclineCode::Disk,
                gives.on_disk().0,
                disk.saturating_sub(self.a_volume).0,
            ),
            (DeclineCode::Rate, gives.rate.0, self.rate.0),
            (DeclineCode::Spaces, u64::from(gives.pids), u64::from(self.pids)),
            (DeclineCode::Spaces, 1, u64::from(self.spaces)),
        ];
        let lacking = rows.into_iter().filter(|(_, asked, have)| asked > have);
        lacking
            .map(|(code, asked, have)| Reason::numbers(code, u128::from(asked), u128::from(have)))
            .collect()
    }
}
