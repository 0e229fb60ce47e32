//! Copies of the journal on other disks that are never behind what was acknowledged.
//!
//! ```text
//!   writer:  work ─► commit ─┬─► copy 1: the same statements ─► commit ─┬─► acknowledged
//!                            └─► copy 2: the same statements ─► commit ─┘
//!                              │   answers late: behind. It is brought what it lacks, in order, and nobody waits for it
//!                              │   ◄── until it kept up for a minute
//!                              └─► fails, or lacks too much: left for this power-on
//! ```
//!
//! Invariants: a copy holds what the journal held after some transaction, never the half of one; a copy that follows
//! holds all that was acknowledged; a disk that is slow costs [`PATIENCE`] once in a minute, one that fails once; how
//! each stands is there for who tells the farmer, and the file of one that is left is not touched before it is closed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::redo::Redo;
use super::{JournalError, open};
use crate::step::chain;

/// How long a transaction waits for a copy: many times what a disk takes that has to spin up a sector anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a copy that was late keeps up by itself before it is waited for again.
const REST: Duration = Duration::from_secs(60);
/// Transactions that a copy may lack, for they are in memory.
const MOST_OWED: usize = 1024;

/// How a copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It holds all that was acknowledged.
    Follows,
    /// Its disk was slow: what it lacks is being brought, and nothing waits for it.
    Behind,
    /// It follows no more: what is there is as old as that.
    Left,
    /// It follows no more, and its disk still has not answered: its file may yet be written.
    Silent,
}

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
    /// What it was given and has not answered, the oldest first.
    owed: VecDeque<(Instant, mpsc::Receiver<Answer>)>,
    /// When it was last found too slow, until it is waited for again.
    late: Option<Instant>,
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
            owed: VecDeque::new(),
            late: None,
        })
    }

    /// Hears what it answered until `deadline`; one that still owes something then, for longer than `patience`, is late.
    fn settle(&mut self, deadline: Instant, patience: Duration) -> Result<(), Lost> {
        while let Some((asked, answer)) = self.owed.front() {
            match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Ok(())) => _ = self.owed.pop_front(),
                Ok(Err(error)) => return Err(Lost::Failed(error)),
                Err(RecvTimeoutError::Disconnected) => return Err(Lost::Gone),
                Err(RecvTimeoutError::Timeout) => {
                    if asked.elapsed() >= patience {
                        self.late = Some(Instant::now());
                    }
                    break;
                }
            }
        }
        if self.owed.len() > MOST_OWED {
            return Err(Lost::TooFarBehind);
        }
        Ok(())
    }
}

/// Why a copy follows no more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("a copy of the journal cannot be written")]
    Failed(#[source] JournalError),
    #[error("a copy of the journal is more than {MOST_OWED} transactions behind")]
    TooFarBehind,
    #[error("a copy of the journal has no thread any more")]
    Gone,
}

fn apply(connection: &mut Connection, redo: &[Redo]) -> Answer {
    #[cfg(feature = "fault-points")]
    open::may_leave_flushes(connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    redo.iter().try_for_each(|redo| redo.apply(&transaction))?;
    Ok(transaction.commit()?)
}

/// All copies of one journal.
pub(super) struct Copies {
    pub(super) followers: Vec<Follower>,
    /// Those that follow no more; each ends when its file is closed.
    left: Vec<(PathBuf, mpsc::Receiver<()>)>,
    pub(super) patience: Duration,
    pub(super) rest: Duration,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            followers: Vec::new(),
            left: Vec::new(),
            patience: PATIENCE,
            rest: REST,
        }
    }
}

impl Copies {
    /// Brings what was committed to all copies, and waits for those that follow.
    pub(super) fn bring(&mut self, redo: Vec<Redo>) {
        self.hear(Instant::now());
        let (redo, asked) = (Arc::new(redo), Instant::now());
        for follower in &mut self.followers {
            let (answer, answered) = mpsc::channel();
            let redo = Arc::clone(&redo);
            // A thread that is gone drops `answer`, which is heard.
            let _ = follower.work.send(Work { redo, answer });
            follower.owed.push_back((asked, answered));
        }
        self.hear(asked + self.patience);
    }

    /// Hears what the copies answered: of those that follow until `deadline`, of the others what is there.
    fn hear(&mut self, deadline: Instant) {
        for mut follower in std::mem::take(&mut self.followers) {
            let was_late = follower.late;
            let until = was_late.map_or(deadline, |_| Instant::now());
            let path = follower.path.clone();
            if let Err(lost) = follower.settle(until, self.patience) {
                tracing::warn!(path = %path.display(), error = %chain(&lost), "it follows no more");
                self.left.push((follower.path, follower.closed));
                continue;
            }
            match (was_late, follower.late) {
                (None, Some(_)) => {
                    tracing::warn!(path = %path.display(), "a copy of the journal is behind: its disk is slow")
                }
                (Some(_), Some(late)) if follower.owed.is_empty() && late.elapsed() >= self.rest => {
                    tracing::info!(path = %path.display(), "a copy of the journal follows again");
                    follower.late = None;
                }
                _ => {}
            }
            self.followers.push(follower);
        }
    }

    /// How each stands now.
    pub(super) fn standings(&mut self) -> Vec<(PathBuf, Standing)> {
        self.hear(Instant::now());
        let followers = self.followers.iter().map(|follower| {
            let standing = follower.late.map_or(Standing::Follows, |_| Standing::Behind);
            (follower.path.clone(), standing)
        });
        let left = self.left.iter().map(|(path, closed)| {
            let is_closed = closed.try_recv() == Err(mpsc::TryRecvError::Disconnected);
            let standing = if is_closed {
                Standing::Left
            } else {
                Standing::Silent
            };
            (path.clone(), standing)
        });
        followers.chain(left).collect()
    }

    /// Closes the files of all copies, and waits for it: what is open cannot be unmounted.
    pub(super) fn close(self) {
        let deadline = Instant::now() + PATIENCE;
        let followers = self.followers.into_iter().map(|follower| follower.closed);
        let closing: Vec<_> = followers
            .chain(self.left.into_iter().map(|(_, closed)| closed))
            .collect();
        for closed in closing {
            // It ends by being dropped; a disk that does not answer is left.
            let _ = closed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests;
