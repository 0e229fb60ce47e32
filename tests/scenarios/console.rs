//! A farmer at the node's serial console: what he types there is done, and nothing else is.
//!
//! ```text
//!   W, a wrong word ─► nothing ─► L, the log ─► S, the space's name ─► it ends, the rest returns
//!     ─► W, the disk's name ─► the disk is sold, the node goes on ─► P, another word, and "off" ─► off
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::world::World;

/// The disk that holds something: behind the medium and the two blank ones.
const DISK: &str = "vdd";

pub fn rules(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    world.buy()?;
    let name = world.space()?;
    let (earned, user) = (world.farmer()?.balance()?, world.user()?.clone());

    world.types("w")?;
    world.hears(&format!("Erase {DISK} and sell it"))?;
    world.types("yes\r")?;
    world.hears("nothing was done")?;
    world.types("l")?;
    world.hears("for older ones")?;
    let listed = user.run(&["spaces", "--json"])?.expect_success("listing")?;
    ensure!(
        world.open_space(&listed)? == name,
        "the space is gone: {}",
        listed.out
    );

    world.types("s")?;
    world.hears(&format!("End {name}: what is in it is lost"))?;
    world.types(&format!("{name}\r"))?;
    world.hears(&format!("{name} stopped, the rest went back"))?;
    ensure!(user.in_escrow()? == 0, "money is left in escrow");
    ensure!(
        user.balance()? + world.farmer()?.balance()? == world.funded,
        "{} + {} is not {}",
        user.balance()?,
        world.farmer()?.balance()?,
        world.funded
    );
    ensure!(world.farmer()?.balance()? >= earned, "the farmer paid for it");

    let node = world.node_id()?;
    world.types("w")?;
    world.hears(&format!("Erase {DISK} and sell it"))?;
    world.types(&format!("{DISK}\r"))?;
    let claimed = world.hears("disks claimed: ")?;
    ensure!(claimed.contains(DISK), "the console says: {claimed}");
    world.hears("  selling")?;
    ensure!(world.node_id()? == node, "the node came back as another one");

    world.types("p")?;
    world.hears("Switch the machine off")?;
    world.types("reboot\r")?;
    world.hears("nothing was done")?;
    world.types("poff\r")?;
    let ended = world
        .ends(Duration::from_secs(180))?
        .context("it does not switch itself off")?;
    ensure!(ended.success(), "QEMU ended with {ended}");
    Ok(())
}
