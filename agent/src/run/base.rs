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

use std::sync::Arc;
use std::time::Duration;

use inventory::{Inventory, boot};
use market::book::Capacity;
use market::quantity::{BitsPerSecond, Bytes};
use provision::base::Bases;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

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
/// So long it is waited for whether the disks have it already: to look is one command of LVM, to copy takes seconds.
const THERE_WITHIN: Duration = Duration::from_millis(500);
/// To disks that do not take it while others have it, it is copied again after this.
const REST_AGAIN: Duration = Duration::from_secs(60);

/// How it stands with the base on each disk of ours; a disk in neither list is still being asked or written.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// The groups that have it.
    whole: Vec<String>,
    /// Those that did not take it, and why.
    failed: Vec<(String, String)>,
}

impl Standing {
    fn note(&mut self, group: &str, outcome: Result<(), String>) {
        self.failed.retain(|(known, _)| known != group);
        match outcome {
            Ok(()) => self.whole.push(group.to_owned()),
            Err(why) => self.failed.push((group.to_owned(), why)),
        }
    }
}

/// Says of one disk whether it has the base.
type Told = mpsc::UnboundedSender<(String, Result<(), String>)>;

/// Begins to copy the base to every disk of ours but those that are known to have it, and to look whether what is read of it
/// is right. Nothing waits for it but what [`sell`] does.
pub(super) fn begin(
    board: &Board,
    bases: &Bases,
    owned: &Arc<Owned>,
    whole: Vec<String>,
) -> watch::Receiver<Standing> {
    board.way().begin(boot::Part::Base);
    if !whole.is_empty() {
        board.way().done(boot::Part::Base);
    }
    crate::task::spawn(tell_damage(board.clone(), bases.clone(), owned.clone()));
    let failed = Vec::new();
    let (tell, standing) = watch::channel(Standing { whole, failed });
    let (bases, way) = (bases.clone(), board.way().clone());
    let bring = async move |groups: Vec<String>, told: Told| {
        let (bases, way) = (bases.clone(), way.clone());
        let copied = spawn_blocking(move || {
            bases.bring_blocking(&groups, |group, outcome| {
                let outcome = outcome.map(|_| way.done(boot::Part::Base));
                let outcome = outcome.map_err(|error| crate::words::chain(&error));
                let _ = told.send((group.to_owned(), outcome));
            });
        });
        if let Err(error) = copied.await {
            tracing::warn!(%error, "copying the base was cut off");
        }
    };
    let groups = owned.state.groups().to_vec();
    crate::task::spawn(async move { bring_to_all(&groups, bring, &tell).await });
    standing
}

/// What there is to sell when the desk opens.
pub(super) struct Counted {
    /// What [`capacity`] found.
    pub capacity: Result<(Capacity, Vec<SpaceVolume>), String>,
    /// The groups that had the base then.
    pub whole: Vec<String>,
}

/// Counts what there is to sell. A base that is on the disks already is waited for; until one is there, its room counts as
/// taken.
pub(super) async fn count(
    standing: &mut watch::Receiver<Standing>,
    owned: &Owned,
    inventory: &Inventory,
    rate: Option<BitsPerSecond>,
    bases: &Bases,
) -> Counted {
    let groups = owned.state.groups();
    let all_told = |standing: &Standing| standing.whole.len() + standing.failed.len() == groups.len();
    let _ = timeout(THERE_WITHIN, standing.wait_for(all_told)).await;
    let whole = standing.borrow().whole.clone();
    let capacity = if whole.is_empty() {
        capacity(owned, inventory, rate, bases.extents(), &[]).await
    } else {
        capacity(owned, inventory, rate, 0, &lacking(groups, &whole)).await
    };
    Counted { capacity, whole }
}

/// The groups that have it not.
fn lacking<'a>(groups: &'a [String], whole: &[String]) -> Vec<&'a str> {
    let lacking = groups.iter().filter(|group| !whole.contains(group));
    lacking.map(String::as_str).collect()
}

/// Has the room of each disk sold as soon as it has the base. One that does not take it keeps no other from being sold. The
/// desk knows what there is where those groups have it that had it at the count.
pub(super) async fn sell(
    (mut standing, mut known): (watch::Receiver<Standing>, Vec<String>),
    ready: Ready,
    board: Board,
    owned: Arc<Owned>,
    desk: Option<Desk>,
    inventory: Arc<Inventory>,
    rate: Option<BitsPerSecond>,
) {
    let groups = owned.state.groups();
    let mut is_counted = false;
    loop {
        let now = standing.borrow_and_update().clone();
        show_base(&board, &ready, &owned.groups, groups.len(), &now.failed);
        if !now.whole.is_empty() {
            if let Some(desk) = &desk
                && known != now.whole
            {
                match capacity(&owned, &inventory, rate, 0, &lacking(groups, &now.whole)).await {
                    Ok((capacity, volumes)) => {
                        desk.set_capacity(capacity, &volumes);
                        known.clone_from(&now.whole);
                    }
                    Err(why) => tracing::warn!(why, "the free room was not counted anew"),
                }
            }
            ready.set(|ready| ready.base = Part::Good);
        }
        // The base took its room: from here on the figures follow the spaces.
        let is_settled = now.whole.len() + now.failed.len() == groups.len();
        if is_settled && !std::mem::replace(&mut is_counted, is_settled) {
            crate::task::spawn(disks::count_free(
                board.clone(),
                owned.clone(),
                owned.groups.clone(),
            ));
        }
        // Who copies has ended: every disk has it.
        if standing.changed().await.is_err() {
            return;
        }
    }
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

/// Brings something to all disks, and again to those that did not take it; ends when all have it.
async fn bring_to_all(
    groups: &[String],
    bring: impl AsyncFn(Vec<String>, Told),
    tell: &watch::Sender<Standing>,
) {
    loop {
        let has = tell.borrow().whole.clone();
        let wanting: Vec<String> = groups
            .iter()
            .filter(|group| !has.contains(group))
            .cloned()
            .collect();
        if wanting.is_empty() {
            return;
        }
        let (told, mut outcomes): (Told, _) = mpsc::unbounded_channel();
        let note = async {
            while let Some((group, outcome)) = outcomes.recv().await {
                tell.send_modify(|standing| standing.note(&group, outcome));
            }
        };
        tokio::join!(bring(wanting, told), note);
        let (whole, all) = (tell.borrow().whole.len(), groups.len());
        if whole < all {
            sleep(if whole > 0 { REST_AGAIN } else { BASE_AGAIN }).await;
        }
    }
}

/// Says which disks did not take the base; `all` is how many there are.
fn show_base(
    board: &Board,
    ready: &Ready,
    names: &[(String, String)],
    all: usize,
    failed: &[(String, String)],
) {
    let Some((_, why)) = failed.first() else {
        board.update(|status| status.failures.retain(|failure| failure.part != "base"));
        return;
    };
    if failed.len() == all {
        ready.set(|ready| ready.base = Part::Absent("the base cannot be copied from the stick".into()));
        let cure = "put the stick back; if it is there, write it anew";
        return super::part_failed(board, "base", why, cure);
    }
    let disks: Vec<&str> = failed.iter().map(|(group, _)| disk_of(names, group)).collect();
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
    use std::cell::Cell;

    use super::*;

    /// What stands after each thing that is told; the second of three disks takes it in the round `mended`.
    async fn stands(mended: usize) -> Vec<(usize, usize)> {
        let tries = Cell::new(0);
        let bring = async |groups: Vec<String>, told: Told| {
            tries.set(tries.get() + 1);
            for group in groups {
                let outcome = match group == "b" && tries.get() < mended {
                    true => Err("it is full".to_owned()),
                    false => Ok(()),
                };
                told.send((group, outcome)).unwrap();
                // The clock stands still until all have heard of it.
                sleep(Duration::from_millis(1)).await;
            }
        };
        let (tell, mut standing) = watch::channel(Standing::default());
        let groups = ["a", "b", "c"].map(str::to_owned);
        let watching = async {
            let mut seen = Vec::new();
            while standing.changed().await.is_ok() {
                let now = standing.borrow_and_update();
                seen.push((now.whole.len(), now.failed.len()));
            }
            seen
        };
        let bringing = async move { bring_to_all(&groups, bring, &tell).await };
        tokio::join!(bringing, watching).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_is_told_as_soon_as_it_has_the_base_and_one_that_takes_none_keeps_no_other_waiting() {
        assert_eq!(
            stands(1).await,
            [(1, 0), (2, 0), (3, 0)],
            "the control: all take it"
        );
        assert_eq!(
            stands(3).await,
            [(1, 0), (1, 1), (2, 1), (2, 1), (3, 0)],
            "two are told in the first round, and only one is tried again"
        );
    }

    #[tokio::test]
    async fn a_node_sells_what_has_the_base_and_says_what_has_not() {
        let (board, names) = (Board::new("test"), [("sdb".to_owned(), "b".to_owned())]);
        let ready = Ready::start(board.clone());
        let failed = [("b".to_owned(), "the disk is full".to_owned())];
        let why = || board.status().failures.first().map(|failure| failure.why.clone());
        show_base(&board, &ready, &names, 2, &failed);
        assert_eq!(why().as_deref(), Some("no new spaces on sdb: the disk is full"));
        show_base(&board, &ready, &names, 1, &failed);
        assert_eq!(why().as_deref(), Some("the disk is full"));
        show_base(&board, &ready, &names, 2, &[]);
        assert_eq!(why(), None);
        show_damage(&board, &names, &["b".to_owned()]);
        assert_eq!(why().as_deref(), Some("sdb returns other data than was written"));
    }
}
