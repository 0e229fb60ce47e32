//! Five hundred requests are dropped, each at a step that chance takes: what is free is what was free at boot, in the
//! book and on the machine.
//!
//! ```text
//!   offered ─► agreed ─► funded ─► prepared ─► built
//!      │ lapse    │ lapse   │ released   │ ended, or the agent starts again
//!      └──────────┴─────────┴────────────┴─ a step fails; nobody waits any more, and it ends
//! ```
//!
//! Book and provisioner are the node's own; time is an argument of the book. What touches the kernel costs seconds, so
//! that most are dropped before it. The seed is told; `seed=N` on the kernel's command line takes it again.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use anyhow::{Result, ensure};
use market::book::{AGREED_MS, Asker, Book, Capacity};
use market::id::{EndpointId, GroupId, RequestHash, SaleId};
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};
use provision::space::{Outcome, Provisioner, SpaceSpec};
use provision::step::fault::{Side, Way, What, arm, disarm};

use super::bench::{Bench, GROUP, access, spec};
use super::faults::point;
use crate::word;

const REQUESTS: u16 = 500;
const USERS: u8 = 7;
const DISK: Bytes = Bytes(64 << 20);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dropped {
    Offered,
    Agreed,
    Funded,
    Prepared,
    Restarted,
    Failed,
    Forgotten,
}

/// Of a hundred, those before this one.
const SHARES: [(Dropped, u64); 7] = [
    (Dropped::Offered, 45),
    (Dropped::Agreed, 80),
    (Dropped::Funded, 95),
    (Dropped::Prepared, 96),
    (Dropped::Restarted, 97),
    (Dropped::Failed, 99),
    (Dropped::Forgotten, 100),
];

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

fn wanted(number: u16) -> SpaceSpec {
    let mut sale = [0x5a; 32];
    sale[..2].copy_from_slice(&number.to_be_bytes());
    SpaceSpec {
        disk: DISK,
        memory: Bytes(128 << 20),
        ..spec(SaleId(sale), 1 + (number % u16::from(USERS)) as u8)
    }
}

/// See the module.
pub async fn at_random_steps(mut bench: Bench) -> Result<()> {
    let start = Instant::now();
    let seed = match word("seed") {
        Some(seed) => seed.parse()?,
        None => RandomState::new().hash_one("dropped"),
    };
    println!("seed={seed}");
    let mut chance = Chance(seed);
    let mut provisioner = bench.provisioner().await?;
    let (free, steps) = (bench.free()?, provisioner.steps());
    let capacity = Capacity {
        cpu: MilliCpus(8000),
        memory: Bytes(2 << 30),
        rate: BitsPerSecond(1_000_000_000),
        pids: 4000,
        spaces: 16,
        disks: BTreeMap::from([(GroupId(GROUP.to_owned()), Bytes(free))]),
        a_volume: Bytes(provision::volume::BESIDE_BYTES),
    };
    let mut book = Book::new(capacity.clone());
    let (mut now_ms, mut counts) = (0, BTreeMap::<Dropped, u32>::new());
    let mut refused = 0;
    for number in 0..REQUESTS {
        now_ms += chance.below(3000);
        let spec = wanted(number);
        let sale = spec.sale;
        let percent = chance.below(100);
        let dropped = SHARES.iter().find(|(_, below)| percent < *below);
        let dropped = dropped.map_or(Dropped::Forgotten, |(dropped, _)| *dropped);
        let request = RequestHash(sale.0);
        let asker = Asker {
            user: spec.user,
            neighbour: EndpointId([1 + (number % 3) as u8; 32]),
        };
        if book.offer(request, asker, spec.gives(), now_ms).is_err() {
            refused += 1;
            continue;
        }
        *counts.entry(dropped).or_default() += 1;
        if dropped == Dropped::Offered || book.agree(request, sale, now_ms).is_err() {
            continue;
        }
        if dropped == Dropped::Agreed || book.fund(sale, now_ms).is_err() {
            continue;
        }
        match dropped {
            Dropped::Offered | Dropped::Agreed | Dropped::Funded => {}
            Dropped::Prepared => {
                provisioner.prepare(spec).await?;
                provisioner.end(sale).await?;
            }
            Dropped::Restarted => {
                provisioner.prepare(spec).await?;
                provisioner = again(&mut bench, provisioner).await?;
            }
            Dropped::Failed => {
                let step = steps[chance.below(steps.len() as u64) as usize];
                let side = Side::ALL[chance.below(Side::ALL.len() as u64) as usize];
                arm(&[point(Way::Do, step, side, What::Fail)]);
                let built = provisioner.build(spec, access()).await;
                ensure!(
                    disarm().is_empty() && built.is_err(),
                    "{step} {side:?}: {built:?}"
                );
            }
            Dropped::Forgotten => {
                let build = provisioner.build(spec, access());
                let waited = std::time::Duration::from_millis(chance.below(2000));
                // Nobody waits any more; the build runs on, and the end waits for it.
                let _ = tokio::time::timeout(waited, build).await;
                provisioner.end(sale).await?;
            }
        }
        book.release(sale);
    }
    ensure!(
        book.free() != capacity,
        "nothing was held at the end: the book tells nothing"
    );
    book.lapse(now_ms + AGREED_MS);
    ensure!(
        book.free() == capacity,
        "{:?} is free, {capacity:?} at boot",
        book.free()
    );
    ensure!(
        bench.free()? == free,
        "{} bytes free, {free} at boot",
        bench.free()?
    );
    bench.agrees(&provisioner).await?;
    bench.nothing_left().await?;
    let journal = bench.journal()?;
    let numbers = journal.write(|entry| {
        let (users, ranges) = (entry.taken("user-index").all()?, entry.taken("id-range").all()?);
        Ok(users.len() + ranges.len())
    });
    ensure!(numbers.await? == 0, "numbers are still taken");
    println!(
        "{counts:?}, {refused} refused as more than there is; {} s",
        start.elapsed().as_secs()
    );
    Ok(())
}

/// The agent starts again before the key came: what was prepared goes.
async fn again(bench: &mut Bench, provisioner: Provisioner) -> Result<Provisioner> {
    drop(provisioner);
    bench.journal_again()?;
    let provisioner = bench.unrecovered()?;
    let found = provisioner.recover().await?;
    ensure!(
        matches!(&found[..], [one] if matches!(one.outcome, Outcome::Undone)),
        "{found:?}"
    );
    Ok(provisioner)
}
