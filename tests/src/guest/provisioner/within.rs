//! The agent is killed within LVM's commands: before each change that they make to the kernel's mappings, to the nodes in
//! `/dev` and to the group's metadata. Nothing stands still, nothing is left, each mapping is as long as its volume, and
//! the next agent has what was before or what was to be.
//!
//! ```text
//!   build ─► snapshot ─► remove ─► extent ─► end        each: killed before change 1, 2, … until there is no more
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use host::names;
use provision::space::{Outcome, Provisioner};

use super::bench::{self, Bench, GROUP, access, spec};
use super::faults::{clean, kill_before};
use super::snapshot::{files, goes_on, with_snapshot, write_files};
use super::{FIRST, growing, told};

/// The least changes of a verb: with fewer, LVM tells them otherwise than it did.
const LEAST: u32 = 3;

/// See the module.
pub async fn killed(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    let mut points = Vec::new();
    let mut before = None;
    for verb in ["build", "snapshot", "remove", "extent", "end"] {
        for number in 1.. {
            match verb {
                "snapshot" => provisioner.resize(spec(FIRST, 1), None).await?,
                "remove" => provisioner.resize(with_snapshot(), None).await?,
                _ => {}
            }
            let at = format!("{verb}, before change {number} of LVM's");
            drop(provisioner);
            let (died, found);
            (died, provisioner, found) = once(&mut bench, verb, number).await.context(at.clone())?;
            match (verb, &found[..]) {
                ("build", [Outcome::Undone]) | ("end", [Outcome::Ended]) if died => {
                    clean(&bench, &provisioner, free, &at).await?;
                }
                ("end", []) if !died => clean(&bench, &provisioner, free, &at).await?,
                ("build", [Outcome::Running { .. }]) if !died => {
                    before = Some(write_files()?);
                }
                ("snapshot" | "remove" | "extent", [Outcome::Running { .. }]) => {
                    goes_on().context(at.clone())?;
                    ensure!(Some(files()?) == before, "{at}: the files are others");
                    match verb {
                        "extent" => keeps_off(&bench, number).await.context(at.clone())?,
                        _ if died => {}
                        _ => ensure!(has_snapshot(&bench)? == (verb == "snapshot"), "{at}: not done"),
                    }
                }
                _ => anyhow::bail!("{at}: {found:?}"),
            }
            if !died {
                bench.remove_obstacles()?;
                points.push(number - 1);
                break;
            }
            if verb == "end" {
                provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
            }
        }
    }
    let wrong = storage::lvm::cut::INTERNAL_ERRORS.load(Ordering::Relaxed);
    ensure!(wrong == 0, "LVM found its own state wrong {wrong} times");
    ensure!(points.iter().all(|points| *points >= LEAST), "only {points:?}");
    println!(
        "killed before {points:?} changes in {} s",
        start.elapsed().as_secs()
    );
    bench.nothing_left().await
}

fn has_snapshot(bench: &Bench) -> Result<bool> {
    let volumes = bench.storage().lvm().lvs(Some(GROUP))?;
    Ok(volumes.iter().any(|volume| volume.origin.is_some()))
}

/// What comes after a growth that was cut off: another volume gets the extents that it wanted, and the next growth has
/// others. A table that waited since would lead into the other's.
async fn keeps_off(bench: &Bench, number: u32) -> Result<()> {
    bench.obstacle(number)?;
    growing::by_an_extent(bench.storage()).await?;
    let volume = names::lvm_device(GROUP, &names::space_volume(FIRST.as_bytes()));
    let device = host::block::Device::open(&volume)?;
    let mut last = vec![0; 4096];
    File::open(&volume)?.read_exact_at(&mut last, device.size()? - 4096)?;
    ensure!(last != [bench::OBSTACLE; 4096], "it grew into another's volume");
    Ok(())
}

/// Runs a child with this verb that dies before this change; whether it died, and what the next agent finds.
async fn once(bench: &mut Bench, verb: &str, number: u32) -> Result<(bool, Provisioner, Vec<Outcome>)> {
    bench.close_journal()?;
    let died = kill_before(verb, number)?;
    bench.journal_again()?;
    bench.activate()?;
    let provisioner = bench.unrecovered()?;
    let found = provisioner.recover().await?;
    bench.agrees(&provisioner).await?;
    Ok((
        died,
        provisioner,
        found.into_iter().map(|one| one.outcome).collect(),
    ))
}
