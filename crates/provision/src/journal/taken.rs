//! Numbers that one owner at a time has: indices of users, id ranges, ports.
//!
//! Invariant: a number has one owner, and stays its until it is given back, across every restart.

use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, params};

use super::JournalError;
use super::redo::Change;

/// Why no number was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakenError {
    /// All have an owner.
    #[error("no {0} is free")]
    NoneFree(String),
}

/// The numbers of one kind, within one transaction.
pub struct Taken<'a> {
    change: &'a Change<'a>,
    kind: &'a str,
}

impl<'a> Taken<'a> {
    pub(super) fn new(change: &'a Change<'a>, kind: &'a str) -> Self {
        Self { change, kind }
    }

    /// The number that `owner` has.
    ///
    /// # Errors
    /// When it cannot be read, as all here.
    pub fn of(&self, owner: &[u8]) -> Result<Option<u32>, JournalError> {
        let sql = "SELECT number FROM taken WHERE kind = ?1 AND owner = ?2 ORDER BY number LIMIT 1";
        Ok(self
            .change
            .transaction
            .query_row(sql, params![self.kind, owner], |row| row.get(0))
            .optional()?)
    }

    /// The number that `owner` has, or else the lowest of `range` that nobody has.
    ///
    /// # Errors
    /// [`TakenError::NoneFree`] when all of the range are taken.
    pub fn take(&self, owner: &[u8], range: RangeInclusive<u32>) -> Result<u32, JournalError> {
        if let Some(number) = self.of(owner)? {
            return Ok(number);
        }
        let mut free = *range.start();
        let sql = "SELECT number FROM taken WHERE kind = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number";
        let mut statement = self.change.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.kind, range.start(), range.end()])?;
        while let Some(row) = rows.next()? {
            if row.get::<_, u32>(0)? != free {
                break;
            }
            // Past the end of the range is told below; past u32 there is nothing either.
            let Some(next) = free.checked_add(1) else {
                return Err(TakenError::NoneFree(self.kind.to_owned()).into());
            };
            free = next;
        }
        if !range.contains(&free) {
            return Err(TakenError::NoneFree(self.kind.to_owned()).into());
        }
        let sql = "INSERT INTO taken (kind, number, owner) VALUES (?1, ?2, ?3)";
        self.change.execute(sql, params![self.kind, free, owner])?;
        Ok(free)
    }

    /// Gives back what `owner` has; nothing, and it is done.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give_back(&self, owner: &[u8]) -> Result<(), JournalError> {
        let sql = "DELETE FROM taken WHERE kind = ?1 AND owner = ?2";
        self.change.execute(sql, params![self.kind, owner])?;
        Ok(())
    }

    /// All numbers with their owners.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn all(&self) -> Result<Vec<(u32, Vec<u8>)>, JournalError> {
        let sql = "SELECT number, owner FROM taken WHERE kind = ?1 ORDER BY number";
        let mut statement = self.change.transaction.prepare_cached(sql)?;
        let rows = statement.query_map([self.kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
