//! A snapshot: taken, removed, put back.

use super::amending::topped_up;
use super::*;

const NONCE: [u8; 16] = [7; 16];

const TEN: Bytes = Bytes(10 << 30);

/// The next change, to a deal with or without a snapshot, which has room in what the space costs.
fn change(sale: &Sale, snapshot: bool) -> Event {
    Event::Amended(Change {
        number: sale.amendments + 1,
        deal: sale.deal.clone(),
        resizing: Some(Resizing::new(TEN, TEN).with_snapshot(Some(snapshot))),
        voucher: None,
    })
}

/// This change of a new sale, to a deal with or without a snapshot.
pub fn next(number: u32, snapshot: bool) -> Event {
    let sale = Sale {
        amendments: number - 1,
        ..topped_up()
    };
    change(&sale, snapshot)
}

/// The machine has done the newest change of a sale.
fn made(sale: &Sale, snapshot: bool) -> Event {
    Event::Resized(Made {
        number: sale.amendments,
        grown: None,
        snapshot,
    })
}

fn taken() -> Sale {
    let sale = topped_up();
    let (sale, _) = go(&sale, change(&sale, true), START);
    go(&sale, made(&sale, true), later(4_000)).0
}

fn restore() -> Event {
    Event::Restore { nonce: NONCE }
}

#[test]
fn a_snapshot_is_there_when_the_machine_says_so() {
    let sale = topped_up();
    let (asked, effects) = go(&sale, change(&sale, true), START);
    assert_eq!(effects, [Effect::CheckLock, Effect::ResizeSpace]);
    assert_eq!(asked.snapshot_at, None);
    let (sale, _) = go(&asked, made(&asked, true), later(4_000));
    assert_eq!((sale.snapshot_at, sale.resizing), (Some(later(4_000).rail), None));
    // Another resize keeps it as old as it is.
    let (sale, _) = go(&sale, made(&sale, true), later(9_000));
    assert_eq!(sale.snapshot_at, Some(later(4_000).rail));
    let (removing, _) = go(&sale, change(&sale, false), START);
    assert!(removing.snapshot_at.is_some(), "it is there until it is gone");
    // What was begun before says nothing of it.
    assert_eq!(
        go(&removing, made(&sale, true), START).0.resizing,
        removing.resizing
    );
    let (sale, _) = go(&removing, made(&removing, false), START);
    assert_eq!((sale.snapshot_at, sale.resizing), (None, None));
}

#[test]
fn one_that_the_power_cut_kept_from_being_taken_is_taken_when_the_space_is_open_again() {
    let sale = topped_up();
    let (sale, _) = go(&sale, change(&sale, true), START);
    let (runs, effects) = go(&sale, Event::Restarted { space_runs: true }, START);
    assert_eq!(
        (effects, runs.state),
        (vec![Effect::CheckLock, Effect::ResizeSpace], SaleState::Active)
    );
    let (sale, _) = go(&sale, Event::Restarted { space_runs: false }, START);
    let (sale, _) = go(&sale, Event::FundedHint, START);
    let (sale, _) = go(&sale, Event::KeyOpened { epoch: sale.epoch }, START);
    let (sale, effects) = go(&sale, Event::Built, START);
    assert_eq!(effects[0], Effect::ResizeSpace);
    assert_eq!(
        go(&sale, made(&sale, true), START).0.snapshot_at,
        Some(START.rail)
    );
}

#[test]
fn a_restore_locks_the_space_costs_no_time_and_is_done_once() {
    let sale = taken();
    let served = sale.served_ms;
    let (sale, effects) = go(&sale, restore(), later(4_000));
    assert_eq!(
        (sale.state, effects),
        (SaleState::Locked, vec![Effect::RestoreSpace])
    );
    assert_eq!(go(&sale, restore(), later(4_000)).1, [], "it is under way");
    let other = Event::Restore { nonce: [8; 16] };
    assert_eq!(step(&sale, other, later(4_000)), Err(Rejection::Restoring));
    for early in [
        Event::FundedHint,
        Event::KeyOpened { epoch: sale.epoch },
        change(&sale, false),
    ] {
        assert_eq!(step(&sale, early, later(4_000)), Err(Rejection::Restoring));
    }
    let (sale, _) = go(&sale, Event::Restored(PutBack::Done), later(90_000));
    assert_eq!((sale.state, sale.restoring), (SaleState::Locked, None));
    assert!(sale.snapshot_at.is_some(), "the snapshot stays");
    let (sale, _) = go(&sale, Event::FundedHint, later(90_000));
    let (sale, _) = go(&sale, Event::KeyOpened { epoch: sale.epoch }, later(90_000));
    let (sale, _) = go(&sale, Event::Built, later(91_000));
    assert_eq!((sale.state, sale.served_ms - served), (SaleState::Active, 0));
    // An answer that was lost: the client says it again, and nothing happens to what was written since.
    assert_eq!(go(&sale, restore(), later(91_000)), (sale.clone(), vec![]));
}

#[test]
fn a_restore_that_was_stopped_goes_on_and_one_that_never_began_changes_nothing() {
    let (sale, _) = go(&taken(), restore(), START);
    for space_runs in [true, false] {
        let (again, effects) = go(&sale, Event::Restarted { space_runs }, START);
        assert_eq!(
            (again.state, effects),
            (SaleState::Locked, vec![Effect::RestoreSpace])
        );
    }
    let (failed, _) = go(&sale, Event::Restored(PutBack::Failed), START);
    assert_eq!(step(&failed, Event::FundedHint, START), Err(Rejection::Restoring));
    let (again, effects) = go(&failed, Event::Restore { nonce: [8; 16] }, START);
    assert_eq!(effects, [Effect::RestoreSpace]);
    assert_eq!(
        go(&again, Event::Restored(PutBack::Done), START).0.restored,
        Some([8; 16])
    );
    assert_eq!(
        go(&failed, Event::End(Why::Cancelled), START).1,
        [Effect::TearDown]
    );

    let (sale, _) = go(&sale, Event::Restored(PutBack::Untouched { runs: true }), START);
    assert_eq!((sale.state, sale.restoring), (SaleState::Active, None));
}

#[test]
fn nothing_is_restored_without_a_snapshot_or_while_it_changes() {
    let refused = |sale: &Sale| matches!(step(sale, restore(), START), Err(Rejection::State { .. }));
    assert!(refused(&active()));
    let sale = taken();
    assert!(refused(&go(&sale, change(&sale, false), START).0));
    let (ending, _) = go(&sale, Event::End(Why::Cancelled), START);
    assert!(refused(&ending));
}

#[test]
fn a_change_beside_a_snapshot_that_is_being_taken_keeps_it_wanted() {
    let sale = topped_up();
    let (taking, _) = go(&sale, change(&sale, true), START);
    let more_cpu = Event::Amended(Change {
        number: 2,
        deal: taking.deal.clone(),
        resizing: Some(Resizing::new(TEN, TEN)),
        voucher: None,
    });
    let (both, _) = go(&taking, more_cpu, START);
    assert_eq!(both.resizing.unwrap().snapshot, Some(true));
    let (first, _) = go(&both, made(&taking, true), later(1_000));
    assert_eq!(first.snapshot_at, Some(later(1_000).rail), "the first is made");
    let (done, _) = go(&first, made(&both, true), later(2_000));
    assert_eq!((done.resizing, done.snapshot_at), (None, first.snapshot_at));
}
