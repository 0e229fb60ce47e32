//! A journal of an older program, brought up to date one version at a time.
//!
//! ```text
//!   version N ─► a whole copy beside it, journal.vN ─► one transaction: N ─► N+1 ─► … ─► ours ─► opened as any other
//!                  (whoever goes back to the older image finds it)      └ fails: it is version N as before
//! ```
//!
//! Invariant: a version from which no rung leads to ours is left as it is, and told.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{JournalError, SCHEMA_VERSION, open};

/// What makes a journal of version `from` one of `from + 1`.
pub(super) struct Rung {
    from: i64,
    sql: &'static str,
}

/// From the oldest version that this program reads. Version 1 was the first that anybody wrote, so it is empty until
/// there is a second.
const LADDER: &[Rung] = &[];

/// Brings a journal of version `from` up to ours.
pub(super) fn bring_up(connection: &mut Connection, path: &Path, from: i64) -> Result<(), JournalError> {
    climb(connection, path, from, (LADDER, SCHEMA_VERSION))
}

fn climb(
    connection: &mut Connection,
    path: &Path,
    from: i64,
    (ladder, to): (&[Rung], i64),
) -> Result<(), JournalError> {
    let mut rungs = Vec::new();
    for version in from..to {
        let rung = ladder.iter().find(|rung| rung.from == version);
        rungs.push(rung.ok_or(JournalError::Older(from))?);
    }
    let copy = beside(path, from);
    if !copy.exists() {
        open::copy(connection, &copy)?;
    }
    let transaction = connection.transaction()?;
    for rung in rungs {
        transaction.execute_batch(rung.sql)?;
    }
    transaction.pragma_update(None, "user_version", to)?;
    Ok(transaction.commit()?)
}

/// Where the journal is kept as it was.
fn beside(path: &Path, version: i64) -> PathBuf {
    path.with_extension(format!("v{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Found, Journal, inspect};

    const TWO: &[Rung] = &[
        Rung {
            from: SCHEMA_VERSION - 2,
            sql: "ALTER TABLE events RENAME COLUMN words TO text",
        },
        Rung {
            from: SCHEMA_VERSION - 1,
            sql: "CREATE TABLE more (name TEXT PRIMARY KEY) STRICT; INSERT INTO more SELECT text FROM events",
        },
    ];

    /// A journal as the program two versions ago would have left it, with one event.
    fn old(path: &Path) -> Connection {
        Journal::create(path).unwrap().close();
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "INSERT INTO events (at_ms, text) VALUES (7, 'sold');
                 ALTER TABLE events RENAME COLUMN text TO words;",
            )
            .unwrap();
        connection
            .pragma_update(None, "user_version", SCHEMA_VERSION - 2)
            .unwrap();
        connection
    }

    #[test]
    fn it_is_brought_up_over_every_version_and_kept_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let mut connection = old(&path);
        climb(&mut connection, &path, SCHEMA_VERSION - 2, (TWO, SCHEMA_VERSION)).unwrap();
        let brought: String = connection
            .query_row("SELECT name FROM more", [], |row| row.get(0))
            .unwrap();
        assert_eq!(brought, "sold");
        drop(connection);
        assert_eq!(inspect(&path).unwrap(), Found::Current);
        let kept = beside(&path, SCHEMA_VERSION - 2);
        let words: String = Connection::open(&kept)
            .unwrap()
            .query_row("SELECT words FROM events", [], |row| row.get(0))
            .unwrap();
        assert_eq!(words, "sold");
    }

    #[test]
    fn a_rung_that_breaks_or_is_missing_leaves_it_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let mut connection = old(&path);
        let from = SCHEMA_VERSION - 2;
        let missing = climb(&mut connection, &path, from, (&TWO[..1], SCHEMA_VERSION));
        assert!(matches!(missing, Err(JournalError::Older(version)) if version == from));
        assert!(
            !beside(&path, from).exists(),
            "nothing is done before it is known to lead up"
        );
        let broken = [
            Rung {
                from,
                sql: TWO[0].sql,
            },
            Rung {
                from: from + 1,
                sql: "INSERT INTO nowhere VALUES (1)",
            },
        ];
        assert!(climb(&mut connection, &path, from, (&broken, SCHEMA_VERSION)).is_err());
        connection
            .query_row("SELECT words FROM events", [], |row| row.get::<_, String>(0))
            .unwrap();
        drop(connection);
        assert_eq!(inspect(&path).unwrap(), Found::Older(from));
    }
}
