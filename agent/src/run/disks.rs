//! The disks: claimed, told about, and the node's state on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inventory::boot;
use market::id::GroupId;
use market::quantity::Bytes;
use provision::claim::{DiskState, Holding};
use provision::journal::Standing;
use provision::state::{self, State};
use provision::volume::sale_of;
use storage::Storage;
use storage::lvm::LogicalVolume;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::controllers;
use super::medium::Booted;
use super::ready::Ready;
use super::verdict::Part;
use crate::console::{self, Board};
use crate::facts;
use crate::sales::SpaceVolume;

/// The drivers of power-on are waited for; a disk of a slow bus may come later still.
const HARDWARE: Duration = Duration::from_secs(30);
/// The journal is copied to the other disks so often.
const COPY_EVERY: Duration = Duration::from_secs(20);
/// Whether spaces came or went is looked at so often.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The part that says it.
const COPY: &str = "copy";

/// What is ours.
pub(super) struct Owned {
    pub storage: Storage,
    pub state: Arc<State>,
    /// Each disk's name of today, and its group.
    pub groups: Vec<(String, String)>,
}

/// Claims what may be claimed and opens the state. Nothing where there is no disk of ours;
/// why not is on the board then.
pub(super) async fn open(board: &Board, ready: &Ready, booted: &Booted) -> Option<Owned> {
    board.way().begin(boot::Part::Disks);
    let typed = super::acts::take_lines();
    let lines: Vec<String> = booted
        .reading
        .farmer
        .erase
        .iter()
        .chain(&typed)
        .cloned()
        .collect();
    let medium: Vec<String> = booted.medium.disk.iter().cloned().collect();
    let shown = board.clone();
    let started = spawn_blocking(move || {
        // It looks at no disk before it is asked, and again at the kinds that came later.
        let storage = Storage::start().map_err(|error| crate::words::chain(&error))?;
        if !matches!(host::module::wait_for_hardware(HARDWARE), Ok(true)) {
            tracing::warn!("not all drivers are loaded yet; disks that come later are not used");
        }
        let machine = inventory::read(Path::new("/"));
        shown.update(|status| status.machine = facts::machine_line(&machine));
        let controllers = controllers::lacking(&machine, medium.first().map(String::as_str));
        let disks = machine.disks.unwrap_or_default();
        let started = state::start(&storage, &disks, &lines, &medium);
        started
            .map(|started| (storage, started, controllers))
            .map_err(|error| crate::words::chain(&error))
    })
    .await;
    let (storage, started, controllers) = match started {
        Ok(Ok(started)) => started,
        Ok(Err(why)) => return failed(board, ready, &why),
        Err(error) => return failed(board, ready, &crate::words::chain(&error)),
    };
    for wrong in &started.wrong_lines {
        board.event(format!("farmer.toml erase: {}", crate::words::chain(wrong)));
    }
    show(board, &started.disks, booted.medium.disk.as_deref(), controllers);
    let claimed: Vec<String> = started.disks.iter().filter_map(claimed_words).collect();
    if claimed.is_empty() {
        let why = match started.disks.len() {
            0 => "no disk",
            _ => "no disk is free to use",
        };
        board.event(format!("no disk claimed: {} found", started.disks.len()));
        ready.set(|ready| ready.disks = Part::Bad(why.into()));
        return None;
    }
    board.event(format!("disks claimed: {}", claimed.join(", ")));
    ready.set(|ready| ready.disks = Part::Good);
    let state = match started.state {
        Ok(state) => state,
        Err(error) => {
            let why = crate::words::chain(&error);
            super::part_failed(
                board,
                "state",
                &why,
                "switch off and on; if it stays, look at the disk",
            );
            ready.set(|ready| ready.state = Part::Bad(format!("state: {why}")));
            return None;
        }
    };
    board.update(|status| {
        status.node = Some(state.node().short());
        status.node_id = Some(state.node().to_string());
    });
    for group in state.missing() {
        let why = format!("the disk with {group} is missing: its spaces cannot be opened");
        super::part_failed(board, "disk", &why, "put the disk back, then switch off and on");
    }
    for group in state.split() {
        let why =
            format!("the disk with {group} knows of sales from a time when this node's first disk was away");
        let cure = "start the machine with that disk alone to serve them; it is left as it is";
        super::part_failed(board, "journal", &why, cure);
    }
    let state = Arc::new(state);
    let groups: Vec<(String, String)> = started.disks.iter().filter_map(group).collect();
    if state.groups().len() > 1 {
        crate::task::spawn(copy_journal(board.clone(), state.clone(), groups.clone()));
    }
    Some(Owned {
        storage,
        state,
        groups,
    })
}

fn failed(board: &Board, ready: &Ready, why: &str) -> Option<Owned> {
    super::part_failed(
        board,
        "disks",
        why,
        "switch off and on; if it stays, report this line",
    );
    ready.set(|ready| ready.disks = Part::Bad("the disks cannot be read".into()));
    None
}

fn claimed_words(disk: &DiskState) -> Option<String> {
    match &disk.state {
        Holding::Claimed { .. } => Some(format!("{} {}", disk.name, disk.size.human())),
        Holding::NotTouched { .. } => None,
    }
}

fn group(disk: &DiskState) -> Option<(String, String)> {
    match &disk.state {
        Holding::Claimed { group, .. } => Some((disk.name.clone(), group.clone())),
        Holding::NotTouched { .. } => None,
    }
}

/// The disks on the board; a line for each that is not used, as it can be copied.
fn show(board: &Board, disks: &[DiskState], medium: Option<&str>, controllers: Vec<console::Disk>) {
    for controller in &controllers {
        board.event(format!("{} {}", controller.name, controller.state));
    }
    let lines = disks.iter().map(|disk| line(disk, medium)).chain(controllers);
    let lines = lines.collect();
    board.update(|status| status.disks = Some(lines));
    for disk in disks {
        if let Holding::NotTouched {
            erase_line: Some(_), ..
        } = &disk.state
        {
            board.event(disk.words());
        }
    }
}

fn line(disk: &DiskState, medium: Option<&str>) -> console::Disk {
    let (state, holds, line) = match &disk.state {
        _ if medium == Some(disk.name.as_str()) => {
            ("the medium this machine booted from".to_owned(), "", None)
        }
        Holding::Claimed { free, .. } => (format!("claimed, {} free", free.human()), "", None),
        Holding::NotTouched {
            why,
            what,
            erase_line,
        } => {
            let state = match erase_line {
                Some(_) => format!("not touched: {what}"),
                None => format!("not touched: {why}"),
            };
            (state, what.as_str(), erase_line.clone())
        }
    };
    console::Disk {
        name: disk.name.clone(),
        size: disk.size.human(),
        state,
        holds: holds.to_owned(),
        line,
        controller: false,
    }
}

/// Keeps the figures of what is free right, for they change with every space.
pub(super) async fn count_free(board: Board, owned: Arc<Owned>, groups: Vec<(String, String)>) {
    let mut counted: Option<usize> = None;
    loop {
        let spaces = board.status().spaces.len();
        if counted != Some(spaces) {
            match free(&owned.storage, owned.state.groups()).await {
                Ok(free) => {
                    show_free(&board, &groups, &free);
                    counted = Some(spaces);
                }
                Err(why) => tracing::warn!(why, "the free room was not counted"),
            }
        }
        sleep(COUNT_EVERY).await;
    }
}

/// `groups`: the name of each disk of ours and its group.
fn show_free(board: &Board, groups: &[(String, String)], free: &[(String, u64)]) {
    board.update(|status| {
        for disk in status.disks.iter_mut().flatten() {
            let group = groups.iter().find(|(name, _)| *name == disk.name);
            let free = group.and_then(|(_, group)| free.iter().find(|(name, _)| name == group));
            if let Some((_, bytes)) = free {
                disk.state = format!("claimed, {} free", Bytes(*bytes).human());
            }
        }
    });
}

/// Keeps those copies fresh that do not follow the journal by themselves, and says which should and do not.
async fn copy_journal(board: Board, state: Arc<State>, groups: Vec<(String, String)>) {
    loop {
        sleep(COPY_EVERY).await;
        let copied = spawn_blocking({
            let (board, state, groups) = (board.clone(), state.clone(), groups.clone());
            move || {
                // Said first: a disk that does not answer may keep the copying.
                show_copies(&board, &groups, &state.copies()?);
                state.replicate()
            }
        });
        match copied.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = crate::words::chain(&error), "the journal was not copied")
            }
            Err(error) => tracing::warn!(%error, "the journal was not copied"),
        }
    }
}

/// What a farmer reads where the journal would not survive the loss of a disk.
fn show_copies(board: &Board, groups: &[(String, String)], copies: &[(String, Standing)]) {
    let lacking: Vec<String> = copies
        .iter()
        .filter_map(|(group, standing)| {
            let disk = groups.iter().find(|(_, of)| of == group);
            let disk = disk.map_or(group, |(name, _)| name);
            match standing {
                Standing::Follows => None,
                Standing::Behind => Some(format!("{disk} is slow, the journal's copy there is behind")),
                Standing::Left => Some(format!("{disk} failed, the journal is copied there now and then")),
                Standing::Silent => Some(format!("{disk} does not answer, the journal's copy there is old")),
            }
        })
        .collect();
    if lacking.is_empty() {
        board.update(|status| status.failures.retain(|failure| failure.part != COPY));
        return;
    }
    super::part_failed(
        board,
        COPY,
        &lacking.join("; "),
        "if it stays, look at the disk, then switch off and on",
    );
}

/// What spaces may take of the disks, and what of it they have.
pub(super) struct Room {
    /// All of each group but the node's own volumes.
    pub groups: Vec<(GroupId, Bytes)>,
    /// The volumes of spaces.
    pub volumes: Vec<SpaceVolume>,
}

/// Looks once at all volumes: each tells how large its group is, and every group of ours has the volume of the state.
pub(super) async fn room(storage: &Storage, groups: &[String]) -> Result<Room, String> {
    let storage = storage.clone();
    let volumes = spawn_blocking(move || storage.lvm().lvs(None))
        .await
        .map_err(|error| crate::words::chain(&error))?
        .map_err(|error| crate::words::chain(&error))?;
    Ok(divide(groups, &volumes))
}

fn divide(ours: &[String], volumes: &[LogicalVolume]) -> Room {
    let (mut groups, mut of_spaces) = (BTreeMap::new(), Vec::new());
    for volume in volumes {
        let sale = sale_of(volume);
        of_spaces.extend(sale.map(|sale| SpaceVolume {
            sale,
            group: GroupId(volume.group.clone()),
            bytes: Bytes(volume.size_bytes),
        }));
        if ours.contains(&volume.group) {
            let left = groups.entry(volume.group.clone()).or_insert(volume.group_bytes);
            let own = if sale.is_none() { volume.size_bytes } else { 0 };
            *left = left.saturating_sub(own);
        }
    }
    Room {
        groups: groups
            .into_iter()
            .map(|(group, left)| (GroupId(group), Bytes(left)))
            .collect(),
        volumes: of_spaces,
    }
}

/// Bytes that no volume has, a group.
pub(super) async fn free(storage: &Storage, groups: &[String]) -> Result<Vec<(String, u64)>, String> {
    let (storage, wanted) = (storage.clone(), groups.to_vec());
    let all = spawn_blocking(move || storage.lvm().vgs()).await;
    let all = all
        .map_err(|error| crate::words::chain(&error))?
        .map_err(|error| crate::words::chain(&error))?;
    Ok(all
        .into_iter()
        .filter(|group| wanted.contains(&group.name))
        .map(|group| (group.name, group.free_bytes))
        .collect())
}

#[cfg(test)]
mod tests {
    use market::id::SaleId;

    use super::*;

    #[test]
    fn a_copy_that_does_not_follow_is_told_by_its_disk_until_it_does() {
        let board = Board::new("test");
        let groups = [("sdb".to_owned(), "steading-1".to_owned())];
        let show = |standing| {
            show_copies(&board, &groups, &[("steading-1".to_owned(), standing)]);
            board.status().failures.first().map(|failure| failure.why.clone())
        };
        assert_eq!(show(Standing::Follows), None);
        for (standing, word) in [
            (Standing::Behind, "sdb is slow"),
            (Standing::Left, "sdb failed"),
            (Standing::Silent, "sdb does not answer"),
        ] {
            assert!(
                show(standing).is_some_and(|why| why.starts_with(word)),
                "{standing:?}"
            );
        }
        assert_eq!(board.status().failures.len(), 1);
        assert_eq!(show(Standing::Follows), None);
    }

    fn volume(group: &str, name: &str, bytes: u64, sale: Option<SaleId>) -> LogicalVolume {
        LogicalVolume {
            name: name.into(),
            uuid: String::new(),
            group: group.into(),
            group_bytes: if group == "a" { 1000 } else { 500 },
            size_bytes: bytes,
            tags: sale.map(|sale| format!("sale-{sale}")).into_iter().collect(),
            active: true,
            writeable: true,
            path: "/dev/null".into(),
            origin: None,
        }
    }

    #[test]
    fn what_spaces_have_counts_as_room_for_spaces_and_what_the_node_has_does_not() {
        let sale = SaleId::from([7; 32]);
        let groups = ["a", "b"].map(str::to_owned);
        let own = [
            volume("another", "state", 100, None),
            volume("a", "state", 100, None),
            volume("a", "base-x", 200, None),
            volume("b", "state", 100, None),
        ];
        let before = divide(&groups, &own);
        let sizes = |room: &Room| -> Vec<u64> { room.groups.iter().map(|(_, bytes)| bytes.0).collect() };
        assert_eq!((sizes(&before), before.volumes), (vec![700, 400], vec![]));
        let mut with_space = own.to_vec();
        with_space.push(volume("a", "space-7", 300, Some(sale)));
        with_space.push(volume("a", "snap-7", 50, Some(sale)));
        let after = divide(&groups, &with_space);
        assert_eq!(sizes(&after), [700, 400], "whenever it is looked at");
        let taken: Vec<_> = after.volumes.iter().map(|v| (v.sale, v.bytes.0)).collect();
        assert_eq!(taken, [(sale, 300), (sale, 50)]);
    }
}
