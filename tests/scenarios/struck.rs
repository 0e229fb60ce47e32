//! A node whose agent is struck, whose journal is spoilt, and whose PID 1 has a fault, while people work in a space.
//!
//! ```text
//! bought ─► two logins run top ─► SEGV, ABRT, no memory ─► the straight login goes on, the node offers again
//!        ─► the journal is newer, corrupt, older, absent: the space goes on ─► mended: adopted
//!        ─► 256 MiB in 128 ─► PID 1 faults: all is closed, the machine ends by itself
//!        ─► once more, with a volume that cannot be closed: said, and the machine starts again all the same
//! ```
//!
//! The image is the product's, with one program more that strikes (`tests/src/strike`).

mod node;
mod top;
mod volume;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use node::{COMES_WITHIN, Struck};
use stage::{Person, Stage};
use top::Top;

/// The node offers, and a new login works, so soon after its agent was killed: twice the ten seconds that are meant, for
/// another machine is emulated beside this one. What it took is printed.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// A login through the grid whose agent is gone ends by then: OpenSSH asks four times, every 15 s.
const CUT_WITHIN: Duration = Duration::from_secs(150);
/// PID 1 closes everything within the sum of its bounds: services 10 s, spaces 10, volumes 25, processes 5, sync 10.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);
/// What is asked for is held by one program; the words after it are the program's end and how many the kernel killed.
const HOLD: &str = "killed() { sed -n 's/^oom_kill //p' /sys/fs/cgroup/memory.events; }; before=$(killed); \
    head -c $ASKED /dev/zero | tail -c $ASKED >/dev/null; end=$?; \
    echo $(cat /sys/fs/cgroup/memory.max) $end $(($(killed) - before))";

/// All of it, on two boots.
pub fn goes_on(stage: &Stage, user: &Person, farmer: &Person) -> Result<()> {
    let mut struck = Struck::begin(stage, user, farmer)?;
    let mut straight = Top::start(struck.login(true, Top::COMMAND))?;
    let mut through_grid = Top::start(struck.login(false, Top::COMMAND))?;
    agent_killed(&mut struck, &mut straight)?;
    journal_spoilt(&mut struck, &mut straight)?;
    let said = through_grid.ends(CUT_WITHIN)?;
    println!("the login through the grid ended: {said:?}");
    ensure!(
        said.contains("not responding") || said.contains("was cut"),
        "it ended with {said:?}"
    );
    memory_exceeded(&mut struck, &mut straight)?;
    first_process_faults(&mut struck)?;
    a_volume_is_held(&mut struck)
}

fn agent_killed(struck: &mut Struck, straight: &mut Top) -> Result<()> {
    for order in ["kill SIGSEGV", "kill SIGABRT", "memory"] {
        let said = struck.strike(order)?;
        let begun = Instant::now();
        struck.agent_ended()?;
        struck.offers()?;
        let offers = begun.elapsed();
        struck.a_login_works(false)?;
        let works = begun.elapsed();
        println!("{said}: offers again after {offers:.1?}, a new login works after {works:.1?}");
        ensure!(
            works < BACK_WITHIN.mul_f64(struck.slower),
            "{order}: a new login worked after {works:?}"
        );
        straight.goes_on()?;
    }
    Ok(())
}

fn journal_spoilt(struck: &mut Struck, straight: &mut Top) -> Result<()> {
    let ways = [
        ("newer", "start the newer image"),
        ("corrupt", "the journal is damaged: "),
        ("older", "older than any that this image reads"),
        ("absent", "there is no journal at "),
    ];
    for (how, words) in ways {
        let said = struck.strike(&format!("spoil {how}"))?;
        struck.agent_ended()?;
        let line = struck.wait_for("not selling: the", COMES_WITHIN)?;
        println!("{said}; {}", line.trim());
        ensure!(line.contains(words), "{how}: {line}");
        straight.goes_on()?;
        if how == "corrupt" {
            struck.nobody_sells()?;
            let took = struck.a_login_works(true)?;
            println!("with a corrupt journal a new login over the declared port takes {took:.1?}");
        }
    }
    let said = struck.strike("mend")?;
    ensure!(said.contains("as left"), "{said}");
    struck.agent_ended()?;
    struck.offers()?;
    straight.goes_on()?;
    struck.a_login_works(false).map(drop)
}

/// What asks for more memory than the space has ends; nothing else does.
fn memory_exceeded(struck: &mut Struck, straight: &mut Top) -> Result<()> {
    let agent = struck.strike("agent")?;
    let hold = |struck: &Struck, asked: &str| struck.inside(true, &HOLD.replace("$ASKED", asked));
    // The control: within the limit nothing is killed.
    let within = hold(struck, "16M")?;
    ensure!(within == "134217728 0 0\n", "16 MiB within 128: {within:?}");
    let beyond = hold(struck, "256M")?;
    println!("of 128 MiB 256 were asked: limit, end, kills: {}", beyond.trim());
    ensure!(beyond == "134217728 137 1\n", "256 MiB within 128: {beyond:?}");
    straight.goes_on()?;
    struck.a_login_works(true)?;
    let now = struck.strike("agent")?;
    ensure!(now == agent, "the agent was {agent}, now it is {now}");
    println!("after it: {now}, as before, and a new login works");
    Ok(())
}

fn first_process_faults(struck: &mut Struck) -> Result<()> {
    ensure!(
        !volume::is_closed(&struck.disk())?,
        "the state is closed while the node runs: looking shows nothing"
    );
    let begun = Instant::now();
    let closed = faults(struck)?;
    println!("{closed}");
    ensure!(closed.contains("closed: 1 volume of a space, 1 disk"), "{closed}");
    let left = struck.running.history().iter().find(|line| not_done(&line.text));
    ensure!(left.is_none(), "not all was closed: {left:?}");
    let ended = struck.running.wait_exit(CLOSED_WITHIN);
    let ended = ended.context("the machine did not end")?;
    let took = begun.elapsed();
    println!("PID 1 faults: all is closed, and the machine resets itself after {took:.1?}");
    ensure!(ended.success() && took < CLOSED_WITHIN, "{ended}, after {took:?}");
    ensure!(volume::is_closed(&struck.disk())?, "the state was not closed");
    Ok(())
}

/// The control: somebody uses the state's volume elsewhere. What is not closed is said, the bound stands, and the
/// machine starts again.
fn a_volume_is_held(struck: &mut Struck) -> Result<()> {
    struck.power_on()?;
    struck.wait_for(" · node ", stage::BOOT_WITHIN)?;
    struck.strike("hold")?;
    let begun = Instant::now();
    faults(struck)?;
    let left = struck.running.history().iter().find(|line| not_done(&line.text));
    let left = left.context("a volume in use was closed, or nobody said so")?;
    println!("{}", left.text);
    let again = struck.wait_for("init, PID 1", COMES_WITHIN)?;
    println!(
        "with a volume in use it starts again after {:.1?}: {again}",
        begun.elapsed()
    );
    Ok(())
}

/// PID 1 has a fault; waits for its last word, and returns the line that says what was closed.
fn faults(struck: &mut Struck) -> Result<String> {
    struck.running.forget();
    struck.running.type_text("fault\n")?;
    struck.wait_for("PID 1 ended by SIGILL", COMES_WITHIN)?;
    struck.wait_for("init: and again", CLOSED_WITHIN)?;
    let said = struck.running.seen("closed: ");
    Ok(said.map(|line| line.text).unwrap_or_default())
}

/// Whether the line says of a phase of the end what it could not do; one that says how long it took ends with "ms".
fn not_done(line: &str) -> bool {
    let phases = ["spaces", "volumes", "mounts", "processes", "sync"];
    let said = phases
        .iter()
        .find_map(|phase| line.split_once(&format!("init: {phase}: ")));
    said.is_some_and(|(_, words)| !words.trim().ends_with(" ms"))
}
