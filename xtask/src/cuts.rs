//! The stage `cuts`: guests whose power is lost.
//!
//! ```text
//! QEMU runs on ─► guest boots ─► "guest cuts: boot 3: … cut after 14.2 s: …" ─► resets itself ─► boots ─► … ─► off
//! QEMU writes down what is done to two disks ─► the guest plays it up to each point, without what was not flushed
//! ```
//!
//! The guests know what is to be done; this prints what they say, with the seconds by the clock of each boot.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qemu::{Disk, Machine};

use crate::guest;
use crate::test::Built;
use crate::tree::Tree;

/// One boot may take so long, and one state that is played.
const SILENT_WITHIN: Duration = Duration::from_secs(300);
const GIB: u64 = 1 << 30;
/// A log holds what a claim and a small volume write, many times over; what is not written takes no room.
const LOG_BYTES: u64 = 2 * GIB;

/// Every point of every step by real resets, and beside it what the disks forget, then `beside`; or one of the two, by its
/// name.
pub fn run(
    tree: &Tree,
    built: &Built,
    only: Option<&str>,
    long: bool,
    beside: &dyn Fn() -> Result<()>,
) -> Result<()> {
    match only {
        Some("resets") => resets(tree, built),
        Some("flushes") => flushes(tree, built, long),
        Some(other) => bail!("{other} is no kind of cut: resets or flushes"),
        None => {
            let (resets, flushes, beside) = std::thread::scope(|scope| {
                let resets = scope.spawn(|| resets(tree, built));
                let (flushes, beside) = (flushes(tree, built, long), beside());
                (resets.join(), flushes, beside)
            });
            let resets = resets.map_err(|_| anyhow::anyhow!("the resets panicked"))?;
            let failed: Vec<String> = [resets, flushes, beside]
                .into_iter()
                .filter_map(|outcome| outcome.err().map(|error| format!("{error:#}")))
                .collect();
            ensure!(failed.is_empty(), "{}", failed.join("; "));
            Ok(())
        }
    }
}

fn resets(tree: &Tree, built: &Built) -> Result<()> {
    let mut machine = guest::machine(tree, built, "guest-cuts", "guest-cuts=1")?;
    let dir = tree.artefact("guest-cuts");
    (machine.resets, machine.network) = (true, false);
    for (name, bytes) in [("vda", 8 * GIB), ("vdb", 5 * GIB), ("vdc", 16 << 20)] {
        machine.disks.push(guest::blank(&dir, name, bytes)?);
    }
    let medium = dir.join("medium.img");
    image::disk::medium(&medium, "name = \"guest-cuts\"\n", &built.artefacts.base)?;
    machine.disks.push(Disk::new(&medium, "STEADING-MEDIUM"));
    say("power cuts", &machine)
}

fn flushes(tree: &Tree, built: &Built, long: bool) -> Result<()> {
    let states = if long { "all" } else { "few" };
    let mut machine = guest::machine(tree, built, "guest-flushes", &format!("guest-flushes={states}"))?;
    machine.network = false;
    let dir = tree.artefact("guest-flushes");
    let logs = ["vde", "vdf"].map(|name| dir.join(format!("{name}.img")));
    for (name, log) in ["vda", "vdb"].iter().zip(&logs) {
        Disk::ensure_blank(log, LOG_BYTES)?;
        machine.disks.push(guest::blank(&dir, name, 5 * GIB)?.logged(log));
    }
    for name in ["vdc", "vdd"] {
        machine.disks.push(guest::blank(&dir, name, 5 * GIB)?);
    }
    for log in &logs {
        machine.disks.push(Disk::of_log(log, "LOG"));
    }
    say("flushes", &machine)
}

/// Runs it to its end, and prints what it says.
fn say(what: &str, machine: &Machine) -> Result<()> {
    let mut running = machine.start()?;
    let (started, mut since) = (Instant::now(), Instant::now());
    let (mut sum, mut passed) = (None, false);
    while let Some(line) = running.next_line(since + SILENT_WITHIN) {
        ensure!(
            !line.text.contains("Kernel panic"),
            "the guest's kernel panicked: {}",
            line.text
        );
        if let Some((_, counts)) = line.text.split_once("guest tests: ") {
            passed = counts == "1 passed, 0 failed";
            break;
        }
        let Some((_, words)) = line.text.split_once("guest cuts: ") else {
            continue;
        };
        println!("{what}: {words} ({:.1} s)", since.elapsed().as_secs_f64());
        since = Instant::now();
        sum = Some(words.to_owned());
    }
    let sum = sum.context("the guest said nothing")?;
    ensure!(
        passed,
        "{what}: the guest ended, failed, or its time was up: {sum}"
    );
    println!(
        "{what}: {sum}; {:.0} s by the clock",
        started.elapsed().as_secs_f64()
    );
    let ended = running.wait_exit(Duration::from_secs(60));
    ensure!(
        ended.context("the guest did not power off")?.success(),
        "QEMU ended with an error"
    );
    Ok(())
}
