//! What can be read and written within one transaction.

use market::id::SaleId;
use rusqlite::{OptionalExtension, Row, params};

use super::redo::Change;
use super::{JournalError, Taken};
use crate::step::{StepRecord, StepState};

/// Events that are kept.
const MAX_EVENTS: i64 = 10_000;
/// Longest text of an event.
const MAX_EVENT_TEXT: usize = 500;

/// One transaction of the journal.
pub struct Entry<'a> {
    change: &'a Change<'a>,
}

/// One sale, as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleRow {
    /// Its id.
    pub sale: SaleId,
    /// The message that both sides signed, exactly those bytes.
    pub signed: Vec<u8>,
    /// Its state, in the agent's own words.
    pub state: String,
    /// What is to be built, as JSON.
    pub spec: String,
    /// The public half of the SSH host key.
    pub host_key: Option<[u8; 32]>,
    /// Grants given so far.
    pub epoch: u64,
}

/// A row of a room: its key, its value.
pub type KeyAndValue = (Vec<u8>, Vec<u8>);

/// One event, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unix milliseconds, as the node's clock said.
    pub at_ms: u64,
    /// The sale, where it is about one.
    pub sale: Option<SaleId>,
    /// In plain words.
    pub text: String,
}

impl<'a> Entry<'a> {
    pub(super) fn new(change: &'a Change<'a>) -> Self {
        Self { change }
    }

    /// Writes a sale, new or in place of what was there.
    ///
    /// # Errors
    /// When it cannot be written, as all here.
    pub fn put_sale(&self, row: &SaleRow) -> Result<(), JournalError> {
        self.change.execute(
            "INSERT OR REPLACE INTO sales (sale, signed, state, spec, host_key, epoch)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row.sale.as_bytes(),
                row.signed,
                row.state,
                row.spec,
                row.host_key,
                signed(row.epoch)?
            ],
        )?;
        Ok(())
    }

    /// One sale.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sale(&self, sale: &SaleId) -> Result<Option<SaleRow>, JournalError> {
        let sql = "SELECT sale, signed, state, spec, host_key, epoch FROM sales WHERE sale = ?1";
        Ok(self
            .change
            .transaction
            .query_row(sql, [sale.as_bytes()], sale_row)
            .optional()?)
    }

    /// All sales, the ended ones too until they are removed.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sales(&self) -> Result<Vec<SaleRow>, JournalError> {
        let sql = "SELECT sale, signed, state, spec, host_key, epoch FROM sales ORDER BY sale";
        let mut statement = self.change.transaction.prepare_cached(sql)?;
        let rows = statement.query_map([], sale_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes a sale with its steps and the numbers that it holds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove_sale(&self, sale: &SaleId) -> Result<(), JournalError> {
        let id = sale.as_bytes();
        self.change
            .execute("DELETE FROM sales WHERE sale = ?1", params![id])?;
        self.change
            .execute("DELETE FROM steps WHERE sale = ?1", params![id])?;
        self.change
            .execute("DELETE FROM taken WHERE owner = ?1", params![id.as_slice()])?;
        Ok(())
    }

    /// Replaces the state of one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_step(&self, sale: &SaleId, step: &str, state: &StepState) -> Result<(), JournalError> {
        let state = serde_json::to_string(state).map_err(|e| JournalError::Row(e.to_string()))?;
        self.change.execute(
            "INSERT OR REPLACE INTO steps (sale, step, state) VALUES (?1, ?2, ?3)",
            params![sale.as_bytes(), step, state],
        )?;
        Ok(())
    }

    /// The steps of one sale.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn steps(&self, sale: &SaleId) -> Result<Vec<StepRecord>, JournalError> {
        let sql = "SELECT step, state FROM steps WHERE sale = ?1 ORDER BY step";
        let mut statement = self.change.transaction.prepare_cached(sql)?;
        let rows = statement.query_map([sale.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let record = |row: Result<(String, String), rusqlite::Error>| {
            let (step, state) = row?;
            let state = serde_json::from_str(&state).map_err(|e| JournalError::Row(e.to_string()))?;
            Ok(StepRecord { step, state })
        };
        rows.map(record).collect()
    }

    /// The sales that have any record of a step, whether or not they have a row of their own: what
    /// recovery has to look at.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sales_with_steps(&self) -> Result<Vec<SaleId>, JournalError> {
        let mut statement = self
            .change
            .transaction
            .prepare_cached("SELECT DISTINCT sale FROM steps")?;
        let rows = statement.query_map([], |row| row.get::<_, [u8; 32]>(0))?;
        Ok(rows.map(|id| id.map(SaleId::from)).collect::<Result<_, _>>()?)
    }

    /// Numbers that one owner at a time has: user indices, id ranges, ports.
    pub fn taken<'b>(&'b self, kind: &'b str) -> Taken<'b> {
        Taken::new(self.change, kind)
    }

    /// Adds one to a counter that only grows, and returns its new value; the first is 1.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn count(&self, name: &str) -> Result<u64, JournalError> {
        let sql = "INSERT INTO counters (name, value) VALUES (?1, 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
        unsigned(
            self.change
                .execute_returning(sql, params![name], |row| row.get(0))?,
        )
    }

    /// Transactions that wrote, since the journal was made: of two copies of one journal, the higher one knows more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn writes(&self) -> Result<u64, JournalError> {
        let sql = "SELECT value FROM counters WHERE name = ?1";
        let transaction = self.change.transaction;
        let value = transaction.query_row(sql, [super::WRITES], |row| row.get(0));
        unsigned(value.optional()?.unwrap_or(0))
    }

    /// Writes a row of `room`, whose meaning only its owner knows.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_row(&self, room: &str, key: &[u8], value: &[u8]) -> Result<(), JournalError> {
        let sql = "INSERT OR REPLACE INTO rows (room, key, value) VALUES (?1, ?2, ?3)";
        self.change.execute(sql, params![room, key, value])?;
        Ok(())
    }

    /// One row.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn row(&self, room: &str, key: &[u8]) -> Result<Option<Vec<u8>>, JournalError> {
        let sql = "SELECT value FROM rows WHERE room = ?1 AND key = ?2";
        Ok(self
            .change
            .transaction
            .query_row(sql, params![room, key], |row| row.get(0))
            .optional()?)
    }

    /// All rows of a room, by key.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rows(&self, room: &str) -> Result<Vec<KeyAndValue>, JournalError> {
        let sql = "SELECT key, value FROM rows WHERE room = ?1 ORDER BY key";
        let mut statement = self.change.transaction.prepare_cached(sql)?;
        let rows = statement.query_map([room], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes a row; whether it was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove_row(&self, room: &str, key: &[u8]) -> Result<bool, JournalError> {
        let sql = "DELETE FROM rows WHERE room = ?1 AND key = ?2";
        Ok(self.change.execute(sql, params![room, key])? > 0)
    }

    /// Adds an event; the oldest beyond the bound go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_event(&self, event: &Event) -> Result<(), JournalError> {
        let text: String = event.text.chars().take(MAX_EVENT_TEXT).collect();
        let sale = event.sale.map(|sale| *sale.as_bytes());
        let sql = "INSERT INTO events (at_ms, sale, text) VALUES (?1, ?2, ?3)";
        self.change
            .execute(sql, params![signed(event.at_ms)?, sale, text])?;
        let newest = self.change.transaction.last_insert_rowid();
        self.change.execute(
            "DELETE FROM events WHERE number <= ?1",
            params![newest - MAX_EVENTS],
        )?;
        Ok(())
    }

    /// The newest events, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn events(&self, most: u32) -> Result<Vec<Event>, JournalError> {
        let sql = "SELECT at_ms, sale, text FROM events ORDER BY number DESC LIMIT ?1";
        let mut statement = self.change.transaction.prepare_cached(sql)?;
        let rows = statement.query_map([most], |row| {
            let sale: Option<[u8; 32]> = row.get(1)?;
            Ok((row.get::<_, i64>(0)?, sale.map(SaleId::from), row.get(2)?))
        })?;
        let mut events = rows
            .map(|row| {
                let (at_ms, sale, text) = row?;
                Ok(Event {
                    at_ms: unsigned(at_ms)?,
                    sale,
                    text,
                })
            })
            .collect::<Result<Vec<_>, JournalError>>()?;
        events.reverse();
        Ok(events)
    }
}

fn sale_row(row: &Row<'_>) -> rusqlite::Result<SaleRow> {
    Ok(SaleRow {
        sale: SaleId::from(row.get::<_, [u8; 32]>(0)?),
        signed: row.get(1)?,
        state: row.get(2)?,
        spec: row.get(3)?,
        host_key: row.get(4)?,
        epoch: row.get::<_, i64>(5)?.unsigned_abs(),
    })
}

fn signed(number: u64) -> Result<i64, JournalError> {
    i64::try_from(number).map_err(|_| JournalError::Row(format!("{number} is too large")))
}

fn unsigned(number: i64) -> Result<u64, JournalError> {
    u64::try_from(number).map_err(|_| JournalError::Row(format!("{number} is negative")))
}
