//! `./x bench boot`: from power-on to PID 1, and to able to sell; beside it, in turns, Debian's cloud kernel with the
//! initramfs that Debian makes for it, to its own PID 1.
//!
//! ```text
//!   for each firmware:  once ours, to claim its disk │ then in turns:  ours ─► PID 1 ─► able to sell ─► boot-report
//!                                                    │                 stock ─► PID 1
//! ```
//!
//! Both start from the same machine, by the same loaders, with the same kernel arguments; times are when a line reaches
//! this side of the console, counted from the start of QEMU. Ratios hold where absolute times do not.

mod again;
mod by;
mod stock;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use packages::Store;
use qemu::{Accel, Boot, Bus, Disk, Machine, Running};
use serde::Serialize;
use serde_json::{Value, json};
use stage::{Artefacts, NodeSettings, Person, Stage};

use crate::show::{Step, heading};
use crate::tree::Tree;
use crate::{shipped, stick_image};
pub use by::By;
use by::firmware;
use stock::Stock;

/// What was asked for on the command line.
pub struct Options {
    /// How many times each starts.
    pub runs: usize,
    /// Where all figures go.
    pub json: Option<PathBuf>,
    /// Hardware virtualisation, on explicit wish only.
    pub kvm: bool,
    /// Where the machines' disks lie.
    pub dir: PathBuf,
    /// By which firmwares.
    pub by: Vec<By>,
}

/// One start of each.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Power-on to PID 1.
    pub pid1_ms: u64,
    /// Power-on to able to sell.
    pub able_ms: u64,
    /// Of the stock system to its PID 1.
    stock_pid1_ms: u64,
    /// The node's own report.
    report: Value,
    /// The same as a person reads it.
    #[serde(skip)]
    drawn: String,
}

/// Firmware, kernel and claims under emulation, on two cores that others may use too.
const WITHIN: Duration = Duration::from_secs(400);
/// What our PID 1 says first.
const OURS: &str = "init, PID 1";
/// What the report ends in.
const ABLE: &str = "able to sell ";

pub struct Bench<'a> {
    tree: &'a Tree,
    store: &'a Store,
    artefacts: Artefacts,
    stock: Option<Stock>,
    options: &'a Options,
}

/// Runs it and prints a table for each firmware.
pub fn run(tree: &Tree, store: &Store, artefacts: Artefacts, options: &Options) -> Result<()> {
    ensure!(options.runs >= 1, "--runs 0: nothing to measure; use 1 or more");
    if options.dir.exists() {
        std::fs::remove_dir_all(&options.dir)?;
    }
    let stock = stock::ensure(tree)?;
    let kernel = stock.kernel.clone();
    let bench = Bench {
        stock: Some(stock),
        ..Bench::of(tree, store, artefacts, options)
    };
    let mut all = Vec::new();
    for by in &options.by {
        let runs = bench.firmware(*by)?;
        table::print(by.word(), &kernel, &runs);
        all.push(json!({ "by": by, "runs": runs }));
    }
    if let Some(path) = &options.json {
        let report = json!({ "unit": "ms", "stock": kernel, "boots": all });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

impl<'a> Bench<'a> {
    /// Of ours alone, for who has something else to set beside it.
    pub fn of(tree: &'a Tree, store: &'a Store, artefacts: Artefacts, options: &'a Options) -> Self {
        Self {
            tree,
            store,
            artefacts,
            stock: None,
            options,
        }
    }

    fn firmware(&self, by: By) -> Result<Vec<Run>> {
        heading(&format!(
            "By {}: {} starts of each, in turns",
            by.word(),
            self.options.runs
        ));
        let dir = self.options.dir.join(by.word());
        std::fs::create_dir_all(&dir)?;
        let step = Step::start("once, to claim its disk");
        self.ours(by, &dir)?;
        step.done();
        let mut runs = Vec::new();
        for number in 1..=self.options.runs {
            let step = Step::start(&format!("start {number}"));
            let stock_pid1_ms = again::where_the_emulator_fails(|| self.stock(by, &dir))?;
            let run = Run {
                stock_pid1_ms,
                ..self.ours(by, &dir)?
            };
            step.done_as(&format!(
                "start {number}: PID 1 {:.1} s, stock {:.1} s, able to sell {:.1} s",
                seconds(run.pid1_ms),
                seconds(run.stock_pid1_ms),
                seconds(run.able_ms)
            ));
            runs.push(run);
        }
        Ok(runs)
    }

    /// Ours to able to sell, and its own report.
    pub fn ours(&self, by: By, dir: &Path) -> Result<Run> {
        again::where_the_emulator_fails(|| self.ours_once(by, dir))
    }

    /// Ledger and grid are started for each: a grid that remembers the last start would let this one wait for the end of it.
    fn ours_once(&self, by: By, dir: &Path) -> Result<Run> {
        let stage = Stage::open(dir, self.artefacts.clone(), "boots")?;
        let farmer = stage.person("farmer")?;
        let mut settings = NodeSettings::new("node", farmer.address());
        settings.more = farmer.run(&["node", "key", "--json"])?.text("/line")?.to_owned();
        let text = stage::farmer_toml(&stage, &settings);
        let medium = dir.join("medium.img");
        let mut machine = if by == By::Direct {
            image::disk::medium(&medium, &text, &self.artefacts.base)?;
            let (kernel, initrd) = (&self.artefacts.kernel, &self.artefacts.initramfs);
            self.direct("node", kernel, initrd)
        } else {
            let shipped = shipped::of_the_tree(self.tree)?;
            stick_image::make(self.tree, self.store, &shipped, &text, &medium)?;
            Machine::new("node", Boot::Disk(firmware(by, dir)?))
        };
        self.plug(&mut machine, by, &medium, &dir.join("disk.img"))?;
        machine.console_log = Some(dir.join("console.log"));
        let mut running = machine.start()?;
        let pid1_ms = line_at(&mut running, OURS)?;
        let able_ms = line_at(&mut running, ABLE)?;
        let (report, drawn) = reported(&farmer, &mut running)?;
        running.cut_power();
        Ok(Run {
            pid1_ms,
            able_ms,
            stock_pid1_ms: 0,
            report,
            drawn,
        })
    }

    /// Debian's to its PID 1.
    fn stock(&self, by: By, dir: &Path) -> Result<u64> {
        let stock = self.stock.as_ref().context("no stock kernel was installed")?;
        let medium = dir.join("stock.img");
        let mut machine = if by == By::Direct {
            std::fs::File::create(&medium)?.set_len(64 << 20)?;
            self.direct("stock", &stock.vmlinux, &stock.initrd)
        } else {
            if !medium.exists() {
                stock.stick(self.tree, &self.artefacts.base, &medium)?;
            }
            Machine::new("stock", Boot::Disk(firmware(by, dir)?))
        };
        self.plug(&mut machine, by, &medium, &dir.join("stock-disk.img"))?;
        machine.console_log = Some(dir.join("stock.log"));
        let mut running = machine.start()?;
        let pid1_ms = line_at(&mut running, stock::PID_1)?;
        running.cut_power();
        Ok(pid1_ms)
    }

    fn direct(&self, name: &str, kernel: &Path, initrd: &Path) -> Machine {
        // `quiet` would silence Debian's PID 1; for the kernel loglevel says the same.
        let words = stage::emulated_command_line();
        let words: Vec<&str> = words.split(' ').filter(|word| *word != "quiet").collect();
        let boot = Boot::Direct {
            kernel: kernel.to_owned(),
            initrd: initrd.to_owned(),
            command_line: words.join(" "),
        };
        Machine::new(name, boot)
    }

    fn plug(&self, machine: &mut Machine, by: By, medium: &Path, disk: &Path) -> Result<()> {
        Disk::ensure_blank(disk, 8 << 30)?;
        let (medium_bus, disk_bus) = match by {
            By::Direct => (Bus::Virtio, Bus::Virtio),
            By::Bios | By::Uefi | By::Secure => (Bus::Usb, Bus::Sata),
        };
        machine
            .disks
            .push(Disk::new(medium, "STEADING-MEDIUM").on(medium_bus));
        machine.disks.push(Disk::new(disk, "TARGET").on(disk_bus));
        machine.memory_mib = 1536;
        // With one thread for both processors, whoever waits gives nothing to the other: no hardware does that.
        machine.accel = match self.options.kvm {
            true => Accel::Kvm,
            false => Accel::TcgThreads,
        };
        Ok(())
    }
}

/// Milliseconds from power-on to a line.
fn line_at(running: &mut Running, needle: &str) -> Result<u64> {
    let line = match running.seen(needle) {
        Some(line) => line,
        None => running.wait_for(needle, WITHIN)?,
    };
    Ok(between(running.started(), line.at))
}

fn between(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).map_or(0, |gap| gap.as_millis() as u64)
}

/// What the node tells its farmer: as data, and as a person reads it.
pub fn reported(farmer: &Person, running: &mut Running) -> Result<(Value, String)> {
    let nodes = farmer
        .run(&["nodes", "--json"])?
        .expect_success("looking for the node")?;
    let id = nodes.text("/nodes/0/node")?.to_owned();
    ensure!(running.is_running(), "the node has ended");
    let report = farmer
        .run(&["node", "boot-report", &id, "--json"])?
        .expect_success("asking for the boot's report")?;
    let drawn = farmer
        .run(&["node", "boot-report", &id])?
        .expect_success("asking for the boot's report")?;
    // Below the timeline stands what the node said.
    let drawn = drawn.out.split("\n\n").take(2).collect::<Vec<_>>().join("\n\n");
    Ok((report.json, drawn))
}

/// What a report of a node that sells must be, whatever its figures: whole, in order, and a sum.
pub fn check(report: &Value) -> Result<()> {
    let list = |key: &str| {
        report[key]
            .as_array()
            .with_context(|| format!("no {key} in {report}"))
    };
    ensure!(report["complete"] == true, "the report lacks phases: {report}");
    let begins: Vec<i64> = list("phases")?
        .iter()
        .filter_map(|phase| phase["begin_ms"].as_i64())
        .collect();
    ensure!(begins.is_sorted(), "the phases are out of order: {report}");
    for phase in list("phases")? {
        let (begin, end) = (phase["begin_ms"].as_i64(), phase["end_ms"].as_i64());
        ensure!(
            begin.is_some() && begin <= end,
            "it ends before it begins: {phase}"
        );
    }
    let parts: Vec<u64> = list("path")?
        .iter()
        .filter_map(|part| part["ms"].as_u64())
        .collect();
    ensure!(
        !parts.is_empty() && Some(parts.iter().sum::<u64>()) == report["total_ms"].as_u64(),
        "the parts are not the whole: {report}"
    );
    Ok(())
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_lacks_a_phase_or_a_second_is_refused() {
        let good = json!({
            "complete": true, "total_ms": 9,
            "phases": [{"begin_ms": -2, "end_ms": 0}, {"begin_ms": 0, "end_ms": 7}],
            "path": [{"ms": 2}, {"ms": 7}],
        });
        assert!(check(&good).is_ok());
        let spoilt = |pointer: &str, value: Value| {
            let mut report = good.clone();
            *report.pointer_mut(pointer).expect("a field") = value;
            check(&report)
        };
        for (pointer, value) in [
            ("/complete", json!(false)),
            ("/total_ms", json!(8)),
            ("/path", json!([])),
            ("/phases/0/begin_ms", json!(1)),
            ("/phases/1/end_ms", json!(-1)),
        ] {
            assert!(spoilt(pointer, value).is_err(), "{pointer}");
        }
    }
}
