//! A good space beside a quiet, a busy and a hostile one, all of them whole ones by the provisioner.
//!
//! ```text
//!   outside ──ssh──► declared port ─► good (processor 0)     busy │ hostile (processor 1, one of them at a time)
//!     round, several times, every other one backwards:
//!       quiet: both frozen ─► busy thawed ─► hostile thawed ─► hostile without limits
//!         in each: a login, lines there and back, work with fsync, megabytes, the agent's own work
//! ```
//!
//! - Phases take turns within a round, so that what the test machine itself does meanwhile falls on all of them.
//! - Each has bought one CPU, and no more than one neighbour runs at a time: two processors are sold to the last.
//! - `neighbour=N` on the kernel's command line: N rounds, and every figure in a line of its own.

mod figures;
mod watch;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::names;
use market::id::SaleId;
use market::quantity::{BitsPerSecond, Bytes};
use provision::firewall::Openings;
use provision::space::{Access, Provisioner, SpaceSpec};

use super::client::{Client, LOGIN, Session};
use crate::network::town::{NODE, Town};
use crate::provisioner::bench::{Bench, access, spec};
use crate::provisioner::told;
use figures::{Figures, Kind, Phase};
use watch::Watch;

const ANSWERS: &str = include_str!("answers.py");
const HOSTILE: &str = include_str!("everything.py");
const BUSY: &str = "for n in 1 2; do while :; do :; done & done; wait";
const PORT: u16 = 2201;
/// The sales of the good, the busy and the hostile one.
const SALES: [SaleId; 3] = [SaleId([0xb1; 32]), SaleId([0xb2; 32]), SaleId([0xb3; 32])];
/// How often each phase has its turn, unless the kernel's command line says otherwise.
const ROUNDS: usize = 2;
/// How many of the quick ones in each turn.
const LINES: usize = 5;
const WORKS: usize = 3;
const MEGABYTES: usize = 3;
const MEGABYTE: usize = 1_000_000;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the hostile one is let run at most before anything is measured.
const WARM_UP: Duration = Duration::from_secs(90);
/// What the hostile one has to have met: else it was not hostile.
const MET: [&str; 6] = ["ENOSPC", "EMFILE", "EAGAIN", "watches", "flooded", "killed"];

/// The trial.
pub async fn beside(bench: Bench) -> Result<()> {
    let rounds = crate::word("neighbour");
    let (rounds, told) = match rounds.and_then(|text| text.parse().ok()) {
        Some(rounds) => (rounds, true),
        None => (ROUNDS, false),
    };
    let provisioner = bench.provisioner().await?;
    let town = Town::build().await?;
    let result = whole(&provisioner, &town, rounds, told).await;
    // The error that came first is the one to be told.
    let cleaned = clean(&provisioner, town).await;
    result?;
    cleaned?;
    drop(provisioner);
    bench.nothing_left().await
}

async fn clean(provisioner: &Provisioner, town: Town) -> Result<()> {
    for sale in SALES {
        freeze(sale, false);
    }
    Client::remove()?;
    for sale in SALES {
        provisioner.end(sale).await?;
    }
    town.remove().await
}

async fn whole(provisioner: &Provisioner, town: &Town, rounds: usize, told: bool) -> Result<()> {
    provisioner
        .set_uplinks(vec![town.uplink()?], Openings::default())
        .await?;
    let began = Instant::now();
    for (sale, user) in SALES.into_iter().zip(1..) {
        build(provisioner, sale, user).await?;
    }
    println!("three spaces after {:?}", began.elapsed());
    let client = Client::with_port(town.path().to_owned(), NODE, PORT)?;
    client
        .run("cat >/root/answers.py", ANSWERS)
        .await
        .context("the first login")?;
    let hostile = Hostile::start(provisioner, &client).await?;
    let mut scene = Scene {
        provisioner,
        town,
        client,
        session: None,
        hostile,
        figures: Figures::default(),
        watch: told.then(Watch::default),
    };
    println!("both neighbours are ready after {:?}", began.elapsed());
    for round in 0..rounds {
        let mut phases = Phase::ALL;
        if round % 2 == 1 {
            phases.reverse();
        }
        for phase in phases {
            // The control is slow, and far from the bound.
            if phase == Phase::Unlimited && round % 2 == 1 {
                continue;
            }
            scene
                .measure(phase)
                .await
                .with_context(|| format!("beside a neighbour that is {phase}"))?;
        }
    }
    println!("{rounds} rounds after {:?}", began.elapsed());
    let seen = provisioner.observe(&SALES[2])?;
    println!("the hostile one at the end: {seen:?}");
    ensure!(seen.oom_kills > 0 && seen.pids_refused > 0, "{seen:?}");
    if told {
        scene.figures.tell();
    }
    scene.figures.judge()
}

async fn build(provisioner: &Provisioner, sale: SaleId, user: u8) -> Result<()> {
    let good = sale == SALES[0];
    let sold = SpaceSpec {
        rate: BitsPerSecond(40_000_000),
        disk: Bytes(if good { 128 << 20 } else { 64 << 20 }),
        public_port: good.then_some(PORT),
        ..spec(sale, user)
    };
    let access = Access {
        authorized_keys: vec![LOGIN.to_owned()],
        ..access()
    };
    provisioner.build(sold, access).await.map_err(told)?;
    Ok(())
}

fn cgroup(sale: SaleId) -> PathBuf {
    names::cgroup(sale.as_bytes())
}

fn freeze(sale: SaleId, frozen: bool) {
    // One that was never built cannot be frozen, and need not.
    let _ = fs::write(cgroup(sale).join("cgroup.freeze"), if frozen { "1" } else { "0" });
}

/// The neighbours, and what keeps the hostile one in its place.
struct Hostile {
    /// File, value as sold, value without a limit.
    limits: Vec<(&'static str, String, String)>,
}

impl Hostile {
    /// Starts what both neighbours do, lets the hostile one meet all that it can meet, and freezes both.
    async fn start(provisioner: &Provisioner, client: &Client) -> Result<Self> {
        let read = |sale, file: &str| -> Result<String> {
            let path = cgroup(sale).join(file);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            Ok(text.trim().to_owned())
        };
        let all = fs::read_to_string("/sys/fs/cgroup/steading/cpuset.cpus.effective")?;
        let processes = read(SALES[2], "pids.max")?;
        let mut limits = vec![
            ("cpu.max", read(SALES[2], "cpu.max")?, "max 100000".to_owned()),
            // Were there no cgroups, each of its processes would be one beside the good one's.
            ("cpu.weight", "100".to_owned(), "10000".to_owned()),
            // Both were placed while the other was there.
            (
                "cpuset.cpus",
                read(SALES[1], "cpuset.cpus")?,
                all.trim().to_owned(),
            ),
            ("pids.max", processes.clone(), "2000".to_owned()),
        ];
        for line in read(SALES[2], "io.max")?.lines() {
            let device = line.split(' ').next().context("no device")?;
            let free = format!("{device} rbps=max wbps=max riops=max wiops=max");
            limits.push(("io.max", line.to_owned(), free));
        }
        let hostile = Self { limits };
        // While it gets ready it may have all processors and disks; there have to be too many processes and too much memory.
        hostile.limit(false)?;
        fs::write(cgroup(SALES[2]).join("pids.max"), &processes)?;
        let background = |program: &str| {
            format!("cat >/root/run; setsid -f {program} /root/run </dev/null >/dev/null 2>&1")
        };
        for (sale, program, text) in [(SALES[1], "bash", BUSY), (SALES[2], "python3", HOSTILE)] {
            let records = provisioner.records().await?;
            let record = records.iter().find(|record| record.spec.sale == sale);
            let record = record.context("it has no record")?;
            let namespace = names::netns_path(&names::user_netns(record.spec.user.as_bytes()));
            let address = record.place.user_index.space(record.place.space_index);
            client
                .calling(namespace, address)
                .run(&background(program), text)
                .await?;
            freeze(SALES[1], true);
        }
        let began = Instant::now();
        let met = names::volume_mount(SALES[2].as_bytes()).join("upper/root/met");
        let missing = || -> Vec<&str> { MET.into_iter().filter(|what| !met.join(what).exists()).collect() };
        while !missing().is_empty() && began.elapsed() < WARM_UP {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        freeze(SALES[2], true);
        println!("the hostile one got ready in {:?}", began.elapsed());
        ensure!(
            missing().is_empty(),
            "the hostile one did not meet {:?}",
            missing()
        );
        Ok(hostile)
    }

    /// As sold, or without its limits.
    fn limit(&self, limited: bool) -> Result<()> {
        for (file, sold, free) in &self.limits {
            let value = if limited { sold } else { free };
            fs::write(cgroup(SALES[2]).join(file), value).with_context(|| format!("{file}: {value}"))?;
        }
        Ok(())
    }
}

struct Scene<'a> {
    provisioner: &'a Provisioner,
    town: &'a Town,
    client: Client,
    session: Option<Session>,
    hostile: Hostile,
    figures: Figures,
    watch: Option<Watch>,
}

impl Scene<'_> {
    /// Who runs in this phase, from a quiet disk on.
    fn set(&self, phase: Phase) -> Result<()> {
        let [_, busy, hostile] = SALES;
        freeze(busy, true);
        freeze(hostile, true);
        // What the one before left to be written is not the next one's.
        nix::unistd::sync();
        self.hostile.limit(phase != Phase::Unlimited)?;
        freeze(busy, phase != Phase::Busy);
        freeze(hostile, matches!(phase, Phase::Quiet | Phase::Busy));
        Ok(())
    }

    async fn measure(&mut self, phase: Phase) -> Result<()> {
        self.set(phase)?;
        if let Some(watch) = &mut self.watch {
            watch.begin();
        }
        let login = self.client.login().await;
        self.note(phase, Kind::Login, login)?;
        let agent = self.agent().await;
        self.note(phase, Kind::Agent, agent)?;
        for _ in 0..LINES {
            self.ask(phase, Kind::Line, "line", "a line".len()).await?;
        }
        for _ in 0..WORKS {
            self.ask(phase, Kind::Work, "work", "done".len()).await?;
        }
        for _ in 0..MEGABYTES {
            self.ask(phase, Kind::Megabyte, &MEGABYTE.to_string(), MEGABYTE)
                .await?;
        }
        let agent = self.agent().await;
        self.note(phase, Kind::Agent, agent)?;
        if let Some(watch) = &mut self.watch {
            watch.end(phase)?;
        }
        Ok(())
    }

    /// Without limits it may be anything, no answer included: as long then as was waited.
    fn note(&mut self, phase: Phase, kind: Kind, took: Result<Duration>) -> Result<()> {
        let took = match took {
            Err(error) if phase == Phase::Unlimited => {
                println!("{kind}, {phase}: {error:#}");
                PATIENCE
            }
            took => took.with_context(|| kind.to_string())?,
        };
        self.figures.add(kind, phase, took);
        Ok(())
    }

    async fn ask(&mut self, phase: Phase, kind: Kind, order: &str, bytes: usize) -> Result<()> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                let mut session = self.client.session("exec python3 -u /root/answers.py").await?;
                // Its own start is no round trip.
                let first = session.ask("line", "a line".len(), PATIENCE);
                if first.is_err() {
                    return self.note(phase, kind, first);
                }
                session
            }
        };
        let took = session.ask(order, bytes, PATIENCE);
        // What comes after its time would be taken for the next one's.
        self.session = took.is_ok().then_some(session);
        self.note(phase, kind, took)
    }

    /// What the agent does all the time: reads its journal and what a space uses, and lays all rules anew.
    async fn agent(&self) -> Result<Duration> {
        let began = Instant::now();
        let work = async {
            self.provisioner.records().await?;
            self.provisioner.observe(&SALES[0])?;
            let uplinks = vec![self.town.uplink()?];
            anyhow::Ok(self.provisioner.set_uplinks(uplinks, Openings::default()).await?)
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .context("the agent's own work")??;
        Ok(began.elapsed())
    }
}
