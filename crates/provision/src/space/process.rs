//! The step `process`: the space's PID 1, and sshd's first words as the proof that a login would find it.
//!
//! ```text
//!   start ──► all CPUs ──┬─ sshd speaks ──────────► what was sold; what is left of the head start is kept
//!                        └─ the head start is used ► what was sold, until sshd speaks
//! ```
//!
//! A first login should not wait four times as long because a quarter of a CPU was bought. But what starts may be the
//! user's own program, which ends as often as he likes: so a head start is CPU time, HEAD_START at most, and comes back
//! as slowly as nobody gains by it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use host::cgroup::CgroupError;
use host::isolate::{self, IsolateError, SpaceStart};
use host::names;
use market::id::SaleId;
use market::quantity::MilliCpus;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::SpaceContext;
use crate::base::{self, BaseError};
use crate::step::{Cause, Step};
use crate::{limits, network};

/// How long the helper may take: namespaces, mounts, the first program.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long sshd may take to say its first words: seconds on a busy machine without virtualisation.
const BANNER_WITHIN: Duration = Duration::from_secs(60);
/// How often a port that refuses is tried again: the kernel tells nobody that a port has begun to listen. To read it
/// off /proc/net/tcp costs more than a try, and trying more often slows the very start that it waits for.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// How long one try may wait for the first words.
const WORDS_WITHIN: Duration = Duration::from_secs(10);
/// How long killed processes may take before it is asked what they wait for.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How long killed processes may take to be gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(30);
/// CPU time that a space's starts may use beyond what was sold: ten times what one takes under emulation.
pub const HEAD_START: Duration = Duration::from_secs(20);
/// It comes back by one second in so many.
const COMES_BACK: u32 = 200;
/// How often it is looked at what a start has used.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What every SSH server of version 2 says first (RFC 4253, section 4.2).
const BANNER: &[u8] = b"SSH-2.0-";
/// Where a login knocks.
pub(super) const SSH_PORT: u16 = 22;

/// Why the space does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The base could not be opened.
    #[error("the base below the space")]
    Base(#[source] BaseError),
    /// The helper failed.
    #[error("the space's first process could not be started")]
    Start(#[source] IsolateError),
    /// Its processes ended before sshd spoke.
    #[error("the space's processes ended before its SSH server answered")]
    Ended,
    /// It runs, and sshd says nothing.
    #[error("the space's SSH server did not answer within {} s", BANNER_WITHIN.as_secs())]
    Silent(#[source] io::Error),
    /// The cgroup could not be looked at or emptied.
    #[error("the space's processes")]
    Cgroup(#[from] CgroupError),
}

/// The space's processes.
#[derive(Default)]
pub(super) struct ProcessStep {
    /// Whose head start is not whole: what was left of it, and when.
    left: Mutex<BTreeMap<SaleId, (Duration, Instant)>>,
}

impl ProcessStep {
    /// Takes all of a space's head start that there is.
    fn take(&self, sale: &SaleId) -> Duration {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |(left, since): (Duration, Instant)| left + since.elapsed() / COMES_BACK;
        left.retain(|_, known| now(*known) < HEAD_START);
        let known = left.insert(*sale, (Duration::ZERO, Instant::now()));
        known.map_or(HEAD_START, now)
    }

    /// What a start did not use of it.
    fn give_back(&self, sale: &SaleId, unused: Duration) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert(*sale, (unused, Instant::now()));
    }
}

#[async_trait]
impl Step<SpaceContext> for ProcessStep {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn ensure(&self, sale: &SaleId, context: &SpaceContext) -> Result<(), Cause> {
        let cgroup = names::cgroup(sale.as_bytes());
        // What is not `Applied` is undone or started anew: no space goes on with more than was sold.
        if host::cgroup::is_populated(&cgroup)? {
            limits::set_cpu(&cgroup, Some(context.spec.cpu))?;
            return Ok(banner(sale).await?);
        }
        let start = async {
            let (storage, group, digest) = (
                context.storage.clone(),
                context.spec.group.0.clone(),
                context.spec.base,
            );
            let checked = move || base::device(&storage, &group, &digest);
            let start = SpaceStart {
                base: tokio::task::spawn_blocking(checked)
                    .await?
                    .map_err(ProcessError::Base)?,
                base_digest: context.spec.base.to_string(),
                volume: names::volume_mount(sale.as_bytes()),
                first_id: context.place.first_id,
                netns: names::netns_path(&names::space_netns(sale.as_bytes())),
                cgroup: cgroup.clone(),
                hostname: context.spec.name.clone(),
                argv: isolate::default_argv(),
                seccomp: context.seccomp.clone(),
            };
            let started = tokio::task::spawn_blocking(move || isolate::start(&start, START_WITHIN)).await?;
            started.map_err(ProcessError::Start)?;
            Ok(banner(sale).await?)
        };
        let most = self.take(sale);
        let done = ahead(&cgroup, context.spec.cpu, most, start).await;
        let used = limits::cpu_used(&cgroup).unwrap_or(most);
        self.give_back(sale, most.saturating_sub(used));
        done
    }

    async fn ensure_absent(&self, sale: &SaleId, _: &SpaceContext) -> Result<(), Cause> {
        let cgroup = names::cgroup(sale.as_bytes());
        let ended = tokio::task::spawn_blocking(move || {
            host::cgroup::kill(&cgroup)?;
            if host::cgroup::wait_empty(&cgroup, GONE_WITHIN).is_ok() {
                return Ok(());
            }
            // What does not die waits in the kernel for an answer, mostly of a file system that one of them served.
            let stuck = host::cgroup::processes(&cgroup);
            let aborted = host::fuse::abort(&stuck, Path::new(names::RUN_READINGS));
            tracing::info!(%aborted, left = stuck.len(), "file systems of a space that does not end are aborted");
            host::cgroup::wait_empty(&cgroup, EMPTY_WITHIN)
        });
        Ok(ended.await??)
    }
}

/// A start with all CPUs, until it has used what it may; then, and whatever comes of it, with what was sold.
async fn ahead(
    cgroup: &Path,
    sold: MilliCpus,
    most: Duration,
    start: impl Future<Output = Result<(), Cause>>,
) -> Result<(), Cause> {
    let first = (most < LOOK_EVERY).then_some(sold);
    limits::set_cpu(cgroup, first)?;
    let used_up = async {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if limits::cpu_used(cgroup).is_ok_and(|used| used < most) {
                continue;
            }
            return limits::set_cpu(cgroup, Some(sold));
        }
    };
    let mut start = std::pin::pin!(start);
    let done = tokio::select! {
        done = &mut start => done,
        limited = used_up => match limited {
            Ok(()) => start.await,
            Err(error) => Err(error.into()),
        },
    };
    let limited = limits::set_cpu(cgroup, Some(sold));
    done.and(limited.map_err(Cause::from))
}

/// Returns when sshd inside has said its first words.
async fn banner(sale: &SaleId) -> Result<(), ProcessError> {
    let cgroup = names::cgroup(sale.as_bytes());
    let deadline = Instant::now() + BANNER_WITHIN;
    let mut ticks = interval(TRY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    while timeout_at(deadline, ticks.tick()).await.is_ok() {
        match words(sale).await {
            Ok(words) if words.starts_with(BANNER) => return Ok(()),
            Ok(words) => last = io::Error::other(format!("it said {:?}", String::from_utf8_lossy(&words))),
            Err(error) => last = error,
        }
        if !host::cgroup::is_populated(&cgroup)? {
            return Err(ProcessError::Ended);
        }
    }
    Err(ProcessError::Silent(last))
}

/// As much as is needed of what the server says first.
async fn words(sale: &SaleId) -> io::Result<Vec<u8>> {
    let namespace = names::netns_path(&names::space_netns(sale.as_bytes()));
    let mut stream = network::connect(&namespace, SSH_PORT)
        .await
        .map_err(io::Error::other)?;
    let mut words = vec![0; BANNER.len()];
    timeout(WORDS_WITHIN, stream.read_exact(&mut words)).await??;
    Ok(words)
}
