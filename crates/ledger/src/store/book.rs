//! Booking one operation: lock, balances and journal entry, all or none.
//!
//! Everything here runs inside a savepoint of the writer, so an error rolls
//! all of the operation back. [`escrow::lock::apply`] decides; the tables
//! check again.

use escrow::lock::{Act, Postings, Windows, apply};
use escrow::{Amount, LeaseId, LockState, LockView, RailTime, Refusal};
use rusqlite::{Connection, params};

use super::journal::{Entry, Hash};
use super::pace::{Pace, check_open, count_step, take_turn};
use super::{ISSUED, read_balance, read_lock, state_word};
use crate::wire::Head;

/// What is to be booked; its signature was checked before.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Two operations of one hash are the same operation.
    pub hash: Hash,
    /// The signed instruction, for the journal.
    pub instruction: String,
    /// What it does.
    pub action: Action,
}

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Issues play money.
    Fund {
        /// The account.
        to: String,
        /// How much.
        amount: Amount,
    },
    /// Acts on a lock.
    Lock(LockAction),
}

/// An act on one lock.
#[derive(Clone, Debug)]
pub struct LockAction {
    /// Which lock.
    pub lease: LeaseId,
    /// Its terms as JSON.
    pub terms: String,
    /// Who pays.
    pub payer: String,
    /// Who is paid.
    pub payee: String,
    /// The spans that the terms fix.
    pub windows: Windows,
    /// What is done.
    pub act: Act,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booked {
    /// The account's balance afterwards.
    Funded(i64),
    /// The lock afterwards.
    Lock(LockView),
}

/// Why an operation was not booked.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The rules say no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// SQLite says no.
    #[error("the ledger's file cannot be written")]
    Sqlite(#[from] rusqlite::Error),
}

/// Books `operation` at `now` behind `head`, which moves on if an entry was
/// made.
pub fn book(
    connection: &Connection,
    pace: &Pace,
    operation: &Operation,
    now: RailTime,
    head: &mut Head,
) -> Result<Booked, BookError> {
    match &operation.action {
        Action::Fund { to, amount } => {
            if !is_booked(connection, &operation.hash)? {
                let posting = Posting {
                    debit: ISSUED,
                    credit: to,
                    amount: stored(*amount)?,
                };
                post(connection, operation, &posting, now, head)?;
            }
            Ok(Booked::Funded(read_balance(connection, to)?))
        }
        Action::Lock(action) => {
            let before = read_lock(connection, &action.lease)?;
            let (after, postings) =
                apply(&before, action.windows, action.act, now).map_err(BookError::Refused)?;
            if after != before {
                count(connection, pace, action, (&before, &after), now)?;
                write_lock(connection, action, &after)?;
                let pot = pot(&action.lease);
                let posting = posting_of(&pot, action, &postings)?;
                post(connection, operation, &posting, now, head)?;
            }
            Ok(Booked::Lock(after))
        }
    }
}

/// Whether this change may be one more entry now.
fn count(
    connection: &Connection,
    pace: &Pace,
    action: &LockAction,
    (before, after): (&LockView, &LockView),
    now: RailTime,
) -> Result<(), BookError> {
    match action.act {
        Act::Lock { .. } => {
            if before.state == LockState::None {
                check_open(connection, &action.payer)?;
            }
            count_step(connection, pace, &action.payer, now)
        }
        Act::Redeem { .. } if after.paid < after.funded => {
            let adds = after.paid.saturating_sub(before.paid);
            take_turn(connection, pace, &action.lease, adds, now)
        }
        Act::Redeem { .. } | Act::Close | Act::Refund | Act::GiveBack { .. } => Ok(()),
    }
}

/// The account that holds a lock's money.
pub fn pot(lease: &LeaseId) -> String {
    format!("lease:{lease}")
}

/// One act moves money one way at most; an act that only moves a deadline is
/// an entry of zero.
fn posting_of<'a>(
    pot: &'a str,
    action: &'a LockAction,
    postings: &Postings,
) -> Result<Posting<'a>, BookError> {
    let (payer, payee) = (action.payer.as_str(), action.payee.as_str());
    let moves = [
        (payer, pot, postings.hold),
        (pot, payee, postings.pay),
        (pot, payer, postings.release),
    ];
    let mut moving = moves.into_iter().filter(|(_, _, amount)| !amount.is_zero());
    let (debit, credit, amount) = moving.next().unwrap_or((pot, payer, Amount::ZERO));
    debug_assert!(moving.next().is_none(), "one act, one movement");
    Ok(Posting {
        debit,
        credit,
        amount: stored(amount)?,
    })
}

fn is_booked(connection: &Connection, operation: &Hash) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM entry WHERE operation = ?1)")?
        .query_row([operation.as_slice()], |row| row.get(0))
}

fn write_lock(connection: &Connection, action: &LockAction, view: &LockView) -> Result<(), BookError> {
    connection
        .prepare_cached(
            "INSERT INTO lease (id, terms, payer, payee, state, funded, paid, accept_by, expiry,
                                close_asked)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, funded = excluded.funded,
                 paid = excluded.paid, expiry = excluded.expiry,
                 close_asked = excluded.close_asked",
        )?
        .execute(params![
            action.lease.0.as_slice(),
            action.terms,
            action.payer,
            action.payee,
            state_word(view.state),
            stored(view.funded)?,
            stored(view.paid)?,
            stored_time(view.accept_by)?,
            stored_time(view.expiry)?,
            view.close_asked.map(stored_time).transpose()?,
        ])?;
    Ok(())
}

/// SQLite's integers stop at 63 bits: a larger amount is refused, never cut.
fn stored(amount: Amount) -> Result<i64, BookError> {
    i64::try_from(amount.0).map_err(|_| {
        let words = format!(
            "{amount} is more than this ledger can hold (at most {})",
            i64::MAX
        );
        BookError::Refused(Refusal::Other(words))
    })
}

pub(super) fn stored_time(time: RailTime) -> Result<i64, BookError> {
    i64::try_from(time.0).map_err(|_| {
        let words = format!("the time {time} is later than this ledger can count");
        BookError::Refused(Refusal::Other(words))
    })
}

struct Posting<'a> {
    debit: &'a str,
    credit: &'a str,
    amount: i64,
}

fn post(
    connection: &Connection,
    operation: &Operation,
    posting: &Posting<'_>,
    now: RailTime,
    head: &mut Head,
) -> Result<(), BookError> {
    let free = read_balance(connection, posting.debit)?;
    if posting.debit != ISSUED && free < posting.amount {
        return Err(BookError::Refused(Refusal::Balance {
            needed: Amount(u128::from(posting.amount.unsigned_abs())),
            free: Amount(u128::from(free.unsigned_abs())),
        }));
    }
    for (name, change) in [(posting.debit, -posting.amount), (posting.credit, posting.amount)] {
        let balance = read_balance(connection, name)?
            .checked_add(change)
            .ok_or_else(|| {
                let words = "the sum would be more than this ledger can hold".to_owned();
                BookError::Refused(Refusal::Other(words))
            })?;
        connection
            .prepare_cached(
                "INSERT INTO account (name, balance) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET balance = excluded.balance",
            )?
            .execute(params![name, balance])?;
    }
    append(connection, operation, posting, now, head)
}

fn append(
    connection: &Connection,
    operation: &Operation,
    posting: &Posting<'_>,
    now: RailTime,
    head: &mut Head,
) -> Result<(), BookError> {
    let sequence = head.sequence.saturating_add(1);
    let entry = Entry {
        sequence: stored(Amount(u128::from(sequence)))?,
        time_ms: stored_time(now)?,
        operation: operation.hash,
        instruction: operation.instruction.clone(),
        debit: posting.debit.to_owned(),
        credit: posting.credit.to_owned(),
        amount: posting.amount,
    };
    let hash = entry.hash(&head.hash);
    connection
        .prepare_cached(
            "INSERT INTO entry (sequence, time, operation, instruction, debit, credit, amount,
                                previous, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            entry.sequence,
            entry.time_ms,
            entry.operation.as_slice(),
            entry.instruction,
            entry.debit,
            entry.credit,
            entry.amount,
            head.hash.as_slice(),
            hash.as_slice(),
        ])?;
    *head = Head { sequence, hash };
    Ok(())
}
