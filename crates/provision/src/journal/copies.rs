//! Copies of the journal on other disks that are never behind what was acknowledged.
//!
//! ```text
//!   writer:  work ─► commit ─┬─► copy 1: the same statements ─► commit ─┬─► acknowledged
//!                            └─► copy 2: the same statements ─► commit ─┘
//!                                  fails, or answers too late: left out for good, and told
//! ```
//!
//! Invariants: a copy holds what the journal held after some transaction, never the half of one; a copy that follows
//! holds all that was acknowledged; a disk that is slow or dying costs [`PATIENCE`] once, and never again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::redo::Redo;
use super::{JournalError, open};
use crate::step::chain;

/// How long a transaction waits for a copy: many times what a disk takes that has to spin up a sector anew.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = Result<(), JournalError>;

struct Work {
    redo: Arc<Vec<Redo>>,
    answer: mpsc::Sender<Answer>,
}

/// A copy that follows, with a thread of its own: what waits for its disk is not the writer.
pub(super) struct Follower {
    pub(super) path: PathBuf,
    work: mpsc::Sender<Work>,
    /// Ends when the file is closed.
    closed: mpsc::Receiver<()>,
}

impl Follower {
    pub(super) fn start(path: &Path) -> Result<Self, JournalError> {
        Self::over(path, open::open(path)?)
    }

    pub(super) fn over(path: &Path, mut connection: Connection) -> Result<Self, JournalError> {
        let (work, queue) = mpsc::channel::<Work>();
        let (open, closed) = mpsc::channel();
        std::thread::Builder::new()
            .name("journal-copy".into())
            .spawn(move || {
                while let Ok(Work { redo, answer }) = queue.recv() {
                    // Who asked may have lost patience.
                    let _ = answer.send(apply(&mut connection, &redo));
                }
                drop(connection);
                drop(open);
            })
            .map_err(|source| JournalError::File {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            work,
            closed,
        })
    }
}

/// Closes the files of all copies, and waits for it: what is open cannot be unmounted.
pub(super) fn close(followers: Vec<Follower>) {
    let deadline = Instant::now() + PATIENCE;
    let closing: Vec<_> = followers.into_iter().map(|follower| follower.closed).collect();
    for closed in closing {
        // It ends by being dropped; a disk that does not answer is left.
        let _ = closed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn apply(connection: &mut Connection, redo: &[Redo]) -> Answer {
    #[cfg(feature = "fault-points")]
    open::may_leave_flushes(connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    redo.iter().try_for_each(|redo| redo.apply(&transaction))?;
    Ok(transaction.commit()?)
}

/// Brings what was committed to all copies; those that did not follow are taken out of `followers`.
pub(super) fn bring(followers: &mut Vec<Follower>, redo: Vec<Redo>) {
    bring_within(followers, redo, PATIENCE);
}

pub(super) fn bring_within(followers: &mut Vec<Follower>, redo: Vec<Redo>, patience: Duration) {
    let (redo, deadline) = (Arc::new(redo), Instant::now() + patience);
    let asked: Vec<_> = followers
        .drain(..)
        .map(|follower| {
            let (answer, answered) = mpsc::channel();
            let redo = Arc::clone(&redo);
            // A thread that is gone drops `answer`, which is told below.
            let _ = follower.work.send(Work { redo, answer });
            (follower, answered)
        })
        .collect();
    for (follower, answered) in asked {
        let path = follower.path.display();
        match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(())) => followers.push(follower),
            Ok(Err(error)) => {
                tracing::warn!(%path, error = %chain(&error), "a copy of the journal cannot be written: that disk has none from now on");
            }
            Err(_) => {
                tracing::warn!(%path, "a copy of the journal did not answer: that disk has none from now on");
            }
        }
    }
}

#[cfg(test)]
mod tests;
