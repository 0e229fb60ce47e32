//! Longer, another size, another price.

use super::*;

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
    Event::Amended {
        number,
        deal,
        resizing,
    }
}

/// A dearer deal from the second period on, whose volume grows.
pub fn larger(grows: bool) -> Event {
    let prices = Prices::of(PRICE).changed(1, Amount(250)).unwrap();
    let disk = if grows { TWENTY } else { TEN };
    amended(1, Deal { prices, ..deal() }, Some(Resizing::new(disk, TEN)))
}

/// Active, and all periods of a larger one are locked.
pub fn topped_up() -> Sale {
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
    let (sale, _) = go(&sale, grown(false), START);
    assert_eq!(sale.resizing, None);
    let (sale, effects) = go(&sale, Event::Vouchers(vec![voucher(350, 0)]), START);
    assert_eq!(effects, [], "the second period has not begun");
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
    let prices = sale.deal.prices.changed(1, Amount(price)).unwrap();
    let deal = Deal {
        prices,
        ..sale.deal.clone()
    };
    amended(number, deal, Some(Resizing::new(disk, TEN)))
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
