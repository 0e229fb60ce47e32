//! The step `process`: the space's PID 1, and sshd's first words as the proof that a login would find it.

use std::io;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use host::cgroup::CgroupError;
use host::isolate::{self, IsolateError, SpaceStart};
use host::names;
use market::id::SaleId;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::SpaceContext;
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
/// What every SSH server of version 2 says first (RFC 4253, section 4.2).
const BANNER: &[u8] = b"SSH-2.0-";
/// Where a login knocks.
pub(super) const SSH_PORT: u16 = 22;

/// Why the space does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
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
pub(super) struct ProcessStep;

#[async_trait]
impl Step<SpaceContext> for ProcessStep {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn ensure(&self, sale: &SaleId, context: &SpaceContext) -> Result<(), Cause> {
        let cgroup = names::cgroup(sale.as_bytes());
        if !host::cgroup::is_populated(&cgroup)? {
            let start = SpaceStart {
                base: context.base.clone(),
                base_digest: context.spec.base.to_string(),
                volume: names::volume_mount(sale.as_bytes()),
                first_id: context.place.first_id,
                netns: names::netns_path(&names::space_netns(sale.as_bytes())),
                cgroup: cgroup.clone(),
                hostname: context.spec.name.clone(),
                argv: isolate::default_argv(),
                seccomp: context.seccomp.clone(),
            };
            limits::set_cpu(&cgroup, None)?;
            let started = tokio::task::spawn_blocking(move || isolate::start(&start, START_WITHIN)).await?;
            started.map_err(ProcessError::Start)?;
        }
        banner(sale).await?;
        // What is not `Applied` is undone or started anew: no space goes on with more than was sold.
        Ok(limits::set_cpu(&cgroup, Some(context.spec.cpu))?)
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
