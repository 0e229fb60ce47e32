//! Sales that are over: kept so that their users find the receipt, but never without bound.
//!
//! ```text
//!  over ─► Retired ─┬─ nothing was paid: the newest 256 ─► the oldest is forgotten: keeper, journal rows
//!                   └─ something was:   the newest 2048 ─► the same; its sum stays in what was earned before
//! ```
//!
//! Invariant: an agreement costs its user nothing, so what it leaves behind is bounded. A lock that turns up for a sale
//! that was forgotten goes back by the rail's own rule, at its `accept_by`.

use std::collections::VecDeque;

use escrow::Amount;
use market::id::SaleId;
use provision::journal::{Entry, Journal, JournalError};

use super::record::forget_rows;

/// Sales in which nothing was paid.
const MOST_FREE: usize = 256;
/// Sales in which something was.
const MOST_PAID: usize = 2048;

/// The room of the journal for what was earned.
pub(super) const EARNED: &str = "earned";
const BEFORE: &[u8] = b"before";

/// The sales that are over, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Retired {
    free: VecDeque<SaleId>,
    paid: VecDeque<SaleId>,
}

impl Retired {
    /// Takes a sale that is over, or is so in another way than before; returns the one to forget for it.
    pub(super) fn add(&mut self, sale: SaleId, is_paid: bool) -> Option<SaleId> {
        self.free.retain(|known| *known != sale);
        self.paid.retain(|known| *known != sale);
        let (queue, most) = if is_paid {
            (&mut self.paid, MOST_PAID)
        } else {
            (&mut self.free, MOST_FREE)
        };
        queue.push_back(sale);
        (queue.len() > most).then(|| queue.pop_front()).flatten()
    }
}

/// Removes all that the journal has of a sale; what it paid stays counted.
pub(super) async fn forget(journal: &Journal, sale: SaleId, paid: Amount) -> Result<(), JournalError> {
    let forgotten = journal.write(move |entry| {
        forget_rows(entry, &sale)?;
        let before = read_before(entry)?;
        let sum = before.checked_add(paid).unwrap_or(before);
        entry.put_row(EARNED, BEFORE, sum.to_string().as_bytes())
    });
    forgotten.await
}

/// What sales paid that are forgotten.
pub(super) async fn earned_before(journal: &Journal) -> Result<Amount, JournalError> {
    journal.write(read_before).await
}

fn read_before(entry: &Entry<'_>) -> Result<Amount, JournalError> {
    let Some(bytes) = entry.row(EARNED, BEFORE)? else {
        return Ok(Amount::ZERO);
    };
    let unread = |_| JournalError::Row("what was earned before is no amount".to_owned());
    let text = String::from_utf8(bytes).map_err(|_| unread(()))?;
    text.parse().map_err(|_| unread(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale(number: u16) -> SaleId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        SaleId(id)
    }

    #[test]
    fn the_oldest_of_its_kind_is_forgotten() {
        let mut retired = Retired::default();
        assert_eq!(retired.add(sale(9999), true), None);
        for number in 0..256 {
            assert_eq!(retired.add(sale(number), false), None);
        }
        assert_eq!(retired.add(sale(256), false), Some(sale(0)));
        assert_eq!(retired.add(sale(256), false), None, "said again");
        assert_eq!(retired.add(sale(1), true), None, "it was paid after all");
        assert_eq!(retired.add(sale(257), false), None, "so there was room");
    }
}
