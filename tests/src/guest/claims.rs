//! The claim of a disk is stopped at each step of it: it fails, is repeated, the agent is gone; the next start finishes
//! it. Uses /dev/vda and /dev/vdb, and leaves both blank.
//!
//! ```text
//!   first disk     blank ─► table ─► volume, group ─► state volume, file system, keys, journal, identity
//!   second disk    half done ─► wiped ─► table ─► …          the first one's group is activated before
//! ```
//!
//! The points are those that a claim without a fault passed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::block::Device;
use inventory::Disk;
use libtest_mimic::Trial;
use market::id::NodeId;
use provision::claim::Holding;
use provision::state::{self, Started, State};
use provision::step::fault::{Point, Side, Way, What, arm, disarm, trace, traced};
use storage::Storage;

use crate::provisioner::faults::{kill_child, point};
use crate::trial;

/// What a child does that is to die while it claims.
pub const VERB: &str = "claim";
const ONE: &str = "/dev/vda";
const TWO: &str = "/dev/vdb";
const CLOSED_WITHIN: Duration = Duration::from_secs(20);

type Passed = (Way, String, Side);

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![trial("faults::a_claim_is_stopped_at_each_step", stopped)]
}

/// Starts a node over these disks, as at power-on.
pub fn start(disks: &[&str]) -> Result<Started> {
    host::module::wait_for_hardware(std::time::Duration::from_secs(60)).context("waiting for the disks")?;
    let found = inventory::read(Path::new("/")).disks.context("no disks")?;
    let ours = |disk: &Disk| disks.contains(&&*format!("/dev/{}", disk.name));
    let ours: Vec<Disk> = found.into_iter().filter(ours).collect();
    ensure!(ours.len() == disks.len(), "{ours:?} of {disks:?}");
    Ok(state::start(&Storage::start()?, &ours, &[], &[])?)
}

/// Closes all of a node.
pub fn close(state: Option<State>) -> Result<()> {
    if let Some(state) = state {
        state.close()?;
    }
    // A journal that was dropped is closed by its own thread, and holds its file until then.
    let deadline = Instant::now() + CLOSED_WITHIN;
    loop {
        match provision::close::close_all(&Storage::start()?) {
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::yield_now(),
            Ok(_) => return Ok(()),
        }
    }
}

/// Makes a disk blank.
pub fn blank(disk: &str) -> Result<()> {
    let device = Device::open_exclusive(Path::new(disk))?;
    device.discard(0, device.size()?)?;
    Ok(device.reread_partitions()?)
}

/// A complete node over these disks: claimed, with its keys, its journal, and who it is.
pub fn complete(disks: &[&str]) -> Result<(State, NodeId)> {
    let started = start(disks)?;
    for disk in &started.disks {
        ensure!(matches!(disk.state, Holding::Claimed { .. }), "{}", disk.words());
    }
    let state = started.state?;
    ensure!(state.groups().len() == disks.len(), "{:?}", state.groups());
    let journal = state.journal().map_err(|error| anyhow::anyhow!("{error}"))?;
    journal.write_blocking(|entry| entry.put_row("trial", b"a", b"1"))?;
    let id = provision::files::host_public_key(&*state.node_key()?);
    ensure!(id == *state.node().as_bytes(), "the key is not the id's");
    let node = state.node();
    Ok((state, node))
}

/// `die claim POINT`: claims what is blank and aborts at the point.
pub fn die(at: &Point) -> Result<()> {
    arm(std::slice::from_ref(at));
    let found = inventory::read(Path::new("/")).disks.context("no disks")?;
    let is_two = |disk: &Disk| disk.name == "vdb";
    // The second disk takes part where the first one is claimed already.
    let claimed = storage::probe::partitions(Path::new(ONE))?.len() == 1;
    let disks: Vec<Disk> = found
        .into_iter()
        .filter(|disk| disk.name == "vda" || claimed && is_two(disk))
        .collect();
    state::start(&Storage::start()?, &disks, &[], &[])?;
    Ok(())
}

fn stopped() -> Result<()> {
    let begin = Instant::now();
    trace();
    let (state, _) = complete(&[ONE])?;
    let first = traced();
    close(Some(state))?;
    half_done()?;
    trace();
    let (state, _) = complete(&[ONE, TWO])?;
    let mut second = traced();
    close(Some(state))?;
    second.retain(|(_, name, _)| !first.iter().any(|(_, other, _)| other == name));
    ensure!(first.len() >= 18 && second.len() >= 4, "{first:?} {second:?}");
    blank(ONE)?;
    blank(TWO)?;
    let mut points = 0;
    for (way, name, side) in &first {
        let at = point(*way, name, *side, goes_wrong(*side));
        stop(&[ONE], &at)
            .and_then(|()| complete(&[ONE]))
            .and_then(|(state, _)| close(Some(state)))
            .with_context(|| at.to_string())?;
        blank(ONE)?;
        points += 1;
    }
    // Every step twice, and the second disk of a node.
    points += repeat(&[ONE], &first)?;
    for (way, name, side) in &second {
        let (state, node) = complete(&[ONE])?;
        close(Some(state))?;
        half_done()?;
        let at = point(*way, name, *side, goes_wrong(*side));
        stop(&[ONE, TWO], &at).with_context(|| at.to_string())?;
        let (state, again) = complete(&[ONE, TWO]).with_context(|| at.to_string())?;
        ensure!(node == again, "{at}: another node");
        close(Some(state))?;
        blank(TWO)?;
        points += 1;
    }
    half_done()?;
    points += repeat(&[ONE, TWO], &second)?;
    blank(ONE)?;
    blank(TWO)?;
    println!("{points} points in {} s", begin.elapsed().as_secs());
    Ok(())
}

/// Nothing is written between one step and the next: what fails before a step is what fails after the one before it.
fn goes_wrong(side: Side) -> What {
    match side {
        Side::Done => What::Die,
        _ => What::Fail,
    }
}

/// Claims and is stopped there. Whether the disk or the whole state is told as failed depends on the point.
fn stop(disks: &[&str], at: &Point) -> Result<()> {
    if at.what == What::Die {
        kill_child(VERB, at)?;
        return close(None);
    }
    arm(std::slice::from_ref(at));
    let state = start(disks).ok().and_then(|started| started.state.ok());
    ensure!(disarm().is_empty(), "never reached");
    close(state)
}

fn repeat(disks: &[&str], passed: &[Passed]) -> Result<usize> {
    // A journal is open for its writer alone, the same process's second one included.
    let again = |(_, name, side): &&Passed| *side == Side::Done && name != "state-journal";
    let done = passed.iter().filter(again);
    let twice: Vec<_> = done
        .map(|(way, name, side)| point(*way, name, *side, What::Repeat))
        .collect();
    arm(&twice);
    let (state, _) = complete(disks)?;
    let left = disarm();
    ensure!(left.is_empty(), "not repeated: {left:?}");
    close(Some(state))?;
    Ok(twice.len())
}

/// Leaves the second disk with the table of a claim that went no further.
fn half_done() -> Result<()> {
    arm(&[point(
        Way::Do,
        "claim-physical-volume",
        Side::Intended,
        What::Fail,
    )]);
    let state = start(&[ONE, TWO])?.state.ok();
    ensure!(disarm().is_empty(), "the claim did not come so far");
    close(state)
}
