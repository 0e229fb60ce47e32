//! The machine walked through: the good way and every way out; what stands here is shared by the rooms below.

mod amending;
mod any;
mod faults;
mod snapshots;

use escrow::{LeaseId, LockState};

use super::effects::Say;
use super::*;
use crate::message::RefusalCode;

const PRICE: Amount = Amount(100);
const PERIOD_MS: u64 = 60_000;
const START: Now = Now {
    rail: RailTime(1_000_000),
    boot_ms: 5_000,
};

fn deal() -> Deal {
    let (period, notice) = (Seconds(60), Seconds(30));
    Deal {
        id: SaleId([1; 32]),
        prices: Prices::of(PRICE),
        period,
        periods: 3,
        notice,
    }
}

fn locked() -> LockView {
    LockView {
        state: LockState::Locked,
        funded: Amount(300),
        paid: Amount::ZERO,
        accept_by: RailTime(1_100_000),
        expiry: RailTime(2_000_000),
        close_asked: None,
    }
}

fn paid(amount: u128) -> LockView {
    LockView {
        state: LockState::Active,
        paid: Amount(amount),
        ..locked()
    }
}

fn closed(amount: u128) -> LockView {
    LockView {
        state: LockState::Closed,
        paid: Amount(amount),
        ..locked()
    }
}

fn voucher(cumulative: u128, not_before: u64) -> Voucher {
    let (lease, signature) = (LeaseId([2; 32]), vec![1; 64]);
    Voucher {
        lease,
        cumulative: Amount(cumulative),
        not_before: RailTime(not_before),
        signature,
    }
}

fn later(ms: u64) -> Now {
    Now {
        rail: START.rail.plus_ms(ms),
        boot_ms: START.boot_ms + ms,
    }
}

fn go(sale: &Sale, event: Event, now: Now) -> (Sale, Vec<Effect>) {
    step(sale, event, now).unwrap()
}

fn seen(view: LockView) -> Event {
    Event::LockSeen { view, admitted: true }
}

/// A sale after these events, all at the start.
fn after(events: Vec<Event>) -> Sale {
    events
        .into_iter()
        .fold(Sale::agreed(deal(), START), |sale, event| {
            go(&sale, event, START).0
        })
}

fn keyed() -> Sale {
    after(vec![seen(locked()), Event::FundedHint])
}

fn ready() -> Sale {
    after(vec![
        seen(locked()),
        Event::FundedHint,
        Event::KeyOpened { epoch: 1 },
        Event::Built,
    ])
}

fn active() -> Sale {
    let events = [Event::Vouchers(vec![voucher(100, 0)]), Event::Redeemed(paid(100))];
    events
        .into_iter()
        .fold(ready(), |sale, event| go(&sale, event, START).0)
}

#[test]
fn the_good_way() {
    let sale = Sale::agreed(deal(), START);
    let (sale, effects) = go(&sale, Event::FundedHint, START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Agreed, vec![Effect::CheckLock])
    );
    let (sale, effects) = go(&sale, seen(locked()), START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Funded, vec![Effect::PrepareSpace])
    );
    let (sale, effects) = go(&sale, Event::FundedHint, START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Keyed, vec![Effect::SendGrant { epoch: 1 }])
    );
    let (sale, effects) = go(&sale, Event::KeyOpened { epoch: 1 }, START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Building, vec![Effect::BuildSpace])
    );
    let (sale, effects) = go(&sale, Event::Built, START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Ready, vec![Effect::Say(Say::Ready)])
    );
    let (sale, effects) = go(&sale, Event::Vouchers(vec![voucher(100, 0)]), START);
    assert_eq!(effects, [Effect::Redeem(voucher(100, 0))]);
    let (sale, effects) = go(&sale, Event::Redeemed(paid(100)), START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Active, vec![Effect::Say(Say::Active)])
    );
    let (sale, effects) = go(&sale, Event::End(Why::Cancelled), later(10));
    assert_eq!((sale.state, effects), (SaleState::Ending, vec![Effect::TearDown]));
    let (sale, effects) = go(&sale, Event::TornDown(TornDown::CLEAN), later(20));
    assert_eq!(effects, [Effect::Release, Effect::GiveBack { paid: PRICE }]);
    let (sale, effects) = go(&sale, Event::GaveBack(closed(100)), later(30));
    assert_eq!(
        (sale.state, effects),
        (
            SaleState::Ended,
            vec![Effect::SignReceipt, Effect::Say(Say::Ended)]
        )
    );
    let receipt = sale.receipt().unwrap();
    assert_eq!(
        (receipt.paid, receipt.returned, receipt.periods_served),
        (PRICE, Amount(200), 1)
    );
    assert!(receipt.key_slot_destroyed && receipt.volume_destroyed);
}

#[test]
fn a_lock_that_is_not_as_agreed_builds_nothing() {
    let sale = Sale::agreed(deal(), START);
    let bad = [
        LockView::NONE,
        LockView {
            funded: Amount(99),
            ..locked()
        },
        LockView {
            close_asked: Some(RailTime(1)),
            ..locked()
        },
        LockView {
            accept_by: START.rail,
            ..locked()
        },
        LockView {
            expiry: later(PERIOD_MS - 1).rail,
            ..locked()
        },
        paid(1),
    ];
    for view in bad {
        let rejection = step(&sale, seen(view), START).unwrap_err();
        assert_eq!(rejection.code(), RefusalCode::NotFunded, "{view:?}");
    }
    let (sale, _) = go(&sale, seen(closed(0)), START);
    assert_eq!(sale.state, SaleState::Lapsed);
}

#[test]
fn a_late_lock_and_one_without_capacity_go_back_at_once() {
    let sale = Sale::agreed(deal(), START);
    let (lapsed, effects) = go(&sale, Event::Tick, later(AGREED_MS));
    assert_eq!(
        (lapsed.state, effects),
        (SaleState::Lapsed, vec![Effect::Release, Effect::CheckLock])
    );
    let (ending, effects) = go(&lapsed, seen(locked()), later(AGREED_MS));
    assert_eq!(
        effects,
        [Effect::Release, Effect::GiveBack { paid: Amount::ZERO }]
    );
    let (over, _) = go(&ending, Event::GaveBack(closed(0)), later(AGREED_MS));
    assert_eq!(over.state, SaleState::Refunded);
    let (_, effects) = go(
        &sale,
        Event::LockSeen {
            view: locked(),
            admitted: false,
        },
        START,
    );
    assert_eq!(
        effects,
        [Effect::Release, Effect::GiveBack { paid: Amount::ZERO }]
    );
}

use crate::book::AGREED_MS;

#[test]
fn only_the_newest_grant_is_answered() {
    let (sale, effects) = go(&keyed(), Event::FundedHint, START);
    assert_eq!(effects, [Effect::SendGrant { epoch: 2 }]);
    let rejection = step(&sale, Event::KeyOpened { epoch: 1 }, START).unwrap_err();
    assert_eq!(rejection, Rejection::Epoch { got: 1, newest: 2 });
    assert_eq!(
        go(&sale, Event::KeyOpened { epoch: 2 }, START).0.state,
        SaleState::Building
    );
}

#[test]
fn without_a_voucher_it_ends_at_accept_by_and_the_money_goes_back() {
    for sale in [keyed(), ready()] {
        assert_eq!(go(&sale, Event::Tick, later(99_999)).0.state, sale.state);
        let (sale, effects) = go(&sale, Event::Tick, later(100_000));
        assert_eq!((sale.state, effects), (SaleState::Ending, vec![Effect::TearDown]));
        let (sale, _) = go(&sale, Event::TornDown(TornDown::CLEAN), later(100_000));
        let (sale, _) = go(&sale, Event::GaveBack(closed(0)), later(100_000));
        assert_eq!((sale.state, sale.returned), (SaleState::Refunded, Amount(300)));
    }
}

#[test]
fn a_voucher_is_redeemed_only_when_its_period_began_in_service() {
    let ahead = Event::Vouchers(vec![voucher(200, 0), voucher(300, 0)]);
    let (sale, effects) = go(&active(), ahead, START);
    assert_eq!(effects, [], "the second period did not begin");
    assert_eq!(go(&sale, Event::Tick, later(PERIOD_MS - 1)).1, []);
    let (sale, effects) = go(&sale, Event::Tick, later(PERIOD_MS));
    assert_eq!(effects[0], Effect::Redeem(voucher(200, 0)));
    let (sale, _) = go(&sale, Event::Redeemed(paid(200)), later(PERIOD_MS));
    assert_eq!(sale.vouchers, [voucher(300, 0)]);
}

#[test]
fn a_voucher_is_not_shown_before_its_time() {
    let soon = later(PERIOD_MS + 5_000).rail.0;
    let (sale, _) = go(&active(), Event::Vouchers(vec![voucher(200, soon)]), START);
    assert!(
        !go(&sale, Event::Tick, later(PERIOD_MS))
            .1
            .contains(&Effect::Redeem(voucher(200, soon)))
    );
    assert!(
        go(&sale, Event::Tick, later(PERIOD_MS + 5_000))
            .1
            .contains(&Effect::Redeem(voucher(200, soon)))
    );
}

#[test]
fn no_voucher_for_a_period_ends_it_after_the_grace() {
    let (sale, effects) = go(&active(), Event::Tick, later(PERIOD_MS + 29_999));
    assert_eq!(
        (sale.state, effects),
        (SaleState::Active, vec![Effect::CheckLock])
    );
    let (sale, _) = go(&sale, Event::Tick, later(PERIOD_MS + 30_000));
    assert_eq!((sale.state, sale.why), (SaleState::Ending, Some(Why::NotPaid)));
}

#[test]
fn a_part_of_a_price_pays_for_nothing() {
    for sum in [0, 1, 99, 101, 150, 400] {
        let refused = step(&ready(), Event::Vouchers(vec![voucher(sum, 0)]), START);
        assert_eq!(refused, Err(Rejection::PartOfAPeriod(Amount(sum))));
    }
    let (sale, effects) = go(&ready(), Event::Vouchers(vec![voucher(100, 0)]), START);
    assert_eq!(effects, [Effect::Redeem(voucher(100, 0))], "the control");
    // a lock that says less was paid than one period is not served either
    let (sale, _) = go(&sale, Event::Redeemed(paid(1)), START);
    assert_eq!(sale.state, SaleState::Ready);
    let (sale, _) = go(&sale, Event::Redeemed(paid(100)), START);
    assert_eq!(sale.state, SaleState::Active);
}

#[test]
fn a_voucher_that_the_rail_refuses_buys_no_time() {
    let mut sale = active();
    for at in (PERIOD_MS..PERIOD_MS + 30_000).step_by(1000) {
        sale = go(&sale, Event::Vouchers(vec![voucher(200, 0)]), later(at)).0;
        assert_eq!(sale.state, SaleState::Active, "after {at} ms");
        let refused = Event::RedeemRefused {
            cumulative: Amount(200),
            why: escrow::Refusal::Closed,
        };
        sale = go(&sale, refused, later(at)).0;
    }
    sale = go(
        &sale,
        Event::Vouchers(vec![voucher(200, 0)]),
        later(PERIOD_MS + 30_000),
    )
    .0;
    let (sale, _) = go(&sale, Event::Tick, later(PERIOD_MS + 30_000));
    assert_eq!((sale.state, sale.why), (SaleState::Ending, Some(Why::NotPaid)));
}

#[test]
fn a_voucher_for_more_than_the_lock_holds_buys_no_time() {
    let mut sale = active();
    sale.lock.funded = Amount(100);
    let (sale, _) = go(&sale, Event::Vouchers(vec![voucher(200, 0)]), START);
    let (sale, _) = go(&sale, Event::Tick, later(PERIOD_MS + 30_000));
    assert_eq!((sale.state, sale.why), (SaleState::Ending, Some(Why::NotPaid)));
}

#[test]
fn a_silent_rail_stops_nothing() {
    let (mut sale, _) = go(
        &active(),
        Event::Vouchers(vec![voucher(200, 0), voucher(300, 0)]),
        START,
    );
    for at in (0..3 * PERIOD_MS).step_by(1000) {
        sale = go(&sale, Event::Tick, later(at)).0; // redeemed: never answered
        assert_eq!(sale.state, SaleState::Active, "after {at} ms");
    }
    let (sale, effects) = go(&sale, Event::Tick, later(3 * PERIOD_MS));
    assert_eq!(
        (sale.state, &sale.why, effects),
        (SaleState::Ending, &Some(Why::Expired), vec![Effect::TearDown])
    );
    let (_, effects) = go(&sale, Event::TornDown(TornDown::CLEAN), later(3 * PERIOD_MS));
    assert_eq!(
        effects[1],
        Effect::Redeem(voucher(300, 0)),
        "what was earned is still asked for"
    );
}

#[test]
fn a_cancel_redeems_what_was_earned_and_nothing_ahead() {
    let (sale, _) = go(
        &active(),
        Event::Vouchers(vec![voucher(200, 0), voucher(300, 0)]),
        START,
    );
    let (sale, _) = go(&sale, Event::End(Why::Cancelled), later(PERIOD_MS / 2));
    let (_, effects) = go(&sale, Event::TornDown(TornDown::CLEAN), later(PERIOD_MS / 2));
    assert_eq!(effects, [Effect::Release, Effect::GiveBack { paid: PRICE }]);
}

#[test]
fn a_user_who_closes_alone_ends_it() {
    let view = LockView {
        close_asked: Some(later(1).rail),
        ..paid(100)
    };
    let (sale, effects) = go(&active(), seen(view), later(2));
    assert_eq!(
        (sale.state, sale.why, effects),
        (SaleState::Ending, Some(Why::Closed), vec![Effect::TearDown])
    );
}

/// A lock that its user closed alone holds no capacity, whether the space runs, waits for its key, or is not built yet.
#[test]
fn the_lock_is_looked_at_in_every_state_that_holds_capacity() {
    let locked = go(&active(), Event::Restarted { space_runs: false }, START).0;
    let funded = after(vec![seen(LockView {
        accept_by: RailTime(1_900_000),
        ..self::locked()
    })]);
    for sale in [funded, ready(), active(), locked] {
        let (sale, effects) = go(&sale, Event::Tick, later(59_999));
        assert!(!effects.contains(&Effect::CheckLock), "{:?}", sale.state);
        let (sale, effects) = go(&sale, Event::Tick, later(60_000));
        assert!(effects.contains(&Effect::CheckLock), "{:?}", sale.state);
        let closed = LockView {
            close_asked: Some(later(60_000).rail),
            ..sale.lock
        };
        let (sale, _) = go(&sale, seen(closed), later(60_100));
        assert_eq!((sale.state, sale.why), (SaleState::Ending, Some(Why::Closed)));
    }
}

#[test]
fn an_older_answer_takes_nothing_back() {
    let (sale, _) = go(&active(), seen(locked()), START);
    assert_eq!(sale.lock.paid, PRICE);
}
