//! What a transaction wrote, kept as the statements that wrote it, so that a copy can be written the same way.
//!
//! Invariant: a statement that writes goes through [`Change`], and says the same on every file that holds the same: no
//! clock, no randomness, no row number that the file itself does not keep.

use std::cell::RefCell;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Row, ToSql, Transaction};

use super::JournalError;

/// One statement that wrote, with its values.
#[derive(Debug, Clone)]
pub(super) struct Redo {
    sql: &'static str,
    values: Vec<Value>,
}

/// One transaction and what it wrote so far.
pub(super) struct Change<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    wrote: RefCell<Vec<Redo>>,
}

impl<'a> Change<'a> {
    pub(super) fn new(transaction: &'a Transaction<'a>) -> Self {
        Self {
            transaction,
            wrote: RefCell::default(),
        }
    }

    /// Runs a statement that writes; how many rows it wrote.
    pub(super) fn execute(&self, sql: &'static str, values: &[&dyn ToSql]) -> Result<usize, JournalError> {
        let redo = Redo::new(sql, values)?;
        let rows = self.transaction.prepare_cached(sql)?.execute(values)?;
        self.wrote.borrow_mut().push(redo);
        Ok(rows)
    }

    /// Runs a statement that writes one row and returns of it.
    pub(super) fn execute_returning<T>(
        &self,
        sql: &'static str,
        values: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let redo = Redo::new(sql, values)?;
        let value = self.transaction.prepare_cached(sql)?.query_row(values, read)?;
        self.wrote.borrow_mut().push(redo);
        Ok(value)
    }

    pub(super) fn wrote_nothing(&self) -> bool {
        self.wrote.borrow().is_empty()
    }

    pub(super) fn into_redo(self) -> Vec<Redo> {
        self.wrote.into_inner()
    }
}

impl Redo {
    fn new(sql: &'static str, values: &[&dyn ToSql]) -> Result<Self, JournalError> {
        let owned = |value: &&dyn ToSql| {
            Ok(match value.to_sql()? {
                ToSqlOutput::Owned(value) => value,
                ToSqlOutput::Borrowed(value) => value.try_into().map_err(rusqlite::Error::from)?,
                other => return Err(JournalError::Row(format!("no copy can be made of {other:?}"))),
            })
        };
        let values = values.iter().map(owned).collect::<Result<_, JournalError>>()?;
        Ok(Self { sql, values })
    }

    /// Writes the same once more, elsewhere.
    pub(super) fn apply(&self, transaction: &Transaction<'_>) -> Result<(), JournalError> {
        let mut statement = transaction.prepare_cached(self.sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(&self.values))?;
        while rows.next()?.is_some() {}
        Ok(())
    }
}
