//! Every step of a space goes wrong, on every side of it, in every way; after each the kernel is looked at.
//!
//! ```text
//!   fails, repeated, its undo fails      in this process
//!   the agent is gone                    in a child that aborts at the point; then this process recovers
//! ```
//!
//! Points are made from the names of the table. "Clean" is [`Bench::nothing_left`] and the free extents of before.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use host::names;
use market::id::SaleId;
use provision::journal::Journal;
use provision::space::{Outcome, Provisioner};
use provision::step::fault::{Point, Side, Way, What, arm, disarm};
use provision::step::{StepLog, StepState, chain};
use storage::Storage;

use super::bench::{self, Bench, access, spec};
use super::{FIRST, SECOND, banner, growing, told};
use crate::claims;

/// The first word of a child that is to die.
const CHILD: &str = "die";
/// In the place of a point, with a number: dies before that change of LVM's.
const CHANGE: &str = "change-";
/// What `unlock` makes again.
const UNLOCK_FROM: &str = "mount";

pub fn point(way: Way, step: &str, side: Side, what: What) -> Point {
    Point {
        way,
        step: step.to_owned(),
        side,
        what,
        sale: None,
    }
}

/// `die VERB POINT`: recovers, then does the verb and aborts at the point. `None`: it is no such child.
pub fn child() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [first, verb, at] = &words[..] else {
        return None;
    };
    if first != CHILD {
        return None;
    }
    let result = die(verb, at);
    eprintln!("the child lives: {result:?}");
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn die(verb: &str, at: &str) -> Result<()> {
    if verb == claims::VERB {
        return claims::die(&at.parse()?);
    }
    let journal = Journal::open(&bench::path())?;
    let provisioner = Provisioner::new(journal, Storage::start()?, None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        provisioner.recover().await?;
        match at.strip_prefix(CHANGE) {
            None => arm(&[at.parse()?]),
            Some(number) => storage::lvm::cut::before(number.parse()?),
        }
        match verb {
            "build" => {
                provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
            }
            "unlock" => {
                let mut again = access();
                again.host_key_seed = None;
                provisioner.unlock(FIRST, again).await.map_err(told)?;
            }
            "snapshot" => provisioner.resize(super::snapshot::with_snapshot(), None).await?,
            "remove" => provisioner.resize(spec(FIRST, 1), None).await?,
            "restore" => drop(provisioner.restore(FIRST).await?),
            "grow" => growing::grow(&Storage::start()?, growing::GROWN).await?,
            "extent" => growing::by_an_extent(&Storage::start()?).await?,
            "resize" => {
                let key = access().unlock_key;
                provisioner.resize(super::resize::larger(), Some(key)).await?;
            }
            _ => {
                provisioner.end(FIRST).await?;
            }
        }
        Ok(())
    })
}

/// Runs a child that comes to this point, and must die there.
pub fn kill_child(verb: &str, at: &Point) -> Result<()> {
    let status = Command::new("/proc/self/exe")
        .args([CHILD, verb, &at.to_string()])
        .status()?;
    ensure!(
        status.code().is_none(),
        "{verb}, {at}: the child was not killed: {status}"
    );
    Ok(())
}

/// Runs a child that dies before this change of LVM's; whether there are so many.
pub fn kill_before(verb: &str, number: u32) -> Result<bool> {
    let status = Command::new("/proc/self/exe")
        .args([CHILD, verb, &format!("{CHANGE}{number}")])
        .status()?;
    let killed = status.signal() == Some(nix::sys::signal::Signal::SIGKILL as i32);
    ensure!(killed || status.success(), "{verb}, {number}: {status}");
    Ok(killed)
}

/// Runs the child, which must die, and starts again as the next agent does.
pub async fn after_death(bench: &mut Bench, verb: &str, at: &Point) -> Result<(Provisioner, Vec<Outcome>)> {
    bench.close_journal()?;
    kill_child(verb, at)?;
    bench.journal_again()?;
    let provisioner = bench.unrecovered()?;
    let found = provisioner.recover().await?;
    bench
        .agrees(&provisioner)
        .await
        .with_context(|| format!("{verb}, {at}"))?;
    let outcomes = found.into_iter().map(|one| one.outcome).collect();
    Ok((provisioner, outcomes))
}

/// All is as before: the kernel's view, the room, the records.
pub(super) async fn clean(bench: &Bench, provisioner: &Provisioner, free: u64, at: &str) -> Result<()> {
    bench.nothing_left().await.with_context(|| at.to_owned())?;
    ensure!(
        bench.free()? == free,
        "{at}: {} bytes free, {free} before",
        bench.free()?
    );
    ensure!(provisioner.records().await?.is_empty(), "{at}: a record is left");
    let steps = bench.journal()?.records(&FIRST).await;
    let steps = steps.map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(
        steps.iter().all(|step| step.state == StepState::Undone),
        "{at}: the journal says {steps:?}"
    );
    Ok(())
}

/// Each step fails before and after it is done, is repeated, and is undone twice.
pub async fn fail_and_repeat(bench: Bench) -> Result<()> {
    let start = Instant::now();
    let provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    let mut points = 0;
    for step in provisioner.steps() {
        for side in Side::ALL {
            points += 1;
            let at = point(Way::Do, step, side, What::Fail);
            arm(std::slice::from_ref(&at));
            let result = provisioner.build(spec(FIRST, 1), access()).await;
            ensure!(disarm().is_empty(), "{at}: never reached");
            let error = result
                .err()
                .with_context(|| format!("{at}: built all the same"))?;
            ensure!(!error.is_quarantined(), "{at}: {}", chain(&error));
            clean(&bench, &provisioner, free, &at.to_string()).await?;
        }
    }
    let twice: Vec<Point> = provisioner
        .steps()
        .into_iter()
        .flat_map(|step| [Way::Do, Way::Undo].map(|way| point(way, step, Side::Done, What::Repeat)))
        .collect();
    points += twice.len();
    arm(&twice);
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    banner(&provisioner, FIRST).await?;
    bench.agrees(&provisioner).await.context("every step twice")?;
    provisioner.end(FIRST).await?;
    ensure!(disarm().is_empty(), "a step was not repeated");
    clean(&bench, &provisioner, free, "every step twice").await?;
    println!("{points} points in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Each step of an unlock fails when it is done: all is undone down to the volume, which stays with its key and files.
pub async fn unlock_fails(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let (free, steps) = (bench.free()?, provisioner.steps());
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    let mark = names::volume_mount(FIRST.as_bytes()).join("upper/root/mark");
    std::fs::write(&mark, "the user's")?;
    drop(provisioner);
    lock(FIRST)?;
    bench.journal_again()?;
    provisioner = bench.provisioner().await?;
    let again = || {
        let mut again = access();
        again.host_key_seed = None;
        again
    };
    let mut points = 0;
    for step in steps.iter().skip_while(|step| **step != UNLOCK_FROM) {
        points += 1;
        let at = point(Way::Do, step, Side::Done, What::Fail);
        arm(std::slice::from_ref(&at));
        let result = provisioner.unlock(FIRST, again()).await;
        ensure!(disarm().is_empty(), "{at}: never reached");
        let error = result.err().with_context(|| format!("{at}: unlocked"))?;
        ensure!(!error.is_quarantined(), "{at}: {}", chain(&error));
        bench.agrees(&provisioner).await.with_context(|| at.to_string())?;
        ensure!(!mark.exists(), "{at}: the volume stayed open");
    }
    provisioner.unlock(FIRST, again()).await.map_err(told)?;
    banner(&provisioner, FIRST).await?;
    ensure!(
        std::fs::read_to_string(&mark)? == "the user's",
        "the file is gone"
    );
    provisioner.end(FIRST).await?;
    clean(&bench, &provisioner, free, "after an unlock that failed").await?;
    println!("{points} points in {} s", start.elapsed().as_secs());
    Ok(())
}

/// The undo of each step fails once, after the last step failed: quarantined, the room withheld, both causes kept;
/// another space is built beside it; the next start of the agent clears it.
pub async fn undo_fails(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    let steps = provisioner.steps();
    for step in &steps {
        arm(&[
            point(Way::Do, "process", Side::Intended, What::Fail),
            point(Way::Undo, step, Side::Intended, What::Fail),
        ]);
        let result = provisioner.build(spec(FIRST, 1), access()).await;
        ensure!(disarm().is_empty(), "{step}: a point was never reached");
        let error = result.err().with_context(|| format!("{step}: built"))?;
        let causes = chain(&error);
        ensure!(error.is_quarantined(), "{step}: {causes}");
        for cause in ["Do process Intended Fail", &format!("Undo {step} Intended Fail")] {
            ensure!(causes.contains(cause), "{step}: {cause} is not in: {causes}");
        }
        let kept = bench.journal()?.records(&FIRST).await;
        let kept = kept.map_err(|error| anyhow::anyhow!("{error}"))?;
        let failed =
            |state: &StepState| matches!(state, StepState::UndoFailed { cause } if cause.contains("Undo"));
        ensure!(
            kept.iter()
                .any(|record| record.step == *step && failed(&record.state)),
            "{step}: the journal says {kept:?}"
        );
        ensure!(
            provisioner.records().await?.len() == 1,
            "{step}: its place was given away"
        );
        // The node sells the rest.
        if *step == "volume" {
            ensure!(bench.free()? < free, "its room is not withheld");
            provisioner.build(spec(SECOND, 2), access()).await.map_err(told)?;
            banner(&provisioner, SECOND).await?;
            provisioner.end(SECOND).await?;
        }
        drop(provisioner);
        bench.journal_again()?;
        provisioner = bench.unrecovered()?;
        let found = provisioner.recover().await?;
        ensure!(
            matches!(&found[..], [one] if matches!(one.outcome, Outcome::Undone)),
            "{step}: {found:?}"
        );
        clean(&bench, &provisioner, free, step).await?;
    }
    println!("{} undos in {} s", steps.len(), start.elapsed().as_secs());
    Ok(())
}

/// The agent is gone at each step of a build: all of it is undone by the next.
pub async fn killed_building(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let provisioner = bench.provisioner().await?;
    let (free, steps) = (bench.free()?, provisioner.steps());
    drop(provisioner);
    let mut points = 0;
    for step in steps {
        for side in [Side::Intended, Side::Done, Side::Recorded] {
            points += 1;
            let at = point(Way::Do, step, side, What::Die);
            let (provisioner, found) = after_death(&mut bench, "build", &at).await?;
            ensure!(matches!(&found[..], [Outcome::Undone]), "{at}: {found:?}");
            clean(&bench, &provisioner, free, &at.to_string()).await?;
        }
    }
    println!("{points} points in {} s", start.elapsed().as_secs());
    Ok(())
}

/// The agent is gone at each step of an end, and of an unlock: the end goes on, the user's files stay.
pub async fn killed_ending_and_unlocking(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let (free, steps) = (bench.free()?, provisioner.steps());
    let mut points = 0;
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    let mark = names::volume_mount(FIRST.as_bytes()).join("upper/root/mark");
    std::fs::write(&mark, "the user's")?;
    for step in steps.iter().skip_while(|step| **step != UNLOCK_FROM) {
        for side in [Side::Intended, Side::Done] {
            points += 1;
            drop(provisioner);
            lock(FIRST)?;
            let at = point(Way::Do, step, side, What::Die);
            let found;
            (provisioner, found) = after_death(&mut bench, "unlock", &at).await?;
            ensure!(matches!(&found[..], [Outcome::Locked]), "{at}: {found:?}");
            ensure!(!mark.exists(), "{at}: a locked volume is mounted");
            let mut again = access();
            again.host_key_seed = None;
            provisioner.unlock(FIRST, again).await.map_err(told)?;
            ensure!(
                std::fs::read_to_string(&mark)? == "the user's",
                "{at}: the file is gone"
            );
        }
    }
    banner(&provisioner, FIRST).await?;
    for step in &steps {
        for side in [Side::Intended, Side::Done, Side::Recorded] {
            points += 1;
            let at = point(Way::Undo, step, side, What::Die);
            drop(provisioner);
            let found;
            (provisioner, found) = after_death(&mut bench, "end", &at).await?;
            ensure!(matches!(&found[..], [Outcome::Ended]), "{at}: {found:?}");
            clean(&bench, &provisioner, free, &at.to_string()).await?;
            provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
        }
    }
    provisioner.end(FIRST).await?;
    clean(&bench, &provisioner, free, "the last end").await?;
    println!("{points} points in {} s", start.elapsed().as_secs());
    Ok(())
}

/// All its processes die, as at a power cut; what stands above the volume stays for the next start to find.
pub(super) fn lock(sale: SaleId) -> Result<()> {
    let cgroup = names::cgroup(sale.as_bytes());
    host::cgroup::kill(&cgroup)?;
    Ok(host::cgroup::wait_empty(
        &cgroup,
        std::time::Duration::from_secs(20),
    )?)
}
