//! Running a table forward, and undoing it. See the parent module for the drawing.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use market::id::SaleId;

#[cfg(feature = "fault-points")]
use super::fault;
use super::{Cause, Step, StepLog, StepState, StepTime, Table, chain};

use fault::{Pass, Side, Way, pass};

/// One undo that failed: part of the step is still on the machine.
#[derive(Debug)]
pub struct UndoFailure {
    /// The step.
    pub step: &'static str,
    /// Why it could not be undone.
    pub cause: Cause,
}

impl fmt::Display for UndoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, chain(self.cause.as_ref()))
    }
}

/// Why a table did not run to its end, and what that left behind.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A step failed; everything that was made is undone.
    #[error("step {step} failed, and all was undone")]
    Undone {
        /// The step that failed.
        step: &'static str,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// A step failed and so did an undo: something is left on the machine.
    #[error("step {step} failed, and undoing failed too ({})", list(undo))]
    Quarantined {
        /// The step that failed.
        step: &'static str,
        /// Why.
        #[source]
        cause: Cause,
        /// What could not be undone, at least one.
        undo: Vec<UndoFailure>,
    },
    /// Nothing was begun: the log could not be read.
    #[error("the records of the sale cannot be read")]
    Log(#[source] Cause),
    /// Nothing was begun: [`Table::run_from`] found an earlier step that is not applied.
    #[error("step {step} is {state}, so there is nothing to go on from")]
    NotApplied {
        /// The earlier step.
        step: &'static str,
        /// What the log says of it; `absent` when it says nothing.
        state: String,
    },
    /// Nothing was begun: the table has no step of that name.
    #[error("there is no step named {0}")]
    NoSuchStep(String),
    /// A step of what runs could not be ensured again; nothing is undone.
    #[error("step {step} was not made again")]
    NotAgain {
        /// Which.
        step: &'static str,
        /// Why.
        #[source]
        cause: Cause,
    },
}

/// What a teardown could not undo.
#[derive(Debug, thiserror::Error)]
pub enum TearDownError {
    /// Nothing was begun: the log could not be read.
    #[error("the records of the sale cannot be read")]
    Log(#[source] Cause),
    /// Nothing was begun: the table has no step of that name.
    #[error("there is no step named {0}")]
    NoSuchStep(String),
    /// All was tried; these steps are not, or not surely, gone.
    #[error("could not undo {}", list(.0))]
    Quarantined(Vec<UndoFailure>),
}

fn list(failures: &[UndoFailure]) -> String {
    failures
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Which steps of a table one run makes.
struct Part<'a> {
    /// The first; those before it are applied and stay as they are.
    from: usize,
    /// Made already by this process, a moment ago: taken as applied, undone with the others.
    made: &'a [StepTime],
    /// Only what needs no key.
    without_key: bool,
}

impl<C: Sync + ?Sized> Table<C> {
    /// Runs every step forward; on an error undoes, in reverse, all that may be there. Tells what took how long.
    ///
    /// Steps that the log calls applied are ensured again: after a reboot the record is older than
    /// the machine.
    ///
    /// # Errors
    /// [`RunError::Undone`] leaves nothing, [`RunError::Quarantined`] says what is left.
    pub async fn run(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
    ) -> Result<Vec<StepTime>, RunError> {
        self.run_after(log, sale, context, &[]).await
    }

    /// As [`Table::run`], but makes only the steps that need no key, and that wait for none that does.
    ///
    /// # Errors
    /// As [`Table::run`].
    pub async fn prepare(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
    ) -> Result<Vec<StepTime>, RunError> {
        let part = Part {
            from: 0,
            made: &[],
            without_key: true,
        };
        self.forward(log, sale, context, part).await
    }

    /// As [`Table::run`], with what [`Table::prepare`] has `made` a moment ago, in this process.
    ///
    /// # Errors
    /// As [`Table::run`]; what was made before is undone too.
    pub async fn run_after(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
        made: &[StepTime],
    ) -> Result<Vec<StepTime>, RunError> {
        let part = Part {
            from: 0,
            made,
            without_key: false,
        };
        self.forward(log, sale, context, part).await
    }

    /// As [`Table::run`], but from the step named `first` on; the steps before it must be applied
    /// and are neither ensured nor undone. So a volume that holds a user's files is not destroyed
    /// because the network above it could not be made.
    ///
    /// # Errors
    /// As [`Table::run`], and [`RunError::NotApplied`] when an earlier step is not there.
    pub async fn run_from(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
        first: &str,
    ) -> Result<Vec<StepTime>, RunError> {
        let from = self
            .position(first)
            .ok_or_else(|| RunError::NoSuchStep(first.to_owned()))?;
        let records = log.records(sale).await.map_err(RunError::Log)?;
        for step in &self.steps[..from] {
            let state = records.iter().find(|r| r.step == step.name()).map(|r| &r.state);
            if state != Some(&StepState::Applied) {
                let state = state.map_or_else(|| "absent".to_owned(), ToString::to_string);
                return Err(RunError::NotApplied {
                    step: step.name(),
                    state,
                });
            }
        }
        let part = Part {
            from,
            made: &[],
            without_key: false,
        };
        self.forward(log, sale, context, part).await
    }

    /// Ensures some steps of what runs again, one after the other, for a context that asks more of them. Their records
    /// stay: what runs stays applied, whether this comes to its end or not, and nothing is undone.
    ///
    /// # Errors
    /// The first step that fails; and [`RunError::NoSuchStep`].
    pub async fn again(&self, sale: &SaleId, context: &C, names: &[&str]) -> Result<(), RunError> {
        for name in names {
            let at = self
                .position(name)
                .ok_or_else(|| RunError::NoSuchStep((*name).to_owned()))?;
            let step = self.steps[at].as_ref();
            let ensured = ensure_again(step, sale, context).await;
            ensured.map_err(|cause| RunError::NotAgain {
                step: step.name(),
                cause,
            })?;
        }
        Ok(())
    }

    /// Undoes, in reverse, every step that may be there. Never stops early.
    ///
    /// # Errors
    /// [`TearDownError::Quarantined`] with every step that could not be undone.
    pub async fn tear_down(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
    ) -> Result<(), TearDownError> {
        self.backward(log, sale, context, 0).await
    }

    /// As [`Table::tear_down`], down to and including the step named `last`; what is below stays.
    ///
    /// # Errors
    /// As [`Table::tear_down`].
    pub async fn tear_down_to(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
        last: &str,
    ) -> Result<(), TearDownError> {
        let to = self
            .position(last)
            .ok_or_else(|| TearDownError::NoSuchStep(last.to_owned()))?;
        self.backward(log, sale, context, to).await
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name() == name)
    }

    async fn forward(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
        part: Part<'_>,
    ) -> Result<Vec<StepTime>, RunError> {
        // What an earlier, interrupted run left is undone too if this one fails: read it first.
        let earlier = log.records(sale).await.map_err(RunError::Log)?;
        let from = part.from;
        let mut reached: BTreeSet<&str> = part.made.iter().map(|made| made.step).collect();
        let (times, failed) = self.spread(log, sale, context, part, &mut reached).await;
        let Some((step, cause)) = failed else {
            return Ok(times);
        };
        tracing::warn!(step, cause = %chain(cause.as_ref()), "step failed, undoing");
        let mut undo = Vec::new();
        for other in self.steps.iter().skip(from).rev() {
            let there = reached.contains(other.name())
                || earlier
                    .iter()
                    .any(|r| r.step == other.name() && r.state.may_be_there());
            if there {
                undo_one(other.as_ref(), log, sale, context, &mut undo).await;
            }
        }
        Err(if undo.is_empty() {
            RunError::Undone { step, cause }
        } else {
            RunError::Quarantined { step, cause, undo }
        })
    }

    /// Begins each step as soon as those that it waits for are applied. After a failure none is begun any more, and
    /// those under way are waited for: an undo never runs beside a do.
    async fn spread(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
        part: Part<'_>,
        reached: &mut BTreeSet<&'static str>,
    ) -> (Vec<StepTime>, Option<(&'static str, Cause)>) {
        let start = Instant::now();
        let (below, above) = self.steps.split_at(part.from);
        let mut applied: BTreeSet<&str> = below.iter().map(|step| step.name()).collect();
        applied.extend(part.made.iter().map(|made| made.step));
        let mut waiting: Vec<_> = above.iter().map(AsRef::as_ref).collect();
        waiting.retain(|step| !(applied.contains(step.name()) || part.without_key && step.needs_key()));
        let mut under_way = FuturesUnordered::new();
        let (mut times, mut failed) = (part.made.to_vec(), None);
        loop {
            if failed.is_none() {
                waiting.retain(|step| {
                    let begins = self.names_before(*step).all(|name| applied.contains(name));
                    if begins {
                        reached.insert(step.name());
                        let step = *step;
                        under_way.push(async move {
                            let began = start.elapsed();
                            let result = forward_one(step, log, sale, context).await;
                            let took = start.elapsed().saturating_sub(began);
                            (StepTime::new(step.name(), began, took), result)
                        });
                    }
                    !begins
                });
            }
            match under_way.next().await {
                None => return (times, failed),
                Some((time, Ok(()))) => {
                    applied.insert(time.step);
                    times.push(time);
                }
                // The first cause is the one that is told; the others were beside it.
                Some((time, Err(cause))) => failed = failed.or(Some((time.step, cause))),
            }
        }
    }

    /// What a step waits for.
    fn names_before<'a>(&'a self, step: &'a dyn Step<C>) -> impl Iterator<Item = &'static str> + 'a {
        let all_before = self.steps.iter().map(|other| other.name());
        let all_before = all_before.take_while(|name| *name != step.name());
        all_before.filter(|name| step.after().is_none_or(|after| after.contains(name)))
    }

    async fn backward(
        &self,
        log: &dyn StepLog,
        sale: &SaleId,
        context: &C,
        to: usize,
    ) -> Result<(), TearDownError> {
        let records = log.records(sale).await.map_err(TearDownError::Log)?;
        let mut failures = Vec::new();
        for step in self.steps[to..].iter().rev() {
            if records
                .iter()
                .any(|r| r.step == step.name() && r.state.may_be_there())
            {
                undo_one(step.as_ref(), log, sale, context, &mut failures).await;
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(TearDownError::Quarantined(failures))
        }
    }
}

async fn ensure_again<C: Sync + ?Sized>(step: &dyn Step<C>, sale: &SaleId, context: &C) -> Result<(), Cause> {
    let name = step.name();
    pass(Way::Do, name, Side::Intended, sale).await?;
    step.ensure(sale, context).await?;
    if let Pass::Again = pass(Way::Do, name, Side::Done, sale).await? {
        step.ensure(sale, context).await?;
    }
    Ok(())
}

async fn forward_one<C: Sync + ?Sized>(
    step: &dyn Step<C>,
    log: &dyn StepLog,
    sale: &SaleId,
    context: &C,
) -> Result<(), Cause> {
    let name = step.name();
    pass(Way::Do, name, Side::BeforeIntent, sale).await?;
    log.record(sale, name, StepState::Intended).await?;
    pass(Way::Do, name, Side::Intended, sale).await?;
    step.ensure(sale, context).await?;
    if let Pass::Again = pass(Way::Do, name, Side::Done, sale).await? {
        step.ensure(sale, context).await?;
    }
    log.record(sale, name, StepState::Applied).await?;
    pass(Way::Do, name, Side::Recorded, sale).await.map(drop)
}

/// Tries to undo: the step's own work, between the points at which a test may stop it.
async fn absent<C: Sync + ?Sized>(step: &dyn Step<C>, sale: &SaleId, context: &C) -> Result<(), Cause> {
    pass(Way::Undo, step.name(), Side::Intended, sale).await?;
    step.ensure_absent(sale, context).await?;
    match pass(Way::Undo, step.name(), Side::Done, sale).await? {
        Pass::Again => step.ensure_absent(sale, context).await,
        Pass::On => Ok(()),
    }
}

/// Where the feature is off, nothing ever stops here.
#[cfg(not(feature = "fault-points"))]
mod fault {
    #[derive(Clone, Copy)]
    pub enum Way {
        Do,
        Undo,
    }
    #[derive(Clone, Copy)]
    pub enum Side {
        BeforeIntent,
        Intended,
        Done,
        Recorded,
    }
    pub enum Pass {
        On,
        #[allow(dead_code, reason = "only a test repeats a step")]
        Again,
    }

    pub async fn pass(_: Way, _: &str, _: Side, _: &market::id::SaleId) -> Result<Pass, super::Cause> {
        Ok(Pass::On)
    }
}

/// Undoes one step; a failure is kept in `failures` and in the log. An undo is made even where the
/// log cannot be written: a record that says too much is harmless, a leftover is not.
async fn undo_one<C: Sync + ?Sized>(
    step: &dyn Step<C>,
    log: &dyn StepLog,
    sale: &SaleId,
    context: &C,
    failures: &mut Vec<UndoFailure>,
) {
    let name = step.name();
    let intent = log.record(sale, name, StepState::Undoing).await;
    let start = Instant::now();
    let result = absent(step, sale, context).await;
    let (state, failure) = match result {
        Ok(()) => (StepState::Undone, None),
        Err(cause) => (
            StepState::UndoFailed {
                cause: chain(cause.as_ref()),
            },
            Some(cause),
        ),
    };
    let undone = failure.is_none();
    let took_ms = start.elapsed().as_millis() as u64;
    tracing::info!(step = name, took_ms, undone, "step undone");
    failures.extend(failure.map(|cause| UndoFailure { step: name, cause }));
    let mut kept = log.record(sale, name, state).await;
    if kept.is_ok() {
        kept = pass(Way::Undo, name, Side::Recorded, sale).await.map(drop);
    }
    if let Err(cause) = kept {
        failures.push(UndoFailure { step: name, cause });
    } else if let Err(cause) = intent {
        // The newest record is durable, so the lost one before it no longer matters.
        tracing::warn!(step = name, cause = %chain(cause.as_ref()), "an undo's intent was not kept");
    }
}
