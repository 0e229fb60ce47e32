//! Who lies to a node: whoever stands between it and the ledger, and users. Each lie is followed by the truth, which is
//! the control: then the same sale goes through.

use std::sync::Arc;

use crate::street::user::Bought;
use crate::street::user::say;
use crate::street::way::Lie;
use crate::street::{MONEY, Machine, Node, PRICE, User, opened};
use escrow::{Amount, LockState, Rail, RailKey, RailTime, Terms, Wallet};
use market::envelope::{Signed, open};
use market::message::*;

const USER: u8 = 20;
const FARMER: u8 = 40;

fn refused(user: &User, bytes: &[u8]) -> Refusal {
    user.open::<Refusal>(bytes).message
}

/// To the first paid period, and to the end of the sale.
async fn completes(user: &User, bought: &Bought) {
    let mut stream = user.speak(bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    user.wait_for(&mut stream, bought.id, SaleState::Ready).await;
    let status = user.pay(&mut stream, bought, 1).await;
    assert_eq!((status.state, status.paid), (SaleState::Active, PRICE));
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!((receipt.paid, receipt.returned), (PRICE, Amount(2 * PRICE.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_on_the_way_to_the_ledger_gets_nothing_built() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let funded = user.sign(Funded { sale: bought.id });
    let lies = [
        (Lie::Amounts, "not signed by the ledger"),
        (Lie::Replay, "not signed by the ledger"),
        (Lie::OtherKey, "not signed by the ledger"),
        (Lie::Error, "HTTP status 500"),
        (Lie::Silence, "no answer that can be trusted"),
    ];
    for (lie, words) in lies {
        street.way.lies(lie);
        let refusal = refused(&user, &once_rested(&mut stream, &funded.bytes).await);
        assert_eq!(
            refusal.code,
            RefusalCode::RailSilent,
            "{lie:?}: {}",
            refusal.words
        );
        assert!(refusal.words.contains(words), "{lie:?}: {}", refusal.words);
        assert!(node.said(words), "{lie:?}: the console says why");
        assert!(node.machine.running.lock().unwrap().is_empty(), "{lie:?}");
    }
    street.way.lies(Lie::None);
    user.open::<KeyGrant>(&once_rested(&mut stream, &funded.bytes).await);
    completes(&user, &bought).await;
    assert_eq!(street.balance(FARMER).await, PRICE);
}

/// The answer, once the node asks the rail again: for a while after an answer that was none it leaves it alone.
async fn once_rested(stream: &mut grid::DirectStream, question: &[u8]) -> Vec<u8> {
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        pace.tick().await;
        let answer = say(stream, question).await;
        let rests = open::<Refusal>(&answer, None);
        if !rests.is_ok_and(|refusal| refusal.message.words == "the rail does not answer") {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_on_the_way_ends_no_space_and_steals_no_period() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.seal(&mut stream, &grant).await;
    user.wait_for(&mut stream, bought.id, SaleState::Ready).await;
    for lie in [Lie::Amounts, Lie::Replay, Lie::OtherKey, Lie::Error] {
        street.way.lies(lie);
        let status = user.pay(&mut stream, &bought, 1).await;
        assert_eq!(
            (status.state, status.paid),
            (SaleState::Ready, Amount::ZERO),
            "{lie:?}"
        );
        assert_eq!(node.machine.running.lock().unwrap().len(), 1, "{lie:?}");
    }
    street.way.lies(Lie::None);
    // the voucher is in the node's hand: it redeems it by itself
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(status.paid, PRICE);
    assert_eq!(street.balance(FARMER).await, PRICE);
}

/// Each of these locks is for something else than this sale. The node looks for the lease that the sale's own terms give.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_this_sales_is_no_lock() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    let other = user.buy(2).await;
    let mut stream = user.speak(&bought).await;
    let funded = user.sign(Funded { sale: bought.id });
    let to_another_payee = Terms {
        payee: street.account(USER),
        ..bought.terms.clone()
    };
    let no_notice = Terms {
        notice_ms: 1,
        ..bought.terms.clone()
    };
    let another_giver = Terms {
        give_back_key: RailKey::ed25519(&[60; 32]),
        ..bought.terms.clone()
    };
    let expiry = user.wallet().now().await.unwrap().plus_ms(4 * 3_600_000);
    let total = bought.body.total();
    // one lock shown for two sales is the last of them
    for terms in [to_another_payee, no_notice, another_giver, other.terms.clone()] {
        user.wallet().lock(&terms, total, expiry).await.unwrap();
        let refusal = refused(&user, &say(&mut stream, &funded.bytes).await);
        assert_eq!(refusal.code, RefusalCode::NotFunded, "{}", refusal.words);
    }
    // too small, then topped up; too short, then extended
    let small = Amount(PRICE.0 - 1);
    let soon = user.wallet().now().await.unwrap().plus_ms(1_800_000);
    for (total, expiry) in [(small, soon), (small, expiry), (total, expiry)] {
        user.wallet().lock(&bought.terms, total, expiry).await.unwrap();
        if total == small {
            let refusal = refused(&user, &say(&mut stream, &funded.bytes).await);
            assert_eq!(refusal.code, RefusalCode::NotFunded, "{}", refusal.words);
            assert!(node.machine.running.lock().unwrap().is_empty());
        }
    }
    completes(&user, &bought).await;
    assert_eq!(street.balance(FARMER).await, PRICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_was_closed_while_the_node_was_off_serves_nobody() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.seal(&mut stream, &grant).await;
    user.wait_for(&mut stream, bought.id, SaleState::Ready).await;
    user.pay(&mut stream, &bought, 1).await;
    let specs: Vec<_> = node.machine.running.lock().unwrap().values().cloned().collect();
    node.power_cut();
    user.wallet().close(&bought.terms).await.unwrap();

    let node = Node::start(&street, Arc::new(Machine::default()), specs).await;
    let user = User::new(&street, USER).await;
    let request = user.request(77, 512 << 20).await;
    let offer = user.open::<Offer>(&user.ask(&request).await);
    let bought = Bought {
        node: grid::EndpointAddress::from_bytes(&offer.message.address).unwrap(),
        ..bought
    };
    let mut stream = user.speak(&bought).await;
    // asking for a key makes the node look, and what it sees ends the sale
    let funded = user.sign(Funded { sale: bought.id });
    let _ = say(&mut stream, &funded.bytes).await;
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!((receipt.state, receipt.paid), (SaleState::Ended, PRICE));
    assert!(node.machine.running.lock().unwrap().is_empty());
    assert_eq!(user.lock_state(&bought).await, LockState::Closed);
    assert_eq!(street.balance(USER).await, Amount(MONEY.0 - PRICE.0));
}

/// What is wrong with its bytes, its signature, its time or its place changes nothing, and the node goes on answering.
#[tokio::test(flavor = "multi_thread")]
async fn forged_replayed_oversized_and_nested_messages_change_nothing() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.seal(&mut stream, &grant).await;
    user.wait_for(&mut stream, bought.id, SaleState::Ready).await;

    let nested = [&[0xd2, 0x84, 0x59, 0xf0, 0x00][..], &[0x81; 0xf000]].concat();
    let nested_payload = {
        let header = &bought.agree.bytes[..bought.agree.bytes.len() / 2];
        [header, &[0xa1, 0x01].repeat(20_000)].concat()
    };
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let cancel = user.sign(Cancel {
        sale: bought.id,
        why: None,
    });
    let last = cancel.bytes.len() - 1;
    let bad = [
        nested,
        nested_payload,
        vec![0x9f; 1000],
        vec![0xff; 64 << 10],
        Vec::from(&b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"[..]),
        flipped(&cancel.bytes, last),
        flipped(&cancel.bytes, last - 80),
        cancel.bytes[..last].to_vec(),
    ];
    for bytes in bad {
        let refusal = refused(&user, &say(&mut stream, &bytes).await);
        assert_eq!(refusal.code, RefusalCode::NotExpected, "{}", refusal.words);
    }

    // another's voucher key, another lease, more than the sale, and a voucher for half a period
    let wallet = user.wallet();
    let voucher = wallet.voucher(&bought.terms, PRICE, RailTime(0)).unwrap();
    let mut wrong_key = voucher.clone();
    wrong_key.signature[7] ^= 1;
    let mut other_lease = voucher.clone();
    other_lease.lease.0[0] ^= 1;
    let too_much = wallet
        .voucher(&bought.terms, Amount(PRICE.0 * 4), RailTime(0))
        .unwrap();
    let half = wallet
        .voucher(&bought.terms, Amount(PRICE.0 / 2), RailTime(0))
        .unwrap();
    for wrong in [wrong_key, other_lease, too_much, half] {
        let message = user.sign(VoucherMessage {
            sale: bought.id,
            vouchers: vec![wrong.to_bytes()],
        });
        let refusal = refused(&user, &say(&mut stream, &message.bytes).await);
        assert_eq!(refusal.code, RefusalCode::Voucher, "{}", refusal.words);
    }
    assert_eq!(street.balance(FARMER).await, Amount::ZERO);

    // a voucher shown three times pays once; a sealed key shown again opens nothing twice
    let status = user.pay(&mut stream, &bought, 1).await;
    assert_eq!((status.state, status.paid), (SaleState::Active, PRICE));
    let shown_again = user.sign(VoucherMessage {
        sale: bought.id,
        vouchers: vec![voucher.to_bytes(); 3],
    });
    let refusal = refused(&user, &say(&mut stream, &shown_again.bytes).await);
    assert_eq!(refusal.code, RefusalCode::Voucher, "{}", refusal.words);
    assert_eq!(street.balance(FARMER).await, PRICE);
    let opened = node.machine.seeds.lock().unwrap().len();
    user.seal(&mut stream, &grant).await;
    assert_eq!(node.machine.seeds.lock().unwrap().len(), opened);

    // a cancel of another's sale, replayed on a stream of one's own
    let stranger = User::new(&street, 21).await;
    let mut own = stranger.dial(&bought.node).await;
    let refusal = refused(&user, &say(&mut own, &cancel.bytes).await);
    assert_eq!(refusal.code, RefusalCode::NotAllowed);
    assert_eq!(node.machine.running.lock().unwrap().len(), 1);
    let receipt: Signed<Receipt> = user.open(&say(&mut stream, &cancel.bytes).await);
    assert_eq!(
        receipt.message.state,
        SaleState::Ended,
        "the control: from its user it ends it"
    );
}

/// A request whose time is over, or that says it lives for a year, gets no offer; one that is heard again gets one answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_request_is_not_answered() {
    let (_street, _node, user) = opened().await;
    let good = user.request(1, 512 << 20).await;
    let offer = user.open::<Offer>(&user.ask(&good).await);
    let node = grid::EndpointAddress::from_bytes(&offer.message.address).unwrap();
    let mut stream = user.dial(&node).await;
    for expires in [
        good.message.expires.0 - 120_000,
        good.message.expires.0 + 365 * 86_400_000,
        u64::MAX,
    ] {
        let stale = user.sign(CapacityRequest {
            expires: market::quantity::UnixMillis(expires),
            nonce: [5; 16],
            ..good.message.clone()
        });
        let refusal = refused(&user, &say(&mut stream, &stale.bytes).await);
        assert_eq!(refusal.code, RefusalCode::NotExpected, "{}", refusal.words);
    }
    let fresh = user.request(2, 512 << 20).await;
    user.open::<Offer>(&say(&mut stream, &fresh.bytes).await);
}
