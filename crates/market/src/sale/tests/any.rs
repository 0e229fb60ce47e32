//! Any sequence of events at all.

use proptest::prelude::*;

use super::amending::{self, topped_up};
use super::snapshots;
use super::*;

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
    let good = prop_oneof![3 => Just(locked()), 2 => Just(paid(100)), 1 => Just(topped_up().lock), 1 => Just(closed(100)), 2 => view];
    let event = prop_oneof![
        Just(Event::FundedHint),
        (good.clone(), any::<bool>()).prop_map(|(view, admitted)| Event::LockSeen { view, admitted }),
        (1u64..4).prop_map(|epoch| Event::KeyOpened { epoch }),
        Just(Event::Built),
        Just(Event::OpenedSmaller),
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
        any::<bool>().prop_map(amending::larger),
        (0u32..3, any::<(bool, bool)>()).prop_map(|(number, (grown, snapshot))| Event::Resized(Made {
            number,
            grown: grown.then_some(Bytes(20 << 30)),
            snapshot
        })),
        any::<bool>().prop_map(|wanted| snapshots::next(1, wanted)),
        (0u8..3).prop_map(|number| Event::Restore { nonce: [number; 16] }),
        prop_oneof![
            Just(PutBack::Done),
            Just(PutBack::Failed),
            any::<bool>().prop_map(|runs| PutBack::Untouched { runs })
        ]
        .prop_map(Event::Restored),
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
                    Effect::UnlockSpace => prop_assert!(new.restoring.is_none(), "opened while it is put back"),
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
