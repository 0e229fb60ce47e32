//! What can go wrong with a whole space.

use market::id::SaleId;

use super::record::AdmitError;
use crate::journal::JournalError;
use crate::step::{RunError, TableError, TearDownError};
use crate::volume::VolumeError;

/// Why there is no provisioner.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    /// The table of steps is wrong: a defect.
    #[error("the table of steps is wrong")]
    Table(#[from] TableError),
}

/// The journal failed about a space.
#[derive(Debug, thiserror::Error)]
#[error("space {sale}: the journal")]
pub struct NotKept {
    /// The sale.
    pub sale: SaleId,
    /// Why.
    #[source]
    pub source: JournalError,
}

impl NotKept {
    /// For `map_err`.
    pub(super) fn about(sale: SaleId) -> impl FnOnce(JournalError) -> Self {
        move |source| Self { sale, source }
    }
}

/// The task that worked on a space ended without an answer: a defect.
#[derive(Debug, thiserror::Error)]
#[error("space {sale}: the work on it was lost")]
pub struct Lost {
    /// The sale.
    pub sale: SaleId,
    /// Why.
    #[source]
    pub source: tokio::task::JoinError,
}

/// Why a space was not prepared, built or unlocked.
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
    #[error(transparent)]
    Journal(#[from] NotKept),
    /// A defect.
    #[error(transparent)]
    Lost(#[from] Lost),
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

/// Why a space does not have the size that it should have. What it had stays.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// It does not run.
    #[error("space {sale} does not run")]
    NotRunning {
        /// The sale.
        sale: SaleId,
    },
    /// A step failed.
    #[error("space {sale} could not be resized")]
    Run {
        /// The sale.
        sale: SaleId,
        /// Which step, and why.
        #[source]
        source: RunError,
    },
    /// The snapshot could not be removed; some of it may be left.
    #[error("the snapshot of space {sale} could not be removed")]
    Snapshot {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: TearDownError,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] NotKept),
    /// A defect.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a space was not made what its snapshot is.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is nothing to put back: nothing was changed.
    #[error("space {sale} has no snapshot that could be restored: {why}")]
    Nothing {
        /// The sale.
        sale: SaleId,
        /// What there is instead.
        why: &'static str,
    },
    /// The snapshot does not hold: nothing was changed.
    #[error("the snapshot of space {sale} does not hold")]
    Broken {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: VolumeError,
    },
    /// What runs of the space could not be taken down; its volume is untouched.
    #[error("space {sale} could not be closed")]
    Close {
        /// The sale.
        sale: SaleId,
        /// Which steps, and why.
        #[source]
        source: TearDownError,
    },
    /// It was not put back to its end: it stays locked until a repetition came through.
    #[error("the volume of space {sale} was not put back")]
    PutBack {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: VolumeError,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] NotKept),
    /// A defect.
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl RestoreError {
    /// Whether the space is as it was before.
    pub fn is_untouched(&self) -> bool {
        matches!(self, Self::Nothing { .. } | Self::Broken { .. })
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
    #[error(transparent)]
    Journal(#[from] NotKept),
    /// A defect.
    #[error(transparent)]
    Lost(#[from] Lost),
}
