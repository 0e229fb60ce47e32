//! The stick after it was read, and a machine with nothing but it.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use qemu::Running;
use stage::Answer;

use super::SELLS_WITHIN;
use super::cases::{Ended, Place, measured, said, sells};
use crate::demo::NEEDS;

/// What the user of a case has, in smallest units.
const PLAY_MONEY: u64 = 10_000_000_000;
/// It joins, and says what it lacks.
pub fn no_disk(place: &Place) -> Result<Ended> {
    let mut running = place.machine().start()?;
    running.wait_for("  joined ", SELLS_WITHIN)?;
    let line = running.wait_for("not selling: ", SELLS_WITHIN)?;
    ensure!(line.text.contains("no disk"), "it says {:?}", line.text);
    ensure!(running.seen("  selling").is_none(), "it sells, and has nothing");
    Ok(Ended::Passed(None))
}

/// The stick is pulled when the console has said so and a space is being made; that one is made, and a second is sold without
/// the stick.
pub fn pulled(place: &Place) -> Result<Ended> {
    let user = place.ground.stage.person("user")?;
    place.ground.stage.fund(user.address(), PLAY_MONEY)?;
    let begun = Instant::now();
    let mut running = place.with_disk()?.start()?;
    sells(&mut running, begun)?;
    said(&mut running, "may be pulled out")?;
    let buying = user
        .command(&[&["buy", "--json"], &NEEDS[..]].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the client")?;
    running.wait_for("  sold ", SELLS_WITHIN)?;
    running.monitor()?.pull_disk(0)?;
    let pulled = Instant::now();
    let output = buying.wait_with_output()?;
    ensure!(
        output.status.success(),
        "buying while the stick was pulled: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let first: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let first = first["name"].as_str().context("a space without a name")?;
    // What the base has is read from the node's disk: programs that nobody has read before.
    let reads = |name: &str| -> Result<Answer> {
        user.run(&["ssh", name, "--", "cat /usr/bin/* >/dev/null && id -u"])?
            .expect_success("reading the base without the stick")
    };
    ensure!(reads(first)?.out == "0\n", "the space does not answer as root");
    let took = pulled.elapsed();
    let second = user
        .run(&[&["buy", "--json"], &NEEDS[..]].concat())?
        .expect_success("buying without the stick")?;
    let second = second.text("/name")?.to_string();
    ensure!(
        reads(&second)?.out == "0\n",
        "the second space does not answer as root"
    );
    is_gone(&mut running)?;
    for name in [first, &second] {
        user.run(&["cancel", name, "--json"])?
            .expect_success("cancelling")?;
    }
    measured("from the pull to all of the base read in the space", took)
}

/// The control: the machine has no stick any more.
fn is_gone(running: &mut Running) -> Result<()> {
    said(running, "  stick pulled out (sd").map(drop)
}
