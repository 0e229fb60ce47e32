//! Properties of the lock's machine under any sequence of acts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

use escrow::lock::{Act, Windows, apply};
use escrow::{Amount, LockState, LockView, RailTime};
use proptest::prelude::*;

const WINDOWS: Windows = Windows {
    accept_window_ms: 50,
    notice_ms: 30,
};

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        (0u128..400, 0u64..400).prop_map(|(total, expiry)| Act::Lock {
            total: Amount(total),
            expiry: RailTime(expiry)
        }),
        (0u128..400, 0u64..400).prop_map(|(sum, from)| Act::Redeem {
            cumulative: Amount(sum),
            not_before: RailTime(from)
        }),
        Just(Act::Close),
        Just(Act::Refund),
        (0u128..400).prop_map(|paid| Act::GiveBack { paid: Amount(paid) }),
    ];
    prop::collection::vec((0u64..20, act), 0..60)
}

proptest! {
    #[test]
    fn money_is_neither_made_nor_lost(acts in acts()) {
        let (mut view, mut now) = (LockView::NONE, RailTime(0));
        let (mut payer, mut payee) = (0i128, 0i128);
        for (wait, act) in acts {
            now = now.plus_ms(wait);
            let Ok((new, postings)) = apply(&view, WINDOWS, act, now) else { continue };
            payer += postings.release.0 as i128 - postings.hold.0 as i128;
            payee += postings.pay.0 as i128;
            prop_assert!(new.paid <= new.funded);
            prop_assert!(new.paid >= view.paid && new.funded >= view.funded, "nothing shrinks");
            prop_assert!(view.state != LockState::Closed || new == view, "closed is for ever");
            prop_assert_eq!(payee, new.paid.0 as i128);
            prop_assert_eq!(payer + payee + new.held().0 as i128, 0, "what left the payer is paid or held");
            view = new;
        }
    }

    #[test]
    fn every_act_may_be_repeated(acts in acts()) {
        let (mut view, mut now) = (LockView::NONE, RailTime(0));
        for (wait, act) in acts {
            now = now.plus_ms(wait);
            let Ok((new, _)) = apply(&view, WINDOWS, act, now) else { continue };
            let (again, postings) = apply(&new, WINDOWS, act, now).or_else(|_| match act {
                // a lock that was closed in the same moment stays closed: the one repetition that is refused
                Act::Lock { .. } if new.state == LockState::Closed => Ok((new, Default::default())),
                _ => Err(()),
            }).map_err(|()| TestCaseError::fail(format!("{act:?} was accepted, then refused")))?;
            prop_assert_eq!(again, new);
            prop_assert_eq!(postings, Default::default());
            view = new;
        }
    }
}
