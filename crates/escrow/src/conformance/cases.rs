//! The cases, one function each.

use super::{
    ACCEPT_WINDOW_MS, EXPIRY_MS, HELD, MONEY, NOTICE_MS, Outcome, Scene, TOTAL, expect, left, refused, say,
};
use crate::amount::{Amount, RailTime};
use crate::lock::{LockState, Refusal};
use crate::rail::Sure;
use crate::terms::{RailKey, Terms};
use crate::voucher::Voucher;

pub(super) async fn what_is_not_locked_is_none(scene: &Scene<'_>) -> Outcome {
    expect(scene.view().await?, LockState::None, 0, 0)?;
    let voucher = scene.voucher(1, RailTime(0))?;
    refused(scene.rail.redeem(&scene.terms, &voucher).await, |why| {
        *why == Refusal::NoLock
    })?;
    refused(scene.rail.refund(&scene.terms).await, |why| {
        *why == Refusal::NoLock
    })?;
    refused(scene.wallet.close(&scene.terms).await, |why| {
        *why == Refusal::NoLock
    })
}

pub(super) async fn a_lock_holds_the_money_and_can_be_repeated(scene: &Scene<'_>) -> Outcome {
    let before = scene.now().await?;
    let view = scene.lock().await?;
    expect(view, LockState::Locked, TOTAL.0, 0)?;
    let after = scene.now().await?;
    let window = before.plus_ms(ACCEPT_WINDOW_MS)..=after.plus_ms(ACCEPT_WINDOW_MS);
    if !window.contains(&view.accept_by) {
        return Err(format!(
            "accept_by {} is not the lock's time and the window",
            view.accept_by
        ));
    }
    let again = scene
        .wallet
        .lock(&scene.terms, TOTAL, view.expiry)
        .await
        .map_err(say)?;
    if again != view || scene.view().await? != view {
        return Err(format!("a repeated lock changed {view:?} into {again:?}"));
    }
    scene.balances(HELD, Amount::ZERO).await
}

pub(super) async fn a_lock_without_money_is_refused(scene: &Scene<'_>) -> Outcome {
    let expiry = scene.now().await?.plus_ms(EXPIRY_MS);
    let much = Amount(MONEY.0 + 1);
    let outcome = scene.wallet.lock(&scene.terms, much, expiry).await;
    refused(outcome, |why| matches!(why, Refusal::Balance { .. }))?;
    let outcome = scene.wallet.lock(&scene.terms, Amount::ZERO, expiry).await;
    refused(outcome, |why| *why == Refusal::NothingToLock)?;
    expect(scene.view().await?, LockState::None, 0, 0)?;
    scene.balances(MONEY, Amount::ZERO).await
}

pub(super) async fn a_lock_is_topped_up_and_extended(scene: &Scene<'_>) -> Outcome {
    let view = scene.lock().await?;
    let later = view.expiry.plus_ms(1_000);
    let new = scene
        .wallet
        .lock(&scene.terms, Amount(400), later)
        .await
        .map_err(say)?;
    expect(new, LockState::Locked, 400, 0)?;
    if new.expiry != later || new.accept_by != view.accept_by {
        return Err(format!(
            "{new:?} is not extended to {later} with the same accept_by"
        ));
    }
    let old = scene
        .wallet
        .lock(&scene.terms, TOTAL, view.expiry)
        .await
        .map_err(say)?;
    expect(old, LockState::Locked, 400, 0)?;
    scene.balances(Amount(600), Amount::ZERO).await
}

pub(super) async fn a_first_voucher_makes_it_active_and_pays(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    expect(scene.redeem(100).await?, LockState::Active, TOTAL.0, 100)?;
    expect(scene.view().await?, LockState::Active, TOTAL.0, 100)?;
    scene.balances(HELD, Amount(100)).await
}

pub(super) async fn vouchers_are_cumulative_and_can_be_repeated(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    for (cumulative, paid) in [(100, 100), (100, 100), (250, 250), (100, 250)] {
        expect(scene.redeem(cumulative).await?, LockState::Active, TOTAL.0, paid)?;
    }
    scene.balances(HELD, Amount(250)).await
}

pub(super) async fn a_voucher_beyond_the_funds_is_refused(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    let voucher = scene.voucher(TOTAL.0 + 1, RailTime(0))?;
    refused(scene.rail.redeem(&scene.terms, &voucher).await, |why| {
        matches!(why, Refusal::Underfunded { .. })
    })?;
    scene.balances(HELD, Amount::ZERO).await
}

pub(super) async fn a_later_voucher_is_void_until_its_time(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    let from = scene.now().await?.plus_ms(5_000);
    let voucher = scene.voucher(100, from)?;
    refused(scene.rail.redeem(&scene.terms, &voucher).await, |why| {
        *why == Refusal::NotYet(from)
    })?;
    scene.bench.advance(5_000).await;
    let view = scene.rail.redeem(&scene.terms, &voucher).await.map_err(say)?;
    expect(view, LockState::Active, TOTAL.0, 100)
}

pub(super) async fn closing_revokes_later_vouchers(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    scene.redeem(100).await?;
    let (now_due, later) = (
        scene.voucher(200, RailTime(0))?,
        scene.voucher(300, scene.now().await?.plus_ms(5_000))?,
    );
    let closed = scene.wallet.close(&scene.terms).await.map_err(say)?;
    scene.bench.advance(1).await;
    let again = scene.wallet.close(&scene.terms).await.map_err(say)?;
    if closed.close_asked.is_none() || closed.close_asked != again.close_asked {
        return Err(format!(
            "closing twice moved the close from {:?} to {:?}",
            closed.close_asked, again.close_asked
        ));
    }
    scene.bench.advance(6_000).await;
    refused(scene.rail.redeem(&scene.terms, &later).await, |why| {
        *why == Refusal::Revoked
    })?;
    let view = scene.rail.redeem(&scene.terms, &now_due).await.map_err(say)?;
    expect(view, LockState::Active, TOTAL.0, 200)?;
    let more = scene
        .wallet
        .lock(&scene.terms, Amount(TOTAL.0 + 1), view.expiry)
        .await;
    refused(more, |why| *why == Refusal::Closing)
}

pub(super) async fn a_voucher_with_one_bit_changed_is_refused(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    let good = scene.voucher(100, RailTime(0))?;
    let mut changed = vec![
        Voucher {
            cumulative: Amount(101),
            ..good.clone()
        },
        Voucher {
            not_before: RailTime(1),
            ..good.clone()
        },
    ];
    for byte in [0, good.signature.len() / 2] {
        let mut signature = good.signature.clone();
        signature[byte] ^= 1;
        changed.push(Voucher {
            signature,
            ..good.clone()
        });
    }
    for voucher in changed {
        refused(scene.rail.check(&scene.terms, &voucher), |why| {
            *why == Refusal::Signature
        })?;
        refused(scene.rail.redeem(&scene.terms, &voucher).await, |why| {
            *why == Refusal::Signature
        })?;
    }
    scene.balances(HELD, Amount::ZERO).await
}

pub(super) async fn a_voucher_for_another_sale_is_refused(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    let other = Terms {
        sale: [0xee; 32],
        ..scene.terms.clone()
    };
    let voucher = scene
        .wallet
        .voucher(&other, Amount(100), RailTime(0))
        .map_err(say)?;
    let moved = Voucher {
        lease: scene.rail.lease(&scene.terms),
        ..voucher.clone()
    };
    for voucher in [voucher, moved] {
        if scene.rail.check(&scene.terms, &voucher).is_ok()
            || scene.rail.redeem(&scene.terms, &voucher).await.is_ok()
        {
            return Err("a voucher of another sale was accepted".to_owned());
        }
    }
    scene.balances(HELD, Amount::ZERO).await
}

pub(super) async fn after_accept_by_only_a_refund_works(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    let voucher = scene.voucher(100, RailTime(0))?;
    scene.bench.advance(ACCEPT_WINDOW_MS).await;
    refused(scene.rail.redeem(&scene.terms, &voucher).await, |why| {
        matches!(why, Refusal::AcceptPast(_))
    })?;
    for _ in 0..2 {
        let view = scene.rail.refund(&scene.terms).await.map_err(say)?;
        expect(view, LockState::Closed, TOTAL.0, 0)?;
        scene.balances(MONEY, Amount::ZERO).await?;
    }
    Ok(())
}

pub(super) async fn a_refund_before_its_time_is_refused(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    refused(scene.rail.refund(&scene.terms).await, |why| {
        matches!(why, Refusal::RefundFrom(_))
    })?;
    scene.redeem(100).await?;
    scene.wallet.close(&scene.terms).await.map_err(say)?;
    scene.bench.advance(NOTICE_MS / 2).await;
    refused(scene.rail.refund(&scene.terms).await, |why| {
        matches!(why, Refusal::RefundFrom(_))
    })?;
    scene.balances(HELD, Amount(100)).await
}

pub(super) async fn after_close_and_notice_the_rest_returns(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    scene.redeem(100).await?;
    scene.wallet.close(&scene.terms).await.map_err(say)?;
    scene.bench.advance(NOTICE_MS).await;
    expect(
        scene.rail.refund(&scene.terms).await.map_err(say)?,
        LockState::Closed,
        TOTAL.0,
        100,
    )?;
    scene.balances(left(100), Amount(100)).await
}

pub(super) async fn after_expiry_and_notice_the_rest_returns(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    scene.redeem(300).await?;
    scene.bench.advance(EXPIRY_MS).await;
    refused(scene.rail.refund(&scene.terms).await, |why| {
        matches!(why, Refusal::RefundFrom(_))
    })?;
    scene.bench.advance(NOTICE_MS).await;
    expect(
        scene.rail.refund(&scene.terms).await.map_err(say)?,
        LockState::Closed,
        TOTAL.0,
        300,
    )?;
    scene.balances(left(300), Amount(300)).await
}

pub(super) async fn the_node_gives_back_at_once(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    scene.redeem(100).await?;
    for _ in 0..2 {
        expect(
            scene.give_back(100).await.map_err(say)?,
            LockState::Closed,
            TOTAL.0,
            100,
        )?;
        scene.balances(left(100), Amount(100)).await?;
    }
    Ok(())
}

pub(super) async fn a_give_back_must_say_what_was_paid(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    scene.redeem(100).await?;
    for paid in [0, 99, 101, 300] {
        refused(scene.give_back(paid).await, |why| {
            matches!(why, Refusal::PaidDiffers { .. })
        })?;
    }
    scene.balances(HELD, Amount(100)).await
}

pub(super) async fn a_give_back_by_another_key_is_refused(scene: &Scene<'_>) -> Outcome {
    scene.lock().await?;
    let mut signature = scene
        .bench
        .sign_give_back(&scene.rail.give_back_bytes(&scene.terms, Amount::ZERO));
    signature[0] ^= 1;
    let outcome = scene.rail.give_back(&scene.terms, Amount::ZERO, &signature).await;
    refused(outcome, |why| *why == Refusal::Signature)?;
    let other = scene
        .bench
        .sign_give_back(&scene.rail.give_back_bytes(&scene.terms, Amount(1)));
    refused(
        scene.rail.give_back(&scene.terms, Amount::ZERO, &other).await,
        |why| *why == Refusal::Signature,
    )?;
    scene.balances(HELD, Amount::ZERO).await
}

pub(super) async fn a_closed_lock_stays_closed(scene: &Scene<'_>) -> Outcome {
    let view = scene.lock().await?;
    let voucher = scene.voucher(100, RailTime(0))?;
    scene.give_back(0).await.map_err(say)?;
    let again = scene.wallet.lock(&scene.terms, TOTAL, view.expiry).await;
    refused(again, |why| *why == Refusal::Closed)?;
    refused(scene.rail.redeem(&scene.terms, &voucher).await, |why| {
        *why == Refusal::Closed
    })?;
    expect(scene.view().await?, LockState::Closed, TOTAL.0, 0)?;
    scene.balances(MONEY, Amount::ZERO).await
}

pub(super) async fn the_lease_commits_to_every_term(scene: &Scene<'_>) -> Outcome {
    let terms = &scene.terms;
    let other_key = RailKey::new(&[0x55; 32]).ok_or("no key")?;
    let others = [
        Terms {
            payer: terms.payee.clone(),
            ..terms.clone()
        },
        Terms {
            payee: terms.payer.clone(),
            ..terms.clone()
        },
        Terms {
            voucher_key: other_key.clone(),
            ..terms.clone()
        },
        Terms {
            give_back_key: other_key,
            ..terms.clone()
        },
        Terms {
            sale: [0xee; 32],
            ..terms.clone()
        },
        Terms {
            accept_window_ms: ACCEPT_WINDOW_MS + 1,
            ..terms.clone()
        },
        Terms {
            notice_ms: NOTICE_MS + 1,
            ..terms.clone()
        },
    ];
    scene.lock().await?;
    for other in others {
        if scene.rail.lease(&other) == scene.rail.lease(terms) {
            return Err(format!("the same lease for {other:?}"));
        }
        let view = scene.rail.view(&other, Sure::Seen).await.map_err(say)?;
        expect(view, LockState::None, 0, 0)?;
    }
    Ok(())
}
