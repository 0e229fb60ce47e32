//! The audit at every start: the chain holds, the sums add up.
//!
//! 1. Entries count from 1 without a gap, their time never runs back, each
//!    names the hash of the one before, and its own hash is right.
//! 2. The postings, added up, give every account's balance; all balances
//!    together are zero; nobody but `issued` is below zero.
//! 3. Every lock's `funded` is what arrived in its pot, and the pot still holds
//!    what the lock says it holds: nothing once it is closed.

use std::collections::BTreeMap;

use escrow::{Amount, LeaseId};
use rusqlite::Connection;

use super::book::pot;
use super::journal::{Entry, Hash, genesis};
use super::{ISSUED, view_of};
use crate::wire::Head;

/// What does not add up.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// SQLite says no, or a column holds what it cannot hold.
    #[error("the file cannot be read whole")]
    Sqlite(#[from] rusqlite::Error),
    /// The chain is broken.
    #[error("journal entry {sequence}: {what}")]
    Chain {
        /// Where.
        sequence: i64,
        /// How.
        what: &'static str,
    },
    /// An account is not the sum of its entries.
    #[error("account {name} says {says}, its entries say {entries}")]
    Balance {
        /// Whose.
        name: String,
        /// What the table says.
        says: i128,
        /// What the entries say.
        entries: i128,
    },
    /// A lease is not the sum of its entries.
    #[error("lease {lease}: {what} says {says}, its entries say {entries}")]
    Lease {
        /// Which.
        lease: LeaseId,
        /// Which figure.
        what: &'static str,
        /// What the table says.
        says: i128,
        /// What the entries say.
        entries: i128,
    },
}

/// A file that adds up.
#[derive(Clone, Copy, Debug)]
pub struct Audited {
    /// The newest entry.
    pub head: Head,
    /// Its time, unix milliseconds.
    pub time_ms: u64,
}

#[derive(Default)]
struct Sums {
    arrived: i128,
    left: i128,
}

/// Reads the whole file.
pub fn audit(connection: &Connection, ledger_name: &str) -> Result<Audited, AuditError> {
    let (audited, sums) = read_chain(connection, ledger_name)?;
    check_balances(connection, &sums)?;
    check_leases(connection, &sums)?;
    Ok(audited)
}

fn read_chain(
    connection: &Connection,
    ledger_name: &str,
) -> Result<(Audited, BTreeMap<String, Sums>), AuditError> {
    let mut statement = connection.prepare(
        "SELECT sequence, time, operation, instruction, debit, credit, amount, previous, hash
         FROM entry ORDER BY sequence",
    )?;
    let mut rows = statement.query([])?;
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    let (mut hash, mut sequence, mut time_ms): (Hash, i64, i64) = (genesis(ledger_name), 0, 0);
    while let Some(row) = rows.next()? {
        let entry = Entry {
            sequence: row.get(0)?,
            time_ms: row.get(1)?,
            operation: row.get(2)?,
            instruction: row.get(3)?,
            debit: row.get(4)?,
            credit: row.get(5)?,
            amount: row.get(6)?,
        };
        let (previous, own): (Hash, Hash) = (row.get(7)?, row.get(8)?);
        let fault = if entry.sequence != sequence + 1 {
            Some("an entry before it is missing")
        } else if entry.time_ms < time_ms {
            Some("its time is before that of the entry before it")
        } else if previous != hash {
            Some("it does not follow the entry before it")
        } else if own != entry.hash(&previous) {
            Some("its hash is not that of what it says")
        } else {
            None
        };
        if let Some(what) = fault {
            return Err(AuditError::Chain {
                sequence: entry.sequence,
                what,
            });
        }
        (hash, sequence, time_ms) = (own, entry.sequence, entry.time_ms);
        sums.entry(entry.debit).or_default().left += i128::from(entry.amount);
        sums.entry(entry.credit).or_default().arrived += i128::from(entry.amount);
    }
    let head = Head {
        sequence: sequence.unsigned_abs(),
        hash,
    };
    Ok((
        Audited {
            head,
            time_ms: time_ms.unsigned_abs(),
        },
        sums,
    ))
}

fn check_balances(connection: &Connection, sums: &BTreeMap<String, Sums>) -> Result<(), AuditError> {
    let mut statement = connection.prepare("SELECT name, balance FROM account")?;
    let stored: BTreeMap<String, i64> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for name in stored.keys().chain(sums.keys()) {
        let says = stored.get(name).copied().map_or(0, i128::from);
        let entries = sums.get(name).map_or(0, |sums| sums.arrived - sums.left);
        if says != entries || (entries < 0 && name != ISSUED) {
            return Err(AuditError::Balance {
                name: name.clone(),
                says,
                entries,
            });
        }
    }
    Ok(())
}

fn check_leases(connection: &Connection, sums: &BTreeMap<String, Sums>) -> Result<(), AuditError> {
    let mut statement =
        connection.prepare("SELECT id, state, funded, paid, accept_by, expiry, close_asked FROM lease")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let lease = LeaseId(row.get(0)?);
        let view = view_of(row, 1)?;
        let (arrived, left) = sums
            .get(&pot(&lease))
            .map_or((0, 0), |sums| (sums.arrived, sums.left));
        let says = |amount: Amount| i128::try_from(amount.0).unwrap_or(i128::MAX);
        for (what, says, entries) in [
            ("funded", says(view.funded), arrived),
            ("held", says(view.held()), arrived - left),
        ] {
            if says != entries {
                return Err(AuditError::Lease {
                    lease,
                    what,
                    says,
                    entries,
                });
            }
        }
    }
    Ok(())
}
