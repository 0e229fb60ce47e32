//! Claiming, the node's state, volumes and bases, on real disks: what a node does with them from its first
//! power-on to a power cut. The trials build on one another, in this order, and leave both disks blank.

mod copies;
mod damaged;
mod rotten;
mod split;
mod volume;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use host::block::Device;
use inventory::Disk;
use libtest_mimic::Trial;
use market::id::{Digest, SaleId};
use provision::base::{BaseError, Bases};
use provision::claim::{DiskState, Holding};
use provision::state::{self, Started, State};
use provision::step::{Step, StepLog, Table};
use provision::volume::{
    KeyStep, MountStep, VolumeContext, VolumeStep, extents_for, least_bytes, mount_point,
};
use sha2::Digest as _;
use storage::Storage;
use storage::luks::UnlockKey;
use storage::probe::{Content, probe};

use crate::trial;

const ONE: &str = "/dev/vda";
const TWO: &str = "/dev/vdb";
const SMALL: &str = "/dev/vdc";
const MIB: u64 = 1 << 20;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("disks::one_is_claimed_and_the_dirty_one_is_told", claim_one),
        trial("disks::the_line_that_is_shown_gives_the_disk_once", consent),
        trial("disks::a_claim_that_was_cut_off_is_finished", half_done),
        trial(
            "disks::a_finished_claim_that_rots_is_not_begun_anew",
            rotten::not_begun_anew,
        ),
        trial(
            "disks::a_group_that_cannot_be_opened_stops_nobody",
            rotten::stops_nobody,
        ),
        trial("disks::the_journal_comes_back_from_the_other_disk", leader_lost),
        trial(
            "disks::a_copy_that_failed_is_copied_again_and_ranks_so",
            copies::failed,
        ),
        trial(
            "disks::journals_that_went_different_ways_are_both_kept",
            split::both_kept,
        ),
        trial("disks::a_base_is_copied_once_and_only_whole", base),
        trial(
            "disks::a_flipped_byte_of_the_base_is_an_error_not_a_byte",
            damaged::is_found,
        ),
        trial(
            "disks::a_space_s_volume_is_made_locked_opened_and_destroyed",
            volume::made_locked_opened_and_destroyed,
        ),
        trial(
            "disks::another_node_s_disk_is_shown_and_not_touched",
            another_node,
        ),
    ]
}

/// Power-on: what the agent does, with everything of the boot before closed.
fn power_on(lines: &[String]) -> Result<Started> {
    host::module::wait_for_hardware(std::time::Duration::from_secs(60)).context("waiting for the disks")?;
    let disks = inventory::read(Path::new("/")).disks.context("no disks")?;
    let ours: Vec<Disk> = disks
        .into_iter()
        .filter(|disk| [ONE, TWO, SMALL].contains(&&*format!("/dev/{}", disk.name)))
        .collect();
    ensure!(ours.len() == 3, "{ours:?}");
    Ok(state::start(&Storage::start()?, &ours, lines, &[])?)
}

/// Halt: everything is closed.
fn power_off(state: State) -> Result<()> {
    state.close()?;
    Ok(provision::close::close_all(&Storage::start()?).map(drop)?)
}

fn find<'a>(started: &'a Started, disk: &str) -> Result<&'a DiskState> {
    started
        .disks
        .iter()
        .find(|state| state.path == Path::new(disk))
        .context("the disk is not told")
}

fn group(state: &DiskState) -> Result<&str> {
    match &state.state {
        Holding::Claimed { group, .. } => Ok(group),
        other => bail!("{}: {other:?}", state.words()),
    }
}

fn blank(disk: &str) -> Result<()> {
    let device = Device::open_exclusive(Path::new(disk))?;
    device.discard(0, device.size()?)?;
    device.reread_partitions()?;
    ensure!(probe(Path::new(disk))? == Content::Empty, "{disk} is not blank");
    Ok(())
}

fn claim_one() -> Result<()> {
    // ext4 on the whole second disk: what a farmer's backup looks like.
    let mkfs = host::command::Run::new(host::command::Program::MkfsExt4);
    mkfs.args(["-q", "-F", "-L", "backup", "-E", "nodiscard"])
        .path(Path::new(TWO))
        .run()?;
    let content = probe(Path::new(TWO))?;

    let started = power_on(&[])?;
    let state = started.state.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?;
    let one = find(&started, ONE)?;
    ensure!(one.words().contains("claimed now"), "{}", one.words());
    ensure!(state.groups() == [group(one)?], "{:?}", state.groups());
    let table = storage::probe::partitions(Path::new(ONE))?;
    ensure!(
        table.len() == 1 && table[0].kind == host::names::CLAIM_TYPE,
        "{table:?}"
    );
    ensure!(
        table[0].name.as_deref() == Some(&host::names::claim_partition(state.node().as_bytes())),
        "{table:?}"
    );

    let two = find(&started, TWO)?;
    ensure!(
        two.words()
            .contains("holds ext4 \"backup\": not touched, nobody allowed it"),
        "{}",
        two.words()
    );
    ensure!(probe(Path::new(TWO))? == content, "the dirty disk was written");
    let small = find(&started, SMALL)?;
    ensure!(small.words().contains("smaller than 4 GiB"), "{}", small.words());

    let node = state.node();
    ensure!(
        ed25519(&*state.node_key()?) == *node.as_bytes(),
        "the key is not the id's"
    );
    state
        .journal()
        .map_err(|e| anyhow::anyhow!("{e}"))?
        .write_blocking(|entry| entry.put_row("trial", b"a", b"1"))?;
    power_off(started.state?)?;

    // The next power-on finds the same node and its journal.
    let started = power_on(&[])?;
    let state = started.state?;
    ensure!(state.node() == node, "another node after a reboot");
    let row = state
        .journal()
        .map_err(|e| anyhow::anyhow!("{e}"))?
        .write_blocking(|entry| entry.row("trial", b"a"))?;
    ensure!(row.as_deref() == Some(b"1"), "{row:?}");
    power_off(state)
}

fn ed25519(seed: &[u8; 32]) -> [u8; 32] {
    provision::files::host_public_key(seed)
}

fn consent() -> Result<()> {
    let started = power_on(&[])?;
    let Holding::NotTouched {
        erase_line: Some(line),
        ..
    } = &find(&started, TWO)?.state
    else {
        bail!("{}", find(&started, TWO)?.words())
    };
    let line = line.clone();
    power_off(started.state?)?;
    let wrong = line.replace("8GiB", "9GiB");
    let started = power_on(&[wrong, "nonsense".into()])?;
    ensure!(started.wrong_lines.len() == 1, "{:?}", started.wrong_lines);
    ensure!(
        matches!(find(&started, TWO)?.state, Holding::NotTouched { .. }),
        "a line for another size gave it"
    );
    power_off(started.state?)?;

    let lines = [line];
    // Were it the medium of this boot, no line would give it.
    let disks = inventory::read(Path::new("/")).disks.context("no disks")?;
    let started = state::start(
        &Storage::start()?,
        &disks,
        &lines,
        &["vdb".to_owned(), "vdd".to_owned()],
    )?;
    ensure!(
        find(&started, TWO)?.words().contains("booted from"),
        "{}",
        find(&started, TWO)?.words()
    );
    power_off(started.state?)?;
    let started = power_on(&lines)?;
    ensure!(
        find(&started, TWO)?.words().contains("claimed now"),
        "{}",
        find(&started, TWO)?.words()
    );
    let state = started.state?;
    ensure!(state.groups().len() == 2, "{:?}", state.groups());
    power_off(state)?;

    // The same content again on that disk (somebody put the same disk image back): the line is used up.
    blank(TWO)?;
    let uuid = lines[0].rsplit(' ').next().context("no UUID")?;
    let mkfs = host::command::Run::new(host::command::Program::MkfsExt4);
    mkfs.args(["-q", "-F", "-L", "backup", "-U", uuid, "-E", "nodiscard"])
        .path(Path::new(TWO))
        .run()?;
    let started = power_on(&lines)?;
    ensure!(
        find(&started, TWO)?.words().contains("good once"),
        "{}",
        find(&started, TWO)?.words()
    );
    let state = started.state?;
    ensure!(
        !state.missing().is_empty(),
        "the group that is gone is told: {:?}",
        state.missing()
    );
    power_off(state)?;
    blank(TWO)
}

fn half_done() -> Result<()> {
    // Cut after the table, after the physical volume, after the group, and before the file system of the state.
    let storage = Storage::start()?;
    for cut in 0..4 {
        let started = power_on(&[])?;
        let group = group(find(&started, TWO)?)?.to_owned();
        let device = host::block::partition_path(Path::new(TWO), 1);
        power_off(started.state?)?;
        provision::claim::mark::set(Path::new(TWO))?;
        if cut < 3 {
            storage.lvm().vg_remove(&group)?;
        }
        match cut {
            0 => File::options()
                .write(true)
                .open(&device)?
                .write_all(&vec![0; 4 * MIB as usize])?,
            1 => {}
            2 => storage
                .lvm()
                .vg_create("steading-01234567-89abcdef", &device, &[])?,
            _ => {
                storage.lvm().vg_activate(&group, true)?;
                let state = host::names::lvm_device(&group, host::names::STATE_VOLUME);
                File::options()
                    .write(true)
                    .open(state)?
                    .write_all(&vec![0; 4 * MIB as usize])?;
                storage.lvm().vg_activate(&group, false)?;
            }
        }
        let started = power_on(&[])?;
        let state = find(&started, TWO)?;
        ensure!(
            matches!(state.state, Holding::Claimed { new: true, .. }),
            "cut {cut}: {}",
            state.words()
        );
        ensure!(
            started.disks.iter().all(|d| !d.words().contains("another node")),
            "cut {cut}"
        );
        power_off(started.state?)?;
    }
    Ok(())
}

fn leader_lost() -> Result<()> {
    let started = power_on(&[])?;
    let state = started.state?;
    let (node, lead) = (state.node(), state.groups()[0].clone());
    let journal = state.journal().map_err(|e| anyhow::anyhow!("{e}"))?;
    journal.write_blocking(|entry| entry.put_row("trial", b"b", b"before"))?;
    journal.write_blocking(|entry| entry.put_row("trial", b"b", b"the last that was acknowledged"))?;
    power_off(state)?;
    // The leading disk is pulled out.
    let storage = Storage::start()?;
    let pulled = storage
        .lvm()
        .pvs()?
        .into_iter()
        .find(|pv| pv.group.as_deref() == Some(&lead))
        .context("no PV")?;
    let disk = if pulled.device == Path::new("/dev/vda1") {
        ONE
    } else {
        TWO
    };
    Device::open(Path::new(disk))?.forget_partition(1)?;
    let started = power_without(disk)?;
    let state = started.state?;
    ensure!(
        state.node() == node && state.groups().len() == 1,
        "{:?}",
        state.groups()
    );
    ensure!(state.missing().contains(&lead), "{:?}", state.missing());
    let row = |state: &State| -> Result<Option<Vec<u8>>> {
        let journal = state.journal().map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(journal.write_blocking(|entry| entry.row("trial", b"b"))?)
    };
    ensure!(
        row(&state)?.as_deref() == Some(b"the last that was acknowledged"),
        "{:?}",
        row(&state)?
    );
    let journal = state.journal().map_err(|e| anyhow::anyhow!("{e}"))?;
    journal.write_blocking(|entry| entry.put_row("trial", b"b", b"gone on"))?;
    power_off(state)?;
    // It returns: it does not bring back what was before.
    Device::open(Path::new(disk))?.reread_partitions()?;
    let started = power_on(&[])?;
    let state = started.state?;
    ensure!(
        state.groups().len() == 2 && state.groups()[0] != lead,
        "{:?}",
        state.groups()
    );
    ensure!(row(&state)?.as_deref() == Some(b"gone on"), "{:?}", row(&state)?);
    power_off(state)
}

fn power_without(disk: &str) -> Result<Started> {
    let disks = inventory::read(Path::new("/")).disks.context("no disks")?;
    let there: Vec<Disk> = disks
        .into_iter()
        .filter(|found| {
            [ONE, TWO]
                .iter()
                .any(|d| *d != disk && *d == format!("/dev/{}", found.name))
        })
        .collect();
    Ok(state::start(&Storage::start()?, &there, &[], &[])?)
}

fn base() -> Result<()> {
    let started = power_on(&[])?;
    let state = started.state?;
    let group = state.groups()[0].clone();
    let storage = Storage::start()?;
    let bytes = 9 * MIB + 12345;
    let image: Vec<u8> = (0..bytes).map(|n| ((n * n) >> 8) as u8).collect();
    fs::write(
        "/run/base.image",
        [&image[..], b"what follows on the partition"].concat(),
    )?;
    let digest = Digest::from(<[u8; 32]>::from(sha2::Sha256::digest(&image)));
    let wrong = Digest::from([9; 32]);
    let damaged = Bases::new(storage.clone(), "/run/base.image".into(), wrong, bytes);
    let error = damaged
        .ensure_blocking(&group)
        .err()
        .context("a damaged base was taken")?;
    ensure!(
        matches!(error, BaseError::Damaged { .. }),
        "{}",
        provision::step::chain(&error)
    );
    ensure!(
        storage
            .lvm()
            .lvs(Some(&group))?
            .iter()
            .all(|lv| !lv.name.starts_with("base-")),
        "it stayed"
    );

    let bases = Bases::new(storage.clone(), "/run/base.image".into(), digest, bytes);
    let device = bases.ensure_blocking(&group)?;
    ensure!(fs::read(&device)?[..bytes as usize] == image, "other bytes");
    ensure!(
        File::options()
            .write(true)
            .open(&device)
            .and_then(|mut f| f.write_all(b"x"))
            .is_err(),
        "writable"
    );
    fs::remove_file("/run/base.image")?;
    ensure!(bases.ensure_blocking(&group)? == device, "copied a second time");
    let next = Bases::new(storage.clone(), "/run/base.image".into(), wrong, bytes);
    ensure!(
        matches!(next.ensure_blocking(&group), Err(BaseError::Read { .. })),
        "made from nothing"
    );
    ensure!(
        next.remove_unused(&group, &[digest])?.is_empty(),
        "a base in use went"
    );
    ensure!(
        next.remove_unused(&group, &[])? == [digest],
        "a base without use stayed"
    );
    power_off(state)
}

fn another_node() -> Result<()> {
    // The second disk alone in another machine becomes another node's: blank it, and let a node of its own claim it.
    let started = power_on(&[])?;
    let node = started
        .state
        .as_ref()
        .map(State::node)
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    power_off(started.state?)?;
    Device::open(Path::new(ONE))?.forget_partition(1)?;
    blank(TWO)?;
    let started = power_without(ONE)?;
    let other = started.state?;
    ensure!(other.node() != node, "the same node from nothing");
    power_off(other)?;
    Device::open(Path::new(ONE))?.reread_partitions()?;
    // Together: the one that has run longer leads, and the other's disk is shown.
    let started = power_on(&[])?;
    let state = started.state.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?;
    ensure!(state.node() == node, "the younger node leads");
    let two = find(&started, TWO)?;
    ensure!(
        two.words().contains("belongs to another node") && two.words().contains("not touched"),
        "{}",
        two.words()
    );
    power_off(started.state?)?;
    blank(ONE)?;
    blank(TWO)
}
