//! Keeps a space running: who reboots inside, or ends PID 1, finds the space back, without the user's key.
//!
//! ```text
//!   running ── the kernel says: no process left ──► still Built? ── no ──► the end: somebody took it down
//!      ▲                                                │ yes
//!      └── answers ◄── limits, network, process ◄───────┘ at once, then after 1, 2, 4 … 60 s
//!                      the volume stayed open     after 8 starts in a row that did not last: left as it is
//! ```
//!
//! What is left as it is, the agent locks ([`Provisioner::lock`](super::Provisioner::lock)): its user's key starts it anew.
//! The keeper holds no handle on the journal while it waits: it ends with the provisioner.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use host::cgroup::CgroupError;
use host::names;
use market::id::SaleId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::provisioner::{Shared, UNLOCK_FROM, pid};
use super::record::{self, Phase};
use crate::step::{StepLog, StepState, chain};

/// The first step that runs again when only the processes have ended.
const RESTART_FROM: &str = "limits";
/// A start that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(30);
/// So many starts in a row that did not last are enough.
const MOST_STARTS: u32 = 8;
/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a waiting thread looks whether anybody still wants to know.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Starts a keeper for a space that runs, unless it has one.
pub(super) fn keep(shared: &Arc<Shared>, sale: SaleId) {
    if !shared
        .kept
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(sale)
    {
        return;
    }
    let weak = Arc::downgrade(shared);
    tokio::spawn(async move {
        watch(&weak, sale).await;
        if let Some(shared) = weak.upgrade() {
            shared
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&sale);
        }
    });
}

async fn watch(shared: &Weak<Shared>, sale: SaleId) {
    let mut short_starts = 0;
    let mut since = Instant::now();
    loop {
        emptied(names::cgroup(sale.as_bytes())).await;
        if since.elapsed() > LASTED {
            short_starts = 0;
        }
        tokio::time::sleep(pause(short_starts)).await;
        let Some(shared) = shared.upgrade() else { return };
        let _alone = shared.alone(sale).await;
        let Ok(Some(record)) = record::read(&shared.journal, sale).await else {
            return;
        };
        let closed = !shared.is_applied(&sale, UNLOCK_FROM).await;
        let taken_down = short_starts == 0 && !shared.is_applied(&sale, "process").await;
        if record.phase != Phase::Built || closed || taken_down {
            return;
        }
        since = Instant::now();
        // Somebody else may have brought it back while this waited for its turn.
        if pid(&sale).is_some() {
            continue;
        }
        short_starts += 1;
        let context = shared.context(&record, None);
        let restarted = shared
            .table
            .run_from(&shared.journal, &sale, &context, RESTART_FROM)
            .await;
        match restarted {
            Ok(_) => tracing::warn!(%sale, "the space's processes had ended; it runs again"),
            Err(error) if short_starts < MOST_STARTS => {
                tracing::warn!(%sale, cause = %chain(&error), "the space does not start again yet");
            }
            Err(error) => {
                tracing::error!(%sale, cause = %chain(&error), "the space does not start again");
                return;
            }
        }
        if short_starts >= MOST_STARTS {
            tracing::error!(%sale, "the space ends as soon as it is started");
            return;
        }
    }
}

/// No pause before the first start, then 1, 2, 4 seconds and so on.
fn pause(short_starts: u32) -> Duration {
    match short_starts {
        0 => Duration::ZERO,
        starts => Duration::from_secs(1 << (starts - 1).min(6)).min(LONGEST_PAUSE),
    }
}

/// Returns when no process is left in the cgroup, or it is gone. The kernel's notice is waited for on a thread of its
/// own: there is one for each space that runs, and it sleeps.
async fn emptied(cgroup: PathBuf) {
    let (tell, told) = oneshot::channel();
    let waiter = std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            while !tell.is_closed() {
                match host::cgroup::wait_empty(&cgroup, LOOK_EVERY) {
                    Err(CgroupError::Populated { .. }) => {}
                    _ => {
                        let _ = tell.send(());
                        return;
                    }
                }
            }
        });
    if let Err(error) = waiter {
        tracing::error!(%error, "no thread to keep a space with");
        tokio::time::sleep(LOOK_EVERY).await;
        return;
    }
    let _ = told.await;
}

impl Shared {
    /// Whether the journal says that this step is applied.
    async fn is_applied(&self, sale: &SaleId, step: &str) -> bool {
        let records = self.journal.records(sale).await.unwrap_or_default();
        records
            .iter()
            .any(|record| record.step == step && record.state == StepState::Applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds: Vec<u64> = (0..=9).map(|starts| pause(starts).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
