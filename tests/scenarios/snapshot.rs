//! A snapshot that is taken of a space in use, put back, put back again over a power cut, and removed.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::world::World;

/// What the files are that a snapshot is about: names, bytes, owner.
const LOOK: &str = "cd /srv && find . -type f -printf '%p %U %m ' -exec sha256sum {} +";
/// Before it is taken.
const FIRST: &str = "mkdir -p /srv/deep && head -c 5000000 /dev/urandom >/srv/deep/large && echo one >/srv/note && \
     chown 1000 /srv/note && sync";
/// After it: one more, one changed in place, one gone.
const THEN: &str =
    "echo two >/srv/note && rm /srv/deep/large && head -c 3000000 /dev/urandom >/srv/new && sync";
/// So much that putting it back takes a while.
const MUCH: &str = "head -c 200000000 /dev/zero >/srv/much && sync";
/// What the console says when a node begins, or goes on.
const BEGUN: &str = "its snapshot is being put back";

fn inside(world: &World, command: &str) -> Result<String> {
    let output = Command::new("ssh")
        .arg("-F")
        .arg(world.ssh_config()?)
        .args(["-o", "BatchMode=yes", &world.space()?, command])
        .stdin(Stdio::null())
        .output()
        .context("starting ssh")?;
    ensure!(
        output.status.success(),
        "{command}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Taken, and put back; it stays.
pub fn is_put_back(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let (name, user) = (world.space()?, world.user()?.clone());
    inside(world, FIRST)?;
    let before = inside(world, LOOK)?;
    ensure!(before.lines().count() == 2, "the files are {before}");
    let taken = user
        .run(&["snapshot", &name, "--yes", "--json"])?
        .expect_success("taking a snapshot")?;
    ensure!(
        taken.json["snapshot_at"].as_u64() > Some(0),
        "taken: {}",
        taken.out
    );
    inside(world, THEN)?;
    ensure!(inside(world, LOOK)? != before, "the control: nothing was changed");
    restore(world, &before)
}

/// The power goes while it is put back: the node goes on by itself, the same verb waits for it and opens the space. Then
/// the snapshot is removed, and the files stay.
pub fn is_put_back_over_a_power_cut(world: &mut World) -> Result<()> {
    let (name, user) = (world.space()?, world.user()?.clone());
    let before = inside(world, LOOK)?;
    inside(world, THEN)?;
    inside(world, MUCH)?;
    let mut client = world.start(&["restore", &name, "--yes"])?;
    // From one restore to the next there is a minute: the client waits for it.
    world.wait_for_again(BEGUN)?;
    world.cut_power()?;
    let _ = client.kill();
    let _ = client.wait();
    world.power_on()?;
    world
        .wait_for(BEGUN)
        .context("the node did not go on by itself")?;
    restore(world, &before)?;

    let removed = user
        .run(&["snapshot", &name, "--delete", "--yes", "--json"])?
        .expect_success("removing the snapshot")?;
    ensure!(
        removed.json["snapshot_at"].is_null(),
        "it is there: {}",
        removed.out
    );
    let none = user.run(&["restore", &name, "--yes"])?;
    ensure!(
        none.code == 2 && none.err.contains("has no snapshot"),
        "{}{}",
        none.out,
        none.err
    );
    ensure!(inside(world, LOOK)? == before, "the files went with it");
    Ok(())
}

fn restore(world: &World, wanted: &str) -> Result<()> {
    let (name, user) = (world.space()?, world.user()?);
    let restored = user
        .run(&["restore", &name, "--yes", "--json"])?
        .expect_success("restoring")?;
    ensure!(restored.json["state"] == "active", "restored: {}", restored.out);
    let now = inside(world, LOOK)?;
    ensure!(now == wanted, "the files are {now}, they were {wanted}");
    world.says_nothing_but(&name, "0\n")
}
