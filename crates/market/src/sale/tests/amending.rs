//! Longer, another size, another price.

use super::*;

#[test]
fn an_amendment_makes_it_longer_and_never_takes_back() {
    let longer = || amended(1, Deal { periods: 9, ..deal() }, None);
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

/// Whoever makes it longer every hour keeps it for as long as he pays.
#[test]
fn changes_that_are_no_longer_are_counted_and_longer_ones_are_not() {
    let mut sale = active();
    let change = |sale: &mut Sale, periods: u32| {
        let deal = Deal { periods, ..deal() };
        let changed = step(sale, amended(sale.amendments + 1, deal, None), START);
        changed.map(|(next, _)| *sale = next)
    };
    for periods in 4..2004 {
        change(&mut sale, periods).unwrap();
    }
    for _ in 0..1000 {
        change(&mut sale, 4).unwrap();
    }
    assert_eq!(change(&mut sale, 4), Err(Rejection::Amendment));
    assert_eq!(change(&mut sale, 5), Ok(()));
}

const TEN: Bytes = Bytes(10 << 30);
const TWENTY: Bytes = Bytes(20 << 30);
const THIRTY: Bytes = Bytes(30 << 30);

/// Made: CPU and memory, and the volume where the key was there.
pub fn resized(number: u32, grown: Option<Bytes>) -> Event {
    Event::Resized(Made {
        number,
        grown,
        snapshot: false,
    })
}

/// The volume that [`larger`] grows.
pub fn grown(grown: bool) -> Event {
    resized(1, grown.then_some(TWENTY))
}

fn amended(number: u32, deal: Deal, resizing: Option<Resizing>) -> Event {
    Event::Amended(Change {
        number,
        deal,
        resizing,
        voucher: None,
    })
}

/// The same with what pays the period that begins with it.
fn paid_with(event: Event, cumulative: u128) -> Event {
    let Event::Amended(change) = event else {
        panic!("{event:?}")
    };
    let voucher = Some(voucher(cumulative, 0));
    Event::Amended(Change { voucher, ..change })
}

/// A dearer deal from the second period on, whose volume grows, and the voucher for that period.
pub fn larger(grows: bool) -> Event {
    let prices = Prices::of(PRICE).changed(1, Amount(250)).unwrap();
    let disk = if grows { TWENTY } else { TEN };
    let change = amended(1, Deal { prices, ..deal() }, Some(Resizing::new(disk, TEN)));
    paid_with(change, 350)
}

/// Active, and all periods of a larger one are locked.
pub fn topped_up() -> Sale {
    let mut sale = active();
    sale.lock.funded = Amount(600);
    sale
}

#[test]
fn what_costs_more_is_paid_before_it_is_made_and_begins_a_period() {
    let Event::Amended(change) = larger(false) else {
        panic!("it is a change")
    };
    let with = |voucher: Option<Voucher>, periods: u32| {
        let deal = Deal {
            periods,
            ..change.deal.clone()
        };
        let change = Change {
            voucher,
            deal,
            ..change.clone()
        };
        let sale = topped_up();
        step(&sale, Event::Amended(change), START)
    };
    let wanted = Err(Rejection::NotPaidWith(Amount(350)));
    assert_eq!(with(None, 3), wanted, "nothing pays it");
    assert_eq!(with(Some(voucher(349, 0)), 3), wanted, "not all of it");
    let later = START.rail.0 + 1;
    assert_eq!(with(Some(voucher(350, later)), 3), wanted, "not yet good");
    assert_eq!(with(Some(voucher(350, 0)), 1), Err(Rejection::LastPeriod));
    let (sale, effects) = with(Some(voucher(350, 0)), 3).unwrap();
    assert_eq!((sale.periods_begun(), sale.served_ms), (2, PERIOD_MS));
    let redeem = Effect::Redeem(voucher(350, 0));
    assert_eq!(effects, [Effect::CheckLock, redeem, Effect::ResizeSpace]);
    // Whoever ends it now has paid a period of it.
    let (ending, _) = go(&sale, Event::End(Why::Cancelled), START);
    let (ending, effects) = go(&ending, Event::TornDown(TornDown::CLEAN), START);
    assert_eq!(
        effects,
        [Effect::Release, Effect::Redeem(voucher(350, 0))],
        "{ending:?}"
    );
}

#[test]
fn what_costs_no_more_begins_nothing() {
    let prices = Prices::of(PRICE).changed(1, Amount(40)).unwrap();
    let less = amended(1, Deal { prices, ..deal() }, Some(Resizing::new(TEN, TEN)));
    let (sale, effects) = go(&active(), less, START);
    assert_eq!(effects, [Effect::CheckLock, Effect::ResizeSpace]);
    assert_eq!((sale.periods_begun(), sale.owed(3)), (1, Amount(180)));
    // As much as before in the same period: it is paid.
    let (sale, effects) = go(&sale, to(&sale, TEN, 100), START);
    assert_eq!(effects, [Effect::CheckLock, Effect::ResizeSpace]);
    assert_eq!((sale.periods_begun(), sale.owed(3)), (1, Amount(300)));
}

#[test]
fn another_size_is_made_and_costs_more_from_the_next_period() {
    let short = step(&active(), larger(false), START);
    assert!(
        matches!(short, Err(Rejection::NotFunded(_))),
        "300 are locked, 600 are wanted"
    );
    let (sale, effects) = go(&topped_up(), larger(false), START);
    let redeem = Effect::Redeem(voucher(350, 0));
    assert_eq!(effects, [Effect::CheckLock, redeem, Effect::ResizeSpace]);
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
    let (sale, _) = go(&sale, grown(false), START);
    assert_eq!(sale.resizing, None);
    let view = LockView {
        funded: Amount(600),
        ..paid(350)
    };
    let (sale, _) = go(&sale, Event::Redeemed(view), START);
    let (sale, effects) = go(&sale, Event::Vouchers(vec![voucher(600, 0)]), START);
    assert_eq!(effects, [], "the third period has not begun");
    let whole = step(&sale, Event::Vouchers(vec![voucher(300, 0)]), START);
    assert_eq!(whole, Err(Rejection::PartOfAPeriod(Amount(300))));
}

#[test]
fn a_volume_that_grows_waits_for_the_key_and_survives_restarts() {
    let (sale, _) = go(&topped_up(), larger(true), START);
    let (sale, _) = go(&sale, grown(false), START);
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
    let (done, _) = go(&sale, grown(true), START);
    assert_eq!(done.resizing, None);
    assert!(step(&done, Event::KeyOpened { epoch: done.epoch }, START).is_err());
    // Or the power goes: the unlock makes it.
    let (sale, _) = go(&sale, Event::Restarted { space_runs: false }, START);
    assert!(step(&sale, larger(true), START).is_ok(), "said again");
    let (sale, _) = go(&sale, Event::FundedHint, START);
    let (sale, _) = go(&sale, Event::KeyOpened { epoch: sale.epoch }, START);
    let locked = sale;
    let (sale, _) = go(&locked, Event::Built, START);
    assert_eq!((sale.state, sale.resizing), (SaleState::Active, None));
    // Or the disk has no room for it: it is open all the same, and the next key is for the growth.
    let (sale, _) = go(&locked, Event::OpenedSmaller, START);
    assert!(sale.state == SaleState::Active && sale.wants_key());
    assert_eq!(sale.resizing.unwrap().handed, Some(TWENTY), "it may have grown");
    let (done, _) = go(&key_came(&sale), grown(true), START);
    assert_eq!(done.resizing, None);
}

/// A node that has redeemed one voucher, and was in service for longer: a change counts from what began.
#[test]
fn periods_begin_by_the_sales_clock_and_not_by_what_was_redeemed() {
    let mut sale = topped_up();
    sale.served_ms = PERIOD_MS + 1;
    assert_eq!((sale.periods_paid(), sale.periods_begun()), (1, 2));
    let less = |begun: u32| {
        let prices = Prices::of(PRICE).changed(begun, Amount(40)).unwrap();
        let change = amended(1, Deal { prices, ..deal() }, Some(Resizing::new(TEN, TEN)));
        step(&sale, change, START).map(|(sale, _)| sale.owed(3))
    };
    assert_eq!(less(1), Err(Rejection::Amendment), "as the ledger would count");
    assert_eq!(less(2), Ok(Amount(240)));
}

#[test]
fn what_began_is_never_priced_anew_and_a_locked_space_keeps_its_size() {
    let anew = |prices: Prices| amended(1, Deal { prices, ..deal() }, Some(Resizing::new(TEN, TEN)));
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

/// A change to a volume of this size, by the price that [`larger`] says for it.
fn to(sale: &Sale, disk: Bytes, price: u128) -> Event {
    let number = sale.amendments + 1;
    let begun = u32::try_from(sale.periods_begun()).unwrap();
    let prices = sale.deal.prices.changed(begun, Amount(price)).unwrap();
    let next = prices.owed(u64::from(begun) + 1).unwrap();
    let deal = Deal {
        prices,
        ..sale.deal.clone()
    };
    let change = amended(number, deal, Some(Resizing::new(disk, TEN)));
    paid_with(change, next.0)
}

fn key_came(sale: &Sale) -> Sale {
    let (sale, _) = go(sale, Event::FundedHint, START);
    let epoch = sale.epoch;
    let (sale, effects) = go(&sale, Event::KeyOpened { epoch }, START);
    assert_eq!(effects, [Effect::ResizeSpace]);
    sale
}

#[test]
fn a_growth_for_which_the_key_was_handed_out_is_not_taken_back() {
    let (agreed, _) = go(&topped_up(), larger(true), START);
    let (back, _) = go(&agreed, to(&agreed, TEN, 100), START);
    assert!(!back.wants_key(), "the control: nobody has grown anything yet");

    let making = key_came(&agreed);
    let (after_reboot, _) = go(&making, Event::Restarted { space_runs: true }, START);
    for sale in [making.clone(), after_reboot] {
        assert_eq!(sale.resizing.unwrap().handed, Some(TWENTY), "and it is kept");
        let refused = step(&sale, to(&sale, TEN, 100), START);
        assert!(matches!(refused, Err(Rejection::State { .. })), "{refused:?}");
    }
    let (failed_once, _) = go(&making, grown(false), START);
    assert!(step(&failed_once, to(&failed_once, TEN, 100), START).is_err());
    assert_eq!(failed_once.resizing.unwrap().grows_from, Some(TEN), "for certain");
}

#[test]
fn what_is_agreed_while_a_growth_is_made_is_made_after_it() {
    let making = key_came(&go(&topped_up(), larger(true), START).0);
    let mut making = making;
    making.lock.funded = Amount(10_000);
    let (more, _) = go(&making, to(&making, THIRTY, 350), START);
    let (sale, _) = go(&more, grown(true), START);
    let left = sale.resizing.unwrap();
    assert_eq!((left.disk, left.grows_from), (THIRTY, Some(TWENTY)));
    let (done, _) = go(&key_came(&sale), resized(2, Some(THIRTY)), START);
    assert_eq!(done.resizing, None);
    // Less CPU meanwhile: the volume is made, the rest is still to be.
    let (less, _) = go(&making, to(&making, TWENTY, 200), START);
    let (sale, _) = go(&less, grown(true), START);
    assert!(sale.resizing.is_some() && !sale.wants_key());
    assert_eq!(go(&sale, resized(2, None), START).0.resizing, None);
}
