//! A node is the same whatever happens to its disks, as long as one of them is left.
//!
//! ```text
//!            ┌─► c a b ─► b a ─► b d c a (d blank) ─► … ─► c s e a b (s a stranger's) ─► …   ten boots
//! a b c ─────┤   each line on a copy of the disks, the two beside each other
//!            └─► b c a ─► …                                                               ten boots
//! s, blank ──► another node ────────────────────────► s alone: still that one, nobody wrote on it
//! ```
//!
//! Boots of the product, without a network. The plug is pulled as soon as the screen says who it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use qemu::Disk;
use stage::{Node, NodeSettings, Stage};

/// The smallest disk that is claimed.
const SIZE: u64 = 4 << 30;
/// Boots of each line.
const BOOTS: usize = 10;
/// The lines, by what their orders are drawn from.
const SEEDS: [u64; 2] = [1, 2];
/// Blank disks, and the boots at which they come.
const BLANK: [(usize, char); 2] = [(2, 'd'), (6, 'e')];
/// The disk of another node.
const STRANGER: char = 's';

/// Boots them all, two at a time.
pub fn is_kept(stage: &Stage) -> Result<()> {
    let mut begins = Wanderer::prepare(stage, "wanderer")?;
    let (first, other) = std::thread::scope(|scope| {
        let mut stranger = Wanderer::prepare(stage, "stranger")?;
        let other = scope.spawn(move || stranger.boot("s"));
        let first = begins.boot("abc");
        let other = other.join().map_err(|_| anyhow::anyhow!("a boot panicked"))?;
        anyhow::Ok((first?, other?))
    })?;
    ensure!(other != first, "a blank disk alone made it {other} again");

    let mut lines = Vec::new();
    for seed in SEEDS {
        let mut line = Wanderer::prepare(stage, &format!("wanderer-{seed}"))?;
        line.take_copies(&begins, "abc")?;
        line.take_copies(&Wanderer::prepare(stage, "stranger")?, "s")?;
        lines.push((line, orders(seed)));
    }
    let mut lines: Vec<Wanderer> = std::thread::scope(|scope| {
        let running: Vec<_> = lines
            .into_iter()
            .map(|(line, orders)| scope.spawn(|| goes_on(line, orders, &first)))
            .collect();
        let ended = running.into_iter().map(|line| line.join());
        ended
            .map(|line| line.map_err(|_| anyhow::anyhow!("a boot panicked"))?)
            .collect::<Result<_>>()
    })?;
    let line = lines.last_mut().context("no line")?;
    let still = line.boot("s")?;
    ensure!(
        still == other,
        "the stranger's disk was {other}, now it is {still}"
    );
    Ok(())
}

fn goes_on(mut line: Wanderer, orders: Vec<String>, first: &str) -> Result<Wanderer> {
    for order in orders {
        let now = line.boot(&order)?;
        ensure!(now == first, "with the disks {order} it is {now}, it was {first}");
    }
    Ok(line)
}

/// In which order which disks are put in: each time shuffled, every other time without one that is not blank; from the
/// second boot on with the stranger's now and then, who was switched on once.
fn orders(seed: u64) -> Vec<String> {
    let mut state = seed;
    // SplitMix64.
    let mut below = move |bound: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    };
    let mut known = vec!['a', 'b', 'c'];
    let mut orders = Vec::new();
    for boot in 0..BOOTS {
        let mut order = known.clone();
        if boot % 2 == 1 {
            order.remove(below(order.len()));
        }
        for (_, blank) in BLANK.iter().filter(|(when, _)| *when == boot) {
            order.push(*blank);
            known.push(*blank);
        }
        if boot % 3 == 1 {
            order.push(STRANGER);
        }
        for last in (1..order.len()).rev() {
            order.swap(last, below(last + 1));
        }
        orders.push(order.into_iter().collect());
    }
    println!("orders of seed {seed}: {orders:?}");
    orders
}

/// A machine, and the disks that lie beside it.
struct Wanderer {
    node: Node,
    disks: BTreeMap<char, PathBuf>,
}

impl Wanderer {
    /// With blank disks, where there are none yet.
    fn prepare(stage: &Stage, name: &str) -> Result<Self> {
        let mut settings = NodeSettings::new(name, "");
        settings.wallet = None;
        settings.disks = Vec::new();
        let mut node = Node::prepare(stage, settings)?;
        node.machine().network = false;
        let mut disks = BTreeMap::new();
        for disk in "abcdes".chars() {
            let path = node.dir().join(format!("{disk}.img"));
            Disk::ensure_blank(&path, SIZE)?;
            disks.insert(disk, path);
        }
        Ok(Self { node, disks })
    }

    fn disk(&self, disk: char) -> Result<&PathBuf> {
        self.disks.get(&disk).context("no such disk")
    }

    /// Disks of another that is switched off, as they are now.
    fn take_copies(&mut self, from: &Wanderer, disks: &str) -> Result<()> {
        for disk in disks.chars() {
            let (from, to) = (from.disk(disk)?, self.disk(disk)?);
            let mut copy = Command::new("cp");
            let done = copy.arg("--sparse=always").args([from, to]).status()?;
            ensure!(done.success(), "cp of {}: {done}", from.display());
        }
        Ok(())
    }

    /// Powers it on with these disks and returns the id that its screen shows; then the plug is pulled.
    fn boot(&mut self, order: &str) -> Result<String> {
        let mut disks = Vec::new();
        for disk in order.chars() {
            disks.push(Disk::new(self.disk(disk)?, &format!("WANDERER-{disk}")));
        }
        let machine = self.node.machine();
        machine.disks.truncate(1); // the medium it boots from
        machine.disks.append(&mut disks);
        let begun = Instant::now();
        let mut running = self.node.power_on()?;
        let line = running.wait_for(" · node ", stage::BOOT_WITHIN)?;
        let (_, rest) = line.text.split_once(" · node ").context("no id")?;
        let id = rest.split_whitespace().next().context("no id")?.to_owned();
        running.cut_power();
        println!("{order}: {id}, {:.1} s", begun.elapsed().as_secs_f64());
        Ok(id)
    }
}
