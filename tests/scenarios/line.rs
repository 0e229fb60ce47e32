//! The farmer's line: what he opens, how fast it is, what it may carry in a month, and the port that he declares.
//!
//! ```text
//!   the builder's machine ◄─╳─ 10.0.2.2 ── a node where nobody opened anything: the control
//!     a listener          ◄─── 10.0.2.2 ── node "lined" with `open`; as fast as it can: the control
//!                         ◄─── 8 Mbit ──── the same, with `rate` and `traffic` too
//!     a cable ═══ 1 GiB ═══► its second card: the month is used up: slowed, not selling ── power cut ──► the same, at once
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::machine::inside;
use crate::world::World;

const RATE: f64 = 8e6;
/// What a segment of 1240 bytes is on a cable.
const HEADERS: f64 = 1294.0 / 1240.0;
/// Of a slowed line, bytes that may come at once after a pause: 64 KiB, and one second's worth.
const AT_ONCE: f64 = 65_536.0 + 8_000.0;
const USED_UP: &str = "this month's traffic is used up: spaces are slowed";
const GIB: usize = 1 << 30;
/// Bytes of one frame: as a card hands several packets over that came together.
const FRAME: usize = 32 << 10;

/// What lies around the node: a listener that sends, the cable of its second card, its declared port.
pub struct Line {
    source: u16,
    cable: Arc<Mutex<Option<TcpStream>>>,
    cable_port: u16,
    port: u16,
}

impl Line {
    /// Lives as long as the test.
    fn lay() -> Result<Line> {
        let cable: Arc<Mutex<Option<TcpStream>>> = Arc::default();
        let end = Arc::clone(&cable);
        Ok(Line {
            source: listen(|stream| drop(send_what_is_asked(stream)))?,
            cable_port: listen(move |mut stream| {
                if let (Ok(mut end), Ok(sends)) = (end.lock(), stream.try_clone()) {
                    *end = Some(sends);
                }
                // Nobody answers what the node asks there.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            })?,
            cable,
            port: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
        })
    }

    /// Where the machine's second card is plugged in.
    pub fn cable(&self) -> u16 {
        self.cable_port
    }

    /// The declared port: the only one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends so many bytes down the cable, in frames of a type that nobody takes.
    fn flood(&self, bytes: usize) -> Result<()> {
        let mut frame = u32::try_from(FRAME)?.to_be_bytes().to_vec();
        frame.extend([0xff; 6]);
        frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        frame.resize(4 + FRAME, 0);
        let cable = self
            .cable
            .lock()
            .ok()
            .and_then(|end| end.as_ref()?.try_clone().ok());
        let mut cable = cable.context("no machine is on the cable")?;
        for _ in 0..bytes.div_ceil(FRAME) {
            cable.write_all(&frame)?;
        }
        Ok(())
    }
}

/// A port of this machine's loopback; whoever comes is served in a thread.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn send_what_is_asked(mut stream: TcpStream) -> std::io::Result<()> {
    let mut order = [0; 12];
    stream.read_exact(&mut order)?;
    let mut left = String::from_utf8_lossy(&order).trim().parse().unwrap_or(0_usize);
    while left > 0 {
        let now = left.min(1 << 16);
        stream.write_all(&vec![0; now])?;
        left -= now;
    }
    Ok(())
}

/// Fetches from the builder's machine within a space; the seconds in which it came, those of the first bytes left out.
fn fetch(world: &mut World, source: u16, first: usize, then: usize) -> Result<f64> {
    let script = format!(
        "exec 3<>/dev/tcp/10.0.2.2/{source} && printf %12d {} >&3 && head -c {first} <&3 | wc -c && \
         begun=$(date +%s%N) && head -c {then} <&3 | wc -c && echo $(($(date +%s%N) - begun))",
        first + then
    );
    let said = inside(world, &format!("timeout 60 bash -c '{script}' 2>&1 || true"))?;
    let numbers: Vec<usize> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
    match numbers[..] {
        [one, two, ns] if one == first && two == then => Ok(ns as f64 / 1e9),
        _ => anyhow::bail!("fetching says {said:?}"),
    }
}

/// Where nobody opened anything; on the node of other scenarios.
pub fn is_shut(world: &mut World) -> Result<()> {
    let source = Line::lay()?.source;
    let came = fetch(world, source, 1000, 1000);
    let why = came.err().context("it came from what nobody opened")?;
    println!("not opened: {why:#}");
    Ok(())
}

/// What the farmer writes: at first what he opens, then how much as well.
fn lines(line: &Line, limits: &str) -> String {
    let port = line.port;
    format!("open = [\"10.0.2.2/32\"]\npublic_address = \"127.0.0.1\"\nports = \"{port}-{port}\"\n{limits}")
}

/// What the farmer opened is open, and it is fast, for no rate stands yet. A node of its own, and the first space on its
/// declared port.
pub fn is_open(world: &mut World) -> Result<()> {
    let line = Line::lay()?;
    let (source, lines) = (line.source, lines(&line, ""));
    world.start_node_on(line, &lines)?;
    world.buy()?;
    ensure!(!is_known(world)?, "the first space on its port is known already");
    let seconds = fetch(world, source, 500_000, 4_000_000).context("what the farmer opened")?;
    let bits = 8.0 * 4e6 / seconds;
    println!("opened, without a rate: {:.1} Mbit/s", bits / 1e6);
    ensure!(bits > 1.25 * RATE, "without a rate it is as slow: {bits} bit/s");
    Ok(())
}

/// A space that is sold within the farmer's rate, on the same declared port, while the month comes to its end.
pub fn is_limited(world: &mut World) -> Result<()> {
    if world.line().is_err() {
        is_open(world)?;
    }
    world.cut_power()?;
    let source = world.line()?.source;
    let lines = lines(world.line()?, "rate = \"8Mbit\"\ntraffic = \"1GiB\"\n");
    world.farmer_writes(&lines)?;
    world.power_on()?;
    cancel(world)?;
    offer_says_so(world)?;
    world.buy()?;
    ensure!(is_known(world)?, "two spaces on one port have one host key");
    let bits = 8.0 * 5e6 / fetch(world, source, 1_500_000, 5_000_000)? * HEADERS;
    println!("with 8 Mbit: {:.2} Mbit/s", bits / 1e6);
    ensure!((0.9 * RATE..1.1 * RATE).contains(&bits), "{bits} bit/s of {RATE}");
    month_ends(world, source)?;

    // The count is kept without power.
    world.cut_power()?;
    let begun = Instant::now();
    world.power_on_until(USED_UP)?;
    println!("after a power cut it knows after {:.1?}", begun.elapsed());
    world.wait_for("this month's traffic is used up, it begins anew with 20")?;
    world.cut_power()
}

/// Whoever buys is told before what the line may carry.
fn offer_says_so(world: &World) -> Result<()> {
    let offered = world.user()?.run(&["request", "--duration", "1h"])?;
    let note = offered.out.lines().find(|line| line.contains("line: "));
    let note = note.with_context(|| format!("no word of the line: {}", offered.out))?;
    println!("{}", note.trim());
    ensure!(note.contains("GiB in 20"), "the offer says {note:?}");
    let all = offered.out.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(all.contains("periods are still paid"), "the offer says {all:?}");
    Ok(())
}

/// All that it may carry comes: spaces are slowed, nothing more is sold; a login still comes through, and whoever wants
/// to go gets the rest back.
fn month_ends(world: &mut World, source: u16) -> Result<()> {
    let begun = Instant::now();
    world.line()?.flood(GIB)?;
    let came = begun.elapsed();
    world.wait_for(USED_UP)?;
    println!("1 GiB came in {came:.1?}, told after {:.1?}", begun.elapsed());
    let seconds = fetch(world, source, 1, 120_000)?;
    let bits = 8.0 * (120e3 - AT_ONCE) / seconds;
    println!("used up: {:.1} kbit/s", bits / 1e3);
    ensure!(bits < 1.1 * 64e3, "when the month is used up: {bits} bit/s");
    let begun = Instant::now();
    inside(world, "true")?;
    println!("a login takes {:.1?}", begun.elapsed());
    let refused = world.user()?.run(&["request", "--duration", "1h"])?;
    ensure!(refused.code != 0, "it sells: {}", refused.out);
    cancel(world)
}

fn cancel(world: &World) -> Result<()> {
    let cancelled = world.user()?.run(&["cancel", &world.space()?, "--json"])?;
    cancelled.expect_success("cancelling").map(drop)
}

/// Plain ssh to the declared port, without our program between: by what the client pinned it says nothing but what was
/// asked. The control is returned: whether somebody who keeps hosts by their ports, as OpenSSH does by itself, is warned.
fn is_known(world: &World) -> Result<bool> {
    let (name, port) = (world.space()?, world.line()?.port.to_string());
    let config = world.ssh_config()?;
    let straight = |more: &[&str]| -> Result<Output> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args(["-o", "ProxyCommand=none"]);
        ssh.args(["-o", "HostName=127.0.0.1", "-o", "BatchMode=yes", "-p", &port]);
        ssh.args(more).args([&name, "id -u"]).stdin(Stdio::null());
        ssh.output().context("starting ssh")
    };
    let strict = straight(&["-o", "StrictHostKeyChecking=yes"])?;
    ensure!(
        strict.stdout == b"0\n" && strict.stderr.is_empty(),
        "over the declared port: {strict:?}"
    );
    let hosts: PathBuf = world.scratch()?.join("known_by_port");
    let hosts = format!("UserKnownHostsFile={}", hosts.display());
    let alias = format!("HostKeyAlias=[127.0.0.1]:{port}");
    let learns = "StrictHostKeyChecking=accept-new";
    let by_port = straight(&["-o", learns, "-o", &hosts, "-o", &alias])?;
    Ok(String::from_utf8_lossy(&by_port.stderr).contains("HOST IDENTIFICATION HAS CHANGED"))
}
