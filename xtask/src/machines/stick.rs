//! The stick after it was read, and a machine with nothing but it.

use std::io::{Seek, SeekFrom, Write};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use qemu::{Bus, Disk, Fault, Running};
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

/// What a node says when what it started from is not whole.
const NOT_WHOLE: &str = "cannot be read whole: write it anew";

/// A sector of the initramfs that cannot be read, so that the loader has PID 1 alone; then wrong bytes in it, of which the
/// kernel unpacks what comes before them.
pub fn damaged(place: &Place) -> Result<Ended> {
    let at = middle_of_initramfs(place)?;
    let mut machine = place.machine();
    machine.disks = vec![
        Disk::new(&place.ground.stick, "STICK")
            .on(Bus::Usb)
            .dying(Fault::ReadAt(at)),
    ];
    machine.start()?.wait_for(NOT_WHOLE, SELLS_WITHIN)?;
    let copy = place.stick(&place.ground.text)?;
    let mut file = std::fs::File::options().write(true).open(&copy)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    place
        .machine_from(&copy)
        .start()?
        .wait_for(NOT_WHOLE, SELLS_WITHIN)?;
    Ok(Ended::Passed(None))
}

/// Where on the stick the middle of the packed initramfs lies, found by its bytes.
fn middle_of_initramfs(place: &Place) -> Result<u64> {
    let packed = std::fs::read(crate::stick_image::packed_initramfs(place.ground.tree))?;
    let middle = &packed[packed.len() / 2..][..WINDOW];
    let stick = std::fs::read(&place.ground.stick)?;
    let at = stick.windows(WINDOW).position(|window| window == middle);
    Ok(at.context("the stick has no such initramfs")? as u64)
}

/// Bytes that stand nowhere twice.
const WINDOW: usize = 32;
