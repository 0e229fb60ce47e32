//! Whole sales over a real ledger and a real grid: the good way, the ways out, and a power cut.

use std::sync::Arc;

use crate::street::user::{eventually, say};
use crate::street::{MONEY, Machine, Node, PRICE, User, key, opened};
use agent::sales::Failed;
use escrow::{Amount, LockState};
use market::envelope::Signed;
use market::message::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const USER: u8 = 20;
const FARMER: u8 = 40;

fn code(user: &User, bytes: &[u8]) -> RefusalCode {
    let refusal: Signed<Refusal> = user.open(bytes);
    refusal.message.code
}

#[tokio::test(flavor = "multi_thread")]
async fn from_request_to_receipt() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    assert_eq!(bought.body.price, PRICE);
    let mut stream = user.speak(&bought).await;
    let early = say(&mut stream, &user.sign(Funded { sale: bought.id }).bytes).await;
    assert_eq!(
        code(&user, &early),
        RefusalCode::NotFunded,
        "the node looks at the rail itself"
    );
    user.lock(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    assert_eq!(grant.epoch, 1);
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    let status = user.wait_for(&mut stream, bought.id, SaleState::Ready).await;
    assert_eq!(status.candidates, [Candidate::Grid]);
    assert_eq!(
        street.balance(FARMER).await,
        Amount::ZERO,
        "nothing is paid before the proof"
    );
    let status = user.pay(&mut stream, &bought, 1).await;
    assert_eq!(
        (status.state, status.paid, status.periods_paid),
        (SaleState::Active, PRICE, 1)
    );
    assert_eq!(street.balance(FARMER).await, PRICE);

    let opening = TunnelOpening {
        delegate: user.delegate(bought.id).await.bytes,
        port: 22,
    };
    let within = std::time::Duration::from_secs(20);
    let (answer, mut tunnel) = user
        .grid
        .dial_tunnel(&bought.node, &opening.to_bytes(), within)
        .await
        .unwrap();
    assert_eq!(TunnelAnswer::from_bytes(&answer), Ok(TunnelAnswer::Open));
    tunnel.write_all(b"who am I").await.unwrap();
    let mut echo = [0; 8];
    tunnel.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"who am I");

    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!(
        (receipt.state, receipt.paid, receipt.returned),
        (SaleState::Ended, PRICE, Amount(2 * PRICE.0))
    );
    assert!(receipt.key_slot_destroyed && receipt.volume_destroyed);
    assert_eq!(
        user.cancel(&mut stream, bought.id).await,
        receipt,
        "the same receipt again"
    );
    assert_eq!(street.balance(USER).await, Amount(MONEY.0 - PRICE.0));
    assert_eq!(street.balance(FARMER).await, PRICE);
    assert_eq!(user.lock_state(&bought).await, LockState::Closed);
    for line in ["sold ", " ready in ", " active", " ended: the user cancelled"] {
        assert!(node.said(line), "the console says \"{line}\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_agreed_once() {
    let (_street, _node, user) = opened().await;
    let bought = user.buy(1).await;
    let mut stream = user.dial(&bought.node).await;
    let again = user.open::<Sale>(&say(&mut stream, &bought.agree.bytes).await);
    assert_eq!(again.message.id(), bought.id, "the same agree gets the same sale");
    let other = SaleBody {
        nonce: [99; 32],
        ..bought.body.clone()
    };
    let other = say(&mut stream, &user.sign(Agree::new(other)).bytes).await;
    assert_eq!(code(&user, &other), RefusalCode::OfferGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_whose_process_ended_is_down_and_says_so() {
    let (_street, node, user) = opened().await;
    let (bought, mut stream) = user.ready(1).await;
    user.pay(&mut stream, &bought, 1).await;
    let ended = node.machine.running.lock().unwrap().remove(&bought.id).unwrap();
    eventually(|| node.said(" is down")).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert!(status.why.unwrap().contains("no time is counted"));
    node.machine.running.lock().unwrap().insert(bought.id, ended);
    eventually(|| node.said(" runs again")).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(status.why, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_agree_on_many_streams_at_once_is_one_sale() {
    let (_street, node, user) = opened().await;
    let bought = user.offered(1).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(user.dial(&bought.node).await);
    }
    let answers = streams.into_iter().map(|mut stream| {
        let agree = bought.agree.bytes.clone();
        tokio::spawn(async move { say(&mut stream, &agree).await })
    });
    for answer in answers.collect::<Vec<_>>() {
        let sale = user.open::<Sale>(&answer.await.unwrap());
        assert_eq!(sale.message.id(), bought.id);
    }
    assert_eq!(node.desk.sales(), 1, "keepers");
}

/// Agreeing costs nothing, so nothing of it stays: neither keepers, nor rows of the journal, nor over a restart.
#[tokio::test(flavor = "multi_thread")]
async fn agreements_without_money_leave_a_bounded_trace() {
    let (street, node, user) = opened().await;
    let known = user.offered(0).await.node;
    for number in 1..300 {
        let bought = user.offered_by(&known, number).await;
        user.agree(&bought).await;
        let mut stream = user.speak(&bought).await;
        user.cancel(&mut stream, bought.id).await;
    }
    eventually(|| node.desk.sales() == 256).await;
    node.power_cut();
    let node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    assert_eq!(node.desk.sales(), 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_agrees_to_eight_sales_before_he_pays() {
    let (_street, _node, user) = opened().await;
    let mut first = Vec::new();
    for number in 0..8 {
        first.push(user.buy(number).await);
    }
    let bought = user.offered(8).await;
    let mut stream = user.dial(&bought.node).await;
    let refused = say(&mut stream, &bought.agree.bytes).await;
    assert_eq!(code(&user, &refused), RefusalCode::OfferGone);
    let mut of_first = user.speak(&first[0]).await;
    user.cancel(&mut of_first, first[0].id).await;
    user.open::<Sale>(&say(&mut stream, &bought.agree.bytes).await); // the control
}

/// This node holds two such offers, for they take half of it. A hundred looks use none of that up; two requests do.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_looks_hold_nothing_and_cannot_be_agreed() {
    let (street, _node, user) = opened().await;
    let first = user.look(0).await;
    let offer = user.open::<Offer>(&user.ask(&first).await);
    assert!(!offer.message.held);
    let address = grid::EndpointAddress::from_bytes(&offer.message.address).unwrap();
    let mut stream = user.dial(&address).await;
    for nonce in 1..100 {
        let look = user.look(nonce).await;
        let offer = user.open::<Offer>(&say(&mut stream, &look.bytes).await);
        assert!(!offer.message.held);
    }
    let mut held = Vec::new();
    for nonce in 100..103 {
        let request = user.request(nonce, 64 << 20).await;
        let offer = user.open::<Offer>(&say(&mut stream, &request.bytes).await);
        held.push(offer.message.held);
    }
    assert_eq!(held, [true, true, false]);

    // The client's own rules refuse such a sale; whoever signs one all the same is told.
    let request = user.request(0, 512 << 20).await;
    let key = escrow::RailKey::ed25519(&[60; 32]);
    let as_if = Offer {
        request: request.request_hash(),
        ..offer.message.clone()
    };
    let as_if = market::envelope::sign(&crate::street::key(4), street.grid(), as_if).unwrap();
    let body = SaleBody::accepting(&request, &as_if, street.account(USER), key, [1; 32]).unwrap();
    let body = SaleBody {
        request: first.request_hash(),
        offer: offer.offer_hash(),
        ..body
    };
    let answer = say(&mut stream, &user.sign(Agree::new(body)).bytes).await;
    let refusal = user.open::<Refusal>(&answer).message;
    assert_eq!(refusal.code, RefusalCode::OfferGone);
    assert!(refusal.words.contains("only looked"), "{}", refusal.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_offered_can_be_agreed() {
    let (street, _node, user) = opened().await;
    let request = user.request(1, 512 << 20).await;
    let offer = user.open::<Offer>(&user.ask(&request).await);
    let address = grid::EndpointAddress::from_bytes(&offer.message.address).unwrap();
    let key = escrow::RailKey::ed25519(&[60; 32]);
    let body = SaleBody::accepting(&request, &offer, street.account(USER), key, [1; 32]).unwrap();
    let mut stream = user.dial(&address).await;
    let changed = [
        SaleBody {
            price: Amount(1),
            ..body.clone()
        },
        SaleBody {
            periods: 1,
            ..body.clone()
        },
        SaleBody {
            payee: street.account(USER),
            ..body.clone()
        },
        SaleBody {
            notice: market::quantity::Seconds(1),
            ..body.clone()
        },
    ];
    for body in changed {
        let answer = say(&mut stream, &user.sign(Agree::new(body)).bytes).await;
        assert_eq!(code(&user, &answer), RefusalCode::Mismatch);
    }
    let sale = user.open::<Sale>(&say(&mut stream, &user.sign(Agree::new(body.clone())).bytes).await);
    assert_eq!(sale.message.id(), body.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_speaks_for_nobodys_sale() {
    let (street, _node, user) = opened().await;
    let bought = user.buy(1).await;
    let stranger = User::new(&street, 21).await;
    let mut stream = stranger.dial(&bought.node).await;
    // no delegate; one by the stranger's own key; the user's, for the user's endpoint
    let query = stranger.sign(StatusQuery {
        sale: bought.id,
        nonce: [0; 16],
    });
    assert_eq!(
        code(&user, &say(&mut stream, &query.bytes).await),
        RefusalCode::NotAllowed
    );
    stream
        .send(&stranger.delegate(bought.id).await.bytes)
        .await
        .unwrap();
    assert_eq!(
        code(&user, &say(&mut stream, &query.bytes).await),
        RefusalCode::NotAllowed
    );
    let stolen = user.delegate(bought.id).await;
    assert_eq!(
        code(&user, &say(&mut stream, &stolen.bytes).await),
        RefusalCode::NotAllowed
    );
    let opening = TunnelOpening {
        delegate: stolen.bytes,
        port: 22,
    };
    let within = std::time::Duration::from_secs(20);
    let refused = stranger
        .grid
        .dial_tunnel(&bought.node, &opening.to_bytes(), within)
        .await
        .unwrap_err();
    let grid::DialError::Refused(answer) = refused else {
        panic!("{refused}")
    };
    let answer = TunnelAnswer::from_bytes(&answer).unwrap();
    assert!(matches!(
        answer,
        TunnelAnswer::Refused {
            code: RefusalCode::NotAllowed,
            ..
        }
    ));
    let mut own = user.speak(&bought).await;
    let forged = stranger.sign(Cancel {
        sale: bought.id,
        why: None,
    });
    assert_eq!(
        code(&user, &say(&mut own, &forged.bytes).await),
        RefusalCode::NotAllowed
    );
}

/// Whoever lost the files and has the key gets the signed messages back, three sales at a time; nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_his_own_sales_back_and_nobody_elses() {
    let (street, _node, user) = opened().await;
    let mut bought = Vec::new();
    for nonce in 1..=4 {
        bought.push(user.buy(nonce).await);
    }
    let mut stream = user.speak(&bought[0]).await;
    user.lock(&bought[0]).await;
    let funded = user.sign(Funded { sale: bought[0].id });
    let grant = say(&mut stream, &funded.bytes).await;
    user.open::<KeyGrant>(&grant);
    bought.sort_by_key(|sale| sale.id);

    let mut stream = user.dial(&bought[0].node).await; // no delegate: the recall names the endpoint itself
    let first = user.recall(None, 60_000).await;
    let page = user
        .open::<Recalled>(&say(&mut stream, &first.bytes).await)
        .message;
    assert_eq!(
        (page.recall, page.sales.len(), page.more),
        (first.hash(), 3, true)
    );
    let second = user.recall(Some(bought[2].id), 60_000).await;
    let rest = user
        .open::<Recalled>(&say(&mut stream, &second.bytes).await)
        .message;
    assert_eq!((rest.sales.len(), rest.more), (1, false));
    let all = [page.sales, rest.sales].concat();
    for (recalled, bought) in all.iter().zip(&bought) {
        let sale = user.open::<Sale>(&recalled.sale).message;
        assert_eq!(
            (sale.id(), sale.agree.bytes),
            (bought.id, bought.agree.bytes.clone())
        );
        let (request, offer) = (user.open(&recalled.request), user.open(&recalled.offer));
        assert_eq!(sale.agree.message.body.matches(&request, &offer), Ok(()));
    }
    let grants: Vec<&Vec<u8>> = all.iter().filter_map(|sale| sale.grant.as_ref()).collect();
    assert_eq!(grants, [&grant], "the newest grant, as it was signed");

    // Another's key gets none; what was signed for another endpoint, or is over, is refused.
    let stranger = User::new(&street, 21).await;
    let mut strangers = stranger.dial(&bought[0].node).await;
    let theirs = stranger.recall(None, 60_000).await;
    let nothing = stranger
        .open::<Recalled>(&say(&mut strangers, &theirs.bytes).await)
        .message;
    assert_eq!((nothing.sales.len(), nothing.more), (0, false));
    let stolen = say(&mut strangers, &first.bytes).await;
    assert_eq!(code(&user, &stolen), RefusalCode::NotAllowed);
    for ahead_ms in [-1_000, 25 * 3_600_000] {
        let untimely = user.recall(None, ahead_ms).await;
        let answer = say(&mut stream, &untimely.bytes).await;
        assert_eq!(code(&user, &answer), RefusalCode::NotAllowed, "{ahead_ms}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_told_the_numbers() {
    let (_street, _node, user) = opened().await;
    let request = user.request(1, 64 << 30).await;
    let decline = user.open::<Decline>(&user.ask(&request).await).message;
    assert_eq!(decline.request, request.request_hash());
    let [reason] = &decline.reasons[..] else {
        panic!("{decline:?}")
    };
    assert_eq!((reason.code, reason.asked), (DeclineCode::Memory, Some(64 << 30)));
    assert!(reason.have.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_gives_everything_back() {
    let (street, node, user) = opened().await;
    let failed = Failed {
        why: "the disk says no".into(),
        quarantine: None,
    };
    *node.machine.next_failure.lock().unwrap() = Some(failed);
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.seal(&mut stream, &grant).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Refunded).await;
    assert!(status.why.unwrap().contains("the disk says no"));
    let receipt = user.open::<Receipt>(&status.receipt.unwrap()).message;
    assert_eq!(
        (receipt.paid, receipt.returned),
        (Amount::ZERO, bought.body.total())
    );
    assert_eq!(street.balance(USER).await, MONEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_the_users_key_brings_it_back() {
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

    let node = Node::start(&street, Arc::new(Machine::default()), specs).await;
    let user = User::new(&street, USER).await; // the client is a process for each verb
    let bought = crate::street::user::Bought {
        node: where_it_is_now(&user).await,
        ..bought
    };
    let mut stream = user.speak(&bought).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
    assert_eq!((status.paid, status.candidates), (PRICE, Vec::new()));
    let stale = user.seal(&mut stream, &grant).await;
    assert_eq!(
        code(&user, &stale),
        RefusalCode::Epoch,
        "the key of the boot before is gone"
    );
    let again = user.grant(&mut stream, bought.id).await;
    assert_eq!((again.epoch, again.host_key), (2, grant.host_key));
    user.open::<Status>(&user.seal(&mut stream, &again).await);
    user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(
        *node.machine.seeds.lock().unwrap(),
        [false],
        "the host key on the volume stays"
    );
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!((receipt.paid, receipt.returned), (PRICE, Amount(2 * PRICE.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_while_building_costs_nothing_but_time() {
    let (street, node, user) = opened().await;
    node.machine
        .is_stuck
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    user.wait_for(&mut stream, bought.id, SaleState::Building).await;
    node.power_cut();

    let node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    let user = User::new(&street, USER).await;
    let bought = crate::street::user::Bought {
        node: where_it_is_now(&user).await,
        ..bought
    };
    let mut stream = user.speak(&bought).await;
    user.wait_for(&mut stream, bought.id, SaleState::Funded).await;
    let again = user.grant(&mut stream, bought.id).await;
    assert_eq!(again.epoch, 2);
    assert_ne!(
        again.host_key, grant.host_key,
        "its private half was in memory alone, and nobody had proven it"
    );
    user.open::<Status>(&user.seal(&mut stream, &again).await);
    user.wait_for(&mut stream, bought.id, SaleState::Ready).await;
    assert_eq!(*node.machine.seeds.lock().unwrap(), [true]);
    assert_eq!(user.pay(&mut stream, &bought, 1).await.state, SaleState::Active);
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!((receipt.state, receipt.paid), (SaleState::Ended, PRICE));
    assert_eq!(street.balance(USER).await, Amount(MONEY.0 - PRICE.0));
}

/// A node comes back at another address, with the same key: a fresh offer tells where.
async fn where_it_is_now(user: &User) -> grid::EndpointAddress {
    let request = user.request(77, 512 << 20).await;
    let offer = user.open::<Offer>(&user.ask(&request).await);
    assert_eq!(offer.signer, key(4).verifying_key().to_bytes());
    grid::EndpointAddress::from_bytes(&offer.message.address).unwrap()
}
