//! The table of steps: everything a sale does to the machine, each do beside its undo.
//!
//! A [`Table`] is an ordered list of [`Step`]s. It runs forward, and each step is written down
//! *before* it is made and again *after*; whatever stops halfway is undone in reverse, the step
//! that may have half run included, for it is `Intended` in the log and its `ensure_absent` copes
//! with any part of it being there.
//!
//! ```text
//!   run:   Intended(a) a.ensure Applied(a) ─► Intended(b) b.ensure Applied(b) ─► …  ─► done
//!                                                            │ error
//!                                                            ▼
//!   undo:  Undone(a) ◄─ a.absent ◄─ Undoing(a) ◄─ Undone(b) ◄─ b.absent ◄─ Undoing(b)
//!                          │ error                                │ error
//!                          ▼                                      ▼
//!                     UndoFailed(a, cause)                   UndoFailed(b, cause): the undo goes on
//!
//!   all undone: the first cause is told        any undo failed: Quarantined, every cause is told
//! ```
//!
//! A step waits for those that it names in [`Step::after`], by default for all before it; steps that wait for nothing
//! of each other run at the same time. Undoing is one after the other, in reverse. Steps that need no secret of the
//! user's ([`Step::needs_key`]) can be made ahead of the others: [`Table::prepare`], then [`Table::run_after`].
//!
//! What a record says about the machine:
//!
//! ```text
//!            ┌──────────► Applied ──────┐
//!   (none) ─► Intended                  ├─► Undoing ─► Undone ─► Intended …   (built again)
//!               ▲ └─────────────────────┘      │ ▲
//!               └── run again after a crash    ▼ │ tried again
//!                                           UndoFailed
//! ```
//!
//! Invariants: no step touches the machine without a record that is durable; an undo visits every
//! step that has a record other than `Undone`, in reverse, and never stops at an error; after a
//! restart [`Table::run`] or [`Table::tear_down`] goes on from any record whatsoever.
//!
//! A future of `run` that is dropped leaves the step it was in as `Intended`, which is the same as
//! a power cut there. Whoever wants it to finish spawns it.

#[cfg(feature = "fault-points")]
pub mod fault;
mod run;
#[cfg(test)]
mod tests;
mod times;

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use market::id::SaleId;
use serde::{Deserialize, Serialize};

pub use run::{RunError, TearDownError, UndoFailure};
pub use times::{StepTime, in_words};

#[cfg(feature = "fault-points")]
pub(crate) use fault::named;

/// One named piece of work outside a table: in a build for tests it can be stopped before and after.
#[cfg(not(feature = "fault-points"))]
pub(crate) fn named<T, E>(_: &'static str, mut work: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    work()
}

/// What a step, or the log below it, failed with. The concrete error is the source's own.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// One change to the machine and the way back.
///
/// `C` is what the steps of a table share: the spec of the space, handles to LVM, secrets that
/// exist only while a key is at hand. Both methods are idempotent and keyed by the sale: they look
/// at the machine, not at memory, so that they are right in a process that never ran the other.
#[async_trait]
pub trait Step<C: Sync + ?Sized>: Send + Sync {
    /// A name that is unique in its table and never changes: the log keeps it.
    fn name(&self) -> &'static str;

    /// The earlier steps that must be applied before this one begins; `None`: all of them.
    fn after(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Whether it needs what only the user has. What does not can be made before the user's key is here.
    fn needs_key(&self) -> bool {
        true
    }

    /// Makes it so; where it is so already, says so by `Ok`.
    ///
    /// # Errors
    /// Whatever stopped it. It may have half run: the engine calls [`Step::ensure_absent`].
    async fn ensure(&self, sale: &SaleId, context: &C) -> Result<(), Cause>;

    /// Makes it absent: all of it, half of it, or nothing may be there.
    ///
    /// # Errors
    /// Whatever remains on the machine, in words. The space is then quarantined.
    async fn ensure_absent(&self, sale: &SaleId, context: &C) -> Result<(), Cause>;
}

/// Where one step of one sale stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepState {
    /// About to be made; any part of it may be there.
    Intended,
    /// Made.
    Applied,
    /// About to be undone; any part of it may be there.
    Undoing,
    /// Nothing of it is there.
    Undone,
    /// Undoing it failed; any part of it may be there.
    UndoFailed {
        /// Why, the whole chain in one line.
        cause: String,
    },
}

impl StepState {
    /// Whether anything of the step may be on the machine.
    pub fn may_be_there(&self) -> bool {
        !matches!(self, Self::Undone)
    }
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intended => f.write_str("intended"),
            Self::Applied => f.write_str("applied"),
            Self::Undoing => f.write_str("undoing"),
            Self::Undone => f.write_str("undone"),
            Self::UndoFailed { cause } => write!(f, "undo failed: {cause}"),
        }
    }
}

/// What the log knows of one step: its name and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// [`Step::name`].
    pub step: String,
    /// The newest state.
    pub state: StepState,
}

/// Where records are kept: the journal on the machine, memory in tests.
///
/// `record` returns when the record is durable, and not before.
#[async_trait]
pub trait StepLog: Send + Sync {
    /// Replaces the state of `step` of `sale`.
    ///
    /// # Errors
    /// The record is then not, or not surely, kept.
    async fn record(&self, sale: &SaleId, step: &'static str, state: StepState) -> Result<(), Cause>;

    /// All records of `sale`, in any order.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn records(&self, sale: &SaleId) -> Result<Vec<StepRecord>, Cause>;
}

/// An ordered list of steps with unique names.
pub struct Table<C: Sync + ?Sized> {
    steps: Vec<Box<dyn Step<C>>>,
}

/// Why a list of steps is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Two steps have the same name: the log could not tell them apart.
    #[error("two steps are named {0}")]
    Name(&'static str),
    /// A step waits for one that does not stand before it.
    #[error("step {step} waits for {after}, which does not stand before it")]
    After {
        /// The step.
        step: &'static str,
        /// What it waits for.
        after: &'static str,
    },
}

impl<C: Sync + ?Sized> Table<C> {
    /// Makes a table of steps that run in this order.
    ///
    /// # Errors
    /// When a name occurs twice, or a step waits for one that does not stand before it.
    pub fn new(steps: Vec<Box<dyn Step<C>>>) -> Result<Self, TableError> {
        for (index, step) in steps.iter().enumerate() {
            let name = step.name();
            let is_before = |name: &str| steps[..index].iter().any(|other| other.name() == name);
            if is_before(name) {
                return Err(TableError::Name(name));
            }
            if let Some(after) = step
                .after()
                .unwrap_or_default()
                .iter()
                .find(|after| !is_before(after))
            {
                return Err(TableError::After { step: name, after });
            }
        }
        Ok(Self { steps })
    }

    /// The names, in the order in which they run.
    pub fn names(&self) -> Vec<&'static str> {
        self.steps.iter().map(|step| step.name()).collect()
    }
}

impl<C: Sync + ?Sized> fmt::Debug for Table<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.names()).finish()
    }
}

/// The chain of an error in one line: `outer: inner: innermost`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line.push_str(": ");
        line.push_str(&inner.to_string());
        source = inner.source();
    }
    line
}
