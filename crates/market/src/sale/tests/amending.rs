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
    let resizing = Resizing {
        grows_from: grows.then_some(Bytes(1 << 30)),
    };
    amended(1, Deal { prices, ..deal() }, Some(resizing))
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
