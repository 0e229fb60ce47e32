//! The base on every disk, and what there is to sell on each.
//!
//! ```text
//!   disk ── takes the base ──► its room is sold
//!     └─ does not ──► what spaces have there stays theirs, nothing new; told, and tried again
//! ```
//!
//! What spaces read of it is checked block by block; a disk that returns other data than was written is told.
//!
//! Invariant: the disks that have the base are sold, whatever the others do.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use inventory::{Inventory, boot};
use market::book::Capacity;
use market::quantity::{BitsPerSecond, Bytes};
use provision::base::{BaseError, Bases};
use tokio::time::sleep;

use super::disks::{self, Owned, Room};
use super::ready::Ready;
use super::verdict::Part;
use crate::console::Board;
use crate::desk::{self, Desk};
use crate::sales::SpaceVolume;

/// A base that could not be copied (the stick was pulled out) is copied again after this.
const BASE_AGAIN: Duration = Duration::from_secs(10);
/// Whether what was read of the bases was right is asked so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// To disks that do not take it while others have it, it is copied again after this.
const REST_AGAIN: Duration = Duration::from_secs(60);

/// Copies the base to every disk of ours, and counts the room anew with each that has it. One that does not take it keeps
/// no other from being sold.
pub(super) async fn bring_base(
    ready: Ready,
    board: Board,
    bases: Bases,
    owned: Arc<Owned>,
    desk: Option<Desk>,
    inventory: Arc<Inventory>,
    rate: Option<BitsPerSecond>,
) {
    board.way().begin(boot::Part::Base);
    let digest = bases.digest();
    let groups = owned.state.groups();
    tokio::spawn(tell_damage(board.clone(), bases.clone(), owned.clone()));
    let is_counted = Cell::new(false);
    let told = async |lacking: &[(String, BaseError)]| {
        show_base(&board, &ready, &owned.groups, groups.len(), lacking);
        if lacking.len() == groups.len() {
            return;
        }
        if let Some(desk) = &desk {
            let without: Vec<&str> = lacking.iter().map(|(group, _)| group.as_str()).collect();
            match capacity(&owned, &inventory, rate, 0, &without).await {
                Ok((capacity, volumes)) => desk.set_capacity(capacity, &volumes),
                Err(why) => tracing::warn!(why, "the free room was not counted anew"),
            }
        }
        ready.set(|ready| ready.base = Part::Good);
        // The base took its room: from here on the figures follow the spaces.
        if !is_counted.replace(true) {
            let (board, owned) = (board.clone(), owned.clone());
            tokio::spawn(disks::count_free(board, owned.clone(), owned.groups.clone()));
        }
    };
    let bring = async |group: &str| bases.ensure(group, &digest).await.map(drop);
    bring_to_all(groups, bring, told).await;
}

/// Says which disks return other bytes of a base than were written to them. dm-verity lets none of these through.
async fn tell_damage(board: Board, bases: Bases, owned: Arc<Owned>) {
    loop {
        sleep(LOOK_EVERY).await;
        match bases.damaged(owned.state.groups()).await {
            Ok(damaged) if damaged.is_empty() => {}
            Ok(damaged) => show_damage(&board, &owned.groups, &damaged),
            Err(error) => tracing::warn!(why = crate::words::chain(&error), "the bases were not looked at"),
        }
    }
}

fn show_damage(board: &Board, names: &[(String, String)], damaged: &[String]) {
    let disks: Vec<&str> = damaged.iter().map(|group| disk_of(names, group)).collect();
    super::part_failed(
        board,
        "damaged base",
        &format!("{} returns other data than was written", disks.join(", ")),
        "replace the disk: spaces on it get errors in the place of wrong data",
    );
}

/// The kernel's name of the disk that is a group, or the group's.
fn disk_of<'a>(names: &'a [(String, String)], group: &'a str) -> &'a str {
    let known = names.iter().find(|(_, of)| of == group);
    known.map_or(group, |(name, _)| name)
}

/// Brings something to each disk, and again to those that did not take it; tells after each round which lack it, and why.
async fn bring_to_all<E>(
    groups: &[String],
    bring: impl AsyncFn(&str) -> Result<(), E>,
    told: impl AsyncFn(&[(String, E)]),
) {
    let mut wanting = groups.to_vec();
    loop {
        let mut lacking = Vec::new();
        for group in wanting {
            if let Err(error) = bring(&group).await {
                lacking.push((group, error));
            }
        }
        told(&lacking).await;
        if lacking.is_empty() {
            return;
        }
        let has_some = lacking.len() < groups.len();
        sleep(if has_some { REST_AGAIN } else { BASE_AGAIN }).await;
        wanting = lacking.into_iter().map(|(group, _)| group).collect();
    }
}

/// Says which disks have no base; `all` is how many there are.
fn show_base(
    board: &Board,
    ready: &Ready,
    names: &[(String, String)],
    all: usize,
    lacking: &[(String, BaseError)],
) {
    let Some((_, first)) = lacking.first() else {
        board.update(|status| status.failures.retain(|failure| failure.part != "base"));
        return;
    };
    let why = crate::words::chain(first);
    if lacking.len() == all {
        ready.set(|ready| ready.base = Part::Absent("the base cannot be copied from the stick".into()));
        let cure = "put the stick back; if it is there, write it anew";
        return super::part_failed(board, "base", &why, cure);
    }
    let disks: Vec<&str> = lacking.iter().map(|(group, _)| disk_of(names, group)).collect();
    super::part_failed(
        board,
        "base",
        &format!("no new spaces on {}: {why}", disks.join(", ")),
        "the other disks are sold; let a space on it end, or look at the disk",
    );
}

/// What there is to sell, less `keep` bytes on each disk, and the volumes of spaces that are there. On the groups `without`
/// a base nothing is sold beyond what spaces have there.
pub(super) async fn capacity(
    owned: &Owned,
    inventory: &Inventory,
    rate: Option<BitsPerSecond>,
    keep: u64,
    without: &[&str],
) -> Result<(Capacity, Vec<SpaceVolume>), String> {
    let Room { mut groups, volumes } = disks::room(&owned.storage, owned.state.groups()).await?;
    for (_, room) in &mut groups {
        *room = room.saturating_sub(Bytes(keep));
    }
    let cores = inventory.cpu.threads.or(inventory.cpu.cores).unwrap_or(1);
    let memory = Bytes(inventory.memory_bytes.unwrap_or(0));
    let mut capacity = desk::capacity(cores, memory, rate, &groups);
    for (group, room) in &mut capacity.disks {
        if without.contains(&group.0.as_str()) {
            let there = volumes.iter().filter(|volume| volume.group == *group);
            *room = Bytes(there.fold(0, |sum, volume| sum.saturating_add(volume.bytes.0)));
        }
    }
    Ok((capacity, volumes))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use market::id::Digest;

    use super::*;

    /// Each round's disks that lack it; the second disk takes it in the round `mended`.
    async fn lacking(mended: usize) -> Vec<Vec<String>> {
        let (told, tries) = (RefCell::new(Vec::new()), Cell::new(0));
        let bring = async |group: &str| {
            if group != "b" {
                return Ok(());
            }
            tries.set(tries.get() + 1);
            if tries.get() < mended { Err(()) } else { Ok(()) }
        };
        let say = async |lacking: &[(String, ())]| {
            let names = lacking.iter().map(|(group, ())| group.clone());
            told.borrow_mut().push(names.collect());
        };
        let groups = ["a", "b", "c"].map(str::to_owned);
        bring_to_all(&groups, bring, say).await;
        told.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_takes_no_base_keeps_no_other_waiting() {
        let b = || vec!["b".to_owned()];
        assert_eq!(
            lacking(1).await,
            [Vec::<String>::new()],
            "the control: all take it"
        );
        assert_eq!(
            lacking(3).await,
            [b(), b(), vec![]],
            "told at once that only one lacks it"
        );
    }

    #[tokio::test]
    async fn a_node_sells_what_has_the_base_and_says_what_has_not() {
        let (board, names) = (Board::new("test"), [("sdb".to_owned(), "b".to_owned())]);
        let ready = Ready::start(board.clone());
        let failed = || BaseError::NotOnMedium {
            asked: Digest::from([1; 32]),
            there: Digest::from([2; 32]),
        };
        let why = || board.status().failures.first().map(|failure| failure.why.clone());
        show_base(&board, &ready, &names, 2, &[("b".to_owned(), failed())]);
        assert!(why().is_some_and(|why| why.starts_with("no new spaces on sdb: base ")));
        show_base(&board, &ready, &names, 1, &[("b".to_owned(), failed())]);
        assert!(why().is_some_and(|why| why.starts_with("base ")), "{:?}", why());
        show_base(&board, &ready, &names, 2, &[]);
        assert_eq!(why(), None);
        show_damage(&board, &names, &["b".to_owned()]);
        assert_eq!(why().as_deref(), Some("sdb returns other data than was written"));
    }
}
