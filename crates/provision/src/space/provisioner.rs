//! The one who runs spaces: build, unlock, end, look.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use host::names;
use market::id::SaleId;
use storage::Storage;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::context::{Access, Node, SpaceContext};
use super::keeper;
use super::record::{self, AdmitError, Phase, SpaceRecord};
use super::walls::{Walls, WallsError};
use super::{SpaceSpec, network::LimitsStep, network::NetworkStep, process::ProcessStep};
use crate::firewall::{Openings, Uplink};
use crate::journal::{Journal, JournalError};
use crate::limits::{self, Observed, ReadLimitsError};
use crate::network::{self, ConnectError};
use crate::step::{RunError, Step, Table, TableError, TearDownError};
use crate::{files, volume};

/// The first step that runs again when a volume is unlocked.
pub(super) const UNLOCK_FROM: &str = "mount";

/// Runs the spaces of this node. Clones are the same one.
#[derive(Clone)]
pub struct Provisioner {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) storage: Storage,
    pub(super) table: Table<SpaceContext>,
    pub(super) walls: Arc<Walls>,
    networks: Arc<Mutex<()>>,
    seccomp: Option<PathBuf>,
    /// The spaces that have a keeper.
    pub(super) kept: StdMutex<HashSet<SaleId>>,
    /// One at a time for each sale: an end waits until a build has come to one.
    busy: StdMutex<HashMap<SaleId, Arc<Mutex<()>>>>,
}

/// Why there is no provisioner.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    /// The table of steps is wrong: a defect.
    #[error("the table of steps is wrong")]
    Table(#[from] TableError),
}

/// A space that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The sale.
    pub sale: SaleId,
    /// The number of the space's PID 1 on the node.
    pub pid: Option<i32>,
}

/// A space of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The sale.
    pub sale: SaleId,
    /// Whether there was anything to undo; an end that is repeated finds nothing.
    pub was_there: bool,
}

/// Why a space was not built or not unlocked.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It has no place here.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// There is none that could be unlocked.
    #[error("there is no space {sale} that could be unlocked: {why}")]
    NotLocked {
        /// The sale.
        sale: SaleId,
        /// What it is instead.
        why: &'static str,
    },
    /// A step failed. Whether all was undone, the source says.
    #[error("space {sale} could not be built")]
    Run {
        /// The sale.
        sale: SaleId,
        /// Which step, why, and whether all was undone.
        #[source]
        source: RunError,
    },
    /// The journal failed; the space is taken down again when the agent starts next.
    #[error("space {sale}: the journal")]
    Journal {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: JournalError,
    },
    /// The task was lost: a defect.
    #[error("space {sale}: the work on it was lost")]
    Lost {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl BuildError {
    /// Whether something is left on the machine that could not be undone: the space is quarantined.
    pub fn is_quarantined(&self) -> bool {
        matches!(
            self,
            Self::Run {
                source: RunError::Quarantined { .. },
                ..
            }
        )
    }
}

/// Why a space has not ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// Something could not be undone: the space is quarantined.
    #[error("space {sale} could not be taken down")]
    TearDown {
        /// The sale.
        sale: SaleId,
        /// Which steps, and why.
        #[source]
        source: TearDownError,
    },
    /// The journal failed.
    #[error("space {sale}: the journal")]
    Journal {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: JournalError,
    },
    /// The task was lost: a defect.
    #[error("space {sale}: the work on it was lost")]
    Lost {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl Provisioner {
    /// Over this journal and this storage; `seccomp` is the image's own filter, where it has one. Nothing is changed
    /// yet: [`Provisioner::recover`] is the first thing to call.
    pub fn new(
        journal: Journal,
        storage: Storage,
        seccomp: Option<PathBuf>,
    ) -> Result<Self, ProvisionerError> {
        let walls = Arc::new(Walls::new(journal.clone()));
        let shared = Shared {
            journal,
            storage,
            table: Table::new(steps())?,
            walls,
            networks: Arc::default(),
            seccomp,
            kept: StdMutex::default(),
            busy: StdMutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Replaces what is known of the node's uplinks and what the farmer opens, and the firewall's rules with it.
    pub async fn set_uplinks(&self, uplinks: Vec<Uplink>, openings: Openings) -> Result<(), WallsError> {
        self.shared.walls.set_uplinks(uplinks, openings).await
    }

    /// Builds a space; answers when its SSH server does. What fails is undone before this returns.
    ///
    /// Once begun it runs to its end, also when this future is dropped.
    pub async fn build(&self, spec: SpaceSpec, access: Access) -> Result<Ready, BuildError> {
        let (sale, shared) = (spec.sale, Arc::clone(&self.shared));
        let work = async move {
            let _alone = shared.alone(sale).await;
            let record = record::admit(&shared.journal, &spec).await?;
            let context = shared.context(&record, Some(access));
            if let Err(source) = shared.table.run(&shared.journal, &sale, &context).await {
                if !matches!(source, RunError::Quarantined { .. }) {
                    shared
                        .dismiss(sale)
                        .await
                        .map_err(|source| BuildError::Journal { sale, source })?;
                }
                return Err(BuildError::Run { sale, source });
            }
            let built = record::set_phase(&shared.journal, sale, Phase::Built).await;
            built.map_err(|source| BuildError::Journal { sale, source })?;
            keeper::keep(&shared, sale);
            Ok(Ready {
                sale,
                pid: pid(&sale),
            })
        };
        tokio::spawn(work)
            .await
            .map_err(|source| BuildError::Lost { sale, source })?
    }

    /// Brings a locked space back with the user's files: everything from the mount on. What fails is undone down to
    /// the volume, which stays.
    pub async fn unlock(&self, sale: SaleId, access: Access) -> Result<Ready, BuildError> {
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let _alone = shared.alone(sale).await;
            let record = record::read(&shared.journal, sale).await;
            let record = record.map_err(|source| BuildError::Journal { sale, source })?;
            let why = match &record {
                None => Some("nothing is known of it"),
                Some(SpaceRecord {
                    phase: Phase::Building,
                    ..
                }) => Some("it has never been ready"),
                Some(SpaceRecord {
                    phase: Phase::Ending, ..
                }) => Some("it is ending"),
                Some(SpaceRecord {
                    phase: Phase::Built, ..
                }) => None,
            };
            let record = match (record, why) {
                (Some(record), None) => record,
                (_, why) => {
                    return Err(BuildError::NotLocked {
                        sale,
                        why: why.unwrap_or_default(),
                    });
                }
            };
            let context = shared.context(&record, Some(access));
            let run = shared
                .table
                .run_from(&shared.journal, &sale, &context, UNLOCK_FROM)
                .await;
            run.map_err(|source| BuildError::Run { sale, source })?;
            keeper::keep(&shared, sale);
            Ok(Ready {
                sale,
                pid: pid(&sale),
            })
        };
        tokio::spawn(work)
            .await
            .map_err(|source| BuildError::Lost { sale, source })?
    }

    /// Takes a space down, whatever state it is in: its processes, its network, its volume's key, its volume. Ended
    /// already: fine.
    pub async fn end(&self, sale: SaleId) -> Result<Ended, EndError> {
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let _alone = shared.alone(sale).await;
            shared.end(sale).await
        };
        tokio::spawn(work)
            .await
            .map_err(|source| EndError::Lost { sale, source })?
    }

    /// What the space uses now. Reads files of the kernel: short, but not for a worker with many to look at.
    pub fn observe(&self, sale: &SaleId) -> Result<Observed, ReadLimitsError> {
        limits::observe(&names::cgroup(sale.as_bytes()))
    }

    /// The number of the space's PID 1 on the node, while it runs.
    pub fn space_pid(&self, sale: &SaleId) -> Option<i32> {
        pid(sale)
    }

    /// Connects to what listens on `port` of the space's loopback.
    pub async fn connect(&self, sale: &SaleId, port: u16) -> Result<TcpStream, ConnectError> {
        network::connect(&names::netns_path(&names::space_netns(sale.as_bytes())), port).await
    }

    /// Every space that has a record here.
    pub async fn records(&self) -> Result<Vec<SpaceRecord>, JournalError> {
        record::read_all(&self.shared.journal).await
    }
}

impl Shared {
    pub(super) async fn alone(&self, sale: SaleId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|other, lock| *other == sale || Arc::strong_count(lock) > 1);
            Arc::clone(busy.entry(sale).or_default())
        };
        lock.lock_owned().await
    }

    pub(super) fn context(&self, record: &SpaceRecord, access: Option<Access>) -> SpaceContext {
        let (spec, place) = (record.spec.clone(), record.place);
        let node = Node {
            storage: self.storage.clone(),
            base: names::lvm_device(&spec.group.0, &names::base_volume(spec.base.as_bytes())),
            seccomp: self.seccomp.clone(),
            walls: Arc::clone(&self.walls),
            networks: Arc::clone(&self.networks),
        };
        SpaceContext::new(spec, place, node, access)
    }

    pub(super) async fn end(&self, sale: SaleId) -> Result<Ended, EndError> {
        let journal = |source| EndError::Journal { sale, source };
        let Some(record) = record::read(&self.journal, sale).await.map_err(journal)? else {
            return Ok(Ended {
                sale,
                was_there: false,
            });
        };
        record::set_phase(&self.journal, sale, Phase::Ending)
            .await
            .map_err(journal)?;
        let context = self.context(&record, None);
        let undone = self.table.tear_down(&self.journal, &sale, &context).await;
        undone.map_err(|source| EndError::TearDown { sale, source })?;
        self.dismiss(sale).await.map_err(journal)?;
        Ok(Ended {
            sale,
            was_there: true,
        })
    }

    /// Nothing of the space is left: neither is its record.
    async fn dismiss(&self, sale: SaleId) -> Result<(), JournalError> {
        record::dismiss(&self.journal, sale).await?;
        self.walls.forget(sale).await;
        Ok(())
    }
}

/// The table of a space. What stands first is undone last.
fn steps() -> Vec<Box<dyn Step<SpaceContext>>> {
    vec![
        Box::new(volume::VolumeStep),
        Box::new(volume::MountStep),
        Box::new(files::FilesStep),
        Box::new(LimitsStep),
        Box::new(NetworkStep),
        Box::new(ProcessStep),
    ]
}

/// The process of the space's cgroup that is PID 1 inside: the last of its numbers is 1.
pub(super) fn pid(sale: &SaleId) -> Option<i32> {
    let is_first = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        // One that a space started in a namespace below its own has two more numbers than one, not one more.
        numbers.is_some_and(|numbers| {
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            numbers.len() == 2 && numbers.last() == Some(&"1")
        })
    };
    host::cgroup::processes(&names::cgroup(sale.as_bytes()))
        .into_iter()
        .find(is_first)
}
