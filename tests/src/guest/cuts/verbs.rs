//! What is done when power is lost, and what must be there when it is back.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use host::names;
use market::id::SaleId;
use provision::space::{Access, Provisioner};
use provision::step::fault::{trace, traced};
use provision::volume;

use super::ground::Ground;
use super::plan::{Passed, Point, Verb};
use super::{CLAIMED, claims};
use crate::provisioner::{bench::access, told};

/// Spaces whose users' files must outlive every cut: two that are unlocked, one that grows.
const KEPT: [SaleId; 3] = [SaleId([0xa0; 32]), SaleId([0xa1; 32]), GROWING];
const GROWING: SaleId = SaleId([0xd0; 32]);
const REHEARSED: SaleId = SaleId([0xc0; 32]);
const EXTENT: u64 = 4 << 20;

fn again() -> Access {
    Access {
        host_key_seed: None,
        ..access()
    }
}

/// Each verb once, without a fault.
pub async fn rehearse(ground: &Ground, provisioner: Provisioner) -> Result<(Vec<Passed>, Provisioner)> {
    trace();
    build(&provisioner, REHEARSED).await?;
    let built = traced();
    let provisioner = lock(ground, provisioner, &[REHEARSED]).await?;
    trace();
    provisioner.unlock(REHEARSED, again()).await.map_err(told)?;
    let unlocked = traced();
    trace();
    grow(ground, REHEARSED, Ground::spec(REHEARSED).disk.0 + EXTENT).await?;
    let grown = traced();
    trace();
    provisioner.end(REHEARSED).await?;
    let ended = traced();
    trace();
    claim()?;
    let claimed = traced();
    let passed = vec![
        (Verb::Build, built),
        (Verb::Unlock, unlocked),
        (Verb::Grow, grown),
        (Verb::End, ended),
        (Verb::Claim, claimed),
    ];
    Ok((passed, provisioner))
}

/// Claims the other disk to its end, wherever it was left, and makes it blank again.
pub fn claim() -> Result<()> {
    tokio::task::block_in_place(|| {
        let (state, _) = claims::complete(&[CLAIMED])?;
        claims::close(Some(state))?;
        claims::blank(CLAIMED)
    })
}

/// Builds the spaces that are kept, each with a file of its user, and locks them.
pub async fn settle(ground: &Ground, provisioner: Provisioner) -> Result<Provisioner> {
    for sale in KEPT {
        build(&provisioner, sale).await?;
        let mut file = File::create(mark(sale))?;
        file.write_all(b"the user's")?;
        file.sync_all()?;
    }
    lock(ground, provisioner, &KEPT).await
}

/// Begins the verb of a point, which is armed. Tasks of their own: none waits for another.
pub fn go(ground: &Ground, provisioner: &Provisioner, point: Point, grown: u64) {
    let (sale, provisioner) = (point.sale(), provisioner.clone());
    let (storage, group) = (ground.storage().clone(), ground.group());
    if point.verb == Verb::Claim {
        std::thread::spawn(move || say(&point, claims::complete(&[CLAIMED]).map(drop)));
        return;
    }
    tokio::spawn(async move {
        let work = async {
            match point.verb {
                Verb::Build => build(&provisioner, sale).await?,
                Verb::Unlock => drop(provisioner.unlock(sale, again()).await.map_err(told)?),
                Verb::End => {
                    build(&provisioner, sale).await?;
                    provisioner.end(sale).await?;
                }
                Verb::Grow | Verb::Claim => {
                    if provisioner.space_pid(&sale).is_none() {
                        provisioner.unlock(sale, again()).await.map_err(told)?;
                    }
                    volume::grow(&storage, &sale, group, grown + EXTENT, access().unlock_key).await?;
                }
            }
            Ok(())
        };
        say(&point, work.await);
    });
}

/// A verb that comes to its end was not stopped: the boot then says which point was never reached.
fn say(point: &Point, result: Result<()>) {
    println!("guest cuts: {point} was not stopped: {result:?}");
}

/// What was growing is grown to its end. What it has then.
pub async fn finish_growing(ground: &Ground, provisioner: &Provisioner, grown: u64) -> Result<u64> {
    provisioner.unlock(GROWING, again()).await.map_err(told)?;
    is_kept(GROWING)?;
    let before = size()?;
    grow(ground, GROWING, grown + EXTENT).await?;
    // A group of blocks that is added has tables of its own.
    let (least, after) = (volume::least_bytes(grown + EXTENT) - grown / 128, size()?);
    ensure!(
        after >= before && after >= least,
        "it has {after} bytes after it grew, {before} before, {least} are the least"
    );
    is_kept(GROWING)?;
    Ok(grown + EXTENT)
}

fn size() -> Result<u64> {
    let size = nix::sys::statvfs::statvfs(&names::volume_mount(GROWING.as_bytes()))?;
    Ok(size.blocks() * size.fragment_size())
}

/// The kept spaces open, with their files, and end.
pub async fn leave(provisioner: &Provisioner) -> Result<()> {
    for sale in KEPT {
        if provisioner.space_pid(&sale).is_none() {
            provisioner.unlock(sale, again()).await.map_err(told)?;
        }
        is_kept(sale)?;
        provisioner.end(sale).await?;
    }
    Ok(())
}

fn is_kept(sale: SaleId) -> Result<()> {
    let text = std::fs::read_to_string(mark(sale)).with_context(|| format!("the file of {sale}"))?;
    ensure!(text == "the user's", "the file of {sale} says {text:?}");
    Ok(())
}

fn mark(sale: SaleId) -> std::path::PathBuf {
    names::volume_mount(sale.as_bytes()).join("upper/root/mark")
}

async fn build(provisioner: &Provisioner, sale: SaleId) -> Result<()> {
    provisioner
        .build(Ground::spec(sale), access())
        .await
        .map_err(told)?;
    Ok(())
}

async fn grow(ground: &Ground, sale: SaleId, bytes: u64) -> Result<()> {
    let key = access().unlock_key;
    Ok(volume::grow(ground.storage(), &sale, ground.group(), bytes, key).await?)
}

/// All their processes die, when nobody is there to start them again; the next agent finds them locked.
async fn lock(ground: &Ground, provisioner: Provisioner, sales: &[SaleId]) -> Result<Provisioner> {
    drop(provisioner);
    for sale in sales {
        let cgroup = names::cgroup(sale.as_bytes());
        host::cgroup::kill(&cgroup)?;
        host::cgroup::wait_empty(&cgroup, Duration::from_secs(20))?;
    }
    let provisioner = ground.provisioner()?;
    provisioner.recover().await?;
    Ok(provisioner)
}
