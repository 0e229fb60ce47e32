//! A hostile space, root inside, everything at once, beside a good one.
//!
//! ```text
//!   good: sshd and a small server        neighbour, in turn: uses the CPU that it bought │ does all it can think of
//!     first words of sshd  ┐
//!     an answer: CPU, fsync├─ measured beside the one and beside the other, three rounds of each, medians compared
//!     bytes a second       ┘
//! ```
//!
//! Rounds alternate, so that what the test machine itself does meanwhile falls on both.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::process::Pidfd;
use host::{cgroup, isolate, names};
use libtest_mimic::Trial;
use market::id::UserId;
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};
use provision::limits::{self, Device, DiskLimit, Limits};
use provision::network::address::{SpaceIndex, UserIndex};
use provision::network::{self, SpaceLink, UserLink, inside};

use crate::network::town::Town;
use crate::network::{build_rules, run};
use crate::spaces::bench::{Bench, START};
use crate::spaces::keys;
use crate::trial;

const GOOD: &str = include_str!("hostile/good.py");
const BUSY: &str = "for n in 1 2; do while :; do :; done & done; wait";
const HOSTILE: &str = include_str!("hostile/everything.sh");
const SERVER: u16 = 7000;
const ROUNDS: usize = 3;
/// By how much a good space may be slower beside a hostile neighbour than beside a busy one.
const WORSE_AT_MOST: f64 = 1.2;
/// What the agent may take, beside a hostile space, for what it does all the time.
const AGENT_WITHIN: Duration = Duration::from_secs(5);

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("hostile::a_good_space_does_not_notice", || run(beside())),
        trial("hostile::one_space_cannot_use_up_the_watches_of_all", watches),
    ]
}

/// Seconds: for sshd's first words, for an answer, for four megabytes.
#[derive(Clone, Copy, Debug)]
struct Figures([f64; 3]);

const NAMES: [&str; 3] = ["first words of sshd", "an answer with fsync", "four megabytes"];

struct Place {
    bench: Bench,
    link: SpaceLink,
}

impl Place {
    async fn new(number: u8) -> Result<Self> {
        let bench = Bench::new(number.into())?;
        let link = SpaceLink {
            sale: bench.sale(),
            user: UserId([number; 32]),
            user_index: UserIndex::try_from(u16::from(number))?,
            space_index: SpaceIndex::try_from(0)?,
            first_id: bench.first_id(),
            rate: BitsPerSecond(40_000_000),
        };
        network::ensure_user(&UserLink {
            user: link.user,
            index: link.user_index,
        })
        .await?;
        network::ensure_space(&link).await?;
        Ok(Self { bench, link })
    }

    fn start(&self, script: &str) -> Result<Pidfd> {
        let limits = Limits {
            cpu: MilliCpus(500),
            memory: Bytes(256 << 20),
            pids: 200,
            disk: Some(DiskLimit::usual(Device::of(std::path::Path::new("/dev/vdc"))?)),
        };
        limits::ensure(&self.bench.cgroup(), &limits, self.bench.first_id())?;
        let argv = ["/usr/bin/catatonit", "--", "/bin/bash", "-c", script];
        let pid = isolate::start(&self.bench.space(&argv), START)?;
        Pidfd::open(pid).context("opening PID 1")
    }

    async fn remove(self) -> Result<()> {
        cgroup::ensure_absent(&self.bench.cgroup(), Duration::from_secs(30))?;
        network::ensure_space_absent(&self.link.sale, &self.link.user).await?;
        Ok(network::ensure_user_absent(&self.link.user).await?)
    }
}

async fn beside() -> Result<()> {
    let town = Town::build().await?;
    let (good, neighbour) = (Place::new(1).await?, Place::new(2).await?);
    let links = [good.link, neighbour.link];
    build_rules(&links, &town).await?;
    keys(&good.bench)?;
    std::fs::create_dir_all(good.bench.volume().join("upper/root"))?;
    std::fs::write(good.bench.volume().join("upper/root/good.py"), GOOD)?;
    // Whoever asks for sshd's first words and goes is punished by it, else: that is what is measured here.
    let _good = good.start("/usr/sbin/sshd -o PerSourcePenalties=no; exec python3 /root/good.py")?;
    let (mut busy, mut hostile, mut agent) = (Vec::new(), Vec::new(), Duration::ZERO);
    let quiet = measure(&good.link).await?;
    for _ in 0..ROUNDS {
        let process = neighbour.start(BUSY)?;
        busy.push(measure(&good.link).await?);
        ensure!(!process.wait_ended(Duration::ZERO)?, "the busy neighbour ended");
        let process = neighbour.start_anew(HOSTILE)?;
        hostile.push(measure(&good.link).await?);
        let began = Instant::now();
        build_rules(&links, &town).await?;
        limits::observe(&good.bench.cgroup())?;
        agent = agent.max(began.elapsed());
        let seen = limits::observe(&neighbour.bench.cgroup())?;
        println!("the hostile one: {seen:?}");
        ensure!(
            process.wait_ended(Duration::ZERO)? || (seen.pids_refused > 0 && seen.throttled_periods > 0),
            "it was not hostile: {seen:?}"
        );
    }
    neighbour.remove().await?;
    good.remove().await?;
    crate::network::no_rules().await?;
    town.remove().await?;
    let mut faults = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        let of = |all: &[Figures]| median(all.iter().map(|figures| figures.0[index]).collect());
        let (busy, hostile) = (of(&busy), of(&hostile));
        println!(
            "{name}: quiet {:.3} s, beside a busy one {busy:.3} s, beside a hostile one {hostile:.3} s, {:.2} times",
            quiet.0[index],
            hostile / busy
        );
        if hostile > busy * WORSE_AT_MOST {
            faults.push(format!(
                "{name}: {hostile:.3} s beside a hostile neighbour, {busy:.3} s beside a busy one"
            ));
        }
    }
    println!(
        "firewall and figures beside the hostile one: at most {} ms",
        agent.as_millis()
    );
    ensure!(agent < AGENT_WITHIN, "the agent's own work took {agent:?}");
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

impl Place {
    /// Ends what runs, and starts this.
    fn start_anew(&self, script: &str) -> Result<Pidfd> {
        cgroup::ensure_absent(&self.bench.cgroup(), Duration::from_secs(30))?;
        self.start(script)
    }
}

/// Medians of several of each.
async fn measure(link: &SpaceLink) -> Result<Figures> {
    let namespace = names::netns_path(&names::user_netns(link.user.as_bytes()));
    let address = link.user_index.space(link.space_index);
    let mut all = Vec::new();
    for (port, order, times) in [(22, "", 7), (SERVER, "0", 7), (SERVER, "4000000", 3)] {
        let mut taken = Vec::new();
        for _ in 0..times {
            taken.push(one(namespace.clone(), address, port, order).await?);
        }
        all.push(median(taken));
    }
    match all[..] {
        [words, answer, bytes] => Ok(Figures([words, answer, bytes])),
        _ => bail!("three figures"),
    }
}

async fn one(namespace: PathBuf, address: Ipv4Addr, port: u16, order: &'static str) -> Result<f64> {
    let attempt = move || -> Result<f64> {
        let deadline = Instant::now() + Duration::from_secs(60);
        // Until the server listens, which it has not announced.
        let (began, mut stream) = loop {
            let began = Instant::now();
            match TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(10)) {
                Ok(stream) => break (began, stream),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("no answer within 60 s");
                }
                Err(_) => std::thread::yield_now(),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        if order.is_empty() {
            stream.read_exact(&mut [0; 8])?;
        } else {
            // In one piece: the server reads once.
            stream.write_all(format!("{order}\n").as_bytes())?;
            std::io::copy(&mut stream, &mut std::io::sink())?;
        }
        Ok(began.elapsed().as_secs_f64())
    };
    inside::run(Some(&namespace), attempt).await?
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The kernel counts inotify by who made the user namespace: one count for all, were they all made by root.
fn watches() -> Result<()> {
    const TAKE: &str = "import ctypes,sys,time\n\
        l=ctypes.CDLL(None,use_errno=True)\n\
        n=0\n\
        while n<2000 and l.inotify_init1(0)>=0: n+=1\n\
        print('got=%d' % n, 'errno=%d' % ctypes.get_errno(), sep='\\n', flush=True)\n\
        time.sleep(600)\n";
    let (first, second) = (Bench::new(1)?, Bench::new(2)?);
    // More open files than instances, so that only the wall in question is met.
    let script = |bench: &Bench| -> Result<()> {
        std::fs::create_dir_all(bench.volume().join("upper/root"))?;
        std::fs::write(bench.volume().join("upper/root/take.py"), TAKE)?;
        let script = "exec >/root/found 2>&1; ulimit -n 4096; exec python3 /root/take.py";
        isolate::start(
            &bench.space(&["/usr/bin/catatonit", "--", "/bin/bash", "-c", script]),
            START,
        )?;
        let end = Instant::now() + Duration::from_secs(60);
        while !bench.found().is_ok_and(|found| found.contains("errno=")) {
            ensure!(Instant::now() < end, "waited 60 s for the watches");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    script(&first)?;
    // The first still holds all that it got.
    script(&second)?;
    for bench in [&first, &second] {
        let found = bench.found()?;
        let got: u32 = crate::spaces::bench::value(&found, "got")?.parse()?;
        // EMFILE: the limit is there; and each has its own.
        ensure!((900..1100).contains(&got), "{found}");
        crate::spaces::bench::expect(&found, "errno", "24")?;
    }
    Ok(())
}
