//! Power lost, a space down, a wrong key, an undo that fails.

use super::*;

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
    let (sale, effects) = go(&sale, Event::Tick, later(2 * PERIOD_MS));
    assert_eq!((sale.state, sale.served_ms), (SaleState::Active, 40_000));
    assert!(!effects.contains(&Effect::Redeem(voucher(200, 0))));
    let (sale, effects) = go(&sale, Event::SpaceRuns(true), later(2 * PERIOD_MS));
    assert_eq!((sale.served_ms, effects), (40_000, vec![Effect::Say(Say::Up)]));
    let (_, effects) = go(&sale, Event::Tick, later(2 * PERIOD_MS + 20_000));
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
    assert_eq!((sale.state, sale.why), (SaleState::Ending, Some(Why::Waited)));
}

/// Active, of a deal with periods of a day, and a lock that expires in ten years.
fn for_days() -> Sale {
    let mut sale = active();
    sale.deal.period = Seconds(86_400);
    sale.deal.notice = Seconds(3_600);
    sale.lock.expiry = START.rail.plus_ms(10 * 365 * 86_400_000);
    sale
}

/// Ticks every minute until it ends, for a year at most; says after how many minutes, and when it was locked.
fn minutes_until_it_ends(mut sale: Sale, from_minute: u64) -> (u64, Option<u64>, Sale) {
    let mut locked = None;
    for minute in from_minute..365 * 1440 {
        let (next, effects) = go(&sale, Event::Tick, later(minute * 60_000));
        sale = next;
        if effects.contains(&Effect::LockSpace) {
            assert_eq!((sale.state, locked), (SaleState::Locked, None));
            locked = Some(minute);
        }
        if sale.state == SaleState::Ending {
            return (minute, locked, sale);
        }
    }
    panic!("a year later it still holds the node: {sale:?}");
}

#[test]
fn who_breaks_his_own_space_holds_the_node_no_longer_than_his_money_would() {
    let (down, _) = go(&for_days(), Event::SpaceRuns(false), START);
    let (minutes, locked, sale) = minutes_until_it_ends(down, 0);
    assert_eq!((minutes, locked), (3 * 1440, Some(10)), "three days are locked");
    assert_eq!((sale.why, sale.served_ms), (Some(Why::Waited), 0));
    // With less than the notice left, the notice.
    let mut last = for_days();
    last.served_ms = 3 * 86_400_000 - 1_000;
    last.lock.paid = Amount(300);
    let (down, _) = go(&last, Event::SpaceRuns(false), START);
    assert_eq!(minutes_until_it_ends(down, 0).0, 60);
}

#[test]
fn a_lock_for_years_holds_the_node_for_a_month() {
    let mut years = for_days();
    years.deal.periods = 3_650;
    years.lock.funded = Amount(100 * 3_650);
    let (down, _) = go(&years, Event::SpaceRuns(false), START);
    let (minutes, _, sale) = minutes_until_it_ends(down, 0);
    assert_eq!((minutes, sale.why), (30 * 1440, Some(Why::Waited)));
}

#[test]
fn who_brings_the_key_and_breaks_it_again_waits_no_longer_in_all() {
    let (mut sale, mut minute) = (for_days(), 0);
    while sale.state != SaleState::Ending {
        assert!(minute <= 3 * 1440, "three days are locked");
        (sale, _) = go(&sale, Event::SpaceRuns(false), later(minute * 60_000));
        minute += 9;
        (sale, _) = go(&sale, Event::Tick, later(minute * 60_000));
        (sale, _) = go(&sale, Event::SpaceRuns(true), later(minute * 60_000));
    }
    assert_eq!(sale.why, Some(Why::Waited));
}

#[test]
fn the_key_brings_back_a_space_that_stayed_down() {
    let (sale, _) = go(&for_days(), Event::SpaceRuns(false), START);
    let (sale, _) = go(&sale, Event::Tick, later(599_999));
    assert_eq!(sale.state, SaleState::Active);
    let (sale, effects) = go(&sale, Event::Tick, later(600_000));
    assert_eq!(effects, [Effect::LockSpace, Effect::Say(Say::GaveUp)]);
    let (sale, effects) = go(&sale, Event::FundedHint, later(700_000));
    assert_eq!(effects, [Effect::SendGrant { epoch: 2 }]);
    let (sale, effects) = go(&sale, Event::KeyOpened { epoch: 2 }, later(700_000));
    assert_eq!(effects, [Effect::UnlockSpace]);
    let (sale, _) = go(&sale, Event::Built, later(700_000));
    assert_eq!(
        (sale.state, sale.down, sale.served_ms),
        (SaleState::Active, false, 0)
    );
    // A period later it is paid again, and what was waited is forgotten.
    let (sale, _) = go(&sale, Event::Tick, later(700_000 + 86_400_000));
    assert_eq!(sale.waited_ms, 700_000);
    let (sale, _) = go(&sale, Event::Redeemed(paid(200)), later(700_000 + 86_400_000));
    assert_eq!(sale.waited_ms, 0);
}

#[test]
fn a_build_that_never_ends_does_not_hold_it_past_the_first_voucher() {
    let building = go(&keyed(), Event::KeyOpened { epoch: 1 }, START).0;
    assert_eq!(
        go(&building, Event::Tick, later(99_999)).0.state,
        SaleState::Building
    );
    let (sale, effects) = go(&building, Event::Tick, later(100_000));
    assert_eq!(
        (sale.why, effects),
        (Some(Why::NotAccepted), vec![Effect::TearDown])
    );
}

#[test]
fn a_lock_from_before_the_lapse_is_found_when_the_rail_speaks_again() {
    let (sale, _) = go(&Sale::agreed(deal(), START), Event::Tick, later(AGREED_MS));
    assert_eq!(sale.state, SaleState::Lapsed);
    assert_eq!(go(&sale, Event::Tick, later(AGREED_MS + 4_999)).1, []);
    let (sale, effects) = go(&sale, Event::Tick, later(AGREED_MS + 5_000));
    assert_eq!(effects, [Effect::CheckLock], "the rail was silent");
    let (restarted, effects) = go(&sale, Event::Restarted { space_runs: false }, later(AGREED_MS));
    assert_eq!(effects, [Effect::CheckLock]);
    for sale in [&sale, &restarted] {
        let (sale, effects) = go(sale, seen(locked()), later(AGREED_MS + 10_000));
        assert_eq!(
            effects,
            [Effect::Release, Effect::GiveBack { paid: Amount::ZERO }]
        );
        let (sale, _) = go(&sale, Event::GaveBack(closed(0)), later(AGREED_MS + 10_000));
        assert_eq!(sale.state, SaleState::Refunded);
    }
    let (none, _) = go(&sale, seen(LockView::NONE), later(AGREED_MS + 10_000));
    assert!(none.is_settled(), "it has answered: there was no lock");
    assert_eq!(go(&none, Event::Tick, later(AGREED_MS + 99_000)).1, []);
    let day = AGREED_MS + 86_400_000;
    assert_eq!(
        go(&sale, Event::Tick, later(day)).1,
        [],
        "no window is open so long"
    );
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
