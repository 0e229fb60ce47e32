//! The one writer: a thread that books operations in groups.
//!
//! ```text
//! take one ─► take what else waits (at most GROUP) ─► BEGIN ─► a savepoint each ─► COMMIT (one fsync) ─► answer all
//! ```
//! An operation that is refused rolls its own savepoint back and nobody
//! else's. Nobody hears "booked" before the group is on the disk. If the
//! commit fails, all of the group hear that it failed and the head returns to
//! what the file says.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use escrow::RailTime;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::book::{BookError, Booked, Operation, book};
use super::pace::Pace;
use super::read_head;
use crate::clock::Clock;
use crate::wire::Head;

/// Most operations in one commit.
const GROUP: usize = 256;

/// Why nothing was booked though the rules did not refuse.
#[derive(Debug, thiserror::Error)]
#[error("the ledger could not write: {0}")]
pub struct WriteError(pub String);

/// What became of an operation: booked (at which time, behind which head), or
/// why not.
pub type Written = Result<Result<(Booked, RailTime, Head), BookError>, WriteError>;

struct Job {
    operation: Operation,
    done: oneshot::Sender<Written>,
}

/// The door to the writing thread; when the last one is dropped, it ends.
#[derive(Clone)]
pub struct Writer {
    jobs: Sender<Job>,
}

impl Writer {
    /// Starts the thread; `kept` is dropped when it has ended and closed the
    /// file.
    pub fn start(
        connection: Connection,
        name: String,
        head: Head,
        clock: Arc<Clock>,
        pace: Pace,
        kept: Box<dyn Send>,
    ) -> std::io::Result<Writer> {
        let (jobs, waiting) = channel();
        let thread = WriterThread {
            connection,
            name,
            head,
            clock,
            pace,
            _kept: kept,
        };
        std::thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || thread.run(&waiting))?;
        Ok(Writer { jobs })
    }

    /// Books one operation; returns when it is on the disk.
    pub async fn write(&self, operation: Operation) -> Written {
        let gone = || WriteError("its writer has stopped".to_owned());
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job { operation, done }).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

struct WriterThread {
    connection: Connection,
    name: String,
    head: Head,
    clock: Arc<Clock>,
    pace: Pace,
    _kept: Box<dyn Send>,
}

type Settled = (
    oneshot::Sender<Written>,
    Result<(Booked, RailTime, Head), BookError>,
);

impl WriterThread {
    fn run(mut self, waiting: &Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut group = vec![first];
            group.extend(waiting.try_iter().take(GROUP - 1));
            self.write_group(group);
        }
    }

    fn write_group(&mut self, group: Vec<Job>) {
        let mut settled: Vec<Settled> = Vec::with_capacity(group.len());
        let mut head = self.head;
        let committed = self.book_group(group, &mut head, &mut settled);
        match committed {
            Ok(()) => {
                self.head = head;
                for (done, outcome) in settled {
                    // Whoever asked may be gone; what was booked stays booked.
                    let _ = done.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, "a group of operations was not written");
                if let Ok(head) = read_head(&self.connection, &self.name) {
                    self.head = head;
                }
                for (done, _) in settled {
                    let _ = done.send(Err(WriteError(error.to_string())));
                }
            }
        }
    }

    fn book_group(
        &mut self,
        group: Vec<Job>,
        head: &mut Head,
        settled: &mut Vec<Settled>,
    ) -> rusqlite::Result<()> {
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in group {
            let now = self.clock.now();
            let mut next = *head;
            let savepoint = transaction.savepoint()?;
            let outcome = book(&savepoint, &self.pace, &job.operation, now, &mut next);
            if outcome.is_ok() {
                savepoint.commit()?;
                *head = next;
            } else {
                savepoint.finish()?;
            }
            settled.push((job.done, outcome.map(|booked| (booked, now, next))));
        }
        transaction.commit()
    }
}
