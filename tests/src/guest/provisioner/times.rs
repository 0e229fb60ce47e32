//! What is made before the user's key comes, and what the steps of a build take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use market::id::SaleId;
use market::quantity::{Bytes, MilliCpus};
use provision::space::{Outcome, SpaceSpec};
use provision::step::{StepTime, in_words};

use super::bench::{Bench, access, spec};
use super::{FIRST, banner, told};

/// Builds of each kind: the median of five is told.
const BUILDS: usize = 5;
/// The steps that need what only the user has.
const WITH_KEY: [&str; 3] = ["key", "files", "process"];

/// As the demo sells it: half a CPU, 1 GiB.
fn sold(sale: SaleId) -> SpaceSpec {
    SpaceSpec {
        cpu: MilliCpus(500),
        disk: Bytes(1 << 30),
        ..spec(sale, 1)
    }
}

/// The user never sends the key, or the agent starts again before it comes: nothing stays, and the room is free again.
pub async fn no_key_comes(mut bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    provisioner.prepare(sold(FIRST)).await.map_err(told)?;
    provisioner.prepare(sold(FIRST)).await.map_err(told)?;
    ensure!(free - bench.free()? >= 1 << 30, "no volume was prepared");
    ensure!(bench.nothing_left().await.is_err(), "nothing was prepared");
    ensure!(
        provisioner.space_pid(&FIRST).is_none(),
        "it runs before there is a key"
    );
    ensure!(
        provisioner.end(FIRST).await?.was_there,
        "there was nothing to end"
    );
    bench.nothing_left().await?;
    ensure!(
        bench.free()? == free,
        "{} bytes free, {free} before",
        bench.free()?
    );

    provisioner.prepare(sold(FIRST)).await.map_err(told)?;
    drop(provisioner);
    bench.journal_again()?;
    let provisioner = bench.unrecovered()?;
    let found = provisioner.recover().await?;
    ensure!(
        matches!(&found[..], [one] if matches!(one.outcome, Outcome::Undone)),
        "{found:?}"
    );
    bench.nothing_left().await?;
    ensure!(
        bench.free()? == free,
        "{} bytes free, {free} before",
        bench.free()?
    );

    // The same sale still builds, prepared or not, and what was prepared opens by the user's key alone.
    provisioner.prepare(sold(FIRST)).await.map_err(told)?;
    let ready = provisioner.build(sold(FIRST), access()).await.map_err(told)?;
    ensure!(ready.times.len() == 7, "{}", in_words(&ready.times));
    banner(&provisioner, FIRST).await?;
    bench.opens_by_the_key_alone(FIRST)?;
    provisioner.end(FIRST).await?;
    bench.nothing_left().await
}

/// Builds at once and in two parts, five times each, and prints what each step took.
pub async fn table(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let (mut whole, mut ahead, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut steps: BTreeMap<(&str, &'static str), Vec<Duration>> = BTreeMap::new();
    let mut note = |kind, times: &[StepTime]| {
        println!("{kind}: {}", in_words(times));
        for time in times {
            steps.entry((kind, time.step)).or_default().push(time.took);
        }
    };
    for number in 0..2 * BUILDS as u8 {
        let sale = SaleId([0xb0 + number; 32]);
        let in_two = number % 2 == 1;
        if in_two {
            let start = Instant::now();
            provisioner.prepare(sold(sale)).await.map_err(told)?;
            ahead.push(start.elapsed());
        }
        let start = Instant::now();
        let ready = provisioner.build(sold(sale), access()).await.map_err(told)?;
        if in_two {
            rest.push(start.elapsed());
            note("with the key", &ready.times);
            let late = ready.times.iter().filter(|time| WITH_KEY.contains(&time.step));
            ensure!(late.count() == WITH_KEY.len(), "{}", in_words(&ready.times));
        } else {
            whole.push(start.elapsed());
            note("at once", &ready.times);
        }
        provisioner.end(sale).await?;
    }
    for ((kind, step), mut took) in steps {
        println!("{kind:<14}{step:<10}{:>6} ms", median(&mut took).as_millis());
    }
    let (whole, ahead, rest) = (median(&mut whole), median(&mut ahead), median(&mut rest));
    println!(
        "median of {BUILDS}: at once {} ms; before the key {} ms, with the key {} ms",
        whole.as_millis(),
        ahead.as_millis(),
        rest.as_millis()
    );
    bench.nothing_left().await
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
