//! `./x test --machines [NAME]`: the image on every kind of machine, row by row of [`table`].
//!
//! ```text
//! row ─► blank disks, the one stick ─► firmware ─► joined ─► all blank disks claimed ─► selling      passed
//!                                          │
//!                                          ├─► one sentence, switched off                            passed where it stops
//!                                          └─► one sentence, nothing sold                            passed where it waits
//! afterwards: the stick has the bytes that it had
//! ```
//!
//! What takes more than one boot, or a hand at the machine meanwhile, is a [`cases`] of its own.
//!
//! All rows boot one stick, so each begins where the one before left it: nothing may write to it. It is longer than the image,
//! as sticks are.

mod cases;
mod clock;
mod dhcp;
mod dirty;
mod disks;
mod file;
mod foreign;
mod network;
mod sibling;
mod stick;
mod table;
mod web;

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use packages::Store;
use packages::store::sha256;
use qemu::{Boot, Bus, Disk, Machine};
use serde::Serialize;
use stage::Stage;

use crate::image_test;
use crate::network_image;
use crate::show::Step;
use crate::test::{Built, Makers};
use crate::tree::Tree;
use cases::{CASES, Case, Ended, Place};
use table::{Ends, Firmware, Medium, ROWS, Row, SHORT};

/// Firmware, kernel, modules and the base's copy under emulation, on two cores that others may use too.
const SELLS_WITHIN: Duration = Duration::from_secs(600);
/// From the sentence to the end.
const OFF_WITHIN: Duration = Duration::from_secs(120);
/// Each blank disk.
const TARGET_BYTES: u64 = 8 << 30;

/// The stick is so much longer than the image.
const LONGER_BYTES: u64 = 64 << 20;

/// What came of a row.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    machine: String,
    /// "sells", "stops", "waits", "passed", "failed", or "not run".
    verdict: &'static str,
    seconds: f64,
    /// Of one that failed or was not run why; of another what was measured.
    why: Option<String>,
}

/// Looks at the image, then boots the short rows.
pub fn short(tree: &Tree, built: &Built, makers: &Makers) -> Result<()> {
    let ground = Ground::lay(tree, built, makers, true)?;
    let rows = ROWS.iter().filter(|row| SHORT.contains(&row.name));
    ground.run(rows, &[], None)
}

/// Boots all rows whose name contains `filter`, or one of several with commas between; where it is a name, that one alone.
pub fn all(
    tree: &Tree,
    built: &Built,
    makers: &Makers,
    filter: Option<&str>,
    json: Option<&Path>,
) -> Result<()> {
    let rows = ROWS.iter().map(|row| row.name);
    let names: Vec<&str> = rows.chain(CASES.iter().map(|case| case.name)).collect();
    let exact = |filter: &str| names.contains(&filter);
    let fits = |name: &str, filter: &str| match exact(filter) {
        true => name == filter,
        false => name.contains(filter),
    };
    let wanted = |name: &str| filter.is_none_or(|filter| filter.split(',').any(|part| fits(name, part)));
    ensure!(
        names.iter().any(|name| wanted(name)),
        "no machine is called so; there are {}",
        names.join(", ")
    );
    let cases: Vec<&Case> = CASES.iter().filter(|case| wanted(case.name)).collect();
    let rows = ROWS.iter().filter(|row| wanted(row.name));
    Ground::lay(tree, built, makers, false)?.run(rows, &cases, json)
}

/// What all rows stand on.
struct Ground<'a> {
    dir: PathBuf,
    stick: PathBuf,
    /// What a server hands out to machines that boot over the network.
    folder: PathBuf,
    sum: String,
    devices: String,
    /// The `farmer.toml` of the stick.
    text: String,
    stage: Stage,
    tree: &'a Tree,
    store: &'a Store,
}

/// What QEMU's user network is told so that machines fetch this file; it shows them the host's loopback.
fn http_boot_file(folder: &Path, name: &str) -> Result<String> {
    Ok(format!("bootfile=http://10.0.2.2:{}/{name}", web::serve(folder)?))
}

impl<'g> Ground<'g> {
    fn lay(tree: &'g Tree, built: &Built, makers: &Makers<'g>, looked_at: bool) -> Result<Ground<'g>> {
        let dir = tree.artefact("machines");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let stage = Stage::open(&dir, built.artefacts.clone(), "machines")?;
        let farmer = stage.person("farmer")?;
        let settings = stage::NodeSettings::new("machine", farmer.address());
        let text = stage::farmer_toml(&stage, &settings);
        let stick = dir.join("stick.img");
        let made = (makers.stick)(&text, &stick)?;
        if looked_at {
            image_test::all(tree, makers.store, &made, &text, &stick)?;
        }
        onto_a_longer_stick(&stick)?;
        let folder = dir.join("network");
        if !looked_at {
            network_image::write(&folder, &made.parts, &text)?;
        }
        Ok(Ground {
            folder,
            sum: sha256(&stick)?,
            devices: devices()?,
            dir,
            stick,
            text,
            stage,
            tree,
            store: makers.store,
        })
    }

    fn run<'a>(
        &self,
        rows: impl Iterator<Item = &'a Row>,
        cases: &[&Case],
        json: Option<&Path>,
    ) -> Result<()> {
        let rows = rows.map(|row| self.row(row));
        let outcomes: Vec<Outcome> = rows.chain(cases.iter().map(|case| self.case(case))).collect();
        println!("\n {:<12} {:>7}  {:<8} machine", "row", "seconds", "verdict");
        for outcome in &outcomes {
            println!(
                " {:<12} {:>7.1}  {:<8} {}",
                outcome.name, outcome.seconds, outcome.verdict, outcome.machine
            );
            if outcome.verdict != "failed" {
                for line in outcome.why.iter().flat_map(|why| why.lines()) {
                    println!(" {:<30}{line}", "");
                }
            }
        }
        if let Some(json) = json {
            std::fs::write(json, serde_json::to_string_pretty(&outcomes)?)
                .with_context(|| format!("writing {}", json.display()))?;
        }
        let failed: Vec<String> = outcomes
            .iter()
            .filter(|outcome| outcome.verdict == "failed")
            .map(|outcome| {
                let why = outcome.why.as_deref().unwrap_or_default();
                format!("{}: {why}", outcome.name)
            })
            .collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        ensure!(sha256(&self.stick)? == self.sum, "a machine wrote to its stick");
        Ok(())
    }

    fn row(&self, row: &Row) -> Outcome {
        let machine = words(row, self.card(row));
        let begun = Instant::now();
        let outcome = |verdict, why| Outcome {
            name: row.name,
            machine: machine.clone(),
            verdict,
            seconds: begun.elapsed().as_secs_f64(),
            why,
        };
        let step = Step::start(&format!("{}: {machine}", row.name));
        match self.boot(row) {
            Ok(()) => {
                step.done();
                outcome(
                    match row.ends {
                        Ends::Sells => "sells",
                        Ends::Stops(_) => "stops",
                        Ends::Waits(_) => "waits",
                    },
                    None,
                )
            }
            Err(error) => {
                let why = format!("{error:#}");
                eprintln!("{why}");
                outcome("failed", Some(why))
            }
        }
    }

    fn case(&self, case: &Case) -> Outcome {
        let begun = Instant::now();
        let outcome = |verdict, why| Outcome {
            name: case.name,
            machine: case.what.into(),
            verdict,
            seconds: begun.elapsed().as_secs_f64(),
            why,
        };
        let step = Step::start(&format!("{}: {}", case.name, case.what));
        let place = Place::lay(self, case.name);
        match place.and_then(|place| (case.run)(&place)) {
            Ok(Ended::Passed(measured)) => {
                step.done();
                outcome("passed", measured)
            }
            Ok(Ended::NotRun(why)) => {
                step.done();
                outcome("not run", Some(why))
            }
            Err(error) => {
                let why = format!("{error:#}");
                eprintln!("{why}");
                outcome("failed", Some(why))
            }
        }
    }

    /// The row's card; an ordinary one where this QEMU is older than the row's.
    fn card(&self, row: &Row) -> &'static str {
        let name = row.card.split(',').next().unwrap_or_default();
        match self.devices.contains(&format!("name \"{name}\"")) {
            true => row.card,
            false => "e1000e",
        }
    }

    /// Has the machine start from the folder for the network.
    fn start_from_network(&self, machine: &mut Machine, firmware: Firmware, from: Medium) -> Result<()> {
        let folder = self.folder.canonicalize()?;
        let name = match firmware {
            Firmware::Bios => "boot.ipxe",
            _ => "shimx64.efi",
        };
        machine.boots_from_network = true;
        machine.user_network = match from {
            Medium::Http => http_boot_file(&folder, name)?,
            _ => format!("tftp={},bootfile={name}", folder.display()),
        };
        Ok(())
    }

    fn boot(&self, row: &Row) -> Result<()> {
        let dir = self.dir.join(row.name);
        std::fs::create_dir_all(&dir)?;
        let mut machine = Machine::new(row.name, Boot::Disk(firmware(row.firmware, &dir)?));
        machine.board = row.board;
        machine.cpu = row.cpu.into();
        machine.cpus = row.cores;
        machine.memory_mib = row.memory_mib;
        machine.card = self.card(row).into();
        machine.console_log = Some(dir.join("console.log"));
        match row.medium {
            Medium::Stick(bus) => machine.disks.push(Disk::new(&self.stick, "STICK").on(bus)),
            from => self.start_from_network(&mut machine, row.firmware, from)?,
        }
        if let Some(kind) = row.sibling {
            let path = dir.join("sibling.img");
            sibling::write(&self.stick, kind, &path)?;
            machine.disks.push(Disk::new(&path, "SIBLING").on(Bus::Nvme));
        }
        for (index, (bus, sector)) in row.targets.iter().enumerate() {
            let path = dir.join(format!("target{index}.img"));
            Disk::ensure_blank(&path, TARGET_BYTES)?;
            let serial = format!("TARGET-{index}");
            machine
                .disks
                .push(Disk::new(&path, &serial).on(*bus).sectors_of(*sector));
        }
        let mut running = machine.start()?;
        match row.ends {
            Ends::Sells => {
                running.wait_for("  selling", SELLS_WITHIN)?;
                ensure!(running.seen("  joined ").is_some(), "it sells and has not joined");
                let claimed = running
                    .seen("  disks claimed: ")
                    .context("it sells and says no disk")?;
                let disks = claimed.text.matches(" GiB").count();
                ensure!(
                    disks == row.targets.len(),
                    "of {} blank disks: {}",
                    row.targets.len(),
                    claimed.text
                );
                // The kernel's own words, from before it has a console.
                ensure!(
                    row.firmware != Firmware::SecureBoot
                        || running.seen("UEFI Secure Boot is enabled").is_some(),
                    "Secure Boot is not on"
                );
            }
            Ends::Waits(sentence) => {
                running.wait_for(sentence, SELLS_WITHIN)?;
                ensure!(running.seen("  selling").is_none(), "it waits for nobody");
            }
            Ends::Stops(sentence) => {
                running.wait_for(sentence, SELLS_WITHIN)?;
                running
                    .wait_exit(OFF_WITHIN)
                    .context("it said so and did not switch itself off")?;
            }
        }
        drop(running);
        let sibling = dir.join("sibling.img");
        if sibling.exists() {
            std::fs::remove_file(sibling)?;
        }
        for index in 0..row.targets.len() {
            std::fs::remove_file(dir.join(format!("target{index}.img")))?;
        }
        Ok(())
    }
}

/// As `dd` writes an image to a stick: it ends before the stick does, and at the stick's own end lies the copy of a
/// partition table that somebody had on it before, with a wrong sum.
fn onto_a_longer_stick(stick: &Path) -> Result<()> {
    let mut file = std::fs::File::options().write(true).open(stick)?;
    let end = (file.metadata()?.len() + LONGER_BYTES).next_multiple_of(1 << 20);
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end - 512))?;
    file.write_all(b"EFI PART\x00\x00\x01\x00\x5C\x00\x00\x00")?;
    Ok(file.sync_all()?)
}

/// A machine in one line.
fn words(row: &Row, card: &str) -> String {
    let targets: Vec<String> = row
        .targets
        .iter()
        .map(|(bus, sector)| match sector {
            512 => format!("{bus:?}"),
            other => format!("{bus:?}/{other}"),
        })
        .collect();
    format!(
        "{:?} {:?} {}×{} {} MiB, {:?}, disks {}, {}",
        row.firmware,
        row.board,
        row.cores,
        row.cpu,
        row.memory_mib,
        row.medium,
        targets.join("+"),
        if card == row.card {
            card.to_owned()
        } else {
            format!("{card} (this QEMU has no {})", row.card)
        }
    )
}

/// What this QEMU can be made of: versions differ.
fn devices() -> Result<String> {
    packages::program::text(packages::program::command("qemu-system-x86_64").args(["-device", "help"]))
}

/// SeaBIOS, or Debian's OVMF under the names that its versions have, with variables of its own.
fn firmware(kind: Firmware, dir: &Path) -> Result<qemu::Firmware> {
    let (codes, variables): (&[&str], &[&str]) = match kind {
        Firmware::Bios => return Ok(qemu::Firmware::Bios),
        Firmware::Uefi => (
            &["OVMF_CODE_4M.fd", "OVMF_CODE.fd"],
            &["OVMF_VARS_4M.fd", "OVMF_VARS.fd"],
        ),
        Firmware::SecureBoot => (
            &["OVMF_CODE_4M.ms.fd", "OVMF_CODE_4M.secboot.fd"],
            &["OVMF_VARS_4M.ms.fd"],
        ),
    };
    let folder = Path::new("/usr/share/OVMF");
    let find = |names: &[&str]| -> Result<PathBuf> {
        let found = names
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.exists());
        found.with_context(|| {
            format!(
                "none of {names:?} in {}; on Debian: apt install ovmf",
                folder.display()
            )
        })
    };
    let code = find(codes)?;
    let vars = dir.join("ovmf-vars.fd");
    std::fs::copy(find(variables)?, &vars)?;
    Ok(qemu::Firmware::Uefi {
        code,
        vars,
        secure: kind == Firmware::SecureBoot,
    })
}
