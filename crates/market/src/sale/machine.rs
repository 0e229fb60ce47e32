//! The transitions: one handler an event, each an exhaustive match over the states.

use escrow::{Amount, LockState, LockView, Voucher};

use super::amending::{amended, handed_over, resized, resume};
use super::ending::{end, gave_back, give_back_now, settle, torn};
use super::restoring::{opened, opened_smaller, refuses, restore, restored};
use super::waiting::{counted, gives_up, look_back, paid_again, space_runs, stays_down, waited_out};
use super::{Effect, Event, MOST_VOUCHERS, Now, Rejection, Sale, TornDown, Why, effects::Say};
use crate::book::AGREED_MS;
use crate::message::SaleState;

/// What a transition gives.
pub(super) type Stepped = Result<(Sale, Vec<Effect>), Rejection>;

/// How long between two looks at the lock of a sale: a period, but within these bounds.
const LOOK_EVERY_MS: (u64, u64) = (5_000, 60_000);

/// Applies one event. On a rejection the sale stays as it was.
pub fn step(sale: &Sale, event: Event, now: Now) -> Stepped {
    refuses(sale, &event).map_or(Ok(()), Err)?;
    let sale = counted(sale.clone(), &event, now);
    match event {
        Event::FundedHint => funded_hint(sale),
        Event::LockSeen { view, admitted } => lock_seen(sale, view, admitted, now),
        Event::KeyOpened { epoch } => key_opened(sale, epoch, now),
        Event::Built => built(sale, now),
        Event::OpenedSmaller => opened_smaller(sale, now),
        Event::BuildFailed { why, quarantine } => build_failed(sale, why, quarantine, now),
        Event::Vouchers(vouchers) => vouchers_came(sale, vouchers, now),
        Event::Redeemed(view) => redeemed(sale, view, now),
        Event::RedeemRefused { cumulative, why: _ } => redeem_refused(sale, cumulative, now),
        Event::End(why) => end(sale, why, now),
        Event::TornDown(torn_down) => torn(sale, torn_down, now),
        Event::GaveBack(view) => gave_back(sale, view, now),
        Event::Restarted { space_runs } => restarted(sale, space_runs, now),
        Event::SpaceRuns(runs) => space_runs(sale, runs),
        Event::Amended(change) => amended(sale, change, now),
        Event::Resized(made) => Ok((resized(sale, made, now), Vec::new())),
        Event::Restore { nonce } => restore(sale, nonce, now),
        Event::Restored(put_back) => restored(sale, put_back, now),
        Event::Tick => tick(sale, now),
    }
}

pub(super) fn to(mut sale: Sale, state: SaleState, now: Now) -> Sale {
    sale.state = state;
    sale.since = now.rail;
    sale
}

pub(super) fn rejected(sale: &Sale, what: &'static str) -> Rejection {
    Rejection::State {
        state: sale.state,
        what,
    }
}

fn funded_hint(mut sale: Sale) -> Stepped {
    match sale.state {
        SaleState::Agreed | SaleState::Lapsed => Ok((sale, vec![Effect::CheckLock])),
        SaleState::Ready | SaleState::Active if !sale.wants_key() => Err(rejected(&sale, "no key is needed")),
        SaleState::Funded | SaleState::Keyed | SaleState::Ready | SaleState::Active | SaleState::Locked => {
            sale.epoch += 1;
            let epoch = sale.epoch;
            if sale.state == SaleState::Funded {
                sale.state = SaleState::Keyed;
            }
            Ok((sale, vec![Effect::SendGrant { epoch }]))
        }
        SaleState::Building => Err(rejected(&sale, "the key is here, ask for the status")),
        SaleState::Offered
        | SaleState::Ending
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Refunded => Err(rejected(&sale, "it takes no keys any more")),
    }
}

fn lock_seen(mut sale: Sale, view: LockView, admitted: bool, now: Now) -> Stepped {
    let held = matches!(view.state, LockState::Locked | LockState::Active);
    match sale.state {
        SaleState::Agreed => {
            if view.state == LockState::Closed {
                sale.lock = view;
                return Ok((to(sale, SaleState::Lapsed, now), vec![Effect::Release]));
            }
            if !held {
                return Err(Rejection::NotFunded("there is no lock"));
            }
            sale.lock = view;
            if !admitted {
                return give_back_now(sale, Why::NoCapacity, now);
            }
            check_funds(&sale, &view, now)?;
            Ok((to(sale, SaleState::Funded, now), vec![Effect::PrepareSpace]))
        }
        SaleState::Lapsed => {
            sale.looked_back = true;
            if !held || sale.lock.state == LockState::Closed {
                return Ok((sale, Vec::new()));
            }
            sale.lock = newer(sale.lock, view);
            give_back_now(sale, Why::Late, now)
        }
        SaleState::Offered => Ok((sale, Vec::new())),
        SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Locked => {
            sale.lock = newer(sale.lock, view);
            sale.looked_boot_ms = now.boot_ms;
            if view.state == LockState::Closed || view.close_asked.is_some() {
                return end(sale, Why::Closed, now);
            }
            Ok((sale, Vec::new()))
        }
        SaleState::Ending => {
            sale.lock = newer(sale.lock, view);
            settle(sale, now)
        }
        SaleState::Ended | SaleState::Quarantined | SaleState::Refunded => Ok((sale, Vec::new())),
    }
}

/// What was once final is not taken back by an older answer: sums only grow, closed stays closed.
pub(super) fn newer(known: LockView, seen: LockView) -> LockView {
    let older = seen.paid < known.paid || seen.funded < known.funded || known.state == LockState::Closed;
    if older { known } else { seen }
}

fn check_funds(sale: &Sale, view: &LockView, now: Now) -> Result<(), Rejection> {
    let first_period_ends = now.rail.plus_ms(sale.deal.period.as_ms());
    let rules = [
        (
            view.funded >= sale.owed(1),
            "less than the first period is locked",
        ),
        (view.close_asked.is_none(), "the lock is being closed"),
        (view.paid.is_zero(), "the lock has paid already"),
        (
            view.accept_by > now.rail,
            "the time for the first voucher is over",
        ),
        (
            view.expiry >= first_period_ends,
            "the lock expires before the first period ends",
        ),
    ];
    rules
        .into_iter()
        .find(|(holds, _)| !holds)
        .map_or(Ok(()), |(_, why)| Err(Rejection::NotFunded(why)))
}

fn key_opened(mut sale: Sale, epoch: u64, now: Now) -> Stepped {
    match sale.state {
        SaleState::Keyed | SaleState::Ready | SaleState::Active | SaleState::Locked
            if epoch != sale.epoch =>
        {
            Err(Rejection::Epoch {
                got: epoch,
                newest: sale.epoch,
            })
        }
        SaleState::Ready | SaleState::Active if sale.wants_key() => {
            Ok((handed_over(sale), vec![Effect::ResizeSpace]))
        }
        SaleState::Keyed => Ok((to(sale, SaleState::Building, now), vec![Effect::BuildSpace])),
        SaleState::Locked if sale.unlocking => Err(rejected(&sale, "it is being unlocked")),
        SaleState::Locked => {
            sale.unlocking = true;
            Ok((handed_over(sale), vec![Effect::UnlockSpace]))
        }
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Ending
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "it waits for no key")),
    }
}

pub(super) fn built(mut sale: Sale, now: Now) -> Stepped {
    match sale.state {
        SaleState::Building => {
            sale.ready_at = Some(now.rail);
            let mut effects = vec![Effect::Say(Say::Ready)];
            let sale = to(sale, SaleState::Ready, now);
            effects.extend(redeem_due(&sale, now));
            Ok((sale, effects))
        }
        SaleState::Locked => {
            sale.unlocking = false;
            sale.down = false;
            let mut effects = opened(&mut sale);
            let (state, say) = if sale.proven {
                (SaleState::Active, Say::Active)
            } else {
                (SaleState::Ready, Say::Ready)
            };
            effects.extend([Effect::Say(say), Effect::CheckLock]);
            Ok((to(sale, state, now), effects))
        }
        // it was ended while it was built: TearDown stands behind the build in the queue
        SaleState::Ending => Ok((sale, Vec::new())),
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "nothing was being built")),
    }
}

fn build_failed(mut sale: Sale, why: String, quarantine: Option<String>, now: Now) -> Stepped {
    match sale.state {
        SaleState::Funded | SaleState::Keyed | SaleState::Building => {
            let clean = quarantine.is_none();
            sale.torn_down = Some(TornDown {
                key_slot: clean,
                volume: clean,
                quarantine,
            });
            sale.why = Some(Why::BuildFailed(why));
            let free = if clean { Effect::Release } else { Effect::Withhold };
            let (sale, mut effects) = settle(to(sale, SaleState::Ending, now), now)?;
            effects.insert(0, free);
            Ok((sale, effects))
        }
        SaleState::Locked => {
            sale.unlocking = false;
            Ok((sale, Vec::new()))
        }
        SaleState::Ending => Ok((sale, Vec::new())),
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "nothing was being built")),
    }
}

fn vouchers_came(mut sale: Sale, vouchers: Vec<Voucher>, now: Now) -> Stepped {
    match sale.state {
        SaleState::Ready | SaleState::Active | SaleState::Locked => {
            if let Some(part) = vouchers.iter().find(|voucher| !is_whole(&sale, voucher)) {
                return Err(Rejection::PartOfAPeriod(part.cumulative));
            }
            let known = sale.vouchers.clone();
            let new = vouchers
                .into_iter()
                .filter(|voucher| voucher.cumulative > sale.lock.paid);
            let new: Vec<Voucher> = new.filter(|voucher| !known.contains(voucher)).collect();
            if new.is_empty() && known.is_empty() {
                return Err(Rejection::NothingNew);
            }
            // Those that were signed before the price changed make room for the new ones, which say more exactly.
            if known.len() + new.len() > MOST_VOUCHERS {
                let whole: Vec<Voucher> = known
                    .into_iter()
                    .filter(|voucher| is_whole(&sale, voucher))
                    .collect();
                sale.vouchers = whole;
            }
            sale.vouchers.extend(new);
            sale.vouchers
                .sort_by_key(|voucher| (voucher.cumulative, voucher.not_before));
            sale.vouchers.dedup_by_key(|voucher| voucher.cumulative); // the earliest says all
            if sale.vouchers.len() > MOST_VOUCHERS {
                return Err(Rejection::TooManyVouchers);
            }
            let effects = if sale.state == SaleState::Locked {
                Vec::new()
            } else {
                redeem_due(&sale, now)
            };
            Ok((sale, effects))
        }
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ending
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "vouchers are taken once the space is ready")),
    }
}

/// Voucher n is n times the price: a smaller sum would make a period look paid, or never be paid at all.
pub(super) fn is_whole(sale: &Sale, voucher: &Voucher) -> bool {
    let deal = &sale.deal;
    deal.prices.is_whole(voucher.cumulative, deal.periods)
}

/// The voucher that pays most of what was earned by now: never for a period that did not begin, never more than the
/// lock holds, so that only a silent rail keeps it from being redeemed.
fn due(sale: &Sale, now: Now) -> Option<&Voucher> {
    let most = sale.owed(sale.periods_begun()).min(sale.lock.funded);
    let earned = |voucher: &&Voucher| {
        voucher.cumulative <= most && voucher.cumulative > sale.lock.paid && voucher.not_before <= now.rail
    };
    sale.vouchers
        .iter()
        .filter(earned)
        .max_by_key(|voucher| voucher.cumulative)
}

/// Periods that are paid, or would be if the rail were not silent: a voucher that waits for its word is no reason to
/// stop, but covers what it says and not a period more. After one that the rail refused, its word is wanted.
fn periods_covered(sale: &Sale, now: Now) -> u64 {
    let paid = u64::from(sale.periods_paid());
    let prices = &sale.deal.prices;
    let waiting = due(sale, now).filter(|_| !sale.refused);
    let waiting = waiting.map_or(0, |voucher| prices.paid(voucher.cumulative, sale.deal.periods));
    paid.max(u64::from(waiting))
}

pub(super) fn redeem_due(sale: &Sale, now: Now) -> Vec<Effect> {
    due(sale, now)
        .map(|voucher| Effect::Redeem(voucher.clone()))
        .into_iter()
        .collect()
}

fn redeemed(mut sale: Sale, view: LockView, now: Now) -> Stepped {
    let periods_before = sale.periods_paid();
    sale.lock = newer(sale.lock, view);
    sale.refused = false;
    let mut sale = paid_again(sale, periods_before);
    let paid = sale.lock.paid;
    sale.vouchers.retain(|voucher| voucher.cumulative > paid);
    match sale.state {
        SaleState::Ready if sale.periods_paid() == 0 => Ok((sale, Vec::new())),
        SaleState::Ready => {
            sale.proven = true;
            Ok((to(sale, SaleState::Active, now), vec![Effect::Say(Say::Active)]))
        }
        SaleState::Active | SaleState::Locked => Ok((sale, Vec::new())),
        SaleState::Ending => settle(sale, now),
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "nothing was being redeemed")),
    }
}

fn redeem_refused(mut sale: Sale, cumulative: Amount, now: Now) -> Stepped {
    sale.vouchers.retain(|voucher| voucher.cumulative != cumulative);
    sale.refused = true;
    match sale.state {
        SaleState::Ending => settle(sale, now),
        SaleState::Ready | SaleState::Active | SaleState::Locked => Ok((sale, vec![Effect::CheckLock])),
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "nothing was being redeemed")),
    }
}

fn restarted(mut sale: Sale, space_runs: bool, now: Now) -> Stepped {
    sale.unlocking = false;
    sale.down = false;
    sale.looked_boot_ms = now.boot_ms;
    sale.restoring
        .iter_mut()
        .for_each(|restoring| restoring.failed = false);
    match sale.state {
        SaleState::Agreed => Ok((sale, vec![Effect::CheckLock])),
        SaleState::Funded | SaleState::Keyed => {
            Ok((to(sale, SaleState::Funded, now), vec![Effect::PrepareSpace]))
        }
        SaleState::Building => {
            let effects = vec![Effect::UndoBuild, Effect::PrepareSpace];
            Ok((to(sale, SaleState::Funded, now), effects))
        }
        SaleState::Ready | SaleState::Active if space_runs => resume(sale),
        SaleState::Ready | SaleState::Active => {
            Ok((to(sale, SaleState::Locked, now), vec![Effect::Say(Say::Locked)]))
        }
        SaleState::Locked if sale.restoring.is_some() => Ok((sale, vec![Effect::RestoreSpace])),
        SaleState::Locked if space_runs => built(sale, now),
        SaleState::Locked => Ok((sale, vec![Effect::Say(Say::Locked)])),
        SaleState::Ending if sale.torn_down.is_none() => Ok((sale, vec![Effect::TearDown])),
        SaleState::Ending => settle(sale, now),
        SaleState::Ended | SaleState::Quarantined | SaleState::Refunded => {
            Ok((sale, vec![Effect::SignReceipt]))
        }
        SaleState::Lapsed if !sale.looked_back => Ok((sale, vec![Effect::CheckLock])),
        SaleState::Offered | SaleState::Lapsed => Ok((sale, Vec::new())),
    }
}

fn tick(sale: Sale, now: Now) -> Stepped {
    match sale.state {
        SaleState::Agreed if now.boot_ms.saturating_sub(sale.looked_boot_ms) >= AGREED_MS => {
            end(sale, Why::Late, now)
        }
        SaleState::Funded | SaleState::Keyed | SaleState::Building | SaleState::Ready
            if now.rail >= sale.lock.accept_by =>
        {
            end(sale, Why::NotAccepted, now)
        }
        SaleState::Locked if now.rail >= sale.lock.expiry => end(sale, Why::Expired, now),
        // it waits for its key as long as its first voucher may take
        SaleState::Locked if !sale.proven && now.rail >= sale.lock.accept_by => {
            end(sale, Why::NotAccepted, now)
        }
        SaleState::Ready | SaleState::Active | SaleState::Locked
            if (sale.down || sale.state == SaleState::Locked) && waited_out(&sale) =>
        {
            end(sale, Why::Waited, now)
        }
        SaleState::Ready | SaleState::Active if stays_down(&sale) => gives_up(sale, now),
        SaleState::Ready => {
            let effects = redeem_due(&sale, now);
            Ok(look(sale, effects, now))
        }
        SaleState::Active => active_tick(sale, now),
        SaleState::Funded | SaleState::Keyed | SaleState::Locked => Ok(look(sale, Vec::new(), now)),
        SaleState::Ending => settle(sale, now),
        SaleState::Lapsed => look_back(sale, now),
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Building
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Refunded => Ok((sale, Vec::new())),
    }
}

/// Looks at the lock now and then, in every state that holds capacity: its user may close it without a word to us.
fn look(mut sale: Sale, mut effects: Vec<Effect>, now: Now) -> (Sale, Vec<Effect>) {
    let every_ms = sale.deal.period.as_ms().clamp(LOOK_EVERY_MS.0, LOOK_EVERY_MS.1);
    if now.boot_ms.saturating_sub(sale.looked_boot_ms) >= every_ms {
        sale.looked_boot_ms = now.boot_ms;
        effects.push(Effect::CheckLock);
    }
    (sale, effects)
}

fn active_tick(sale: Sale, now: Now) -> Stepped {
    let period_ms = sale.deal.period.as_ms();
    let whole_ms = period_ms.saturating_mul(u64::from(sale.deal.periods));
    if sale.served_ms >= whole_ms || now.rail >= sale.lock.expiry {
        return end(sale, Why::Expired, now);
    }
    let effects = redeem_due(&sale, now);
    let covered = periods_covered(&sale, now);
    let unpaid_ms = sale.served_ms.saturating_sub(covered.saturating_mul(period_ms));
    if covered < sale.periods_begun() && unpaid_ms >= sale.grace_ms() {
        return end(sale, Why::NotPaid, now);
    }
    Ok(look(sale, effects, now))
}
