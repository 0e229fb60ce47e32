//! Containers in a space: podman, unpacked from Debian's packages, runs an image that is imported from a local file.
//!
//! Their layers lie on the volume itself: the root file system of a space is an overlay, and the kernel holds no layers
//! of one overlay on another.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::machine::{expect, inside};
use crate::world::World;

/// What is unpacked into the space: no documentation, no units, nothing for building.
const PARTS: [&str; 9] = [
    "--exclude=*.a",
    "--exclude=glib-2.0",
    "etc/containers",
    "usr/share/containers",
    "usr/bin",
    "usr/sbin/nft",
    "usr/lib/podman/netavark",
    "usr/lib/x86_64-linux-gnu",
    "usr/libexec/podman/rootlessport",
];
/// An image as a tar archive: a shell, two programs, their libraries.
const IMAGE: &str = "cd / && tar -chf /tmp/tiny.tar usr/bin/dash usr/bin/id usr/bin/cat usr/bin/ls \
    $(ldd /usr/bin/id /usr/bin/cat /usr/bin/dash /usr/bin/ls | grep -o '/lib[^ ]*' | sort -u | sed 's#^/##')";

/// The scenario.
pub fn run(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    bring(world, "STEADING_CONTAINERS", &PARTS, "/")?;
    inside(world, &format!("ldconfig && {IMAGE}"))?;
    in_own_limits(world)?;
    elsewhere(world)
}

/// An own network by nftables, and a limit of its own.
fn in_own_limits(world: &mut World) -> Result<()> {
    expect(
        world,
        "podman import -q /tmp/tiny.tar tiny >/dev/null && \
         podman run --rm --memory 64m tiny /usr/bin/dash -c 'id -u; ls /sys/class/net; cat /sys/fs/cgroup/memory.max' 2>&1",
        "0\neth0\nlo\n67108864",
    )
}

/// The control: on the root file system it does not work.
fn elsewhere(world: &mut World) -> Result<()> {
    expect(
        world,
        "podman --root /root/elsewhere info 2>&1 | grep -o \"'overlay' is not supported over overlayfs\" | head -1",
        "'overlay' is not supported over overlayfs",
    )
}

/// Copies parts of a folder of this machine, named by a variable, to a folder of the space.
fn bring(world: &World, variable: &str, parts: &[&str], to: &str) -> Result<()> {
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(folder(variable)?)
        .args(["-cf", "-", "--owner=0", "--group=0"])
        .args(parts)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting tar")?;
    let status = Command::new("ssh")
        .arg("-F")
        .arg(world.ssh_config()?)
        .args([
            &world.space()?,
            &format!("mkdir -p {to} && tar -C {to} --no-overwrite-dir -xf -"),
        ])
        .stdin(tar.stdout.take().context("tar's output")?)
        .status()?;
    let made = tar.wait()?;
    ensure!(
        status.success() && made.success(),
        "bringing {variable}: {made}, {status}"
    );
    Ok(())
}

fn folder(variable: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    folder.with_context(|| format!("{variable} is not set: run these tests by ./x test --scenarios"))
}
