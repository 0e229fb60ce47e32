//! A node is the same whatever happens to its disks, as long as one of them is left.
//!
//! ```text
//! a b c ─► shuffled ─► b a ─► d b a (d blank) ─► a gone ─► all, shuffled ─► only a blank one: another node
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use qemu::Disk;
use stage::{Node, NodeSettings, Stage};

/// The smallest disk that is claimed.
const SIZE: u64 = 4 << 30;

/// Orders of disks, by name; a power cut stands between each and the next.
const BOOTS: [&str; 8] = ["abc", "cab", "ba", "dba", "bd", "dcb", "dcba", "bacd"];

/// Boots them all, and last one blank disk alone.
pub fn is_kept(stage: &Stage) -> Result<()> {
    let mut settings = NodeSettings::new("wanderer", "");
    settings.wallet = None;
    settings.disks = Vec::new();
    let mut node = Node::prepare(stage, settings)?;
    let mut disks: BTreeMap<char, PathBuf> = BTreeMap::new();
    for name in "abcde".chars() {
        let path = node.dir().join(format!("{name}.img"));
        Disk::ensure_blank(&path, SIZE)?;
        disks.insert(name, path);
    }
    let first = boot(&mut node, &disks, BOOTS[0])?;
    for order in &BOOTS[1..] {
        let now = boot(&mut node, &disks, order)?;
        ensure!(now == first, "with the disks {order} it is {now}, it was {first}");
    }
    let other = boot(&mut node, &disks, "e")?;
    ensure!(
        other != first,
        "a blank disk alone made it {other} again: the check sees nothing"
    );
    Ok(())
}

/// Powers it on with these disks and returns the id that its console shows; then the plug is pulled.
fn boot(node: &mut Node, disks: &BTreeMap<char, PathBuf>, order: &str) -> Result<String> {
    let machine = node.machine();
    machine.disks.truncate(1); // the medium it boots from
    for name in order.chars() {
        let path = disks.get(&name).context("no such disk")?;
        machine.disks.push(Disk::new(path, &format!("WANDERER-{name}")));
    }
    let mut running = node.power_on()?;
    let line = running.wait_for(" · node ", stage::BOOT_WITHIN)?;
    let (_, rest) = line.text.split_once(" · node ").context("no id")?;
    let id = rest.split_whitespace().next().context("no id")?.to_owned();
    running.cut_power();
    Ok(id)
}
