//! Making, opening and copying the file.

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{JournalError, SCHEMA_VERSION, older};

/// "STDG": what `file` would say if it knew us, and what tells our file from any other SQLite.
const APPLICATION_ID: i64 = 0x5354_4447;

const TABLES: &str = "
    CREATE TABLE sales (
        sale     BLOB PRIMARY KEY CHECK (length(sale) = 32),
        signed   BLOB NOT NULL,
        state    TEXT NOT NULL,
        spec     TEXT NOT NULL,
        host_key BLOB CHECK (host_key IS NULL OR length(host_key) = 32),
        epoch    INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE steps (
        sale  BLOB NOT NULL CHECK (length(sale) = 32),
        step  TEXT NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (sale, step)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE taken (
        kind   TEXT NOT NULL,
        number INTEGER NOT NULL CHECK (number >= 0),
        owner  BLOB NOT NULL,
        PRIMARY KEY (kind, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX taken_by_owner ON taken (kind, owner);
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE rows (
        room  TEXT NOT NULL,
        key   BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (room, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms  INTEGER NOT NULL,
        sale   BLOB,
        text   TEXT NOT NULL
    ) STRICT;
";

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or a file in which no journal was ever completed.
    Absent,
    /// A journal that this program reads.
    Current,
    /// A journal of an older program, which this one has no way to bring up to date.
    Older(i64),
    /// A journal of a newer program.
    Newer(i64),
    /// Something damaged, or no journal.
    Corrupt(String),
}

/// Says what stands at `path`. Changes nothing but what SQLite's own recovery does, and brings up to date what it can.
///
/// # Errors
/// When the disk does not answer; a damaged file is an answer.
pub fn inspect(path: &Path) -> Result<Found, JournalError> {
    match open(path) {
        Ok(_) => Ok(Found::Current),
        Err(JournalError::Absent(_)) => Ok(Found::Absent),
        Err(JournalError::Older(version)) => Ok(Found::Older(version)),
        Err(JournalError::Newer(version)) => Ok(Found::Newer(version)),
        Err(JournalError::Corrupt(why)) => Ok(Found::Corrupt(why)),
        Err(error) => Err(error),
    }
}

pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    let file = |source| JournalError::File {
        path: path.to_owned(),
        source,
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JournalError::Absent(path.to_owned()));
        }
        Err(error) => return Err(file(error)),
        Ok(_) => {}
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let application = number(&connection, "PRAGMA application_id")?;
    let version = number(&connection, "PRAGMA user_version")?;
    let tables = number(&connection, "SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        // Tables, application and version are one transaction: a cut while making leaves none.
        (0, 0, 0) => return Err(JournalError::Absent(path.to_owned())),
        (APPLICATION_ID, version, _) if version > SCHEMA_VERSION => {
            return Err(JournalError::Newer(version));
        }
        (APPLICATION_ID, ..) => {}
        (other, ..) => {
            return Err(JournalError::Corrupt(format!(
                "its application id is {other:#x}, not ours"
            )));
        }
    }
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        // The first line names the database, of which there is one.
        let why = verdict.lines().last().unwrap_or_default();
        return Err(JournalError::Corrupt(why.to_owned()));
    }
    if version < SCHEMA_VERSION {
        older::bring_up(&mut connection, path, version)?;
    }
    Ok(connection)
}

pub(super) fn create(path: &Path) -> Result<Connection, JournalError> {
    match inspect(path)? {
        Found::Absent => {}
        _ => return Err(JournalError::Exists(path.to_owned())),
    }
    let mut connection = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    // The first commit is in the log: bring it into the file, and the file into its folder.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    sync_folder(path)?;
    Ok(connection)
}

/// A whole copy, in one file without a log.
pub(super) fn copy(connection: &Connection, to: &Path) -> Result<(), JournalError> {
    let text = to.to_str().ok_or_else(|| JournalError::File {
        path: to.to_owned(),
        source: io::Error::from(io::ErrorKind::InvalidFilename),
    })?;
    connection.execute("VACUUM INTO ?1", [text])?;
    let file = |source| JournalError::File {
        path: to.to_owned(),
        source,
    };
    File::open(to).and_then(|copy| copy.sync_all()).map_err(file)
}

/// Puts a whole journal in the place of another, with the entry of its folder durable.
pub(super) fn replace(new: &Path, place: &Path) -> Result<(), JournalError> {
    // The log of the one before goes first: it would be played into the new one.
    let mut log = place.as_os_str().to_owned();
    log.push("-wal");
    remove(Path::new(&log))?;
    std::fs::rename(new, place).map_err(|source| JournalError::File {
        path: place.to_owned(),
        source,
    })?;
    sync_folder(place)
}

/// Removes a file; that there is none is well too.
pub(super) fn remove(path: &Path) -> Result<(), JournalError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(JournalError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, JournalError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Exclusive before WAL: then the log's index lives in memory and no -shm file is made.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(JournalError::Corrupt(format!("its journal mode stays {mode}")));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// A test leaves the flushes of the next transactions away, to see that it is seen.
#[cfg(feature = "fault-points")]
pub(super) fn may_leave_flushes(connection: &Connection) -> Result<(), JournalError> {
    let left_away = crate::step::fault::skips("journal");
    let value = if left_away { "OFF" } else { "FULL" };
    Ok(connection.pragma_update(None, "synchronous", value)?)
}

fn number(connection: &Connection, sql: &str) -> Result<i64, JournalError> {
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| JournalError::File {
            path: folder.to_owned(),
            source,
        })
}
