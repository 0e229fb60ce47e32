//! How fast one account and one lock may add to the journal, which forgets nothing.
//!
//! | entry | bound |
//! |---|---|
//! | a lock begins, is topped up, is extended | so many an hour of one payer |
//! | a redemption that pays a lock's whole | none: after it only a top-up makes room for another |
//! | any other redemption | of one lock and one size, a burst and then one each few seconds |
//! | close, refund, give back | none: once each in the life of a lock |
//!
//! A voucher may be shown by anybody who has it, the payer too. One pace for all redemptions of a lock would be his
//! weapon: with vouchers of one unit each he takes every turn, until the lock's notice is over and what the payee holds
//! is worth nothing. So sizes take turns apart: what a redemption adds to what is paid, counted in steps of 16 times.
//! Whoever takes the turn of a voucher that is worth `x` pays the payee more than `x / 16` with it, so of `x` nothing is
//! left to be withheld after 16 turns, and of what is left nothing after 16 more in each smaller size. A payee who asks
//! again when he was told to is paid within six seconds, or somebody else has paid him.

use escrow::{Amount, LeaseId, RailTime, Refusal};
use rusqlite::{Connection, OptionalExtension, params};

use super::book::{BookError, stored_time};

/// How many entries one account and one lock may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Locks that one payer begins, tops up or extends in an hour of the ledger's clock.
    pub steps_an_hour: u32,
    /// From one redemption of a lock and a size to the next, milliseconds, in the long run.
    pub redemption_ms: u64,
    /// Redemptions of a lock and a size at once, where there was none for long.
    pub redemptions: u64,
    /// How many bits more make another size.
    pub size_bits: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            steps_an_hour: 600,
            redemption_ms: 6_000,
            redemptions: 60,
            size_bits: 4,
        }
    }
}

/// Locks that one payer may have open at a time: what `balance` and `open` walk over.
const MOST_OPEN: i64 = 4096;

const HOUR_MS: u64 = 3_600_000;

/// Turns of other locks that nobody has to wait for any more and that go with one redemption: more than it adds.
const SWEPT: i64 = 4;

impl Pace {
    /// The size of a redemption that adds this much.
    fn size(&self, adds: Amount) -> u32 {
        adds.0.max(1).ilog2() / self.size_bits.max(1)
    }

    /// From when on nobody has to wait, after one more at `now`; or when that one may come.
    fn taken(&self, free_from: RailTime, now: RailTime) -> Result<RailTime, RailTime> {
        let free_from = free_from.max(now);
        let ahead_ms = self.redemption_ms.saturating_mul(self.redemptions.max(1) - 1);
        let begins = RailTime(free_from.0.saturating_sub(ahead_ms));
        if begins > now {
            return Err(begins);
        }
        Ok(free_from.plus_ms(self.redemption_ms))
    }
}

/// One more lock of this payer's, if it may be open beside the others.
pub(super) fn check_open(connection: &Connection, payer: &str) -> Result<(), BookError> {
    let open: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM lease WHERE payer = ?1 AND state <> 'closed' LIMIT ?2)",
        )?
        .query_row(params![payer, MOST_OPEN], |row| row.get(0))?;
    if open >= MOST_OPEN {
        let words = format!("the account has {MOST_OPEN} open locks: end one first");
        return Err(BookError::Refused(Refusal::Other(words)));
    }
    Ok(())
}

/// One more step of this payer's, if it may come now. What is rolled back with the operation did not count.
pub(super) fn count_step(
    connection: &Connection,
    pace: &Pace,
    payer: &str,
    now: RailTime,
) -> Result<(), BookError> {
    let hour = stored_time(RailTime(now.0 / HOUR_MS))?;
    let most = pace.steps_an_hour;
    let counted: Option<i64> = connection
        .prepare_cached(
            "INSERT INTO begun (payer, hour, locks) VALUES (?1, ?2, 1)
             ON CONFLICT (payer) DO UPDATE SET hour = excluded.hour,
                 locks = iif(hour = excluded.hour, locks + 1, 1)
             WHERE hour <> excluded.hour OR locks < ?3
             RETURNING locks",
        )?
        .query_row(params![payer, hour, most], |row| row.get(0))
        .optional()?;
    match counted {
        Some(_) => Ok(()),
        None => {
            let words = format!(
                "the account began, topped up or extended {most} locks in this hour: the next one may come later"
            );
            Err(BookError::Refused(Refusal::Other(words)))
        }
    }
}

/// One more redemption of this lock's that adds so much, if it may come now.
pub(super) fn take_turn(
    connection: &Connection,
    pace: &Pace,
    lease: &LeaseId,
    adds: Amount,
    now: RailTime,
) -> Result<(), BookError> {
    let size = pace.size(adds);
    let free_from: Option<i64> = connection
        .prepare_cached("SELECT free_from FROM redeemed WHERE lease = ?1 AND size = ?2")?
        .query_row(params![lease.0.as_slice(), size], |row| row.get(0))
        .optional()?;
    let free_from = RailTime(free_from.and_then(|at| u64::try_from(at).ok()).unwrap_or(0));
    let next = pace
        .taken(free_from, now)
        .map_err(|begins| BookError::Refused(Refusal::NotYet(begins)))?;
    connection
        .prepare_cached(
            "INSERT INTO redeemed (lease, size, free_from) VALUES (?1, ?2, ?3)
             ON CONFLICT (lease, size) DO UPDATE SET free_from = excluded.free_from",
        )?
        .execute(params![lease.0.as_slice(), size, stored_time(next)?])?;
    connection
        .prepare_cached(
            "DELETE FROM redeemed WHERE (lease, size) IN
                 (SELECT lease, size FROM redeemed WHERE free_from <= ?1 LIMIT ?2)",
        )?
        .execute(params![stored_time(now)?, SWEPT])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_each_six_seconds() {
        let pace = Pace::default();
        let (mut free_from, start) = (RailTime(0), RailTime(1_000_000));
        for _ in 0..60 {
            free_from = pace.taken(free_from, start).unwrap();
        }
        let next = pace.taken(free_from, start).unwrap_err();
        assert_eq!(next, start.plus_ms(6_000));
        assert_eq!(pace.taken(free_from, RailTime(next.0 - 1)), Err(next));
        let taken = pace.taken(free_from, next).unwrap();
        assert_eq!(pace.taken(taken, next), Err(next.plus_ms(6_000)));
        // after as long as the burst lasts, there is one again
        let rested = next.plus_ms(60 * 6_000);
        assert_eq!(pace.taken(taken, rested), Ok(rested.plus_ms(6_000)));
    }

    #[test]
    fn sixteen_times_as_much_is_another_size() {
        let pace = Pace::default();
        for (least, most) in [(1, 15), (16, 255), (256, 4_095)] {
            assert_eq!(pace.size(Amount(least)), pace.size(Amount(most)), "{least}");
            assert_ne!(pace.size(Amount(most)), pace.size(Amount(most + 1)), "{most}");
        }
    }
}
