//! How long a sale waits that serves nobody: a space that is down, one that waits for its key, a lock that may be late.
//!
//! ```text
//!   Ready, Active ─ down ─ 10 min in one piece ─► Locked: taken down, its key starts it anew
//!        └──────────────── down or Locked, together longer than the lock pays for, 30 days at most ─► Ending
//!   Lapsed ─ looks for a lock every 5 s, until the rail has answered once, or no accept window can be open ─► as it is
//! ```
//!
//! Invariant: whoever breaks his own space, or never brings its key, holds capacity no longer than his money would have
//! paid for it, nor than 30 days, and at least for the notice. What is waited counts from the last period that was paid, by the clock
//! of this boot: time in which the node itself is dark is not the user's.

use super::machine::{Stepped, to};
use super::{Effect, Event, Now, Sale, Say};
use crate::message::{MOST_ACCEPT_S, SaleState};

/// A space that is down so long does not come back by being started again.
const DOWN_MS: u64 = 600_000;
/// Longer nobody waits for a user, however much he locked: a space that is down pays nothing. Long enough for a holiday.
const MOST_WAIT_MS: u64 = 30 * 86_400_000;
/// How long between two looks for a lock that may have come before the sale lapsed.
const LATE_LOOK_MS: u64 = 5_000;

/// Counts service and waiting, by the clock of this boot. A reboot counts nothing.
pub(super) fn counted(mut sale: Sale, event: &Event, now: Now) -> Sale {
    let rebooted = matches!(event, Event::Restarted { space_runs: false });
    let since = sale.last_boot_ms.unwrap_or(now.boot_ms);
    let passed = if rebooted {
        0
    } else {
        now.boot_ms.saturating_sub(since)
    };
    match sale.state {
        SaleState::Active if !sale.down => sale.served_ms = sale.served_ms.saturating_add(passed),
        SaleState::Ready if !sale.down => {}
        SaleState::Ready | SaleState::Active | SaleState::Locked => {
            sale.waited_ms = sale.waited_ms.saturating_add(passed);
        }
        _ => {}
    }
    sale.last_boot_ms = Some(now.boot_ms);
    sale
}

/// Whether it has waited as long as what is locked still pays for, 30 days at most, and at least for the notice.
pub(super) fn waited_out(sale: &Sale) -> bool {
    let deal = &sale.deal;
    let funded = u64::from(deal.prices.paid(sale.lock.funded, deal.periods));
    let whole_ms = funded.saturating_mul(deal.period.as_ms());
    let left_ms = whole_ms.saturating_sub(sale.served_ms);
    sale.waited_ms >= left_ms.min(MOST_WAIT_MS).max(deal.notice.as_ms())
}

/// A period was paid: what was waited before it is forgotten.
pub(super) fn paid_again(mut sale: Sale, periods_before: u32) -> Sale {
    if sale.periods_paid() > periods_before {
        sale.waited_ms = 0;
        sale.down_from_ms = 0;
    }
    sale
}

/// The space's process ended by itself, or runs again.
pub(super) fn space_runs(mut sale: Sale, runs: bool) -> Stepped {
    let serves = matches!(sale.state, SaleState::Ready | SaleState::Active);
    if !serves || sale.down != runs {
        return Ok((sale, Vec::new()));
    }
    sale.down = !runs;
    sale.down_from_ms = sale.waited_ms;
    let say = if runs { Say::Up } else { Say::Down };
    Ok((sale, vec![Effect::Say(say)]))
}

/// Whether starting it again and again has not helped.
pub(super) fn stays_down(sale: &Sale) -> bool {
    sale.down && sale.waited_ms.saturating_sub(sale.down_from_ms) >= DOWN_MS
}

/// It is taken down to its volume; the user's key starts it anew.
pub(super) fn gives_up(sale: Sale, now: Now) -> Stepped {
    let effects = vec![Effect::LockSpace, Effect::Say(Say::GaveUp)];
    Ok((to(sale, SaleState::Locked, now), effects))
}

/// A sale that lapsed while the rail was silent: money may have been locked for it in time.
pub(super) fn look_back(mut sale: Sale, now: Now) -> Stepped {
    let over = now.rail >= sale.since.plus_ms(MOST_ACCEPT_S.saturating_mul(1000));
    let soon = now.boot_ms.saturating_sub(sale.looked_boot_ms) < LATE_LOOK_MS;
    if sale.is_settled() || over || soon {
        return Ok((sale, Vec::new()));
    }
    sale.looked_boot_ms = now.boot_ms;
    Ok((sale, vec![Effect::CheckLock]))
}
