//! The journal: what was sold, what was meant for the machine, what was done.
//!
//! ```text
//!   agent::sales ─┐                                              state volume of the leading group
//!   step::Table ──┼─ closures ─► one writer thread ─ SQLite ─►   journal.sqlite (+ -wal)
//!   network, … ───┘               one transaction each             sales   signed bytes, spec, state
//!                                        │                         steps   intent / applied / …
//!                                        ▼                         taken   who has which number
//!                                 two copies that follow           rows    the agent's own, opaque
//!                                 on other disks                   events  the last 10,000
//! ```
//!
//! Invariants: when a write has answered, it survives a power cut, and the loss of the disk that it was
//! written to where another one is there; what is written in one transaction is there whole or not at
//! all; there is one writer, and a second process is refused. No logic of a sale is in here: states are
//! text, values are bytes.
//!
//! How it is kept: a write-ahead log with `synchronous=FULL`, which costs one flush a transaction
//! where a rollback journal costs three, and loses nothing that was answered; a torn tail of the
//! log is found by its checksums and is what was never answered. `locking_mode=EXCLUSIVE` keeps
//! the log's index in memory, so no file is mapped that a power cut could leave half written, and
//! refuses a second writer. There is no pool and no second connection on purpose: readers that
//! wait for the writer are cheaper than readers that see half of what the agent decided.

mod copies;
mod entry;
mod older;
mod open;
mod redo;
mod taken;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use async_trait::async_trait;
pub use copies::Standing;
use copies::{Copies, Follower};
pub use entry::{Entry, Event, KeyAndValue, SaleRow};
use market::id::SaleId;
pub use open::{Found, inspect};
use redo::{Change, Redo};
use rusqlite::{Connection, TransactionBehavior};
pub use taken::{Taken, TakenError};
use tokio::sync::oneshot;

use crate::step::{Cause, StepLog, StepRecord, StepState};

/// The version of the tables that this program writes.
pub const SCHEMA_VERSION: i64 = 1;

/// Why the journal did not do it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is none.
    #[error("there is no journal at {0}")]
    Absent(PathBuf),
    /// One is there already.
    #[error("there is a journal at {0} already")]
    Exists(PathBuf),
    /// It was written by an older program, and this one has no way to bring it up to date.
    #[error("the journal has version {0}, older than any that this image reads")]
    Older(i64),
    /// It was written by a newer program: this one would not understand it.
    #[error("the journal has version {0}, this image knows up to {SCHEMA_VERSION}: start the newer image")]
    Newer(i64),
    /// It is damaged, or no journal at all.
    #[error("the journal is damaged: {0}")]
    Corrupt(String),
    /// A row is not what the tables allow.
    #[error("the journal holds a row that cannot be read: {0}")]
    Row(String),
    /// A number could not be taken.
    #[error(transparent)]
    Taken(#[from] TakenError),
    /// SQLite.
    #[error("the journal cannot be read or written")]
    Sql(#[source] rusqlite::Error),
    /// The file.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The writer has ended.
    #[error("the journal's writer has ended")]
    Gone,
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

/// The counter of transactions that wrote.
const WRITES: &str = "writes";

/// What the writer's thread has.
struct Writer {
    connection: Connection,
    copies: Copies,
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

enum Message {
    Work(Job),
    /// Close the file, then say so.
    Close(mpsc::Sender<()>),
}

/// A handle to the journal's writer. Clones speak to the same writer; it ends with the last.
#[derive(Clone, Debug)]
pub struct Journal {
    jobs: mpsc::Sender<Message>,
    path: PathBuf,
}

impl Journal {
    /// Makes a new journal.
    ///
    /// # Errors
    /// [`JournalError::Exists`], or when it cannot be written.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        Self::start(path, open::create(path)?)
    }

    /// Opens a journal after looking at all of it.
    ///
    /// # Errors
    /// [`JournalError::Absent`], [`JournalError::Older`], [`JournalError::Newer`] and
    /// [`JournalError::Corrupt`] are four answers with four different things to do.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Self::start(path, open::open(path)?)
    }

    fn start(path: &Path, connection: Connection) -> Result<Self, JournalError> {
        let (jobs, queue) = mpsc::channel::<Message>();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let mut writer = Writer {
                    connection,
                    copies: Copies::default(),
                };
                while let Ok(message) = queue.recv() {
                    match message {
                        Message::Work(job) => job(&mut writer),
                        Message::Close(closed) => {
                            writer.copies.close();
                            drop(writer.connection);
                            // Whoever asked may have gone; the file is closed all the same.
                            let _ = closed.send(());
                            return;
                        }
                    }
                }
            })
            .map_err(|source| JournalError::File {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            jobs,
            path: path.to_owned(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one transaction; returns when it is durable, on the copies that follow too. On an error nothing of it is
    /// kept. Once begun it runs to its end, also when this future is dropped.
    ///
    /// # Errors
    /// What `work` returned, or why it could not be kept.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entry<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.send(work)?.await.map_err(|_| JournalError::Gone)?
    }

    /// As [`Journal::write`], for callers without a runtime. It blocks.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn write_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entry<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.send(work)?.blocking_recv().map_err(|_| JournalError::Gone)?
    }

    fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entry<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, JournalError>>, JournalError> {
        self.ask(|writer| {
            let (value, redo) = transact(&mut writer.connection, work)?;
            if !redo.is_empty() {
                writer.copies.bring(redo);
            }
            Ok(value)
        })
    }

    /// Has the writer's thread do `work`.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, JournalError>>, JournalError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            // Nobody may be waiting any more; what was written stays written.
            let _ = answer.send(work(writer));
        });
        self.jobs
            .send(Message::Work(job))
            .map_err(|_| JournalError::Gone)?;
        Ok(answered)
    }

    /// Reads or writes a journal that is not open, in one transaction on this thread, and closes it.
    ///
    /// # Errors
    /// As [`Journal::open`] and [`Journal::write`].
    pub fn peek<T>(
        path: &Path,
        work: impl FnOnce(&Entry<'_>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        Ok(transact(&mut open::open(path)?, work)?.0)
    }

    /// Closes the file and returns when it is closed; every handle is then [`JournalError::Gone`].
    pub fn close(self) {
        let (closed, answer) = mpsc::channel();
        if self.jobs.send(Message::Close(closed)).is_ok() {
            // An error means that the writer has ended, and with it the connection.
            let _ = answer.recv();
        }
    }

    /// Writes a whole, consistent copy to `to`, which must not exist. It is durable on return but
    /// for the folder's entry. It blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn copy_to(&self, to: &Path) -> Result<(), JournalError> {
        let to = to.to_owned();
        self.ask(move |writer| open::copy(&writer.connection, &to))?
            .blocking_recv()
            .map_err(|_| JournalError::Gone)?
    }

    /// Makes a copy in the place of what is at `place`, and from then on writes there whatever is written here, before
    /// it is acknowledged. A copy that is slow is not waited for until it has kept up again; one that cannot be written is
    /// left. It blocks.
    ///
    /// # Errors
    /// When the copy cannot be made: then it does not follow.
    pub fn follow(&self, place: &Path) -> Result<(), JournalError> {
        let place = place.to_owned();
        self.ask(move |writer| {
            let new = place.with_extension("new");
            open::remove(&new)?;
            open::copy(&writer.connection, &new)?;
            open::replace(&new, &place)?;
            writer.copies.followers.push(Follower::start(&place)?);
            Ok(())
        })?
        .blocking_recv()
        .map_err(|_| JournalError::Gone)?
    }

    /// How the copies stand that were made to follow. It blocks.
    ///
    /// # Errors
    /// [`JournalError::Gone`].
    pub fn copies(&self) -> Result<Vec<(PathBuf, Standing)>, JournalError> {
        self.ask(|writer| Ok(writer.copies.standings()))?
            .blocking_recv()
            .map_err(|_| JournalError::Gone)?
    }

    /// Puts a whole file of a journal that is not open in the place of another: after a cut one of them is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace(new: &Path, place: &Path) -> Result<(), JournalError> {
        open::replace(new, place)
    }
}

/// One transaction on one file; what it wrote comes back, for the copies.
fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Entry<'_>) -> Result<T, JournalError>,
) -> Result<(T, Vec<Redo>), JournalError> {
    #[cfg(feature = "fault-points")]
    open::may_leave_flushes(connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let change = Change::new(&transaction);
    let entry = Entry::new(&change);
    let value = work(&entry)?;
    if !change.wrote_nothing() {
        entry.count(WRITES)?;
    }
    let redo = change.into_redo();
    transaction.commit()?;
    Ok((value, redo))
}

#[async_trait]
impl StepLog for Journal {
    async fn record(&self, sale: &SaleId, step: &'static str, state: StepState) -> Result<(), Cause> {
        let sale = *sale;
        Ok(self
            .write(move |entry| entry.record_step(&sale, step, &state))
            .await?)
    }

    async fn records(&self, sale: &SaleId) -> Result<Vec<StepRecord>, Cause> {
        let sale = *sale;
        Ok(self.write(move |entry| entry.steps(&sale)).await?)
    }
}
