//! The one who runs spaces: prepare, build, unlock, end, look.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use host::names;
use market::id::SaleId;
use market::quantity::Bytes;
use storage::Storage;
use storage::luks::UnlockKey;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::context::{Access, Node, SpaceContext};
use super::error::{BuildError, EndError, Lost, NotKept, ProvisionerError, ResizeError, RestoreError};
use super::keeper;
use super::lines::Lines;
use super::record::{self, Phase, SpaceRecord};
use super::walls::{Walls, WallsError};
use super::{SpaceSpec, network::LimitsStep, network::NetworkStep, process::ProcessStep};
use crate::firewall::{Caps, Openings, Uplink};
use crate::journal::{Journal, JournalError};
use crate::limits::{self, Observed, ReadLimitsError};
use crate::network::{self, ConnectError, Paced};
use crate::step::{RunError, Step, StepTime, Table, TearDownError, in_words};
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
    /// What comes and goes while the space runs.
    pub(super) snapshots: Table<SpaceContext>,
    pub(super) walls: Arc<Walls>,
    lines: Lines,
    networks: Arc<Mutex<()>>,
    seccomp: Option<PathBuf>,
    /// What needs no key of these is made, by this process; their steps.
    prepared: StdMutex<HashMap<SaleId, Vec<StepTime>>>,
    /// The spaces that have a keeper.
    pub(super) kept: StdMutex<HashSet<SaleId>>,
    /// One at a time for each sale: an end waits until a build has come to one.
    busy: StdMutex<HashMap<SaleId, Arc<Mutex<()>>>>,
    /// Whose end waits: what takes long of theirs stops.
    pub(super) ending: Arc<StdMutex<HashSet<SaleId>>>,
    /// The first process of each space, as it was found last.
    firsts: StdMutex<HashMap<SaleId, i32>>,
}

/// A space that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The sale.
    pub sale: SaleId,
    /// The number of the space's PID 1 on the node.
    pub pid: Option<i32>,
    /// What its steps took.
    pub times: Vec<StepTime>,
    /// Whether its volume is as large as was sold: one that could not be grown is opened as it was.
    pub is_grown: bool,
}

/// A space of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The sale.
    pub sale: SaleId,
    /// Whether there was anything to undo; an end that is repeated finds nothing.
    pub was_there: bool,
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
            snapshots: Table::new(vec![Box::new(volume::SnapshotStep)])?,
            walls,
            lines: Lines::default(),
            networks: Arc::default(),
            seccomp,
            prepared: StdMutex::default(),
            kept: StdMutex::default(),
            busy: StdMutex::default(),
            ending: Arc::default(),
            firsts: StdMutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Replaces what is known of the node's uplinks and what the farmer opens, and the firewall's rules with it.
    pub async fn set_uplinks(&self, uplinks: Vec<Uplink>, openings: Openings) -> Result<(), WallsError> {
        self.shared.walls.set_uplinks(uplinks, openings).await
    }

    /// Replaces what the farmer allows of his line, and the firewall's rules with it.
    pub async fn set_caps(&self, caps: Caps) -> Result<(), WallsError> {
        self.shared.lines.set_caps(caps);
        self.shared.walls.set_caps(caps).await
    }

    /// Makes all of a space that needs no key: [`Provisioner::build`] then makes the rest, [`Provisioner::end`] undoes
    /// it. What fails is undone before this returns.
    ///
    /// Once begun it runs to its end, also when this future is dropped; so do the next three.
    pub fn prepare(&self, spec: SpaceSpec) -> BoxFuture<'static, Result<(), BuildError>> {
        self.alone(spec.sale, |shared| async move { shared.prepare(spec).await })
    }

    /// Builds a space; answers when its SSH server does. What fails is undone before this returns.
    pub fn build(&self, spec: SpaceSpec, access: Access) -> BoxFuture<'static, Result<Ready, BuildError>> {
        self.alone(
            spec.sale,
            |shared| async move { shared.build(spec, access).await },
        )
    }

    /// Brings a locked space back with the user's files: everything from the mount on. What fails is undone down to
    /// the volume, which stays. That its volume cannot be grown is no failure.
    pub fn unlock(&self, sale: SaleId, access: Access) -> BoxFuture<'static, Result<Ready, BuildError>> {
        self.alone(
            sale,
            move |shared| async move { shared.unlock(sale, access).await },
        )
    }

    /// Gives a running space the size that `spec` says: CPU and memory at once; its volume where the key is at hand.
    /// The size is in the journal before anything is done, and what is missing of it is made by the next call, or by
    /// the next [`Provisioner::unlock`]. Nothing is undone.
    pub fn resize(
        &self,
        spec: SpaceSpec,
        key: Option<UnlockKey>,
    ) -> BoxFuture<'static, Result<(), ResizeError>> {
        self.alone(spec.sale, |shared| async move { shared.resize(spec, key).await })
    }

    /// Makes the volume of a space what its snapshot is: what runs of it ends, and it is locked afterwards. What was begun
    /// is gone on with by the next call; until that came through, [`Provisioner::unlock`] refuses. The snapshot stays.
    /// Returns the bytes that were put back.
    pub fn restore(&self, sale: SaleId) -> BoxFuture<'static, Result<u64, RestoreError>> {
        self.alone(sale, move |shared| async move { shared.restore(sale).await })
    }

    /// Writes down the size that the next [`Provisioner::unlock`] is to make.
    pub async fn set_size(&self, spec: &SpaceSpec) -> Result<(), NotKept> {
        let sale = spec.sale;
        let written = record::set_size(&self.shared.journal, spec).await;
        written.map(drop).map_err(NotKept::about(sale))
    }

    /// Memory that the space could not give back now: what is charged to it, less what the kernel could reclaim.
    pub fn memory_in_use(&self, sale: &SaleId) -> Result<Bytes, ReadLimitsError> {
        limits::in_use(&names::cgroup(sale.as_bytes()))
    }

    /// Takes a space down to its volume, which is closed and stays: [`Provisioner::unlock`] brings it back. For one
    /// whose processes do not come back by themselves.
    pub fn lock(&self, sale: SaleId) -> BoxFuture<'static, Result<(), EndError>> {
        self.alone(sale, move |shared| async move { shared.lock(sale).await })
    }

    /// Says that [`Provisioner::end`] comes next: a snapshot that is being put back is not put back to its end, which may
    /// take hours.
    pub fn hurry(&self, sale: SaleId) {
        let mut ending = self.shared.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.insert(sale);
    }

    /// Takes a space down, whatever state it is in: its processes, its network, its volume's key, its volume. Ended
    /// already: fine.
    pub fn end(&self, sale: SaleId) -> BoxFuture<'static, Result<Ended, EndError>> {
        self.alone(sale, move |shared| async move { shared.end(sale).await })
    }

    /// Does `work` about a sale when nothing else is done about it, in a task of its own. Boxed: what a step does is
    /// compiled here, and not again in every crate that awaits it.
    fn alone<T, E, F>(
        &self,
        sale: SaleId,
        work: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<Lost> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send,
    {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let task = tokio::spawn(async move {
                let _alone = shared.alone(sale).await;
                work(Arc::clone(&shared)).await
            });
            task.await.map_err(|source| Lost { sale, source })?
        })
    }

    /// What the space uses now. Reads files of the kernel: short, but not for a worker with many to look at.
    pub fn observe(&self, sale: &SaleId) -> Result<Observed, ReadLimitsError> {
        limits::observe(&names::cgroup(sale.as_bytes()))
    }

    /// The number of the space's PID 1 on the node, while it runs.
    pub fn space_pid(&self, sale: &SaleId) -> Option<i32> {
        let firsts = || self.shared.firsts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = firsts().get(sale).copied();
        // It is asked often, and a thousand sleepers may stand before it in the list.
        if let Some(pid) = known
            && host::cgroup::is_first_process(&names::cgroup(sale.as_bytes()), pid)
        {
            return Some(pid);
        }
        let found = pid(sale);
        match found {
            Some(pid) => firsts().insert(*sale, pid),
            None => firsts().remove(sale),
        };
        found
    }

    /// Connects to what listens on `port` of the space's loopback. All such streams of a space together carry what was
    /// sold, all of all spaces what the farmer gives.
    pub async fn connect(&self, sale: &SaleId, port: u16) -> Result<Paced<TcpStream>, ConnectError> {
        let record = record::read(&self.shared.journal, *sale).await;
        let record = record.ok().flatten().ok_or(ConnectError::Unknown)?;
        let (user, rate) = (record.spec.user, record.spec.rate);
        let namespace = names::netns_path(&names::space_netns(sale.as_bytes()));
        let stream = network::connect(&namespace, port).await?;
        Ok(self.shared.lines.pace(stream, *sale, user, rate))
    }

    /// The names of a space's steps, in the order of the table.
    pub fn steps(&self) -> Vec<&'static str> {
        self.shared.table.names()
    }

    /// The names of the steps of a snapshot.
    pub fn snapshot_steps(&self) -> Vec<&'static str> {
        self.shared.snapshots.names()
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

    async fn prepare(&self, spec: SpaceSpec) -> Result<(), BuildError> {
        let sale = spec.sale;
        if self.prepared().contains_key(&sale) {
            return Ok(());
        }
        let record = record::admit(&self.journal, &spec).await?;
        let context = self.context(&record, None);
        match self.table.prepare(&self.journal, &sale, &context).await {
            Ok(times) => {
                tracing::info!(%sale, steps = in_words(&times), "prepared");
                self.prepared().insert(sale, times);
                Ok(())
            }
            Err(source) => Err(self.not_built(sale, source).await),
        }
    }

    async fn build(self: &Arc<Self>, spec: SpaceSpec, access: Access) -> Result<Ready, BuildError> {
        let sale = spec.sale;
        let record = record::admit(&self.journal, &spec).await?;
        let context = self.context(&record, Some(access));
        let made = self.prepared().remove(&sale).unwrap_or_default();
        let run = self.table.run_after(&self.journal, &sale, &context, &made).await;
        let times = match run {
            Ok(times) => times,
            Err(source) => return Err(self.not_built(sale, source).await),
        };
        let built = record::set_phase(&self.journal, sale, Phase::Built).await;
        built.map_err(NotKept::about(sale))?;
        Ok(self.ready(sale, times, true))
    }

    async fn unlock(self: &Arc<Self>, sale: SaleId, access: Access) -> Result<Ready, BuildError> {
        let record = record::read(&self.journal, sale).await;
        let record = record.map_err(NotKept::about(sale))?;
        let not_locked = |why| BuildError::NotLocked { sale, why };
        let record = record.ok_or_else(|| not_locked("nothing is known of it"))?;
        match record.phase {
            Phase::Building => return Err(not_locked("it has never been ready")),
            Phase::Ending => return Err(not_locked("it is ending")),
            Phase::Built if record.restoring => {
                return Err(not_locked("its snapshot is not put back to the end"));
            }
            Phase::Built => {}
        }
        let context = self.context(&record, Some(access));
        let run = self
            .table
            .run_from(&self.journal, &sale, &context, UNLOCK_FROM)
            .await;
        let times = run.map_err(|source| BuildError::Run { sale, source })?;
        let (group, disk) = (&record.spec.group.0, record.spec.disk.0);
        let is_grown = volume::is_grown(&self.storage, &sale, group, disk).await;
        // What is not known is asked again, with the next key.
        Ok(self.ready(sale, times, is_grown.unwrap_or(false)))
    }

    async fn resize(&self, spec: SpaceSpec, key: Option<UnlockKey>) -> Result<(), ResizeError> {
        let sale = spec.sale;
        let record = record::set_size(&self.journal, &spec).await;
        let record = record.map_err(NotKept::about(sale))?;
        let record = record.filter(|_| pid(&sale).is_some());
        let record = record.ok_or(ResizeError::NotRunning { sale })?;
        let steps: &[&str] = match key {
            Some(_) => &["limits", "mount"],
            None => &["limits"],
        };
        let access = key.map(|unlock_key| Access {
            unlock_key,
            host_key_seed: None,
            authorized_keys: Vec::new(),
        });
        let context = self.context(&record, access);
        let made = self.table.again(&sale, &context, steps).await;
        made.map_err(|source| ResizeError::Run { sale, source })?;
        self.snapshot_as_sold(&record).await
    }

    /// Every step is applied: from here on the space has a keeper.
    fn ready(self: &Arc<Self>, sale: SaleId, times: Vec<StepTime>, is_grown: bool) -> Ready {
        tracing::info!(%sale, steps = in_words(&times), "ready");
        keeper::keep(self, sale);
        Ready {
            sale,
            pid: pid(&sale),
            times,
            is_grown,
        }
    }

    /// A build failed: where all was undone, its record goes too.
    async fn not_built(&self, sale: SaleId, source: RunError) -> BuildError {
        if !matches!(source, RunError::Quarantined { .. })
            && let Err(error) = self.dismiss(sale).await
        {
            return NotKept::about(sale)(error).into();
        }
        BuildError::Run { sale, source }
    }

    fn prepared(&self) -> MutexGuard<'_, HashMap<SaleId, Vec<StepTime>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn end(&self, sale: SaleId) -> Result<Ended, EndError> {
        let ending = || self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending().remove(&sale);
        self.prepared().remove(&sale);
        let record = record::read(&self.journal, sale).await;
        let Some(record) = record.map_err(NotKept::about(sale))? else {
            return Ok(Ended {
                sale,
                was_there: false,
            });
        };
        let ending = record::set_phase(&self.journal, sale, Phase::Ending).await;
        ending.map_err(NotKept::about(sale))?;
        let context = self.context(&record, None);
        // The volume refuses to go before its snapshot; all else of the space goes, whatever becomes of that.
        let snapshot = self.snapshots.tear_down(&self.journal, &sale, &context).await;
        let undone = self.table.tear_down(&self.journal, &sale, &context).await;
        both(snapshot, undone).map_err(|source| EndError::TearDown { sale, source })?;
        self.dismiss(sale).await.map_err(NotKept::about(sale))?;
        Ok(Ended {
            sale,
            was_there: true,
        })
    }

    async fn lock(&self, sale: SaleId) -> Result<(), EndError> {
        let record = record::read(&self.journal, sale).await;
        let record = record.map_err(NotKept::about(sale))?;
        let Some(record) = record.filter(|record| record.phase == Phase::Built) else {
            return Ok(());
        };
        let context = self.context(&record, None);
        let down = self
            .table
            .tear_down_to(&self.journal, &sale, &context, UNLOCK_FROM)
            .await;
        down.map_err(|source| EndError::TearDown { sale, source })
    }

    /// Nothing of the space is left: neither is its record.
    async fn dismiss(&self, sale: SaleId) -> Result<(), JournalError> {
        record::dismiss(&self.journal, sale).await?;
        self.walls.forget(sale).await;
        Ok(())
    }
}

/// What both could not undo.
fn both(one: Result<(), TearDownError>, other: Result<(), TearDownError>) -> Result<(), TearDownError> {
    match (one, other) {
        (Err(TearDownError::Quarantined(mut one)), Err(TearDownError::Quarantined(other))) => {
            one.extend(other);
            Err(TearDownError::Quarantined(one))
        }
        (one, other) => one.and(other),
    }
}

/// The table of a space. What stands first is undone last.
fn steps() -> Vec<Box<dyn Step<SpaceContext>>> {
    vec![
        Box::new(volume::VolumeStep),
        Box::new(volume::KeyStep),
        Box::new(volume::MountStep),
        Box::new(files::FilesStep),
        Box::new(LimitsStep),
        Box::new(NetworkStep),
        Box::new(ProcessStep::default()),
    ]
}

/// The process of the space's cgroup that is PID 1 inside: the last of its numbers is 1.
pub(super) fn pid(sale: &SaleId) -> Option<i32> {
    host::cgroup::first_process(&names::cgroup(sale.as_bytes()))
}
