//! How a sale is changed: longer, or another size; both signed it before.
//!
//! ```text
//!   Amended ─► deal and size hold ─► ResizeSpace ─► Resized             CPU and memory, at once
//!                                        └─ the volume grows: FundedHint ─► grant ─► key ─► ResizeSpace ─► Resized
//! ```
//!
//! Invariants: what began keeps its price; another size is taken when the lock is seen to hold all of it; a change of
//! size is only gone forward with: whatever stops it, the machine is given the agreed size again at the next start, at
//! the next key, or when the change is said again. Until the machine is handed the key, a growth of the volume can be
//! taken back by another change; from then on it may have grown, and another change only grows it further.

use super::machine::{Stepped, rejected};
use super::{Deal, Effect, Made, Now, Rejection, Resizing, Sale};
use crate::message::SaleState;

/// Changes that a sale may have: each is work for the node that nobody pays.
const MOST_CHANGES: u32 = 1000;

pub(super) fn amended(mut sale: Sale, number: u32, deal: Deal, resizing: Option<Resizing>) -> Stepped {
    if number == sale.amendments && deal == sale.deal {
        let effects = sale.resizing.map(|_| Effect::ResizeSpace); // said again
        return Ok((sale, effects.into_iter().collect()));
    }
    match sale.state {
        SaleState::Funded | SaleState::Keyed | SaleState::Building | SaleState::Locked
            if resizing.is_some() =>
        {
            Err(rejected(&sale, "its size can be changed while it runs"))
        }
        SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Locked => {
            let begun = sale.periods_begun();
            let prices = match resizing {
                None => Some(sale.deal.prices.clone()),
                Some(_) => {
                    let begun = u32::try_from(begun).unwrap_or(u32::MAX);
                    sale.deal.prices.changed(begun, deal.prices.price)
                }
            };
            let same = deal.id == sale.deal.id
                && deal.period == sale.deal.period
                && prices.as_ref() == Some(&deal.prices);
            let least = begun.max(u64::from(sale.periods_paid()));
            let next = sale.amendments.checked_add(1) == Some(number) && number <= MOST_CHANGES;
            if !next || !same || u64::from(deal.periods) < least {
                return Err(Rejection::Amendment);
            }
            let resizing = resizing.map(|asked| taken_on(&sale, number, asked)).transpose()?;
            // What a silent rail cannot show any more would end the space: it is seen before.
            let owed = deal.prices.owed(u64::from(deal.periods));
            if resizing.is_some() && owed.is_none_or(|owed| owed > sale.lock.funded) {
                return Err(Rejection::NotFunded(
                    "less than all periods at the new price is locked",
                ));
            }
            sale.deal = deal;
            sale.amendments = number;
            let mut effects = vec![Effect::CheckLock];
            if resizing.is_some() {
                sale.resizing = resizing;
                effects.push(Effect::ResizeSpace);
            }
            Ok((sale, effects))
        }
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Ending
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "it cannot be changed now")),
    }
}

/// What is to be made now, with what the machine may have made of the change before.
fn taken_on(sale: &Sale, number: u32, asked: Resizing) -> Result<Resizing, Rejection> {
    let known = sale.resizing;
    let handed = known.and_then(|known| known.handed);
    if handed.is_some_and(|handed| asked.disk < handed) {
        return Err(rejected(
            sale,
            "a volume never shrinks, and this one may have grown",
        ));
    }
    let has = known.and_then(|known| known.grows_from).or(asked.grows_from);
    Ok(Resizing {
        number,
        disk: asked.disk,
        grows_from: has.filter(|has| asked.disk > *has),
        handed,
        snapshot: asked.snapshot.or(known.and_then(|known| known.snapshot)),
    })
}

/// The key is here and goes to the machine: from here on the volume may have the size that was agreed.
pub(super) fn handed_over(mut sale: Sale) -> Sale {
    if let Some(resizing) = &mut sale.resizing
        && resizing.grows_from.is_some()
    {
        resizing.handed = resizing.handed.max(Some(resizing.disk));
    }
    sale
}

/// The machine has done it; the volume grows only with the key. What was agreed since is still to be made.
pub(super) fn resized(mut sale: Sale, made: Made, now: Now) -> Sale {
    let Made {
        number,
        grown,
        snapshot,
    } = made;
    sale.snapshot_at = snapshot.then(|| sale.snapshot_at.unwrap_or(now.rail));
    sale.resizing = sale.resizing.and_then(|mut resizing| {
        resizing.snapshot = resizing.snapshot.filter(|_| number != resizing.number);
        let has = resizing.grows_from.map(|has| has.max(grown.unwrap_or(has)));
        resizing.grows_from = has.filter(|has| resizing.disk > *has);
        let is_made = resizing.grows_from.is_none() && number == resizing.number;
        (!is_made).then_some(resizing)
    });
    sale
}

/// The agent is back and the space runs: what was under way is done again.
pub(super) fn resume(sale: Sale) -> Stepped {
    let mut effects = vec![Effect::CheckLock];
    effects.extend(sale.resizing.map(|_| Effect::ResizeSpace));
    Ok((sale, effects))
}
