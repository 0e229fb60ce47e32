//! A space's snapshot: as was sold, and put back.

use std::sync::{Arc, PoisonError};

use market::id::SaleId;
use market::quantity::Bytes;

use super::error::{NotKept, ResizeError, RestoreError};
use super::provisioner::{Shared, UNLOCK_FROM};
use super::record::{self, Phase, SpaceRecord};
use crate::step::{StepLog, StepState, TearDownError};
use crate::volume::{self, SNAPSHOT};

impl Shared {
    /// What the journal says of the snapshot.
    async fn snapshot_state(&self, sale: &SaleId) -> Option<StepState> {
        let records = self.journal.records(sale).await.unwrap_or_default();
        let found = records.into_iter().find(|record| record.step == SNAPSHOT);
        found.map(|record| record.state)
    }

    /// Takes the snapshot where one is sold, removes it where none is any more.
    pub(super) async fn snapshot_as_sold(&self, record: &SpaceRecord) -> Result<(), ResizeError> {
        let sale = record.spec.sale;
        let state = self.snapshot_state(&sale).await;
        let (is_there, may_be_there) = match &state {
            Some(state) => (*state == StepState::Applied, state.may_be_there()),
            None => (false, false),
        };
        let context = self.context(record, None);
        let is_sold = record.spec.snapshot != Bytes::ZERO;
        if is_sold && is_there {
            return Ok(());
        }
        // One that was half removed has no header any more: put back, it would take the volume's, its only one.
        if may_be_there {
            let removed = self.snapshots.tear_down(&self.journal, &sale, &context).await;
            removed.map_err(|source| ResizeError::Snapshot { sale, source })?;
        }
        if is_sold {
            let taken = self.snapshots.run(&self.journal, &sale, &context).await;
            taken.map_err(|source| ResizeError::Run { sale, source })?;
        }
        Ok(())
    }

    /// After a start: a snapshot that was half taken or half removed goes; whoever sold it has it taken again.
    pub(super) async fn undo_half_snapshot(&self, record: &SpaceRecord) -> Result<(), TearDownError> {
        let sale = record.spec.sale;
        match self.snapshot_state(&sale).await {
            None | Some(StepState::Applied | StepState::Undone) => Ok(()),
            Some(StepState::Intended | StepState::Undoing | StepState::UndoFailed { .. }) => {
                let context = self.context(record, None);
                self.snapshots.tear_down(&self.journal, &sale, &context).await
            }
        }
    }

    pub(super) async fn restore(&self, sale: SaleId) -> Result<u64, RestoreError> {
        let nothing = |why| RestoreError::Nothing { sale, why };
        let record = record::read(&self.journal, sale).await;
        let record = record.map_err(NotKept::about(sale))?;
        let record = record.ok_or_else(|| nothing("nothing is known of it"))?;
        if record.phase != Phase::Built {
            return Err(nothing("it is being built or ended"));
        }
        if self.snapshot_state(&sale).await != Some(StepState::Applied) {
            return Err(nothing("none was taken"));
        }
        let group = record.spec.group.0.clone();
        let holds = volume::check_snapshot(&self.storage, &sale, &group).await;
        holds.map_err(|source| RestoreError::Broken { sale, source })?;
        let begun = record::set_restoring(&self.journal, sale, true).await;
        begun.map_err(NotKept::about(sale))?;
        let context = self.context(&record, None);
        let closed = self
            .table
            .tear_down_to(&self.journal, &sale, &context, UNLOCK_FROM)
            .await;
        closed.map_err(|source| RestoreError::Close { sale, source })?;
        let ending = Arc::clone(&self.ending);
        let is_ending = move || {
            let ending = ending.lock().unwrap_or_else(PoisonError::into_inner);
            ending.contains(&sale)
        };
        let bytes = volume::put_back(&self.storage, &sale, &group, is_ending).await;
        let bytes = bytes.map_err(|source| RestoreError::PutBack { sale, source })?;
        let done = record::set_restoring(&self.journal, sale, false).await;
        done.map_err(NotKept::about(sale))?;
        tracing::info!(%sale, bytes, "the snapshot was put back");
        Ok(bytes)
    }
}
