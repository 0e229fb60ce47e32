//! `./x test`: everything, stage by stage, with the wall time of each.
//!
//! ```text
//! format ─► build ─► lint ─► unit ─► fuzz ─► guest (real kernel, two boots) ─► demo ─► scenarios ─► cuts, stick (a few machines) ─► buildroot
//! ```
//!
//! A stage that fails does not stop those after it, unless they need what it makes: one run tells all that is wrong.
//! `--machines [NAME]` boots the image on every kind of machine: half an hour, and only where it is asked for.
//! `--guest [NAME]`, `--scenarios [NAME]`, `--fuzz [NAME]`, `--unit`, `--stick`, `--buildroot`, `--lint` run some of them; `--long` tries for minutes what else takes seconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use packages::{Set, Store};
use stage::Artefacts;

use crate::artefacts;
use crate::beside::{self, Job, Program};
use crate::build;
use crate::show::heading;
use crate::stick_image::Made;
use crate::tree::Tree;

/// Which stages, and which of their tests.
#[derive(Debug, Default)]
pub struct Options {
    /// Names of stages; empty: all.
    pub stages: Vec<String>,
    /// Only tests whose name contains this (guest, scenarios and fuzz).
    pub filter: Option<String>,
    /// Minutes where there are seconds else.
    pub long: bool,
    /// Where the table of machines is written as JSON.
    pub json: Option<PathBuf>,
}

/// What the stages after the build stand on.
pub struct Built {
    /// For demo and scenarios.
    pub artefacts: Artefacts,
    /// An initramfs with the tests in the place of the agent.
    pub guest_initramfs: PathBuf,
}

/// The makers of artefacts, handed in so that this file only tests.
pub struct Makers<'a> {
    /// Programs, kernel, initramfs, base.
    pub all: &'a dyn Fn() -> Result<Built>,
    /// The stick image with this `farmer.toml`, at this path.
    pub stick: &'a dyn Fn(&str, &Path) -> Result<Made>,
    /// Where packages come from.
    pub store: &'a Store,
}

/// Kinds of machines: half an hour.
const MACHINES: &str = "machines";
/// Half of the cuts is one machine, which is one thread: the stick boots beside it.
const CUTS_AND_STICK: &str = "cuts, stick";
/// Stages that nobody gets who did not ask for them.
const ASKED_FOR: [&str; 3] = [MACHINES, "cuts", "stick"];

struct Outcome {
    stage: &'static str,
    took: Duration,
    error: Option<String>,
}

/// Runs them; an error when one failed.
pub fn run(tree: &Tree, options: &Options, makers: &Makers) -> Result<()> {
    let mut outcomes = Vec::new();
    let named = |stage: &str| options.stages.iter().any(|name| name == stage);
    let wanted = |stage: &str| named(stage) || (options.stages.is_empty() && !ASKED_FOR.contains(&stage));
    let mut run = |name: &'static str, test: &mut dyn FnMut() -> Result<()>| {
        heading(&format!("test: {name}"));
        let started = Instant::now();
        let error = test().err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("{name} failed: {error}");
        }
        let took = started.elapsed();
        outcomes.push(Outcome {
            stage: name,
            took,
            error,
        });
    };

    if wanted("format") {
        run("format", &mut || cargo_plain(tree, &["fmt", "--all", "--check"]));
    }
    type OnBuilt<'a> = &'a dyn Fn(&Built) -> Result<()>;
    let on_built: [(&'static str, OnBuilt); 9] = [
        ("unit", &|_| unit(tree, options.long)),
        ("fuzz", &|_| {
            crate::fuzz::run(
                tree,
                options.filter.as_deref(),
                crate::fuzz::Budget::of(options.long),
            )
        }),
        ("guest", &|built| {
            crate::guest::run(tree, built, options.filter.as_deref())
        }),
        ("demo", &|built| demo(tree, built)),
        ("scenarios", &|built| {
            scenarios(tree, built, options.filter.as_deref(), options.long)
        }),
        ("cuts", &|built| {
            let nothing = || Ok(());
            crate::cuts::run(tree, built, options.filter.as_deref(), options.long, &nothing)
        }),
        (CUTS_AND_STICK, &|built| {
            let stick = || crate::machines::short(tree, built, makers);
            crate::cuts::run(tree, built, None, options.long, &stick)
        }),
        ("stick", &|built| crate::machines::short(tree, built, makers)),
        (MACHINES, &|built| {
            let (filter, json) = (options.filter.as_deref(), options.json.as_deref());
            crate::machines::all(tree, built, makers, filter, json)
        }),
    ];
    if on_built.iter().any(|(name, _)| wanted(name)) {
        let mut built: Option<Built> = None;
        run("build", &mut || {
            built = Some((makers.all)()?);
            Ok(())
        });
        for (name, test) in on_built.into_iter().filter(|(name, _)| wanted(name)) {
            run(name, &mut || {
                test(built.as_ref().context("not run: the build failed")?)
            });
        }
    }
    if wanted("buildroot") {
        run("buildroot", &mut || crate::buildroot::check(tree));
    }
    if wanted("lint") {
        run("lint", &mut || lint(tree));
    }
    summary(&outcomes)
}

fn summary(outcomes: &[Outcome]) -> Result<()> {
    heading("Stages");
    let mut failed = 0;
    for outcome in outcomes {
        let word = if outcome.error.is_some() { "FAILED" } else { "ok" };
        println!(
            " {:<12}{:>8.1} s  {word}",
            outcome.stage,
            outcome.took.as_secs_f64()
        );
        failed += usize::from(outcome.error.is_some());
    }
    let total: f64 = outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
    println!(" {:<12}{total:>8.1} s", "all");
    for outcome in outcomes {
        if let Some(error) = &outcome.error {
            println!("\n{} failed: {error}", outcome.stage);
        }
    }
    println!("\nstages: {} passed, {failed} failed", outcomes.len() - failed);
    ensure!(failed == 0, "{failed} of {} stages failed", outcomes.len());
    Ok(())
}

/// cargo without the sysroot: for what runs on the build machine.
fn cargo_plain(tree: &Tree, arguments: &[&str]) -> Result<()> {
    finish(cargo_command(tree).args(arguments), arguments)
}

fn cargo_command(tree: &Tree) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree.root());
    cargo
}

fn finish(command: &mut Command, arguments: &[&str]) -> Result<()> {
    let status = command.status().context("starting cargo")?;
    ensure!(
        status.success(),
        "cargo {} ended with {status}",
        arguments.join(" ")
    );
    Ok(())
}

fn lint(tree: &Tree) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    finish(build::cargo(tree).args(arguments), &arguments)
}

/// Read by tests that try more where there is time: more schedules of money, more ends of the ledger.
const LONG: &str = "STEADING_LONG";

/// Programs of tests that run at once, and tests at once in each: they wait for timers and for each other far more than
/// they compute.
const AT_ONCE: usize = 3;
const IN_EACH: &str = "6";
/// Tests that compare how long something takes with and without load: a program, and its module of them, which run after
/// all others.
const ALONE: [(&str, &str); 2] = [("agent/sales", "flood::"), ("grid/meeting", "pace::")];

/// Unit and property tests, and the plan of the house; those of the build machine's crates without the sysroot.
fn unit(tree: &Tree, long: bool) -> Result<()> {
    let mut programs = beside::compiled(build::cargo(tree), &build::everything())?;
    // The largest first, because it takes longest: what comes last has nothing beside it.
    programs.sort_by_key(|program| {
        std::cmp::Reverse(std::fs::metadata(&program.path).map_or(0, |file| file.len()))
    });
    let sysroot = build::environment(tree);
    let mut alone = Vec::new();
    for (name, module) in ALONE {
        let program = programs.iter().find(|program| program.name == name);
        let program = program.with_context(|| format!("no tests of {name} were made"))?;
        let mut job = job(program, &sysroot);
        job.name = format!("{name} {module}");
        job.command.arg(module);
        alone.push(job);
    }
    let mut jobs: Vec<Job> = programs.iter().map(|program| job(program, &sysroot)).collect();
    for job in &mut jobs {
        if let Some((_, module)) = ALONE.iter().find(|(name, _)| *name == job.name) {
            job.command.args(["--skip", module]);
        }
    }
    let of_the_build_machine = build::OF_THE_BUILD_MACHINE
        .iter()
        .flat_map(|name| ["-p".to_owned(), (*name).to_owned()])
        .collect::<Vec<_>>();
    let plain = beside::compiled(cargo_command(tree), &of_the_build_machine)?;
    jobs.extend(plain.iter().map(|program| job(program, &[])));
    let mut examples = build::cargo(tree);
    examples.args(["test", "--doc"]).args(build::everything());
    jobs.push(Job {
        name: "examples in documentation".into(),
        command: examples,
    });
    for job in &mut jobs {
        job.command.env("RUST_TEST_THREADS", IN_EACH);
    }
    if long {
        for job in jobs.iter_mut().chain(&mut alone) {
            job.command.env(LONG, "1");
        }
    }
    let both = [beside::whole(jobs, AT_ONCE), beside::whole(alone, 1)];
    let failed: Vec<String> = both
        .into_iter()
        .filter_map(|ran| ran.err().map(|error| error.to_string()))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// A program of tests, started as cargo starts it.
fn job(program: &Program, environment: &[(&'static str, String)]) -> Job {
    let mut command = Command::new(&program.path);
    command
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .envs(environment.iter().cloned());
    Job {
        name: program.name.clone(),
        command,
    }
}

fn demo(tree: &Tree, built: &Built) -> Result<()> {
    let report = tree.artefact("demo-report.json");
    let options = crate::demo::Options {
        once: true,
        nodes: 1,
        json: Some(report),
        kvm: false,
        dir: tree.artefact("demo-test"),
    };
    crate::demo::run(&options, built.artefacts.clone())
}

/// The lanes of scenarios beside each other, or what is named in one process.
fn scenarios(tree: &Tree, built: &Built, filter: Option<&str>, long: bool) -> Result<()> {
    let mut words = build::everything();
    words.extend(["--test".into(), "scenarios".into()]);
    let folder = built
        .artefacts
        .initramfs
        .parent()
        .context("the initramfs lies in no folder")?;
    let store = artefacts::store(tree, &mut crate::options::Options::default())?;
    let [programs, archive, containers] =
        ["tests", "archive", "containers"].map(|name| tree.artefact("image").join(name));
    artefacts::unpacked(&store, &[Set::Tests], &programs)?;
    artefacts::archive(&store, Set::Archive, &archive)?;
    artefacts::unpacked(&store, &[Set::Containers], &containers)?;
    let environment = build::environment(tree);
    let mut jobs = Vec::new();
    for part in filter.map_or(vec!["used::", "worked::", "lost::"], |filter| vec![filter]) {
        for program in beside::compiled(build::cargo(tree), &words)? {
            let mut job = job(&program, &environment);
            job.name = part.trim_end_matches("::").to_owned();
            job.command
                .arg(part)
                .env("STEADING_ARTEFACTS", folder)
                .env("STEADING_PROGRAMS", &programs)
                .env("STEADING_ARCHIVE", &archive)
                .env("STEADING_CONTAINERS", &containers)
                .env("STEADING_SYSROOT", tree.sysroot())
                .env("STEADING_CLIENT", &built.artefacts.client);
            if long {
                job.command.env(LONG, "1");
            }
            jobs.push(job);
        }
    }
    beside::line_by_line(jobs)
}

/// Reads `--guest NAME` and its like.
pub fn options(words: Vec<String>) -> Result<Options> {
    let mut options = Options::default();
    for word in words {
        match word.strip_prefix("--") {
            Some(
                stage @ ("format" | "lint" | "unit" | "fuzz" | "guest" | "cuts" | "demo" | "scenarios"
                | "stick" | "machines" | "buildroot"),
            ) => {
                options.stages.push(stage.into());
            }
            Some("long") => options.long = true,
            Some(other) => {
                bail!(
                    "--{other} is no stage; stages: format lint unit fuzz guest cuts demo scenarios stick machines buildroot"
                )
            }
            None => options.filter = Some(word),
        }
    }
    Ok(options)
}
