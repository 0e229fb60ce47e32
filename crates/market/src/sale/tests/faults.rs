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
