//! A start may run ahead of what was sold, once and not far: what starts may be the user's own program.
//!
//! ```text
//! built ─► his own program in the place of the start ─► starts again ─► runs ahead by HEAD_START ─► what was sold
//!       ─► starts once more ─► what was sold, from the beginning
//!          the control: the limit off ─► all that there is
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::names;
use market::quantity::MilliCpus;
use provision::limits;
use provision::space::HEAD_START;

use super::bench::{Bench, access, spec};
use super::{FIRST, told};

/// What was sold.
const SOLD: MilliCpus = MilliCpus(100);
/// Two processors' worth, and never a word of SSH.
const BURN: &str = "#!/bin/sh\nwhile :; do :; done &\nwhile :; do :; done\n";
/// What a look that comes late may miss, on processors that are emulated.
const LATE: Duration = Duration::from_secs(2);

/// See the module.
pub async fn not_far(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let mut sold = spec(FIRST, 1);
    sold.cpu = SOLD;
    provisioner.build(sold, access()).await.map_err(told)?;
    burner()?;

    host::cgroup::kill(&group())?;
    reaches(HEAD_START / 2, Duration::MAX).await?;
    let ahead = settled().await?;
    println!("ran ahead by {ahead:.1?}");
    ensure!(ahead < HEAD_START + LATE, "it ran ahead by {ahead:?}");

    host::cgroup::kill(&group())?;
    // What was there before the end has used far more.
    reaches(Duration::from_millis(200), HEAD_START / 4).await?;
    let (begun, before) = (Instant::now(), limits::cpu_used(&group())?);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (took, used) = (begun.elapsed(), limits::cpu_used(&group())? - before);
    println!("started once more: {used:.1?} of CPU in {took:.1?}");
    ensure!(
        used < took.mul_f64(0.1) + Duration::from_secs(1),
        "{used:?} in {took:?}"
    );

    limits::set_cpu(&group(), None)?;
    let before = limits::cpu_used(&group())?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = limits::cpu_used(&group())? - before;
    ensure!(
        used > LATE,
        "without the limit it used {used:?}: nothing is shown"
    );
    provisioner.end(FIRST).await?;
    bench.nothing_left().await
}

/// What it has used when it uses no more than was sold.
async fn settled() -> Result<Duration> {
    let settled = async {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let mut before = Duration::ZERO;
        loop {
            look.tick().await;
            let now = limits::cpu_used(&group())?;
            if now < before + Duration::from_millis(400) {
                return Ok(now);
            }
            before = now;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled)
        .await
        .context("it uses all there is for ever")?
}

fn group() -> PathBuf {
    names::cgroup(FIRST.as_bytes())
}

/// Writes what the user's root would: it is what starts next.
fn burner() -> Result<()> {
    let folder = names::volume_mount(FIRST.as_bytes()).join("upper/usr/lib/steading");
    std::fs::create_dir_all(&folder)?;
    let start = folder.join("start");
    std::fs::write(&start, BURN)?;
    Ok(std::fs::set_permissions(
        &start,
        std::fs::Permissions::from_mode(0o755),
    )?)
}

/// Returns when the space has used so much since its start, and less than that.
async fn reaches(least: Duration, most: Duration) -> Result<()> {
    let reached = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            if limits::cpu_used(&group()).is_ok_and(|used| used >= least && used < most) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached)
        .await
        .with_context(|| format!("it never used {least:?}"))
}
