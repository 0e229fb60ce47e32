//! After a start of the agent: what the journal says against what the kernel has.
//!
//! ```text
//!   record     its processes live       nothing of it lives
//!   Building   undone, all              undone, all             never ready: the key is asked for again
//!   Built      adopted                  undone down to `mount`  Locked: the key is asked for again
//!   Ending     undone, all              undone, all
//!   (none)     ended: no record, so nobody was sold it
//! ```
//!
//! A snapshot that was half taken or half removed is removed; one that was being put back leaves the space locked.
//!
//! After a reboot the kernel has nothing, and the undo of what is not there is quick and changes nothing but the
//! records: then they say what is on the machine again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use host::names;
use market::id::{SaleId, UserId};

use super::keeper;
use super::network::NETWORK;
use super::provisioner::{Provisioner, Shared, UNLOCK_FROM, pid};
use super::record::{self, Phase, SpaceRecord};
use super::walls::WallsError;
use super::{EndError, SpaceSpec};
use crate::journal::JournalError;
use crate::step::{StepLog, StepState, TearDownError, chain};

/// What became of one space.
#[derive(Debug)]
pub struct Recovered {
    /// What was sold.
    pub spec: SpaceSpec,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a space was found, and what was made of that.
#[derive(Debug)]
pub enum Outcome {
    /// It runs and goes on.
    Running {
        /// The number of its PID 1 on the node.
        pid: Option<i32>,
    },
    /// Its volume is there and closed; [`Provisioner::unlock`] brings it back.
    Locked,
    /// It was half built; all of it is gone.
    Undone,
    /// It was ending; all of it is gone.
    Ended,
    /// Something could not be undone.
    Quarantined {
        /// Every cause, in one line.
        causes: String,
    },
}

/// Why nothing could be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal could not be read.
    #[error("the records of the spaces cannot be read")]
    Journal(#[from] JournalError),
    /// The firewall could not be set: no space may go on without it.
    #[error("the firewall")]
    Walls(#[from] WallsError),
}

impl Provisioner {
    /// Brings machine and journal together. Call it once, before anything else, with the volume groups active.
    pub fn recover(&self) -> BoxFuture<'_, Result<Vec<Recovered>, RecoverError>> {
        Box::pin(self.bring_together())
    }

    async fn bring_together(&self) -> Result<Vec<Recovered>, RecoverError> {
        let records = record::read_all(&self.shared.journal).await?;
        self.remove_strangers(&records).await;
        self.shared
            .walls
            .without(self.without_network(&records).await)
            .await;
        // The walls stand before anything else is looked at: what runs has been running without us.
        self.shared.walls.apply_all().await?;
        let mut tasks = Vec::new();
        for record in records {
            let shared = Arc::clone(&self.shared);
            tasks.push(tokio::spawn(async move {
                let _alone = shared.alone(record.spec.sale).await;
                let outcome = shared.recover_one(&record).await;
                if matches!(outcome, Outcome::Running { .. }) {
                    keeper::keep(&shared, record.spec.sale);
                }
                Recovered {
                    spec: record.spec,
                    outcome,
                }
            }));
        }
        let mut recovered = Vec::new();
        for task in tasks {
            match task.await {
                Ok(one) => recovered.push(one),
                Err(lost) => tracing::error!(%lost, "recovering a space was lost"),
            }
        }
        Ok(recovered)
    }

    /// Those whose network is undone or was never begun: a start must not make rules that nothing would take away.
    async fn without_network(&self, records: &[SpaceRecord]) -> Vec<SaleId> {
        let mut sales = Vec::new();
        for record in records {
            let sale = record.spec.sale;
            let steps = self.shared.journal.records(&sale).await;
            // What cannot be read may be there.
            let there = steps.map_or(true, |steps| {
                let network = steps.iter().find(|step| step.step == NETWORK);
                network.is_some_and(|step| step.state.may_be_there())
            });
            if !there {
                sales.push(sale);
            }
        }
        sales
    }

    /// Ends cgroups and namespaces of ours that no record explains: they belong to nobody.
    async fn remove_strangers(&self, records: &[SpaceRecord]) {
        let sales: Vec<SaleId> = records.iter().map(|record| record.spec.sale).collect();
        let users: Vec<UserId> = records.iter().map(|record| record.spec.user).collect();
        let cgroups: BTreeSet<_> = sales.iter().map(|sale| names::cgroup(sale.as_bytes())).collect();
        let mut namespaces: BTreeSet<_> = sales
            .iter()
            .map(|sale| names::space_netns(sale.as_bytes()))
            .collect();
        namespaces.extend(users.iter().map(|user| names::user_netns(user.as_bytes())));
        let removed = tokio::task::spawn_blocking(move || {
            for path in folder(Path::new(names::CGROUP_SPACES))
                .into_iter()
                .filter(|path| path.is_dir())
            {
                if !cgroups.contains(&path) {
                    tracing::warn!(path = %path.display(), "a cgroup without a record ends");
                    if let Err(error) = crate::limits::ensure_absent(&path) {
                        tracing::error!(cause = %chain(&error), "it does not");
                    }
                }
            }
            for path in folder(Path::new(names::RUN_NETNS)) {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                if !namespaces.contains(name) {
                    tracing::warn!(name, "a network namespace without a record ends");
                    if let Err(error) = host::netns::delete(name) {
                        tracing::error!(cause = %chain(&error), "it does not");
                    }
                }
            }
        });
        if let Err(lost) = removed.await {
            tracing::error!(%lost, "looking for what has no record was lost");
        }
    }
}

fn folder(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

impl Shared {
    async fn recover_one(&self, record: &SpaceRecord) -> Outcome {
        let sale = record.spec.sale;
        if record.phase == Phase::Built
            && let Err(error) = self.undo_half_snapshot(record).await
        {
            // The space is none the worse: it goes on, and an end tries again.
            tracing::error!(%sale, cause = %chain(&error), "what is left of a snapshot does not go");
        }
        match record.phase {
            Phase::Building => self.end_of(sale, Outcome::Undone).await,
            Phase::Ending => self.end_of(sale, Outcome::Ended).await,
            Phase::Built if !record.restoring && self.runs(&sale).await => {
                Outcome::Running { pid: pid(&sale) }
            }
            Phase::Built => {
                let context = self.context(record, None);
                match self
                    .table
                    .tear_down_to(&self.journal, &sale, &context, UNLOCK_FROM)
                    .await
                {
                    Ok(()) => Outcome::Locked,
                    Err(error) => Outcome::Quarantined {
                        causes: chain(&error),
                    },
                }
            }
        }
    }

    /// Whether every step is applied and processes live.
    async fn runs(&self, sale: &SaleId) -> bool {
        let applied = match self.journal.records(sale).await {
            Ok(records) => self.table.names().iter().all(|name| {
                records
                    .iter()
                    .any(|record| record.step == *name && record.state == StepState::Applied)
            }),
            Err(_) => false,
        };
        applied && pid(sale).is_some()
    }

    async fn end_of(&self, sale: SaleId, outcome: Outcome) -> Outcome {
        match self.end(sale).await {
            Ok(_) => outcome,
            Err(EndError::TearDown {
                source: error @ TearDownError::Quarantined(_),
                ..
            }) => Outcome::Quarantined {
                causes: chain(&error),
            },
            Err(error) => Outcome::Quarantined {
                causes: chain(&error),
            },
        }
    }
}
