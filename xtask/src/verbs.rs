//! The verbs that run what was built: demo, qemu, test, and our programs from the tree.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use stage::Artefacts;

use crate::artefacts::{self, store};
use crate::options::Options;
use crate::tree::Tree;
use crate::{bench, build, demo, shipped, stick_image, test, tester};

/// `./x demo [--once] [--nodes N] [--json FILE] [--kvm]`
pub fn demo(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let wanted = demo::Options {
        once: options.flag("once"),
        nodes: usize::try_from(options.number("nodes")?.unwrap_or(1))?,
        json: options.value("json")?.map(std::path::absolute).transpose()?,
        kvm: options.flag("kvm"),
        dir: tree.artefact("demo"),
    };
    options.done()?;
    let artefacts = built(&tree, &store, build)?;
    let said = || format!("what each part said is kept under {}", wanted.dir.display());
    demo::run(&wanted, artefacts).with_context(said)?;
    Ok(ExitCode::SUCCESS)
}

/// `./x qemu [--fresh] [--nodes N] [--memory MIB] [--set KEY=VALUE]… [--kvm]`
pub fn qemu(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let wanted = tester::Options {
        fresh: options.flag("fresh"),
        nodes: usize::try_from(options.number("nodes")?.unwrap_or(1))?,
        memory_mib: options
            .number("memory")?
            .map(u32::try_from)
            .transpose()
            .context("--memory is in MiB")?,
        set: options.values("set")?,
        kvm: options.flag("kvm"),
        dir: tree.artefact("qemu"),
    };
    options.done()?;
    let artefacts = built(&tree, &store, build)?;
    tester::run(&wanted, artefacts)?;
    Ok(ExitCode::SUCCESS)
}

/// `./x test [--STAGE …] [NAME]`
pub fn test(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let json = options.value("json")?.map(std::path::absolute).transpose()?;
    let wanted = test::Options {
        json,
        ..test::options(options.rest())?
    };
    let makers = test::Makers {
        all: &|| for_tests(&tree, &store, build),
        stick: &|farmer_toml, path| {
            let shipped = shipped::of_the_tree(&tree)?;
            stick_image::make(&tree, &store, &shipped, farmer_toml, path)
        },
        store: &store,
    };
    test::run(&tree, &wanted, &makers)?;
    Ok(ExitCode::SUCCESS)
}

/// `./x bench sale [--runs N] [--json FILE] [--kvm]`, `./x bench neighbour [--runs N] [--json FILE]`,
/// `./x bench boot [--by direct,bios,uefi,secure] [--runs N] [--json FILE] [--kvm]`
pub fn bench(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let wanted = bench::Options {
        runs: usize::try_from(options.number("runs")?.unwrap_or(5))?,
        json: options.value("json")?.map(std::path::absolute).transpose()?,
        kvm: options.flag("kvm"),
        dir: tree.artefact("bench"),
    };
    let by = options.value("by")?;
    let json = wanted.json.as_deref();
    match options.rest().join(" ").as_str() {
        "sale" => bench::sale(&wanted, &built(&tree, &store, build)?)?,
        "neighbour" => {
            ensure!(
                !wanted.kvm,
                "`./x bench neighbour` emulates both processors: leave --kvm out"
            );
            bench::neighbour::run(&tree, &for_tests(&tree, &store, build)?, wanted.runs, json)?;
        }
        "boot" => {
            let artefacts = built(&tree, &store, build)?;
            let wanted = bench::boot::Options {
                runs: wanted.runs,
                json: wanted.json,
                kvm: wanted.kvm,
                dir: tree.artefact("bench-boot"),
                by: bench::boot::By::read(by.as_deref().unwrap_or("direct"))?,
            };
            bench::boot::run(&tree, &store, artefacts, &wanted)?;
        }
        other => {
            bail!("{other:?}: the benchmarks are `./x bench sale`, `./x bench boot`, `./x bench neighbour`")
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `./x steading ARGS`: the client from the tree, against the tester's market while there is one.
pub fn steading(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let words = options.rest();
    let mut client = from_tree(&tree, "steading")?;
    if std::env::var_os("STEADING_HOME").is_none() {
        client.envs(tester::client_environment(&tree.artefact("qemu"))?);
    }
    Err(client.args(words).exec()).context("starting the client")
}

/// `./x inventory [--root DIR] [--json]`: what the agent sees of a machine.
pub fn inventory(mut options: Options) -> Result<ExitCode> {
    let words = options.rest();
    let mut agent = from_tree(&Tree::here(), "agent")?;
    Err(agent.arg("inventory").args(words).exec()).context("starting the agent's inventory")
}

/// `./x cargo ARGS`: cargo against the sysroot.
pub fn cargo(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let words = options.rest();
    Err(build::cargo(&tree).args(words).exec()).context("starting cargo")
}

/// A program of ours, compiled if it is not up to date.
fn from_tree(tree: &Tree, name: &str) -> Result<Command> {
    let mut none = Options::new(Vec::new());
    artefacts::ensure_sysroot(tree, &store(tree, &mut none)?)?;
    build::ensure_quietly(tree)?;
    Ok(Command::new(build::program(tree, name)?))
}

/// What runs, compiled anew unless `--no-build` takes what is there.
fn built(tree: &Tree, store: &packages::Store, build: bool) -> Result<Artefacts> {
    if build {
        artefacts::ensure_programs(tree, store)?;
    }
    let boot = artefacts::ensure_boot(tree, store)?;
    Ok(Artefacts {
        kernel: boot.vmlinux,
        initramfs: boot.initramfs,
        base: boot.base.path,
        client: absolute(&build::program(tree, "steading")?)?,
    })
}

/// The same for tests: beside it the images in which something else stands in the agent's place, or beside it.
fn for_tests(tree: &Tree, store: &packages::Store, build: bool) -> Result<test::Built> {
    let artefacts = built(tree, store, build)?;
    if build {
        build::ensure_guest_tests(tree)?;
    }
    let program = |name| build::program(tree, name);
    let (guest_initramfs, struck) = (
        tree.artefact("image/guest-tests.cpio"),
        tree.artefact("image/struck.cpio"),
    );
    artefacts::assemble_initramfs(tree, store, &program("guest-tests")?, &[], &guest_initramfs)?;
    let strike = ("/usr/sbin/strike".to_owned(), program("strike")?);
    artefacts::assemble_initramfs(tree, store, &program("agent")?, &[strike], &struck)?;
    Ok(test::Built {
        artefacts,
        guest_initramfs,
    })
}

/// The client is started from other folders too, as ssh's ProxyCommand.
fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).with_context(|| format!("making {} absolute", path.display()))
}
