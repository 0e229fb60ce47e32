//! Machines that are more than one boot of a row: something happens to them, or they stand on ground of their own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu::{Boot, Bus, Disk, Firmware, Line, Machine, Running};

use super::{Ground, SELLS_WITHIN, TARGET_BYTES, clock, dirty, disks, file, network, stick};

/// How a case ended that did not fail.
pub enum Ended {
    /// As it should; what was measured, if anything.
    Passed(Option<String>),
    /// It needs what this machine has not.
    NotRun(String),
}

/// One case.
pub struct Case {
    /// Its name, by which it is chosen.
    pub name: &'static str,
    /// What happens, for the table.
    pub what: &'static str,
    /// Does it.
    pub run: fn(&Place) -> Result<Ended>,
}

const fn case(name: &'static str, what: &'static str, run: fn(&Place) -> Result<Ended>) -> Case {
    Case { name, what, run }
}

/// All of them.
pub const CASES: &[Case] = &[
    case(
        "no-disk",
        "no disk: joins, says so, sells nothing",
        stick::no_disk,
    ),
    case(
        "dirty",
        "disks with something on them: named, not touched, sold with their lines",
        dirty::matrix,
    ),
    case(
        "odd-disks",
        "twins, nameless, long sectors, crooked size; floppy and CD are none",
        disks::odd,
    ),
    case(
        "dying",
        "one disk that cannot be read, one that hardly answers",
        disks::dying,
    ),
    case(
        "farmer-file",
        "farmer.toml.txt in UTF-16 with a wrong wallet; one of 10 MB",
        file::spoilt,
    ),
    case(
        "stick-pulled",
        "the stick is pulled in the middle of a sale; a second sale",
        stick::pulled,
    ),
    case(
        "stick-damaged",
        "an initramfs that the loader cannot read, and one whose bytes are wrong: one sentence each",
        stick::damaged,
    ),
    case(
        "cable-late",
        "no network, and a cable two minutes later",
        network::cable_late,
    ),
    case(
        "dhcp-late",
        "a lease two minutes after it was asked for",
        network::dhcp_late,
    ),
    case("ipv4-only", "a network without IPv6", network::ipv4_only),
    case("ipv6-only", "a network without IPv4", network::ipv6_only),
    case(
        "three-cards",
        "a card that nobody answers, one whose router leads nowhere, one on whose cable the grid is",
        network::three_cards,
    ),
    case(
        "classless",
        "a /32 lease whose routes are classless alone (option 121)",
        network::classless,
    ),
    case(
        "uefi-http",
        "UEFI HTTP boot without a stick, Secure Boot off",
        network::uefi_http,
    ),
    case("clock-1970", "the machine's clock says 1970", clock::in_1970),
    case("clock-2069", "the machine's clock says 2069", clock::in_2069),
];

/// What a case stands on: a folder of its own, and the ground of all.
pub struct Place<'a> {
    /// All that the rows share.
    pub ground: &'a Ground<'a>,
    /// Its folder.
    pub dir: PathBuf,
    name: &'static str,
}

impl<'a> Place<'a> {
    pub(super) fn lay(ground: &'a Ground<'a>, name: &'static str) -> Result<Place<'a>> {
        let dir = ground.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(Place { ground, dir, name })
    }

    /// A machine of today that starts from the stick of all rows, on USB; it can be given orders, and has no disk.
    pub fn machine(&self) -> Machine {
        self.machine_from(&self.ground.stick)
    }

    /// The same from another stick.
    pub fn machine_from(&self, stick: &Path) -> Machine {
        let mut machine = Machine::new(self.name, Boot::Disk(Firmware::Bios));
        machine.memory_mib = 1536;
        machine.console_log = Some(self.dir.join("console.log"));
        machine.monitor = Some(self.dir.join("monitor"));
        machine.disks.push(Disk::new(stick, "STICK").on(Bus::Usb));
        machine
    }

    /// A copy of the stick with this `farmer.toml` on it.
    pub fn stick(&self, farmer_toml: &str) -> Result<PathBuf> {
        let name = "farmer.toml";
        self.stick_with(name, farmer_toml.as_bytes())
    }

    /// A copy of the stick with this file in the place of `farmer.toml`.
    pub fn stick_with(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let copy = self.dir.join("stick.img");
        std::fs::copy(&self.ground.stick, &copy)
            .with_context(|| format!("copying the stick to {}", copy.display()))?;
        image::disk::put_file(&copy, "farmer.toml", name, bytes)?;
        Ok(copy)
    }

    /// A blank disk on AHCI.
    pub fn blank(&self) -> Result<Disk> {
        let path = self.dir.join("target.img");
        Disk::ensure_blank(&path, TARGET_BYTES)?;
        Ok(Disk::new(&path, "TARGET").on(Bus::Sata))
    }

    /// The machine with a blank disk.
    pub fn with_disk(&self) -> Result<Machine> {
        let mut machine = self.machine();
        machine.disks.push(self.blank()?);
        Ok(machine)
    }
}

/// Waits until it sells; how long that took from `since`.
pub fn sells(running: &mut Running, since: Instant) -> Result<Duration> {
    running.wait_for("  selling", SELLS_WITHIN)?;
    let took = since.elapsed();
    ensure!(running.seen("  joined ").is_some(), "it sells and has not joined");
    Ok(took)
}

/// A line that has come already, or comes.
pub fn said(running: &mut Running, needle: &str) -> Result<Line> {
    match running.seen(needle) {
        Some(line) => Ok(line),
        None => Ok(running.wait_for(needle, SELLS_WITHIN)?),
    }
}

/// Passed, with one figure.
pub fn measured(what: &str, took: Duration) -> Result<Ended> {
    Ok(Ended::Passed(Some(format!("{what} {:.1} s", took.as_secs_f64()))))
}
