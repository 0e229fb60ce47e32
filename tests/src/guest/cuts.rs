//! The machine loses power at each step: one guest, started again and again, that recovers from the last cut and comes
//! to the next points.
//!
//! ```text
//!   boot 0   makes the disks, runs each verb once without a fault: the points that it passed are the plan
//!   boot k   recovers, compares kernel and journal ─► takes the next points of the plan, each in a space of its own
//!            ─► all of them stay at their points ─► the kernel resets the machine, nothing is written back
//!   the last boot finds the users' files, ends all, and says how many points there were
//! ```
//!
//! Disks: `vda` spaces and their journal, `vdb` is claimed, `vdc` the plan, `vdd2` the base. Several points share a
//! power cut, each in another space or on another disk: none waits for another.

mod ground;
mod plan;
mod verbs;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use market::id::SaleId;
use provision::space::{Outcome, Provisioner};
use provision::step::fault::{arm, disarm, wait_parked};

use crate::{claims, whole_boot, word};
use ground::Ground;
use plan::{Point, Verb};

/// How long the points of one boot may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(240);
const CLAIMED: &str = "/dev/vdb";

/// The guest of the cuts, where the command line says that this is one.
pub fn guest() -> Option<ExitCode> {
    word("guest-cuts")?;
    Some(whole_boot(boot))
}

/// Comes back after the last boot, with the sum in words; or with what is wrong.
fn boot() -> Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(16)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut plan, ground, provisioner) = match plan::Plan::read()? {
            None => first().await?,
            Some(plan) => again(plan).await?,
        };
        if plan.boots > 0 {
            // What is said right before a cut does not leave the machine.
            let points: Vec<String> = plan.batch.iter().map(Point::to_string).collect();
            println!(
                "guest cuts: cut {}: all is as it should be {:.1} s after power-on: {}",
                plan.boots,
                uptime()?,
                points.join(", ")
            );
        }
        let Some(batch) = plan.next() else {
            return last(&plan, &ground, &provisioner).await;
        };
        plan.write()?;
        let armed: Vec<_> = batch.iter().map(Point::armed).collect();
        arm(&armed);
        for point in batch.clone() {
            verbs::go(&ground, &provisioner, point, plan.grown);
        }
        let many = batch.len();
        let all = tokio::task::spawn_blocking(move || wait_parked(many, REACHED_WITHIN)).await?;
        if !all {
            bail!("of {batch:?} these were never reached: {:?}", disarm());
        }
        plan.seconds += uptime()?;
        plan.write()?;
        // Not a reboot: no process ends, no device is told, nothing is written back.
        fs::write("/proc/sysrq-trigger", "b")?;
        std::thread::sleep(Duration::from_secs(30));
        bail!("the machine did not lose its power")
    })
}

type Begun = (plan::Plan, Ground, Provisioner);

/// The disks are blank: makes the ground, and the plan from what each verb passes.
async fn first() -> Result<Begun> {
    let ground = Ground::make()?;
    let provisioner = ground.provisioner()?;
    provisioner.recover().await?;
    let (passed, provisioner) = verbs::rehearse(&ground, provisioner).await?;
    let provisioner = verbs::settle(&ground, provisioner).await?;
    let mut plan = plan::Plan::new(passed, ground.free()?);
    plan.grown = Ground::spec(SaleId([0; 32])).disk.0;
    Ok((plan, ground, provisioner))
}

/// The power is back: everything is as the journal says, and the journal as the verbs promise.
async fn again(mut plan: plan::Plan) -> Result<Begun> {
    let ground = Ground::find()?;
    let provisioner = ground.provisioner()?;
    let found = provisioner.recover().await?;
    let mut outcomes: BTreeMap<SaleId, Outcome> = found
        .into_iter()
        .map(|one| (one.spec.sale, one.outcome))
        .collect();
    for point in &plan.batch {
        let at = || format!("power was lost at: {point}");
        if point.verb == Verb::Claim {
            verbs::claim().with_context(at)?;
            continue;
        }
        let outcome = outcomes.remove(&point.sale()).with_context(at)?;
        let right = match point.verb {
            Verb::Build => matches!(outcome, Outcome::Undone),
            Verb::End => matches!(outcome, Outcome::Ended),
            Verb::Unlock | Verb::Grow => matches!(outcome, Outcome::Locked),
            Verb::Claim => true,
        };
        ensure!(right, "{}: {outcome:?}", at());
    }
    for (sale, outcome) in outcomes {
        ensure!(matches!(outcome, Outcome::Locked), "space {sale}: {outcome:?}");
    }
    ground
        .agrees(&provisioner)
        .await
        .with_context(|| format!("after {:?}", plan.batch))?;
    if plan.batch.iter().any(|point| point.verb == Verb::Grow) {
        let grown = verbs::finish_growing(&ground, &provisioner, plan.grown).await?;
        plan.free -= grown - plan.grown;
        plan.grown = grown;
    }
    ensure!(
        ground.free()? == plan.free,
        "{} bytes free, {} at first: after {:?}",
        ground.free()?,
        plan.free,
        plan.batch
    );
    Ok((plan, ground, provisioner))
}

/// Every point is behind: what users had is there, and goes.
async fn last(plan: &plan::Plan, ground: &Ground, provisioner: &Provisioner) -> Result<String> {
    verbs::leave(provisioner).await?;
    ground.agrees(provisioner).await?;
    ensure!(provisioner.records().await?.is_empty(), "a record is left");
    Ok(format!(
        "{} points in {} power cuts, {:.1} s a boot",
        plan.points,
        plan.boots,
        plan.seconds / f64::from(plan.boots.max(1))
    ))
}

fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let first = text.split(' ').next().context("an empty uptime")?;
    Ok(first.parse()?)
}
