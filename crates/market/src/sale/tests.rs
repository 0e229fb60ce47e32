//! The machine walked through: the good way, every way out, and any sequence of events at all.

use escrow::{LeaseId, LockState};
use proptest::prelude::*;

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
fn a_reboot_locks_and_dark_time_costs_nothing() {
    let sale = go(&active(), Event::Tick, later(40_000)).0;
    assert_eq!(sale.served_ms, 40_000);
    let boot = |rail_ms, boot_ms| Now {
        rail: START.rail.plus_ms(rail_ms),
        boot_ms,
    };
    let (sale, effects) = go(
        &sale,
        Event::Restarted { space_runs: false },
        boot(300_000, 90_000),
    );
    assert_eq!(
        (sale.state, effects),
        (SaleState::Locked, vec![Effect::Say(Say::Locked)])
    );
    assert_eq!(sale.served_ms, 40_000, "dark");
    let (sale, effects) = go(&sale, Event::FundedHint, boot(400_000, 190_000));
    assert_eq!(effects, [Effect::SendGrant { epoch: 2 }]);
    let (sale, effects) = go(&sale, Event::KeyOpened { epoch: 2 }, boot(400_000, 190_000));
    assert_eq!(
        (sale.state, effects),
        (SaleState::Locked, vec![Effect::UnlockSpace])
    );
    let (sale, _) = go(&sale, Event::Built, boot(400_000, 190_000));
    assert_eq!(sale.state, SaleState::Active);
    assert_eq!(go(&sale, Event::Tick, boot(409_000, 199_000)).0.served_ms, 49_000);
}

#[test]
fn a_space_that_is_down_earns_nothing() {
    let (sale, effects) = go(&active(), Event::SpaceRuns(false), later(40_000));
    assert_eq!((sale.served_ms, effects), (40_000, vec![Effect::Say(Say::Down)]));
    let (sale, _) = go(&sale, Event::Vouchers(vec![voucher(200, 0)]), later(40_000));
    let (sale, effects) = go(&sale, Event::Tick, later(10 * PERIOD_MS));
    assert_eq!((sale.state, sale.served_ms), (SaleState::Active, 40_000));
    assert!(!effects.contains(&Effect::Redeem(voucher(200, 0))));
    let (sale, effects) = go(&sale, Event::SpaceRuns(true), later(10 * PERIOD_MS));
    assert_eq!((sale.served_ms, effects), (40_000, vec![Effect::Say(Say::Up)]));
    let (_, effects) = go(&sale, Event::Tick, later(10 * PERIOD_MS + 20_000));
    assert_eq!(effects[0], Effect::Redeem(voucher(200, 0)), "the control");
}

#[test]
fn a_locked_space_waits_no_longer_than_what_was_agreed() {
    let mut sale = active();
    sale.lock.expiry = RailTime(u64::MAX);
    let (sale, _) = go(&sale, Event::Restarted { space_runs: false }, START);
    let (sale, _) = go(&sale, Event::Tick, later(3 * PERIOD_MS - 1));
    assert_eq!(sale.state, SaleState::Locked);
    let (sale, _) = go(&sale, Event::Tick, later(3 * PERIOD_MS));
    assert_eq!((sale.state, sale.why), (SaleState::Ending, Some(Why::Expired)));
}

#[test]
fn a_wrong_key_leaves_it_locked_and_may_be_tried_again() {
    let sale = go(&active(), Event::Restarted { space_runs: false }, START).0;
    let sale = go(&sale, Event::FundedHint, START).0;
    let sale = go(&sale, Event::KeyOpened { epoch: 2 }, START).0;
    let failed = Event::BuildFailed {
        why: "wrong key".to_owned(),
        quarantine: None,
    };
    let (sale, effects) = go(&sale, failed, START);
    assert_eq!((sale.state, effects), (SaleState::Locked, vec![]));
    assert_eq!(
        go(&sale, Event::KeyOpened { epoch: 2 }, START).1,
        [Effect::UnlockSpace]
    );
    assert_eq!(go(&sale, Event::Tick, later(1_000_000)).0.why, Some(Why::Expired));
}

#[test]
fn power_lost_before_ready_goes_back_to_funded() {
    let building = go(&keyed(), Event::KeyOpened { epoch: 1 }, START).0;
    let (sale, effects) = go(&building, Event::Restarted { space_runs: false }, START);
    assert_eq!(
        (sale.state, effects),
        (SaleState::Funded, vec![Effect::UndoBuild, Effect::PrepareSpace])
    );
    assert_eq!(
        go(&sale, Event::FundedHint, START).1,
        [Effect::SendGrant { epoch: 2 }]
    );
    assert_eq!(
        go(&keyed(), Event::Restarted { space_runs: false }, START)
            .0
            .state,
        SaleState::Funded
    );
}

#[test]
fn an_agent_that_restarts_leaves_spaces_alone() {
    let (sale, effects) = go(&active(), Event::Restarted { space_runs: true }, later(1_000));
    assert_eq!(
        (sale.state, sale.served_ms, effects),
        (SaleState::Active, 1_000, vec![Effect::CheckLock])
    );
}

#[test]
fn a_failed_undo_quarantines_and_the_money_goes_back_all_the_same() {
    let building = go(&keyed(), Event::KeyOpened { epoch: 1 }, START).0;
    let quarantine = Some("volume busy; and lvremove failed".to_owned());
    let (sale, effects) = go(
        &building,
        Event::BuildFailed {
            why: "no space".to_owned(),
            quarantine,
        },
        START,
    );
    assert_eq!(
        effects,
        [Effect::Withhold, Effect::GiveBack { paid: Amount::ZERO }]
    );
    let (sale, _) = go(&sale, Event::GaveBack(closed(0)), START);
    assert_eq!(sale.state, SaleState::Quarantined);
    let receipt = sale.receipt().unwrap();
    assert!(!receipt.volume_destroyed && receipt.why.contains("lvremove"));
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

#[test]
fn an_amendment_makes_it_longer_and_never_takes_back() {
    let longer = || Event::Amended {
        number: 1,
        deal: Deal { periods: 9, ..deal() },
        resizing: None,
    };
    let (sale, _) = go(&active(), longer(), START);
    assert_eq!(sale.deal.periods, 9);
    assert_eq!(go(&sale, longer(), START), (sale.clone(), vec![]), "said again");
    let bad = [
        (1, Deal { periods: 4, ..deal() }),
        (
            3,
            Deal {
                periods: 10,
                ..deal()
            },
        ),
        (2, Deal { periods: 0, ..deal() }),
        (
            2,
            Deal {
                prices: Prices::of(Amount(1)),
                ..deal()
            },
        ),
    ];
    for (number, deal) in bad {
        assert_eq!(
            step(&sale, amended(number, deal, None), START),
            Err(Rejection::Amendment)
        );
    }
}

fn amended(number: u32, deal: Deal, resizing: Option<Resizing>) -> Event {
    Event::Amended {
        number,
        deal,
        resizing,
    }
}

/// A dearer deal from the second period on, whose volume grows.
fn larger(grows: bool) -> Event {
    let prices = Prices::of(PRICE).changed(1, Amount(250)).unwrap();
    let resizing = Resizing {
        grows_from: grows.then_some(Bytes(1 << 30)),
    };
    amended(1, Deal { prices, ..deal() }, Some(resizing))
}

/// Active, and all periods of a larger one are locked.
fn topped_up() -> Sale {
    let mut sale = active();
    sale.lock.funded = Amount(600);
    sale
}

#[test]
fn another_size_is_made_and_costs_more_from_the_next_period() {
    let short = step(&active(), larger(false), START);
    assert!(
        matches!(short, Err(Rejection::NotFunded(_))),
        "300 are locked, 600 are wanted"
    );
    let (sale, effects) = go(&topped_up(), larger(false), START);
    assert_eq!(effects, [Effect::CheckLock, Effect::ResizeSpace]);
    assert_eq!(
        (sale.owed(1), sale.owed(2), sale.owed(3)),
        (PRICE, Amount(350), Amount(600))
    );
    assert_eq!(
        go(&sale, larger(false), START).1,
        [Effect::ResizeSpace],
        "said again, made again"
    );
    assert!(
        step(&sale, Event::FundedHint, START).is_err(),
        "no key is needed for it"
    );
    let (sale, _) = go(&sale, Event::Resized { grown: false }, START);
    assert_eq!(sale.resizing, None);
    let (sale, effects) = go(&sale, Event::Vouchers(vec![voucher(350, 0)]), START);
    assert_eq!(effects, [], "the second period has not begun");
    let whole = step(&sale, Event::Vouchers(vec![voucher(300, 0)]), START);
    assert_eq!(whole, Err(Rejection::PartOfAPeriod(Amount(300))));
}

#[test]
fn a_volume_that_grows_waits_for_the_key_and_survives_restarts() {
    let (sale, _) = go(&topped_up(), larger(true), START);
    let (sale, _) = go(&sale, Event::Resized { grown: false }, START);
    assert!(sale.wants_key(), "CPU and memory are there, the volume is not");
    let (sale, effects) = go(&sale, Event::Restarted { space_runs: true }, START);
    assert_eq!(effects, [Effect::CheckLock, Effect::ResizeSpace]);
    let (sale, effects) = go(&sale, Event::FundedHint, START);
    assert_eq!(effects, [Effect::SendGrant { epoch: sale.epoch }]);
    let old = Event::KeyOpened {
        epoch: sale.epoch - 1,
    };
    assert!(matches!(step(&sale, old, START), Err(Rejection::Epoch { .. })));
    let (sale, effects) = go(&sale, Event::KeyOpened { epoch: sale.epoch }, START);
    assert_eq!(effects, [Effect::ResizeSpace]);
    let (done, _) = go(&sale, Event::Resized { grown: true }, START);
    assert_eq!(done.resizing, None);
    assert!(step(&done, Event::KeyOpened { epoch: done.epoch }, START).is_err());
    // Or the power goes: the unlock makes it.
    let (sale, _) = go(&sale, Event::Restarted { space_runs: false }, START);
    assert!(step(&sale, larger(true), START).is_ok(), "said again");
    let (sale, _) = go(&sale, Event::FundedHint, START);
    let (sale, _) = go(&sale, Event::KeyOpened { epoch: sale.epoch }, START);
    let (sale, _) = go(&sale, Event::Built, START);
    assert_eq!((sale.state, sale.resizing), (SaleState::Active, None));
}

#[test]
fn what_began_is_never_priced_anew_and_a_locked_space_keeps_its_size() {
    let anew = |prices: Prices| amended(1, Deal { prices, ..deal() }, Some(Resizing { grows_from: None }));
    let earlier = Prices::of(Amount(1));
    let later = Prices::of(PRICE).changed(2, Amount(250)).unwrap();
    for prices in [earlier, later] {
        assert_eq!(step(&active(), anew(prices), START), Err(Rejection::Amendment));
    }
    let (locked, _) = go(&active(), Event::Restarted { space_runs: false }, START);
    assert!(matches!(
        step(&locked, larger(false), START),
        Err(Rejection::State { .. })
    ));
}

#[test]
fn a_sale_reads_back_from_its_json() {
    let (sale, _) = go(&active(), Event::Vouchers(vec![voucher(200, 7)]), START);
    let text = serde_json::to_string(&sale).unwrap();
    assert_eq!(serde_json::from_str::<Sale>(&text).unwrap(), sale);
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let view =
        (0u8..4, 0u128..400, 0u128..400, any::<bool>()).prop_map(|(state, funded, paid, closing)| LockView {
            state: [
                LockState::None,
                LockState::Locked,
                LockState::Active,
                LockState::Closed,
            ][usize::from(state)],
            funded: Amount(funded.max(paid)),
            paid: Amount(paid.min(funded)),
            close_asked: closing.then_some(RailTime(5)),
            ..locked()
        });
    let good = prop_oneof![3 => Just(locked()), 2 => Just(paid(100)), 1 => Just(closed(100)), 2 => view];
    let event = prop_oneof![
        Just(Event::FundedHint),
        (good.clone(), any::<bool>()).prop_map(|(view, admitted)| Event::LockSeen { view, admitted }),
        (1u64..4).prop_map(|epoch| Event::KeyOpened { epoch }),
        Just(Event::Built),
        any::<bool>().prop_map(|bad| Event::BuildFailed {
            why: "x".into(),
            quarantine: bad.then(|| "y".into())
        }),
        (0u128..400, 0u64..1_200_000).prop_map(|(sum, from)| Event::Vouchers(vec![voucher(sum, from)])),
        good.clone().prop_map(Event::Redeemed),
        (0u128..400).prop_map(|sum| Event::RedeemRefused {
            cumulative: Amount(sum),
            why: escrow::Refusal::Closed
        }),
        Just(Event::End(Why::Cancelled)),
        Just(Event::TornDown(TornDown::CLEAN)),
        good.prop_map(Event::GaveBack),
        any::<bool>().prop_map(|space_runs| Event::Restarted { space_runs }),
        any::<bool>().prop_map(Event::SpaceRuns),
        Just(Event::Tick),
    ];
    prop::collection::vec((0u64..30_000, event), 0..80)
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(events in events()) {
        let (mut sale, mut ms) = (Sale::agreed(deal(), START), 0);
        for (wait_ms, event) in events {
            ms += wait_ms;
            let Ok((new, effects)) = step(&sale, event, later(ms)) else { continue };
            for effect in &effects {
                match effect {
                    Effect::Redeem(voucher) => {
                        prop_assert!(voucher.cumulative <= new.owed(new.periods_begun()), "not earned");
                        prop_assert!(voucher.not_before <= later(ms).rail, "not due");
                        prop_assert!(new.ready_at.is_some(), "nothing was ready");
                    }
                    Effect::BuildSpace => prop_assert!(new.lock.funded >= PRICE, "built without money"),
                    Effect::GiveBack { paid } => {
                        prop_assert_eq!(*paid, new.lock.paid);
                        prop_assert!(new.torn_down.is_some(), "the money goes back before the space is gone");
                    }
                    _ => {}
                }
            }
            let ended = |state| matches!(state, SaleState::Ended | SaleState::Refunded | SaleState::Quarantined);
            prop_assert!(!ended(sale.state) || new.state == sale.state, "an end is an end");
            prop_assert!(!ended(new.state) || new.receipt().is_some());
            prop_assert!(new.lock.paid >= sale.lock.paid && new.served_ms >= sale.served_ms);
            prop_assert!(new.vouchers.len() <= MOST_VOUCHERS);
            sale = new;
        }
    }
}

#[test]
fn what_was_prepared_is_taken_down_when_no_key_comes() {
    for sale in [after(vec![seen(locked())]), keyed()] {
        // the user never sends the key, cancels, or closes the lock; the preparation may fail as well
        let (ending, effects) = go(
            &sale,
            Event::Tick,
            Now {
                rail: locked().accept_by,
                ..START
            },
        );
        assert_eq!(
            (ending.state, effects),
            (SaleState::Ending, vec![Effect::TearDown])
        );
        let (ending, effects) = go(&sale, Event::End(Why::Cancelled), START);
        assert_eq!(
            (ending.state, effects),
            (SaleState::Ending, vec![Effect::TearDown])
        );
        let failed = |quarantine: Option<&str>| Event::BuildFailed {
            why: "no room".into(),
            quarantine: quarantine.map(Into::into),
        };
        let (ending, effects) = go(&sale, failed(None), START);
        assert_eq!(
            (ending.state, effects),
            (
                SaleState::Ending,
                vec![Effect::Release, Effect::GiveBack { paid: Amount::ZERO }]
            )
        );
        let (_, effects) = go(&sale, failed(Some("stuck")), START);
        assert_eq!(
            effects[0],
            Effect::Withhold,
            "what could not be undone is not sold again"
        );
        let (again, effects) = go(&sale, Event::Restarted { space_runs: false }, START);
        assert_eq!(
            (again.state, effects),
            (SaleState::Funded, vec![Effect::PrepareSpace])
        );
    }
}
