//! `./x qemu`: a node for a tester, with its console in the terminal; and the home of the tester's own client.
//!
//! ```text
//! target/qemu/          kept between starts; --fresh begins anew
//!   ledger/ grid/       the market that the node joins, served while `./x qemu` runs
//!   nodes/NAME/         disks, boot medium, console.log
//!   people/user/        what `./x steading` uses while a tester's market is there
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use stage::{Artefacts, Node, NodeSettings, Stage};

use crate::show::{Step, heading};

/// What was asked for on the command line.
pub struct Options {
    /// Forget disks, wallets, ledger.
    pub fresh: bool,
    /// How many nodes; the first one's console is the terminal's.
    pub nodes: usize,
    /// Memory of each, MiB.
    pub memory_mib: Option<u32>,
    /// Keys of each node's `farmer.toml`, `KEY=VALUE`; `%n` is the node's number.
    pub set: Vec<String>,
    /// Hardware virtualisation.
    pub kvm: bool,
    /// Where everything is kept.
    pub dir: PathBuf,
}

/// Play money of a new tester, smallest units: 100.00.
const PLAY_MONEY: u64 = 100_000_000;

/// Runs until the node is switched off.
pub fn run(options: &Options, artefacts: Artefacts) -> Result<()> {
    ensure!(
        options.nodes >= 1,
        "--nodes 0: a market without a node sells nothing; use 1 or more"
    );
    if options.fresh && options.dir.exists() {
        std::fs::remove_dir_all(&options.dir)
            .with_context(|| format!("removing {}", options.dir.display()))?;
    }
    let step = Step::start("starting the escrow ledger and the grid");
    let stage = Stage::open(&options.dir, artefacts, "testers")?;
    let (user, farmer) = (stage.person("user")?, stage.person("farmer")?);
    if user.balance()? == 0 {
        stage.fund(user.address(), PLAY_MONEY)?;
    }
    step.done_as("ledger and grid serve");

    let mut nodes = Vec::new();
    for index in 1..=options.nodes {
        let mut settings = NodeSettings::new(&format!("node{index}"), farmer.address());
        settings.memory_mib = options.memory_mib.unwrap_or(settings.memory_mib);
        if options.kvm {
            settings.accel = qemu::Accel::Kvm;
        }
        let node = Node::prepare(&stage, settings)?;
        set(&stage, &node, &options.set, index)?;
        nodes.push(node);
    }
    std::fs::write(environment_file(&options.dir), environment(&stage, user.home()))?;
    let others: Vec<_> = nodes.iter().skip(1).map(Node::power_on).collect::<Result<_>>()?;

    heading("A node for a tester");
    eprintln!(" disks and logs    {}", options.dir.join("nodes").display());
    eprintln!(" in another terminal, as a user with play money:");
    eprintln!("                   ./x steading request --cpu 0.5 --memory 256MiB --disk 1GiB --duration 3h");
    eprintln!("                   ./x steading buy 1");
    eprintln!(" Ctrl-A X          switches the node off (as a pulled plug does); its disks are kept");
    for other in &others {
        eprintln!(" also running      {}, console in its console.log", other.name());
    }
    eprintln!();
    let first = nodes.first_mut().context("no node")?;
    first.machine().console_log = None;
    first.machine().hand_over()?;
    let _ = std::fs::remove_file(environment_file(&options.dir));
    Ok(())
}

/// Writes keys into the `farmer.toml` of the node's medium, by the program that does it on a farmer's stick: what a
/// node would refuse is refused here, in the same words.
fn set(stage: &Stage, node: &Node, keys: &[String], number: usize) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut client = Command::new(&stage.artefacts().client);
    client
        .arg("flash")
        .arg("--file")
        .arg(node.dir().join("medium.img"));
    for key in keys {
        client.arg("--set").arg(key.replace("%n", &number.to_string()));
    }
    client
        .env("STEADING_HOME", node.dir().join("farmer"))
        .stdin(Stdio::null());
    let output = client.output().context("starting the client")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "--set: {}", said.trim());
    Ok(())
}

/// What the client of the tester needs to know. Without a market it has the tester's home all the same: what a person
/// has under his own is never touched from the tree.
pub fn client_environment(dir: &Path) -> Result<Vec<(String, String)>> {
    let Ok(text) = std::fs::read_to_string(environment_file(dir)) else {
        eprintln!("x: no node of a tester runs; `./x qemu` starts one with a market around it");
        let home = std::path::absolute(dir)?.join("people/user");
        return Ok(vec![("STEADING_HOME".into(), home.display().to_string())]);
    };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(key, value)| (key.into(), value.into())).collect())
}

fn environment(stage: &Stage, home: &Path) -> String {
    format!(
        "STEADING_HOME={}\nSTEADING_LEDGER={}\nSTEADING_GRID={}\n",
        home.display(),
        stage.ledger_address(),
        stage.ticket()
    )
}

fn environment_file(dir: &Path) -> PathBuf {
    dir.join("client.env")
}
