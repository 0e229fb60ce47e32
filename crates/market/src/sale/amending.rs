//! How a sale is changed: longer, or another size; both signed it before.
//!
//! ```text
//!   Amended ─┬─ costs more ─► the voucher in it pays the next period, which begins now ─┐
//!            └─ costs no more ──────────────────────────────────────────────────────────┴─► deal and size hold
//!                 deal and size hold ─► ResizeSpace ─► Resized                        CPU and memory, at once
//!                                           └─ the volume grows: FundedHint ─► grant ─► key ─► ResizeSpace ─► Resized
//! ```
//!
//! Invariants: what began keeps its price; nothing is given that costs more than what is paid for the period that runs,
//! or whoever ends the sale before its next period would have had it for nothing; another size is taken when the lock is seen to hold all of it; a change of
//! size is only gone forward with: whatever stops it, the machine is given the agreed size again at the next start, at
//! the next key, or when the change is said again. Until the machine is handed the key, a growth of the volume can be
//! taken back by another change; from then on it may have grown, and another change only grows it further.

use escrow::Voucher;

use super::machine::{Stepped, is_whole, redeem_due, rejected};
use super::{Change, Effect, Made, Now, Rejection, Resizing, Sale};
use crate::message::SaleState;

/// Changes that a sale may have beside those that make it longer, which are paid: each is work for the node.
const MOST_UNPAID: u32 = 1000;

pub(super) fn amended(mut sale: Sale, change: Change, now: Now) -> Stepped {
    let Change {
        number,
        deal,
        resizing,
        voucher,
    } = change;
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
            let begun_32 = u32::try_from(begun).unwrap_or(u32::MAX);
            let prices = match resizing {
                None => Some(sale.deal.prices.clone()),
                Some(_) => sale.deal.prices.changed(begun_32, deal.prices.price),
            };
            let same = deal.id == sale.deal.id
                && deal.period == sale.deal.period
                && prices.as_ref() == Some(&deal.prices);
            let least = begun.max(u64::from(sale.periods_paid()));
            let is_longer = resizing.is_none() && deal.periods > sale.deal.periods;
            let next = sale.amendments.checked_add(1) == Some(number)
                && (is_longer || sale.unpaid_changes < MOST_UNPAID);
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
            let costs_more = resizing.is_some() && deal.prices.price > sale.deal.prices.at(begun_32);
            sale.deal = deal;
            sale.amendments = number;
            let mut effects = vec![Effect::CheckLock];
            if costs_more {
                sale = next_period_begins(sale, voucher, now)?;
                effects.extend(redeem_due(&sale, now));
            }
            sale.unpaid_changes = sale.unpaid_changes.saturating_add(u32::from(!is_longer));
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

/// The next period begins now, paid by this voucher: it is kept as those are that come by themselves.
fn next_period_begins(mut sale: Sale, voucher: Option<Voucher>, now: Now) -> Result<Sale, Rejection> {
    let next = sale.periods_begun().saturating_add(1);
    if next > u64::from(sale.deal.periods) {
        return Err(Rejection::LastPeriod);
    }
    let owed = sale.owed(next);
    let pays = |voucher: &Voucher| voucher.cumulative == owed && voucher.not_before <= now.rail;
    let voucher = voucher.filter(pays).ok_or(Rejection::NotPaidWith(owed))?;
    // Those at the prices of before are void.
    let mut vouchers = std::mem::take(&mut sale.vouchers);
    vouchers.retain(|known| known.cumulative != owed && is_whole(&sale, known));
    vouchers.push(voucher);
    sale.vouchers = vouchers;
    sale.vouchers
        .sort_by_key(|voucher| (voucher.cumulative, voucher.not_before));
    let period_ms = sale.deal.period.as_ms();
    sale.served_ms = period_ms.saturating_mul(next.saturating_sub(1));
    Ok(sale)
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
