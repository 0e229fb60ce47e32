//! Disks that are hard to tell apart, of odd sizes, or dying; and what is no disk to sell.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use packages::program::{command, run};
use qemu::{Bus, Disk, Fault, Machine, Running};

use super::cases::{Ended, Place, said, sells};

/// The smallest that is sold.
const BYTES: u64 = 4 << 30;
const WWN: u64 = 0x5000_c500_0dd5_0001;
const UUID: &str = "11111111-2222-4333-8444-555555555555";
/// What the screen says of a disk that shares its line with another one.
const TOLD: &str = "the line for it fits sd";
/// How much longer a machine may take with dying disks than without: half as long again, and this.
const SLACK: Duration = Duration::from_secs(60);

fn image(place: &Place, name: &str, bytes: u64) -> Result<PathBuf> {
    let path = place.dir.join(name);
    File::create(&path)?.set_len(bytes)?;
    Ok(path)
}

/// A machine with all of them, twice: what was claimed stays what it is.
pub fn odd(place: &Place) -> Result<Ended> {
    let line = format!("naa.{WWN:x}, 4GiB, ext4 {UUID}");
    let stick = place.stick(&format!("{}erase = [{line:?}]\n", place.ground.text))?;
    let mut machine = place.machine_from(&stick);
    let blank = |name: &str, bytes: u64, serial: &str| -> Result<Disk> {
        Ok(Disk::new(image(place, name, bytes)?, serial).on(Bus::VirtioScsi))
    };
    // Two blank disks with one serial number and one name, two with letters on them, and one line for these.
    let mut disks = vec![blank("twin-a", BYTES, "TWIN")?, blank("twin-b", BYTES, "TWIN")?];
    for name in ["letters-a", "letters-b"] {
        let disk = blank(name, BYTES, "LETTERS")?;
        run(command("mkfs.ext4")
            .args(["-q", "-F", "-U", UUID])
            .arg(&disk.path))?;
        disks.push(disk);
    }
    for (disk, wwn) in disks.iter_mut().zip([WWN + 1, WWN + 1, WWN, WWN]) {
        disk.wwn = Some(wwn);
    }
    // Without any name; with long sectors; with a size that is no multiple of 4096.
    disks.push(blank("nameless", BYTES, "")?);
    disks.push(blank("long", BYTES, "LONG")?.sectors_of(4096));
    disks.push(blank("crooked", BYTES + 3 * 512, "CROOKED")?);
    // No disks to sell.
    let floppy = image(place, "floppy", 1_474_560)?;
    let cd = image(place, "cd", 16 << 20)?;
    File::options()
        .write(true)
        .open(&cd)?
        .write_all_at(b"\x01CD001\x01", 32768)?;
    disks.push(Disk::new(floppy, "").on(Bus::Floppy));
    disks.push(Disk::new(cd, "").on(Bus::Cd));
    machine.disks.extend(disks);
    let first = look(&machine, "floppy, CD, twins and others")?;
    let second = look(&machine, "the same again")?;
    ensure!(
        first == second,
        "it came back as another node: {first:?}, then {second:?}"
    );
    Ok(Ended::Passed(None))
}

/// Boots it; its node's id and how many disks are its own.
fn look(machine: &Machine, what: &str) -> Result<(String, usize)> {
    let (begun, mut running) = (Instant::now(), machine.start()?);
    sells(&mut running, begun)?;
    let claimed = claimed(&mut running)?;
    ensure!(claimed == 5, "{what}: of five blank disks {claimed} are claimed");
    // The page is drawn anew now and then: it may sell before that.
    said(&mut running, TOLD)?;
    let until = Instant::now() + SLACK;
    let told = |running: &mut Running| {
        let lines = running.history().iter();
        lines.filter(|line| line.text.contains(TOLD)).count()
    };
    while told(&mut running) < 2 && running.next_line(until).is_some() {}
    let twice = told(&mut running);
    for line in running.history() {
        ensure!(
            !["fd0 ", "sr0 ", "ram0 "]
                .iter()
                .any(|name| line.text.contains(name)),
            "{what}: shown as a disk: {}",
            line.text
        );
    }
    ensure!(
        twice >= 2,
        "one line, two disks with letters: {twice} are told so"
    );
    let node = running.seen(" · node ").context("no page with the node's id")?;
    let node = node
        .text
        .split(" · ")
        .find_map(|part| part.strip_prefix("node ").map(String::from));
    running.cut_power();
    Ok((node.context("no id")?, claimed))
}

fn claimed(running: &mut Running) -> Result<usize> {
    let line = running
        .seen("  disks claimed: ")
        .context("it sells and says no disk")?;
    Ok(line.text.matches(" GiB").count())
}

/// The same machine without and with two dying disks.
pub fn dying(place: &Place) -> Result<Ended> {
    let mut took = Vec::new();
    for dies in [false, true] {
        let blank = place.blank()?;
        let mut machine = place.machine();
        machine.disks.push(blank.clone());
        if dies {
            let unread = Disk::new(image(place, "unread", BYTES)?, "UNREAD").on(Bus::Sata);
            let slow = Disk::new(image(place, "slow", BYTES)?, "SLOW").on(Bus::Sata);
            machine.disks.push(unread.dying(Fault::ReadAt(0)));
            machine.disks.push(slow.dying(Fault::Slow));
        }
        let (begun, mut running) = (Instant::now(), machine.start()?);
        took.push(sells(&mut running, begun)?);
        ensure!(
            claimed(&mut running)? == 1,
            "the sound disk alone is to be claimed"
        );
        if dies {
            for why in ["it cannot be read", "it hardly answers"] {
                said(&mut running, why)?;
            }
        }
        running.cut_power();
        std::fs::remove_file(&blank.path)?;
    }
    let [without, with] = took[..] else {
        anyhow::bail!("two machines, {} times", took.len());
    };
    ensure!(
        with < without + without / 2 + SLACK,
        "it sells after {without:?} without dying disks, and after {with:?} with them"
    );
    Ok(Ended::Passed(Some(format!(
        "sells after {:.1} s without them, {:.1} s with them",
        without.as_secs_f64(),
        with.as_secs_f64()
    ))))
}
