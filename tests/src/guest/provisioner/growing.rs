//! A volume that grows is stopped at each step of it: it fails, is repeated, the agent is gone. The space runs on, its
//! files stay, and growing again ends with the size that was asked for.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use host::names;
use provision::space::Outcome;
use provision::step::fault::{Side, What, arm, disarm, trace, traced};
use provision::volume;
use storage::Storage;

use super::bench::{Bench, GROUP, access, spec};
use super::faults::{after_death, point};
use super::{FIRST, banner, told};

/// What a child grows it to.
pub const GROWN: u64 = 640 << 20;
/// Growing again and again: LVM gives whole extents.
const EXTENT: u64 = 4 << 20;

/// Grows the first space's volume.
pub async fn grow(storage: &Storage, bytes: u64) -> Result<()> {
    Ok(volume::grow(storage, &FIRST, GROUP, bytes, access().unlock_key).await?)
}

/// Grows it by what LVM gives at least.
pub async fn by_an_extent(storage: &Storage) -> Result<()> {
    let volumes = storage.lvm().lvs(Some(GROUP))?;
    let name = names::space_volume(FIRST.as_bytes());
    let volume = volumes.iter().find(|volume| volume.name == name);
    // A volume has an extent more than what is asked for, for its header.
    grow(storage, volume.context("no volume")?.size_bytes).await
}

/// See the module.
pub async fn stopped(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    let mark = names::volume_mount(FIRST.as_bytes()).join("upper/root/mark");
    std::fs::write(&mark, "the user's")?;
    let mut bytes = spec(FIRST, 1).disk.0 + EXTENT;
    trace();
    grow(bench.storage(), bytes).await?;
    let points = traced();
    ensure!(points.len() >= 6, "growing has {points:?}");
    is_grown(bytes)?;
    for (way, step, side) in &points {
        bytes += EXTENT;
        let at = point(*way, step, *side, What::Fail);
        arm(std::slice::from_ref(&at));
        ensure!(grow(bench.storage(), bytes).await.is_err(), "{at}: it grew");
        ensure!(disarm().is_empty(), "{at}: never reached");
        grow(bench.storage(), bytes)
            .await
            .with_context(|| at.to_string())?;
        is_grown(bytes).with_context(|| at.to_string())?;
        bench.agrees(&provisioner).await.with_context(|| at.to_string())?;
    }
    bytes += EXTENT;
    let done = points.iter().filter(|(.., side)| *side == Side::Done);
    let twice: Vec<_> = done
        .map(|(way, step, side)| point(*way, step, *side, What::Repeat))
        .collect();
    arm(&twice);
    grow(bench.storage(), bytes).await?;
    ensure!(disarm().is_empty(), "a step was not repeated");
    is_grown(bytes)?;
    for (way, step, side) in &points {
        let at = point(*way, step, *side, What::Die);
        drop(provisioner);
        let found;
        (provisioner, found) = after_death(&mut bench, "grow", &at).await?;
        ensure!(matches!(&found[..], [Outcome::Running { .. }]), "{at}: {found:?}");
    }
    grow(bench.storage(), GROWN).await?;
    is_grown(GROWN)?;
    ensure!(
        std::fs::read_to_string(&mark)? == "the user's",
        "the user's file is gone"
    );
    banner(&provisioner, FIRST).await?;
    provisioner.end(FIRST).await?;
    bench.nothing_left().await?;
    ensure!(
        bench.free()? == free,
        "{} bytes free, {free} before",
        bench.free()?
    );
    println!(
        "{} points in {} s",
        2 * points.len() + twice.len(),
        start.elapsed().as_secs()
    );
    Ok(())
}

fn is_grown(bytes: u64) -> Result<()> {
    let size = nix::sys::statvfs::statvfs(&names::volume_mount(FIRST.as_bytes()))?;
    let shown = size.blocks() * size.fragment_size();
    // A group of blocks that is added has tables of its own, which the first size did not need.
    let least = volume::least_bytes(bytes) - bytes / 128;
    ensure!(
        shown >= least,
        "the file system has {shown} bytes, {least} are the least"
    );
    Ok(())
}
