//! How a sale ends: tear down, redeem what was earned, give back the rest, and it is over.

use escrow::{LockState, LockView};

use super::machine::{Stepped, newer, redeem_due, rejected, to};
use super::{Effect, Now, Sale, Say, TornDown, Why};
use crate::message::SaleState;

pub(super) fn end(mut sale: Sale, why: Why, now: Now) -> Stepped {
    match sale.state {
        SaleState::Agreed => {
            sale.why = Some(why);
            sale.ended_at = Some(now.rail);
            sale.looked_boot_ms = now.boot_ms;
            Ok((
                to(sale, SaleState::Lapsed, now),
                vec![Effect::Release, Effect::CheckLock],
            ))
        }
        SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Locked => {
            sale.why = Some(why);
            Ok((to(sale, SaleState::Ending, now), vec![Effect::TearDown]))
        }
        SaleState::Ending
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Ok((sale, Vec::new())),
        SaleState::Offered => Err(rejected(&sale, "there is nothing to end")),
    }
}

pub(super) fn torn(mut sale: Sale, torn_down: TornDown, now: Now) -> Stepped {
    match sale.state {
        SaleState::Ending => {
            let free = if torn_down.quarantine.is_none() {
                Effect::Release
            } else {
                Effect::Withhold
            };
            sale.torn_down = Some(torn_down);
            let (sale, mut effects) = settle(sale, now)?;
            effects.insert(0, free);
            Ok((sale, effects))
        }
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Locked
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "nothing was being torn down")),
    }
}

/// After the teardown: redeem what was earned, then give back the rest, then it is over.
pub(super) fn settle(sale: Sale, now: Now) -> Stepped {
    if sale.torn_down.is_none() {
        return Ok((sale, Vec::new()));
    }
    match sale.lock.state {
        LockState::None | LockState::Closed => Ok(over(sale, now)),
        LockState::Locked | LockState::Active => {
            let mut effects = redeem_due(&sale, now);
            if effects.is_empty() {
                effects.push(Effect::GiveBack { paid: sale.lock.paid });
            }
            Ok((sale, effects))
        }
    }
}

pub(super) fn gave_back(mut sale: Sale, view: LockView, now: Now) -> Stepped {
    match sale.state {
        SaleState::Ending => {
            sale.returned = view.funded.saturating_sub(view.paid);
            sale.lock = newer(sale.lock, view);
            settle(sale, now)
        }
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Locked
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "nothing was being given back")),
    }
}

pub(super) fn over(mut sale: Sale, now: Now) -> (Sale, Vec<Effect>) {
    let quarantined = sale
        .torn_down
        .as_ref()
        .is_some_and(|torn_down| torn_down.quarantine.is_some());
    let state = match (quarantined, sale.lock.paid.is_zero()) {
        (true, _) => SaleState::Quarantined,
        (false, true) => SaleState::Refunded,
        (false, false) => SaleState::Ended,
    };
    sale.returned = sale.lock.funded.saturating_sub(sale.lock.paid);
    sale.ended_at = Some(now.rail);
    sale.vouchers.clear();
    (
        to(sale, state, now),
        vec![Effect::SignReceipt, Effect::Say(Say::Ended)],
    )
}

/// Nothing was built: only the money goes back.
pub(super) fn give_back_now(mut sale: Sale, why: Why, now: Now) -> Stepped {
    sale.why = Some(why);
    sale.torn_down = Some(TornDown::CLEAN);
    let mut sale = to(sale, SaleState::Ending, now);
    sale.vouchers.clear();
    let (sale, mut effects) = settle(sale, now)?;
    effects.insert(0, Effect::Release);
    Ok((sale, effects))
}
