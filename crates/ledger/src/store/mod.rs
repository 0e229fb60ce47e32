//! The ledger's file: opening it, and reading from it.
//!
//! One connection writes ([`writer`]), one reads; both see only what was
//! committed and synced (WAL, `synchronous=FULL`).

pub mod audit;
pub mod book;
pub mod journal;
pub mod pace;
pub mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use escrow::{Amount, LeaseId, LockState, LockView, RailTime};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::wire::Head;
use journal::genesis;

/// The version of the schema that this code reads and writes.
const VERSION: i64 = 3;

/// The other side of all play money.
pub const ISSUED: &str = "issued";

/// Why the file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("the ledger's file {path} cannot be opened")]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was made by another version.
    #[error("the ledger's file {path} has version {found}, this program knows version {VERSION}")]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
    /// The file belongs to another key.
    #[error("the ledger's file {path} belongs to {found}, the key here is that of {expected}")]
    Name {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What the key says.
        expected: String,
    },
    /// The audit found a fault; nothing is served from such a file.
    #[error("the ledger's file {path} does not add up")]
    Audit {
        /// Which file.
        path: PathBuf,
        /// What does not.
        #[source]
        source: audit::AuditError,
    },
}

/// Opens a connection with the settings that all of them share.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// A file that was opened and adds up.
pub struct Opened {
    /// The one that writes.
    pub writing: Connection,
    /// The one that reads.
    pub reading: Connection,
    /// Where the journal stands.
    pub audited: audit::Audited,
}

/// Opens or creates the file of the ledger called `name`, and audits it.
pub fn open(path: &Path, name: &str) -> Result<Opened, OpenError> {
    let sqlite = |source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let mut writing = connect(path).map_err(sqlite)?;
    let (version, owner) = create_or_identify(&mut writing, name).map_err(sqlite)?;
    if !(1..=VERSION).contains(&version) {
        return Err(OpenError::Version {
            path: path.to_owned(),
            found: version,
        });
    }
    if owner != name {
        let (path, expected) = (path.to_owned(), name.to_owned());
        return Err(OpenError::Name {
            path,
            found: owner,
            expected,
        });
    }
    if version < VERSION {
        upgrade(&mut writing, version).map_err(sqlite)?;
    }
    let audited = audit::audit(&writing, name).map_err(|source| OpenError::Audit {
        path: path.to_owned(),
        source,
    })?;
    let reading = connect(path).map_err(sqlite)?;
    reading.pragma_update(None, "query_only", true).map_err(sqlite)?;
    Ok(Opened {
        writing,
        reading,
        audited,
    })
}

fn create_or_identify(connection: &mut Connection, name: &str) -> rusqlite::Result<(i64, String)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let exists: bool = transaction.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'ledger'",
        [],
        |row| row.get(0),
    )?;
    if !exists {
        transaction.execute_batch(include_str!("schema.sql"))?;
        transaction.execute(
            "INSERT INTO ledger (one, version, name) VALUES (1, ?1, ?2)",
            params![VERSION, name],
        )?;
    }
    let known = transaction.query_row("SELECT version, name FROM ledger", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    transaction.commit()?;
    Ok(known)
}

/// All of it or nothing: killed here, the next start does it.
fn upgrade(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if from < 2 {
        transaction.execute_batch(include_str!("from_1.sql"))?;
    }
    transaction.execute_batch(include_str!("from_2.sql"))?;
    transaction.commit()
}

/// The word for a state in the table; `None` where no row exists.
pub(crate) fn state_word(state: LockState) -> &'static str {
    match state {
        LockState::None => "none",
        LockState::Locked => "locked",
        LockState::Active => "active",
        LockState::Closed => "closed",
    }
}

/// Reads the columns `state, funded, paid, accept_by, expiry, close_asked`
/// that begin at `first`.
pub(crate) fn view_of(row: &Row<'_>, first: usize) -> rusqlite::Result<LockView> {
    let state = match row.get_ref(first)?.as_str()? {
        "locked" => LockState::Locked,
        "active" => LockState::Active,
        "closed" => LockState::Closed,
        _ => return Err(rusqlite::Error::IntegralValueOutOfRange(first, -1)),
    };
    Ok(LockView {
        state,
        funded: Amount(u128::from(natural(row, first + 1)?)),
        paid: Amount(u128::from(natural(row, first + 2)?)),
        accept_by: RailTime(natural(row, first + 3)?),
        expiry: RailTime(natural(row, first + 4)?),
        close_asked: match row.get::<_, Option<i64>>(first + 5)? {
            Some(_) => Some(RailTime(natural(row, first + 5)?)),
            None => None,
        },
    })
}

/// A column that is never negative.
fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// The lock with that lease, [`LockView::NONE`] where it never was.
pub fn read_lock(connection: &Connection, lease: &LeaseId) -> rusqlite::Result<LockView> {
    let view = connection
        .prepare_cached(
            "SELECT state, funded, paid, accept_by, expiry, close_asked FROM lease WHERE id = ?1",
        )?
        .query_row([lease.0.as_slice()], |row| view_of(row, 0))
        .optional()?;
    Ok(view.unwrap_or(LockView::NONE))
}

/// What an account holds; nothing where it was never heard of.
pub fn read_balance(connection: &Connection, account: &str) -> rusqlite::Result<i64> {
    let balance = connection
        .prepare_cached("SELECT balance FROM account WHERE name = ?1")?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(balance.unwrap_or(0))
}

/// The sum in a payer's open locks. `state <> 'closed'` is the very condition of the index.
pub const LOCKED: &str =
    "SELECT coalesce(sum(funded - paid), 0) FROM lease WHERE payer = ?1 AND state <> 'closed'";

/// A payer's open locks behind one id.
pub const OPEN: &str = "SELECT terms, state, funded, paid, accept_by, expiry, close_asked
    FROM lease WHERE payer = ?1 AND state <> 'closed' AND id > ?2 ORDER BY id LIMIT ?3";

/// What an account has in locks that are not closed.
pub fn read_locked(connection: &Connection, payer: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(LOCKED)?
        .query_row([payer], |row| row.get(0))
}

/// Terms (JSON) and state of a payer's open locks, ids after `after`, at most
/// `most`.
pub fn read_open(
    connection: &Connection,
    payer: &str,
    after: Option<&LeaseId>,
    most: usize,
) -> rusqlite::Result<Vec<(String, LockView)>> {
    let after = after.map_or(&[][..], |lease| lease.0.as_slice());
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    connection
        .prepare_cached(OPEN)?
        .query_map(params![payer, after, most], |row| {
            Ok((row.get(0)?, view_of(row, 1)?))
        })?
        .collect()
}

/// The newest entry of the journal of the ledger called `name`.
pub fn read_head(connection: &Connection, name: &str) -> rusqlite::Result<Head> {
    let newest = connection
        .prepare_cached("SELECT sequence, hash FROM entry ORDER BY sequence DESC LIMIT 1")?
        .query_row([], |row| {
            Ok(Head {
                sequence: natural(row, 0)?,
                hash: row.get(1)?,
            })
        })
        .optional()?;
    Ok(newest.unwrap_or_else(|| Head {
        sequence: 0,
        hash: genesis(name),
    }))
}
