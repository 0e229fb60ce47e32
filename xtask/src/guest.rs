//! The stage `guest`: tests that need a kernel of their own, in two machines beside each other.
//!
//! ```text
//!                  ┌─► QEMU ─► init (PID 1) ─► guest-tests  disks::, faults::, snapshots:: ────────────────────┐
//!   ./x test ──────┤                                                                                           ├─► the sum
//!                  └─► QEMU ─► init (PID 1) ─► guest-tests  all others                                         ┘
//!   ./x test --guest NAME,NAME ─► one machine, the trials with such names
//! ```
//!
//! A machine is emulated by one thread, and computers have two. What one trial leaves in a machine, another finds: so each
//! machine runs its trials one after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu::{Boot, Bus, Disk, Machine};

use crate::failures::Failures;
use crate::test::Built;
use crate::tree::Tree;

/// All trials of a machine.
const RUN_WITHIN: Duration = Duration::from_secs(2400);
/// By the name of the machine: the trials that it runs, so that both take as long. A `-` takes away.
const HALVES: [(&str, &str); 2] = [
    ("guest-faults", "disks::,faults::,snapshots::"),
    ("guest-tests", "-disks::,-faults::,-snapshots::"),
];

/// What a program with points at which steps go wrong says at such a point.
const FAULT_POINT: &[u8] = b"steading fault point: ";
/// What the hand that strikes a node says when it listens.
const STRIKE: &[u8] = b"strike: ready";

/// Runs all trials, or those that are named.
pub fn run(tree: &Tree, built: &Built, filter: Option<&str>) -> Result<()> {
    what_goes_wrong_is_in_tests_alone(built)?;
    if let Some(filter) = filter {
        return trials(tree, built, "guest-tests", filter);
    }
    let results = std::thread::scope(|scope| {
        HALVES
            .map(|(name, trials)| scope.spawn(move || self::trials(tree, built, name, trials)))
            .map(|half| {
                half.join()
                    .map_err(|_| anyhow::anyhow!("a half of the tests panicked"))
            })
    });
    let errors: Vec<String> = results
        .into_iter()
        .filter_map(|half| half.and_then(|result| result).err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(errors.is_empty(), "{}", errors.join("; "));
    Ok(())
}

/// A guest of the tests with these words on its command line, and an empty folder of its own.
pub fn machine(tree: &Tree, built: &Built, name: &str, words: &str) -> Result<Machine> {
    let dir = tree.artefact(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let boot = Boot::Direct {
        kernel: built.artefacts.kernel.clone(),
        initrd: built.guest_initramfs.clone(),
        command_line: format!("{} {words}", stage::emulated_command_line()),
    };
    let mut machine = Machine::new(name, boot);
    machine.memory_mib = 2048;
    machine.console_log = Some(dir.join("console.log"));
    Ok(machine)
}

/// A blank disk for it.
pub fn blank(dir: &Path, name: &str, bytes: u64) -> Result<Disk> {
    let path = dir.join(format!("{name}.img"));
    Disk::ensure_blank(&path, bytes)?;
    Ok(Disk::new(&path, &format!("BLANK-{name}")))
}

/// One boot with these trials.
fn trials(tree: &Tree, built: &Built, name: &str, trials: &str) -> Result<()> {
    let mut machine = machine(tree, built, name, &format!("guest-tests={trials}"))?;
    // One that can be asked how it is.
    let dir = tree.artefact(name);
    machine.disks.push(blank(&dir, "sata", 16 << 20)?.on(Bus::Sata));
    boot(tree, built, machine, &mut |_| {})
}

/// One boot with blank disks, in which the trials run that its command line names; `each` reads along.
pub fn boot(tree: &Tree, built: &Built, mut machine: Machine, each: &mut dyn FnMut(&str)) -> Result<()> {
    let name = machine.name.clone();
    let dir = tree.artefact(&name);
    for (disk, bytes) in [("vda", 8u64 << 30), ("vdb", 8 << 30), ("vdc", 1 << 30)] {
        machine.disks.push(blank(&dir, disk, bytes)?);
    }
    let medium = dir.join("medium.img");
    image::disk::medium(&medium, "name = \"guest-tests\"\n", &built.artefacts.base)?;
    machine.disks.push(Disk::new(&medium, "STEADING-MEDIUM"));
    let mut running = machine.start()?;
    let deadline = Instant::now() + RUN_WITHIN;
    let (mut last, mut failures) = (None, Failures::default());
    while let Some(line) = running.next_line(deadline) {
        println!("{name:<13}| {}", line.text);
        each(&line.text);
        failures.read(&line.text);
        if let Some((_, counts)) = line.text.split_once("guest tests: ")
            && counts.ends_with(" failed")
        {
            last = Some(counts.to_string());
            break;
        }
        ensure!(
            !line.text.contains("Kernel panic"),
            "the kernel of {name} panicked: {}",
            line.text
        );
    }
    let counts = last.with_context(|| format!("{name} ended, or its time did, before all tests had run"))?;
    ensure!(
        counts.ends_with(", 0 failed") && !counts.starts_with("0 "),
        "in {name}: {counts}{}",
        failures.text()
    );
    let ended = running
        .wait_exit(Duration::from_secs(60))
        .with_context(|| format!("{name} did not power off"))?;
    ensure!(ended.success(), "QEMU ended with {ended}");
    Ok(())
}

/// The product must not have such points, nor such a hand; the images of tests have, or looking for them would prove
/// nothing.
fn what_goes_wrong_is_in_tests_alone(built: &Built) -> Result<()> {
    let holds = |path: &Path, words: &[u8]| -> Result<bool> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(bytes.windows(words.len()).any(|window| window == words))
    };
    let has = |path: &Path| holds(path, FAULT_POINT);
    ensure!(
        !holds(&built.artefacts.initramfs, STRIKE)?,
        "the product has the hand that strikes a node"
    );
    ensure!(
        holds(&built.artefacts.initramfs.with_file_name("struck.cpio"), STRIKE)?,
        "the image that is struck has no hand for it"
    );
    ensure!(
        !has(&built.artefacts.initramfs)?,
        "the product has points at which steps go wrong"
    );
    ensure!(
        has(&built.guest_initramfs)?,
        "the guest's tests have no points at which steps go wrong"
    );
    Ok(())
}
