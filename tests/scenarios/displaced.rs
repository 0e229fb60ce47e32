//! A copy of a node that acted for it while the node could not be reached, with a space on it that runs, and the node's
//! return.
//!
//! ```text
//!   node   sells ─► stopped (as if its cable were out), its disks copied ─────────────► goes on: has its seat again
//!   copy                     sits, sells ─► the user unlocks the space there ─► its agent ends, and stays out
//!   user   writes ────────────────────────► writes on the copy ──────────────────────► finds what the node has
//! ```
//!
//! Only with `--long`: what decides is tried in `agent/tests/twin.rs`, this is the same over two machines.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::machine::{expect, inside};
use crate::world::World;

/// The name of the scenario.
pub const NAME: &str = "a_copy_that_acted_meanwhile_goes_when_the_node_returns";
const IN_USE: &str = "this node's key is in use by another machine, for ";

/// All of it.
pub fn goes(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let (name, node) = (world.space()?, world.node_id()?);
    inside(world, "echo node >/root/who && sync")?;
    let process = world.process_id()?.to_string();
    signal("STOP", &process)?;
    world.copy_node()?;
    let mut copy = world.power_on_copy()?;
    stage::wait_until_selling(&mut copy)?;
    if copy.seen("locked").is_none() {
        copy.wait_for("locked", stage::BOOT_WITHIN)?;
    }
    let unlocked = world.user()?.run(&["unlock", &name, "--json"])?;
    unlocked.expect_success("unlocking on the copy")?;
    ensure!(
        world.node_id()? == node,
        "the copy sells as another node than it copies"
    );
    expect(world, "cat /root/who && echo copy >/root/who && sync", "node")?;

    copy.forget();
    signal("CONT", &process)?;
    let begun = Instant::now();
    let line = copy.wait_for(IN_USE, stage::BOOT_WITHIN)?;
    println!(
        "the copy goes after {:.1?}: {}",
        begun.elapsed(),
        line.text.trim()
    );
    copy.wait_for("not selling: ", stage::BOOT_WITHIN)?;
    copy.forget();
    let back = Instant::now();
    while inside(world, "cat /root/who").ok().as_deref() != Some("node\n") {
        ensure!(
            back.elapsed() < stage::BOOT_WITHIN,
            "the user does not find the node's own space again"
        );
    }
    println!("the user is back on the node's own after {:.1?}", begun.elapsed());
    ensure!(world.node_id()? == node, "another node sells");
    ensure!(copy.seen("  selling").is_none(), "the copy sells again");
    copy.cut_power();
    world.cut_power()
}

fn signal(name: &str, process: &str) -> Result<()> {
    let done = Command::new("kill").args([&format!("-{name}"), process]).status();
    ensure!(done.context("starting kill")?.success(), "no signal {name}");
    Ok(())
}
