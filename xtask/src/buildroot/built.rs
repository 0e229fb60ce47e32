//! `./x kernel`: the locked kernel compiled from Debian's sources of the same version, with the fragments of
//! `buildroot-config`; then the same programs and modules are started with it and with Debian's, in turns.
//!
//! ```text
//! modules of QEMU's initramfs ─▶ a fragment ┐
//! node, hardening, without (by hand) ───────┴▶ Kconfig ─▶ bzImage, modules ─▶ initramfs ─▶ starts, beside Debian's
//! ```
//!
//! The fragment is made as `modules.fragment` is, for the modules that QEMU's machines can have: those of all machines
//! take hours to compile on a small computer. What Kconfig drops of the fragments is an error before anything is compiled.

use super::kernel::{self, Locked};
use super::{FRAGMENTS, Source, board_file};
use crate::artefacts::{self, Kernel};
use crate::bench::boot::{Bench, By, Options as BenchOptions, Run};
use crate::options::Options;
use crate::shipped::Shipped;
use crate::show::{Step, heading};
use crate::tree::Tree;
use crate::{bench, build};
use anyhow::{Context, Result};
use initramfs::Choice;
use packages::Store;
use packages::program::{command, run, text};
use serde_json::json;
use stage::Artefacts;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Where all of it lies.
const FOLDER: &str = "image/built-kernel";

/// The configuration of what was built.
const STAMP: &str = "config-of-what-is-built";

/// `./x kernel [--runs N] [--jobs N] [--json FILE] [--no-build]`; `--runs 0` compiles and starts nothing.
pub fn verb(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = artefacts::store(&tree, &mut options)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.number("jobs")?.unwrap_or(processors as u64);
    let runs = usize::try_from(options.number("runs")?.unwrap_or(3))?;
    let json = options.value("json")?.map(std::path::absolute).transpose()?;
    let programs = !options.flag("no-build");
    options.done()?;
    if programs {
        artefacts::ensure_programs(&tree, &store)?;
    }
    let boot = artefacts::ensure_boot(&tree, &store)?;
    let built = Built::ensure(&tree, &store, jobs)?;
    let theirs = Artefacts {
        kernel: boot.vmlinux,
        initramfs: boot.initramfs,
        base: boot.base.path,
        client: std::path::absolute(build::program(&tree, "steading")?)?,
    };
    let ours = Artefacts {
        kernel: built.vmlinux.clone(),
        initramfs: built.initramfs(&tree, &store)?,
        ..theirs.clone()
    };
    if runs == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = BenchOptions {
        runs,
        json: None,
        kvm: false,
        dir: tree.artefact("kernel"),
        by: vec![By::Direct],
    };
    let [built_runs, debian_runs] = beside(&tree, &store, &wanted, [ours.clone(), theirs.clone()])?;
    report(
        &tree,
        &built,
        [(&ours, &built_runs), (&theirs, &debian_runs)],
        json.as_deref(),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What was compiled.
struct Built {
    /// The kernel as an ELF file, for QEMU.
    vmlinux: PathBuf,
    /// As a loader takes it.
    vmlinuz: PathBuf,
    /// Its modules.
    modules: Kernel,
    /// How long the compilation took; none where it was there.
    seconds: Option<u64>,
}

impl Built {
    /// Compiles what is not there yet: make says what that is.
    fn ensure(tree: &Tree, store: &Store, jobs: u64) -> Result<Self> {
        let folder = tree.artefact(FOLDER);
        let (out, modules) = (folder.join("build"), folder.join("tree"));
        let locked = Locked::open(tree, store, Choice::Qemu)?;
        let (sources, name) = locked.whole_sources(store)?;
        let fragments = fragments(tree, store, &locked, &folder)?;
        kernel::configure(&sources, &out, &fragments)?;
        let make = |words: &[&str]| {
            let mut make = command("nice");
            make.args(["-n", "19", "make", "-s", "-C"]).arg(&sources);
            make.arg(format!("O={}", out.display()))
                .arg("ARCH=x86_64")
                .args(words);
            make
        };
        let version = text(&mut make(&["kernelrelease"]))?.trim().to_owned();
        let (vmlinux, vmlinuz) = (folder.join("vmlinux"), folder.join("vmlinuz"));
        let (config, stamp) = (std::fs::read(out.join(".config"))?, folder.join(STAMP));
        let kernel = |seconds| Self {
            vmlinux: vmlinux.clone(),
            vmlinuz: vmlinuz.clone(),
            modules: Kernel {
                folder: modules.clone(),
                version: version.clone(),
                locked: false,
            },
            seconds,
        };
        if std::fs::read(&stamp).is_ok_and(|built| built == config) {
            return Ok(kernel(None));
        }
        let step = Step::start(&format!("compiling {name} as {version}, {jobs} at a time"));
        let begin = Instant::now();
        run(&mut make(&[&format!("-j{jobs}"), "bzImage", "modules"]))?;
        if modules.exists() {
            std::fs::remove_dir_all(&modules)?;
        }
        let into = format!("INSTALL_MOD_PATH={}", modules.join("usr").display());
        run(&mut make(&[&into, "modules_install"]))?;
        std::fs::copy(out.join("arch/x86/boot/bzImage"), &vmlinuz)?;
        initramfs::kernel::extract(&vmlinuz, &vmlinux)?;
        std::fs::write(&stamp, config)?;
        let seconds = begin.elapsed().as_secs();
        step.done_as(&format!("compiled {name} as {version} in {seconds} s"));
        Ok(kernel(Some(seconds)))
    }

    /// Our programs with its modules.
    fn initramfs(&self, tree: &Tree, store: &Store) -> Result<PathBuf> {
        let programs = Shipped {
            init: build::program(tree, "init")?,
            agent: build::program(tree, "agent")?,
        };
        let out = tree.artefact(FOLDER).join("built-kernel.cpio");
        // Where Debian's package has it: by it a module keeps its signature.
        let boot = self.modules.folder.join("boot");
        std::fs::create_dir_all(&boot)?;
        std::fs::copy(
            tree.artefact(FOLDER).join(STAMP),
            boot.join(format!("config-{}", self.modules.version)),
        )?;
        artefacts::assemble_for(
            &self.modules,
            tree,
            store,
            &programs,
            &[],
            (Choice::Qemu, None),
            &out,
        )?;
        Ok(out)
    }
}

/// Files of all fragments: that of QEMU's modules is made anew, the others are the board's.
fn fragments(tree: &Tree, store: &Store, locked: &Locked, folder: &Path) -> Result<Vec<PathBuf>> {
    let source = Source::of(tree);
    let modules = folder.join("modules.fragment");
    std::fs::create_dir_all(folder)?;
    std::fs::write(&modules, locked.fragment(store, &source.by_hand()?)?)?;
    let by_hand = FRAGMENTS[1..].iter().map(|name| board_file(&source, name));
    Ok(std::iter::once(modules).chain(by_hand).collect())
}

/// Starts of both in turns, each with a disk of its own that the first start, which does not count, has claimed.
fn beside(tree: &Tree, store: &Store, options: &BenchOptions, both: [Artefacts; 2]) -> Result<[Vec<Run>; 2]> {
    if options.dir.exists() {
        std::fs::remove_dir_all(&options.dir)?;
    }
    heading(&format!("{} starts of each, in turns", options.runs));
    let names = ["built", "Debian's"];
    let benches = both.map(|artefacts| Bench::of(tree, store, artefacts, options));
    let dirs = ["built", "debian"].map(|name| options.dir.join(name));
    let mut runs: [Vec<Run>; 2] = Default::default();
    for number in 0..=options.runs {
        for side in 0..2 {
            let step = Step::start(&format!("{}, start {number}", names[side]));
            std::fs::create_dir_all(&dirs[side])?;
            let run = benches[side].ours(By::Direct, &dirs[side])?;
            step.done_as(&format!(
                "{}, start {number}: PID 1 {:.1} s, able to sell {:.1} s",
                names[side],
                run.pid1_ms as f64 / 1000.0,
                run.able_ms as f64 / 1000.0
            ));
            if number > 0 {
                runs[side].push(run);
            }
        }
    }
    Ok(runs)
}

/// Sizes and times, one beside the other.
fn report(
    tree: &Tree,
    built: &Built,
    sides: [(&Artefacts, &Vec<Run>); 2],
    json: Option<&Path>,
) -> Result<()> {
    let size = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path)
            .with_context(|| format!("reading {}", path.display()))?
            .len())
    };
    let vmlinuz = [built.vmlinuz.clone(), tree.artefact("image/vmlinuz")];
    let mut rows: Vec<(&str, [u64; 2])> = Vec::new();
    rows.push((
        "kernel as a loader takes it, bytes",
        [size(&vmlinuz[0])?, size(&vmlinuz[1])?],
    ));
    rows.push((
        "kernel as QEMU takes it, bytes",
        [size(&sides[0].0.kernel)?, size(&sides[1].0.kernel)?],
    ));
    rows.push((
        "initramfs with its modules, bytes",
        [size(&sides[0].0.initramfs)?, size(&sides[1].0.initramfs)?],
    ));
    let median = |of: &dyn Fn(&Run) -> u64| {
        sides.map(|(_, runs)| bench::summary(&runs.iter().map(of).collect::<Vec<_>>()).1)
    };
    rows.push(("power on to PID 1, ms", median(&|run| run.pid1_ms)));
    rows.push((
        "PID 1 to able to sell, ms",
        median(&|run| run.able_ms.saturating_sub(run.pid1_ms)),
    ));
    heading("Compiled here, and Debian's (medians)");
    println!(" {:<36}{:>12}{:>12}{:>8}", "", "built", "Debian's", "ratio");
    for (words, [ours, theirs]) in &rows {
        println!(
            " {words:<36}{ours:>12}{theirs:>12}{:>8.2}",
            *ours as f64 / (*theirs).max(1) as f64
        );
    }
    if let Some(seconds) = built.seconds {
        println!(" compiled in {seconds} s");
    }
    if let Some(path) = json {
        let all = |side: usize| {
            sides[side]
                .1
                .iter()
                .map(|run| json!({"pid1_ms": run.pid1_ms, "able_ms": run.able_ms}))
                .collect::<Vec<_>>()
        };
        let rows: serde_json::Map<_, _> = rows
            .iter()
            .map(|(words, pair)| ((*words).to_owned(), json!(pair)))
            .collect();
        let report = json!({ "kernel": built.modules.version, "seconds_to_build": built.seconds, "medians": rows, "built": all(0), "debian": all(1) });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
