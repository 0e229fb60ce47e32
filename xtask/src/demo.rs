//! `./x demo`: one whole sale, every part real, told as it happens.
//!
//! ```text
//! ledger, grid ─► nodes power on ─► request ─► offers ─► buy ─► shell in the space
//!                                                                    │ --once
//!                                         figures, balances ◄─ cancel ◄┘
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use stage::{Answer, Artefacts, Node, NodeSettings, Person, Stage};

use crate::bench;
use crate::show::{Step, heading};

mod pages;

/// What was asked for on the command line.
pub struct Options {
    /// Run a few commands in the space, cancel, and end.
    pub once: bool,
    /// How many nodes.
    pub nodes: usize,
    /// Where the report goes.
    pub json: Option<PathBuf>,
    /// Hardware virtualisation, on explicit wish only.
    pub kvm: bool,
    /// Where state is kept.
    pub dir: PathBuf,
}

/// What the user asks for: a small space, so that several fit on an emulated node.
pub(crate) const NEEDS: [&str; 8] = [
    "--cpu",
    "0.5",
    "--memory",
    "256MiB",
    "--disk",
    "1GiB",
    "--duration",
    "3h",
];
/// Play money of the demo's user, smallest units.
const PLAY_MONEY: u64 = 100_000_000;

#[derive(Debug, Clone, Serialize)]
struct Moment {
    name: &'static str,
    at_ms: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Balances {
    #[serde(serialize_with = "decimal")]
    user: u128,
    #[serde(serialize_with = "decimal")]
    farmer: u128,
    #[serde(serialize_with = "decimal")]
    escrow: u128,
}

fn decimal<S: serde::Serializer>(amount: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(amount)
}

/// Runs it; the exit code says whether everything was as it should be.
pub fn run(options: &Options, artefacts: Artefacts) -> Result<()> {
    ensure!(
        options.nodes >= 1,
        "--nodes 0: without a node nothing is sold; use 1 or more"
    );
    if options.dir.exists() {
        std::fs::remove_dir_all(&options.dir)
            .with_context(|| format!("removing {}", options.dir.display()))?;
    }
    heading("A market on this machine");
    let step = Step::start("starting the escrow ledger and the grid");
    let stage = Stage::open(&options.dir, artefacts, "demo")?;
    let (user, farmer) = (stage.person("user")?, stage.person("farmer")?);
    stage.fund(user.address(), PLAY_MONEY)?;
    step.done_as("ledger and grid serve; the user has play money");

    heading("The farmer powers on");
    let mut nodes = power_on(&stage, options, &farmer)?;
    let mut moments = boot_moments(&mut nodes[0])?;
    let power_on = nodes[0].started();
    let step = Step::start("asking the node how it started");
    let (boot, drawn) = bench::boot::reported(&farmer, &mut nodes[0])?;
    step.done_as("where its time went:");
    eprintln!("{drawn}\n");
    bench::boot::check(&boot)?;
    for running in nodes.iter_mut().skip(1) {
        stage::wait_until_selling(running)?;
    }

    heading("The user asks");
    let count = options.nodes.to_string();
    let request = user
        .show(&[&["request"], &NEEDS[..], &["--offers", &count, "--json"]].concat())?
        .expect_success("asking for capacity")?;
    let offers = request
        .json
        .pointer("/offers")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    ensure!(
        offers == options.nodes,
        "{} nodes were asked, {offers} offers came",
        options.nodes
    );
    let before = balances(&user, &farmer)?;

    heading("The user buys the best offer");
    let bought = user.show(&["buy", "1", "--json"])?.expect_success("buying")?;
    let name = bought.text("/name")?.to_string();

    moments.extend(pages::steps(
        power_on,
        &request,
        &[
            ("request", "/times/request_sent"),
            ("first_offer", "/times/first_offer"),
        ],
    )?);
    moments.extend(pages::steps(
        power_on,
        &bought,
        &[
            ("agreed", "/times/agreed"),
            ("funded", "/times/funded"),
            ("keyed", "/times/keyed"),
            ("ready", "/times/ready"),
            ("logged_in", "/times/logged_in"),
            ("unlocked", "/times/unlocked"),
        ],
    )?);

    heading("Inside the space");
    if options.once {
        look_around(&user, &name)?;
    } else {
        pages::so_far(&moments, before, balances(&user, &farmer)?);
        eprintln!("This is your space. Leave it with `exit`; it is cancelled then.\n");
        user.hand_over(&["ssh", &name])?;
    }

    heading("The user cancels");
    let cancelled = user
        .show(&["cancel", &name, "--json"])?
        .expect_success("cancelling")?;
    let after = balances(&user, &farmer)?;
    if options.nodes > 1 {
        let step = Step::start("waiting for the holds of the offers not taken to lapse");
        for running in nodes.iter_mut() {
            if running.seen("  sold ").is_none() && running.seen("hold lapsed").is_none() {
                running.wait_for("hold lapsed", Duration::from_secs(60))?;
            }
        }
        step.done_as("the holds of the offers not taken have lapsed");
    }

    moments.extend(pages::steps(
        power_on,
        &cancelled,
        &[
            ("cancelled", "/times/cancelled"),
            ("refunded", "/times/refunded"),
            ("receipt", "/times/receipt"),
        ],
    )?);
    let mut report = report(
        &stage,
        &user,
        &moments,
        (before, after),
        &bought,
        &cancelled,
        &mut nodes[0],
    )?;
    report["boot"] = boot;
    pages::last(&moments, before, after);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    check(&report, before, after)
}

fn power_on(stage: &Stage, options: &Options, farmer: &Person) -> Result<Vec<qemu::Running>> {
    let mut nodes = Vec::new();
    for index in 0..options.nodes {
        let mut settings = NodeSettings::new(&format!("node{}", index + 1), farmer.address());
        let owner = farmer.run(&["node", "key", "--json"])?;
        settings.more = owner
            .expect_success("asking for the owner key")?
            .text("/line")?
            .to_owned();
        if options.kvm {
            settings.accel = qemu::Accel::Kvm;
        }
        let node = Node::prepare(stage, settings)?;
        nodes.push(node.power_on()?);
    }
    Ok(nodes)
}

/// The first node's way to selling, from its own console.
fn boot_moments(running: &mut qemu::Running) -> Result<Vec<Moment>> {
    let started = running.started();
    let mut moments = vec![Moment {
        name: "power_on",
        at_ms: 0,
    }];
    for (name, needle, words) in [
        ("pid1", "init, PID 1", "the kernel starts our PID 1"),
        (
            "disks_claimed",
            "  disks claimed",
            "hardware is read, blank disks are claimed",
        ),
        ("joined", "  joined ", "the node joins the grid"),
    ] {
        let step = Step::start(words);
        let line = match running.seen(needle) {
            Some(line) => line,
            None => running.wait_for(needle, stage::BOOT_WITHIN)?,
        };
        step.done();
        moments.push(Moment {
            name,
            at_ms: between(started, line.at),
        });
    }
    let step = Step::start("the node gets ready to sell");
    if running.seen("  selling").is_none() {
        stage::wait_until_selling(running)?;
    }
    let mut screen = newest_screen(running);
    let sells = |screen: &[String]| screen.first().is_some_and(|head| head.ends_with("selling"));
    while !(sells(&screen) && screen.iter().any(|line| line.contains(" resident"))) {
        running.wait_for(" resident", stage::BOOT_WITHIN)?; // its last line, or the next screen's
        screen = newest_screen(running);
    }
    step.done_as("the node sells; its console:");
    for line in screen {
        eprintln!("   │ {line}");
    }
    Ok(moments)
}

/// The lines from the last head of a screen on.
fn newest_screen(running: &mut qemu::Running) -> Vec<String> {
    let lines = running.history();
    let is_head = |line: &qemu::Line| line.text.trim_start().starts_with("Steading ");
    let head = lines.iter().rposition(is_head).unwrap_or(0);
    let screen = lines
        .iter()
        .skip(head)
        .map(|line| line.text.trim_end().to_owned());
    screen.collect()
}

/// What a curious user types first.
fn look_around(user: &Person, name: &str) -> Result<()> {
    for command in [
        "id -un; id -u",
        "uname -n; cat /etc/os-release | head -n 1",
        "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max",
        "df -h / | tail -n 1",
        "echo kept > /root/mine && sync && cat /root/mine",
    ] {
        eprintln!(" {name}# {command}");
        let answer = user
            .run(&["ssh", name, "--", command])?
            .expect_success("working in the space")?;
        for line in answer.out.lines() {
            eprintln!("   {line}");
        }
    }
    Ok(())
}

fn balances(user: &Person, farmer: &Person) -> Result<Balances> {
    Ok(Balances {
        user: user.balance()?,
        farmer: farmer.balance()?,
        escrow: user.in_escrow()?,
    })
}

fn report(
    stage: &Stage,
    user: &Person,
    moments: &[Moment],
    (before, after): (Balances, Balances),
    bought: &Answer,
    cancelled: &Answer,
    node: &mut qemu::Running,
) -> Result<Value> {
    let mut sale = serde_json::Map::new();
    sale.insert("id".into(), json!(bought.text("/sale/id")?));
    for kind in ["request", "offer", "sale", "grant"] {
        sale.insert(kind.into(), json!(bought.text(&format!("/sale/{kind}"))?));
    }
    sale.insert("receipt".into(), json!(cancelled.text("/receipt")?));
    for kind in ["request", "offer", "sale", "grant", "receipt"] {
        let path = sale
            .get(kind)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string();
        ensure!(Path::new(&path).is_absolute(), "{kind}: {path} is not absolute");
        let verified = user
            .run(&["verify", &path, "--json"])?
            .expect_success("verifying a signed message")?;
        ensure!(
            verified.json["valid"] == json!(true),
            "{kind} does not verify: {}",
            verified.out
        );
        ensure!(
            verified.text("/kind")? == kind,
            "{path} is no {kind}: {}",
            verified.out
        );
        if kind == "receipt" {
            pages::receipt(&verified.json);
        }
    }
    let size = |path: &Path| std::fs::metadata(path).map(|data| data.len()).ok();
    let resident = node.history().iter().rev().find_map(|line| {
        let (_, rest) = line.text.split_once("agent ")?;
        rest.split_once(" MiB resident")?.0.trim().parse::<f64>().ok()
    });
    Ok(json!({
        "steps": moments,
        "sale": sale,
        "balances": {
            "before": before, "after": after,
            "price_of_period": bought.text("/price_of_period")?,
            "periods_paid": cancelled.json.pointer("/periods_paid").cloned().unwrap_or(Value::Null),
        },
        "inside": bought.json.pointer("/inside").cloned().unwrap_or(Value::Null),
        "sizes": {
            "initramfs_bytes": size(&stage.artefacts().initramfs),
            "base_bytes": size(&stage.artefacts().base),
            "agent_rss_bytes": resident.map(|mib| (mib * 1_048_576.0) as u64),
        },
    }))
}

/// What must hold whatever the figures are: nothing was lost, nothing is left in escrow.
fn check(report: &Value, before: Balances, after: Balances) -> Result<()> {
    let price: u128 = report["balances"]["price_of_period"]
        .as_str()
        .context("no price")?
        .parse()?;
    let periods = report["balances"]["periods_paid"]
        .as_u64()
        .context("no periods")?;
    let paid = before
        .user
        .checked_sub(after.user)
        .context("the user has more than before")?;
    let earned = after
        .farmer
        .checked_sub(before.farmer)
        .context("the farmer has less than before")?;
    ensure!(
        paid == earned,
        "{paid} left the user, {earned} arrived at the farmer"
    );
    ensure!(
        paid == price * u128::from(periods),
        "{paid} was paid for {periods} periods of {price}"
    );
    ensure!(after.escrow == 0, "{} is left in escrow", after.escrow);
    let steps = report["steps"].as_array().context("no steps")?;
    let order: Vec<u64> = steps.iter().filter_map(|step| step["at_ms"].as_u64()).collect();
    ensure!(order.is_sorted(), "the steps are out of order: {order:?}");
    Ok(())
}

fn between(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).map_or(0, |gap| gap.as_millis() as u64)
}

fn since(power_on: SystemTime, answer: &Answer, pointer: &str) -> Result<u64> {
    let at = answer.json.pointer(pointer).and_then(Value::as_u64);
    let at = at.with_context(|| format!("no time at {pointer}: {}", answer.out))?;
    Ok(between(power_on, UNIX_EPOCH + Duration::from_millis(at)))
}
