//! The whole life of locks over real HTTP, the ledger stopped and started in between.

use crate::setting::{GIVE_BACK, HOUR_MS, PAYEE, PAYER, START_MS, Setting, VOUCHER, free, key};
use ed25519_dalek::Signer;
use escrow::{Amount, LockState, Rail, RailError, RailTime, Refusal, Sure, Wallet};
use ledger::{LedgerWallet, keys};

#[tokio::test]
async fn a_sale_that_goes_well_survives_a_restart_before_every_step() {
    let mut setting = Setting::new().await;
    let terms = setting.terms(9);
    assert_eq!(setting.fund(PAYER, 1_000, 1).await, Amount(1_000));
    assert_eq!(
        setting.fund(PAYER, 1_000, 1).await,
        Amount(1_000),
        "once for each id"
    );
    assert_eq!(
        setting.wallet().view(&terms, Sure::Final).await.unwrap().state,
        LockState::None
    );

    setting.restart().await;
    let expiry = RailTime(START_MS + 3 * HOUR_MS);
    let view = setting.wallet().lock(&terms, Amount(300), expiry).await.unwrap();
    assert_eq!(view.state, LockState::Locked);
    assert_eq!(view.accept_by, RailTime(START_MS + HOUR_MS / 2));
    assert_eq!(
        setting.wallet().lock(&terms, Amount(300), expiry).await.unwrap(),
        view
    );
    let balance = setting.rail().balance_of(&setting.account(PAYER)).await.unwrap();
    assert_eq!((balance.free, balance.locked), (Amount(700), Amount(300)));

    setting.restart().await;
    let wallet = setting.wallet();
    assert_eq!(wallet.view(&terms, Sure::Final).await.unwrap(), view);
    let first = wallet.voucher(&terms, Amount(100), RailTime(0)).unwrap();
    let second = wallet
        .voucher(&terms, Amount(200), RailTime(START_MS + HOUR_MS))
        .unwrap();
    setting.rail().check(&terms, &second).unwrap();
    let view = setting.rail().redeem(&terms, &first).await.unwrap();
    assert_eq!((view.state, view.paid), (LockState::Active, Amount(100)));
    assert_eq!(
        setting.rail().redeem(&terms, &second).await,
        Err(RailError::Refused(Refusal::NotYet(RailTime(START_MS + HOUR_MS))))
    );

    setting.restart().await;
    setting.pass_ms(HOUR_MS);
    let view = setting.rail().redeem(&terms, &second).await.unwrap();
    assert_eq!(view.paid, Amount(200));
    assert_eq!(
        setting.rail().redeem(&terms, &first).await.unwrap(),
        view,
        "an older one"
    );
    let open = setting.rail().open_locks(&setting.account(PAYER)).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((&open[0].terms, &open[0].view), (&terms, &view));

    setting.restart().await;
    let rail = setting.rail();
    let signature = |paid| {
        key(GIVE_BACK)
            .sign(&rail.give_back_bytes(&terms, paid))
            .to_bytes()
    };
    assert_eq!(
        rail.give_back(&terms, Amount(100), &signature(Amount(100))).await,
        Err(RailError::Refused(Refusal::PaidDiffers {
            said: Amount(100),
            paid: Amount(200)
        }))
    );
    let view = rail
        .give_back(&terms, Amount(200), &signature(Amount(200)))
        .await
        .unwrap();
    assert_eq!(view.state, LockState::Closed);
    assert_eq!(
        rail.give_back(&terms, Amount(200), &signature(Amount(200)))
            .await
            .unwrap(),
        view
    );
    assert_eq!(free(&rail, &setting.account(PAYER)).await, 800);
    assert_eq!(free(&rail, &setting.account(PAYEE)).await, 200);
    assert!(rail.open_locks(&setting.account(PAYER)).await.unwrap().is_empty());
    setting.restart().await;
    setting.stop().await;
}

#[tokio::test]
async fn a_silent_node_costs_only_waiting() {
    let setting = Setting::new().await;
    let (wallet, terms) = (setting.wallet(), setting.terms(1));
    setting.fund(PAYER, 500, 1).await;
    wallet
        .lock(&terms, Amount(500), RailTime(START_MS + 2 * HOUR_MS))
        .await
        .unwrap();
    let voucher = wallet.voucher(&terms, Amount(100), RailTime(0)).unwrap();
    wallet.redeem(&terms, &voucher).await.unwrap();
    setting.pass_ms(HOUR_MS);
    let closed = wallet.close(&terms).await.unwrap();
    assert_eq!(closed.close_asked, Some(RailTime(START_MS + HOUR_MS)));
    let due = RailTime(START_MS + 25 * HOUR_MS);
    assert_eq!(
        setting.rail().refund(&terms).await,
        Err(RailError::Refused(Refusal::RefundFrom(due)))
    );
    setting.pass_ms(24 * HOUR_MS);
    let view = setting.rail().refund(&terms).await.unwrap();
    assert_eq!((view.state, view.paid), (LockState::Closed, Amount(100)));
    assert_eq!(setting.rail().refund(&terms).await.unwrap(), view);
    assert_eq!(free(&setting.rail(), &setting.account(PAYER)).await, 400);
}

#[tokio::test]
async fn nobody_moves_money_with_another_key() {
    let setting = Setting::new().await;
    let (wallet, terms) = (setting.wallet(), setting.terms(1));
    setting.fund(PAYER, 500, 1).await;
    let refused = || Err(RailError::Refused(Refusal::Signature));
    let expiry = RailTime(START_MS + HOUR_MS);

    // A thief's wallet refuses by itself; signing for the payer is refused by the ledger.
    let thief = LedgerWallet::new(setting.rail(), key(77));
    assert_eq!(thief.lock(&terms, Amount(1), expiry).await, Err(RailError::NoKey));
    let lease = setting.rail().lease(&terms);
    let forged = ledger::wire::Ask::Lock {
        terms: terms.clone(),
        total: Amount(1),
        expiry,
        signature: ledger::signing::sign(&key(77), &ledger::signing::lock(&lease, Amount(1), expiry)),
    };
    let reply = setting.rail().ask(forged).await.unwrap();
    assert!(matches!(
        reply.answer,
        ledger::wire::Answer::Refused {
            refusal: Refusal::Signature
        }
    ));

    wallet.lock(&terms, Amount(300), expiry).await.unwrap();
    let mut voucher = wallet.voucher(&terms, Amount(100), RailTime(0)).unwrap();
    voucher.cumulative = Amount(300);
    assert_eq!(setting.rail().redeem(&terms, &voucher).await, refused());
    let by_payer = key(PAYER).sign(&setting.rail().give_back_bytes(&terms, Amount(0)));
    assert_eq!(
        setting
            .rail()
            .give_back(&terms, Amount(0), &by_payer.to_bytes())
            .await,
        refused()
    );
    let stranger = setting
        .rail()
        .fund(&key(5), &setting.account(5), Amount(9), [0; 32])
        .await;
    assert_eq!(stranger, Err(RailError::Refused(Refusal::Signature)));
    // Nor does the ledger's own key issue money: that is the operator's.
    let ledger_key = keys::read(setting.dir.path(), keys::LEDGER_KEY).unwrap();
    let by_ledger = setting
        .rail()
        .fund(&ledger_key, &setting.account(5), Amount(9), [0; 32])
        .await;
    assert_eq!(by_ledger, Err(RailError::Refused(Refusal::Signature)));
    assert_eq!(
        setting
            .wallet()
            .voucher(&setting.terms(1), Amount(1), RailTime(0))
            .map(|_| ()),
        Ok(())
    );
    let keyless = LedgerWallet::new(setting.rail(), key(PAYER)).with_voucher_key(key(VOUCHER + 9));
    assert_eq!(
        keyless.voucher(&terms, Amount(1), RailTime(0)),
        Err(RailError::NoKey)
    );
}

#[tokio::test]
async fn what_the_account_does_not_hold_is_not_locked() {
    let setting = Setting::new().await;
    let (wallet, terms) = (setting.wallet(), setting.terms(1));
    let expiry = RailTime(START_MS + HOUR_MS);
    setting.fund(PAYER, 99, 1).await;
    assert_eq!(
        wallet.lock(&terms, Amount(100), expiry).await,
        Err(RailError::Refused(Refusal::Balance {
            needed: Amount(100),
            free: Amount(99)
        }))
    );
    assert_eq!(
        wallet.view(&terms, Sure::Final).await.unwrap().state,
        LockState::None
    );
    let too_large = wallet.lock(&terms, Amount(u128::MAX), expiry).await;
    assert!(
        matches!(too_large, Err(RailError::Refused(Refusal::Other(_)))),
        "{too_large:?}"
    );
    assert_eq!(free(&setting.rail(), &setting.account(PAYER)).await, 99);
}

#[tokio::test]
async fn terms_of_another_ledger_are_no_terms_here() {
    let setting = Setting::new().await;
    let mut terms = setting.terms(1);
    terms.payee = escrow::Account::on_ledger(&[8; 32], key(PAYEE).verifying_key().as_bytes());
    let viewed = setting.rail().view(&terms, Sure::Final).await;
    assert!(matches!(viewed, Err(RailError::Invalid(_))), "{viewed:?}");
    let mut terms = setting.terms(1);
    terms.asset = "gold".parse().unwrap();
    assert!(matches!(
        setting.rail().view(&terms, Sure::Seen).await,
        Err(RailError::Invalid(_))
    ));
}

#[tokio::test]
async fn many_clients_at_once_lose_nothing_and_double_nothing() {
    let mut setting = Setting::new().await;
    setting.fund(PAYER, 1_000_000, 1).await;
    let rail = setting.rail();
    let clients = (0..32u8).map(|sale| {
        let (rail, terms) = (rail.clone(), setting.terms(sale));
        tokio::spawn(async move {
            let wallet = LedgerWallet::new(rail, key(PAYER)).with_voucher_key(key(VOUCHER));
            let expiry = RailTime(START_MS + HOUR_MS);
            for total in [10, 20, 30] {
                // Twice at the same time: the same operation must be booked once.
                let (one, two) = tokio::join!(
                    wallet.lock(&terms, Amount(total), expiry),
                    wallet.lock(&terms, Amount(total), expiry)
                );
                assert_eq!(one.unwrap().funded, Amount(total));
                assert_eq!(two.unwrap().funded, Amount(total));
            }
            for cumulative in [5, 10] {
                let voucher = wallet.voucher(&terms, Amount(cumulative), RailTime(0)).unwrap();
                wallet.redeem(&terms, &voucher).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(free(&rail, &setting.account(PAYER)).await, 1_000_000 - 32 * 30);
    assert_eq!(free(&rail, &setting.account(PAYEE)).await, 32 * 10);
    assert_eq!(rail.open_locks(&setting.account(PAYER)).await.unwrap().len(), 32);
    let head = rail.ask(ledger::wire::Ask::Now).await.unwrap().journal;
    assert_eq!(head.sequence, 1 + 32 * 5);
    setting.restart().await; // the audit adds everything up
    let again = setting.rail().ask(ledger::wire::Ask::Now).await.unwrap().journal;
    assert_eq!(again, head);
}
