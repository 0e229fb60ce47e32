//! What becomes of sales when the journal refuses a write, the rail does not answer, or the power goes, in the worst
//! moment.

use std::sync::Arc;
use std::time::Duration;

use crate::street::user::{eventually, say};
use crate::street::way::Lie;
use crate::street::{MONEY, Machine, Node, Street, User, sells};
use escrow::LockState;
use market::envelope::{Signed, open};
use market::message::*;
use provision::journal::Journal;

const USER: u8 = 20;
/// The journal refuses states with this in them, while the row is there.
const REFUSED: &str = "refused";

/// A street whose node has a journal that refuses what [`refuse`] says.
async fn opened() -> (Street, Node, User) {
    opened_with(Machine::default(), "").await
}

/// The same on that machine, with a journal that is so besides.
async fn opened_with(machine: Machine, besides: &str) -> (Street, Node, User) {
    let street = Street::new().await;
    street.fund(USER).await;
    Journal::create(&street.journal()).unwrap().close();
    let journal = rusqlite::Connection::open(street.journal()).unwrap();
    let trigger = "CREATE TRIGGER refuses BEFORE INSERT ON sales
        WHEN EXISTS (SELECT 1 FROM rows WHERE room = 'refused' AND instr(new.state, CAST(value AS TEXT)))
        BEGIN SELECT RAISE(ABORT, 'the disk says no'); END";
    journal.execute_batch(trigger).unwrap();
    journal.execute_batch(besides).unwrap();
    drop(journal);
    let node = Node::start(&street, Arc::new(machine), Vec::new()).await;
    let user = User::new(&street, USER).await;
    sells(&user).await;
    (street, node, user)
}

async fn refuse(node: &Node, state: &'static str) {
    let put = node
        .journal
        .write(move |entry| entry.put_row(REFUSED, b"it", state.as_bytes()));
    put.await.unwrap();
}

async fn take_again(node: &Node) {
    let removed = node.journal.write(|entry| entry.remove_row(REFUSED, b"it"));
    assert!(removed.await.unwrap());
}

/// The journal takes nothing in which the sale stands so, until it has said once that it did not.
async fn refuse_once(node: &Node) {
    eventually(|| node.said("the journal does not take it")).await;
    take_again(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_was_built_is_ready_once_the_journal_takes_it() {
    let (_street, node, user) = opened().await;
    let bought = user.buy(1).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    refuse(&node, r#""state":"ready""#).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    refuse_once(&node).await;
    user.wait_for(&mut stream, bought.id, SaleState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_a_restart_locked_is_locked_once_the_journal_takes_it() {
    let (street, node, user) = opened().await;
    let (bought, mut stream) = user.ready(1).await;
    user.pay(&mut stream, &bought, 1).await;
    user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    refuse(&node, r#""state":"locked""#).await;
    let specs: Vec<_> = node.machine.running.lock().unwrap().values().cloned().collect();
    node.power_cut();

    let node = Node::start(&street, Arc::new(Machine::default()), specs).await;
    refuse_once(&node).await;
    let user = User::new(&street, USER).await;
    crate::street::sells(&user).await;
    let bought = crate::street::user::Bought {
        node: where_it_is(&user).await,
        ..bought
    };
    let mut stream = user.speak(&bought).await;
    user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_comes_to_its_end_once_the_journal_takes_it() {
    let (_street, node, user) = opened().await;
    let (bought, mut stream) = user.ready(1).await;
    user.pay(&mut stream, &bought, 1).await;
    refuse(&node, r#""torn_down":{"#).await;
    let (receipt, ()) = tokio::join!(user.cancel(&mut stream, bought.id), refuse_once(&node));
    assert_eq!(receipt.state, SaleState::Ended);
    assert_eq!(user.lock_state(&bought).await, LockState::Closed);
    assert_eq!(node.machine.running.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agreement_that_the_journal_refused_can_be_said_again() {
    let (_street, node, user) = opened().await;
    let bought = user.offered(1).await;
    refuse(&node, r#""state":"agreed""#).await;
    let mut stream = user.dial(&bought.node).await;
    let refused = say(&mut stream, &bought.agree.bytes).await;
    assert_eq!(code(&user, &refused), RefusalCode::Busy);
    take_again(&node).await;
    user.agree(&bought).await;
}

/// A port that was taken for a sale which the journal then did not get was nobody's, and gone for ever: the power went
/// before it was given back. Here the journal takes no such sale, and gives no port back.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_taken_with_its_sale_or_not_at_all() {
    // One that an older image left without a sale goes; any other stays taken.
    let besides = "INSERT INTO taken (kind, number, owner) VALUES ('public-port', 2200, zeroblob(32));
        CREATE TRIGGER keeps BEFORE DELETE ON taken WHEN old.owner <> zeroblob(32)
        BEGIN SELECT RAISE(ABORT, 'the power is gone'); END";
    let machine = Machine {
        ports: std::sync::Mutex::new(Some(2200..=2200)),
        ..Machine::default()
    };
    let (_street, node, user) = opened_with(machine, besides).await;
    let ports = async |node: &Node| {
        let taken = node.journal.write(|entry| entry.taken(agent::sales::PORTS).all());
        taken.await.unwrap()
    };
    assert_eq!(ports(&node).await, [], "it belonged to no sale");
    let bought = user.offered(1).await;
    refuse(&node, r#""state":"agreed""#).await;
    let mut stream = user.dial(&bought.node).await;
    let refused = say(&mut stream, &bought.agree.bytes).await;
    assert_eq!(code(&user, &refused), RefusalCode::Busy);
    assert_eq!(ports(&node).await, [], "no sale, no port");
    take_again(&node).await;
    user.agree(&bought).await;
    let owner = bought.id.as_bytes().to_vec();
    assert_eq!(ports(&node).await, [(2200, owner)], "the sale, and its port");
}

/// The money is locked in time, the node cannot see it, and the sale lapses: it goes back when the rail is there again.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_was_locked_before_a_lapse_goes_back_when_the_rail_answers() {
    let (street, node, user) = opened().await;
    let bought = user.buy(1).await;
    let mut stream = user.speak(&bought).await;
    street.way.lies(Lie::Silence);
    user.lock(&bought).await;
    let lapsed = user.sign(Cancel {
        sale: bought.id,
        why: None,
    });
    let answer = say(&mut stream, &lapsed.bytes).await;
    assert_eq!(
        open::<Receipt>(&answer, None).unwrap().message.state,
        SaleState::Lapsed
    );
    assert_eq!(user.lock_state(&bought).await, LockState::Locked);
    street.way.lies(Lie::None);
    let status = user.wait_for(&mut stream, bought.id, SaleState::Refunded).await;
    assert!(status.receipt.is_some());
    assert_eq!(user.lock_state(&bought).await, LockState::Closed);
    drop(node);
}

/// The ledger has lost its books while a sale ends: it is asked less and less, and the money goes back when they are found.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_books_is_asked_less_and_less() {
    let (street, node, user) = opened().await;
    let (bought, mut stream) = user.ready(1).await;
    user.pay(&mut stream, &bought, 1).await;
    let lost = street.ledger_without_books().await;
    street.way.leads_to(lost.address());
    let cancel = user.sign(Cancel {
        sale: bought.id,
        why: None,
    });
    stream.send(&cancel.bytes).await.unwrap();
    let asked = || street.way.give_backs.lock().unwrap().clone();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while asked().len() < 2 {
        pace.tick().await;
    }
    street.way.leads_to(&street.address());
    user.wait_for(&mut user.speak(&bought).await, bought.id, SaleState::Ended)
        .await;
    assert_eq!(user.lock_state(&bought).await, LockState::Closed);
    // Each tick, half a second after the last, before there was a rest.
    let asked = asked();
    let pauses = asked.windows(2).map(|two| (two[1] - two[0]).as_secs_f32());
    let pauses: Vec<_> = pauses.collect();
    assert!(pauses[0] > 2.5 && pauses[1] > 5.5, "{pauses:?}");
    drop((node, lost));
}

/// Two that only one of them fits: the older one was agreed without a hold, the other is sold. After a power cut the
/// older agreement must not find the capacity that the sold one has, and hold it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sold_is_not_held_for_an_older_agreement_after_a_power_cut() {
    const MOST_OF_IT: u64 = 1200 << 20;
    let (street, node, user) = opened().await;
    let (older, sold) = (
        user.offered_of(1, MOST_OF_IT).await,
        user.offered_of(2, MOST_OF_IT).await,
    );
    user.agree(&older).await;
    user.agree(&sold).await;
    user.lock(&sold).await;
    let mut stream = user.speak(&sold).await;
    let grant = user.grant(&mut stream, sold.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    user.wait_for(&mut stream, sold.id, SaleState::Ready).await;
    user.pay(&mut stream, &sold, 1).await;
    let specs: Vec<_> = node.machine.running.lock().unwrap().values().cloned().collect();
    node.power_cut();

    let node = Node::start(&street, Arc::new(Machine::default()), specs).await;
    let user = User::new(&street, USER).await;
    crate::street::sells(&user).await;
    let older = crate::street::user::Bought {
        node: where_it_is(&user).await,
        ..older
    };
    user.lock(&older).await;
    let mut stream = user.speak(&older).await;
    let refused = say(&mut stream, &user.sign(Funded { sale: older.id }).bytes).await;
    assert_eq!(code(&user, &refused), RefusalCode::NotFunded);
    user.wait_for(&mut stream, older.id, SaleState::Refunded).await;
    assert_eq!(user.lock_state(&older).await, LockState::Closed);
    assert!(!node.said(&format!("sold {}", older.id.name())));
}

/// A node comes back at another address: what a small offer says.
async fn where_it_is(user: &User) -> grid::EndpointAddress {
    let request = user.request(77, 64 << 20).await;
    let offer = user.open::<Offer>(&user.ask(&request).await);
    grid::EndpointAddress::from_bytes(&offer.message.address).unwrap()
}

fn code(user: &User, bytes: &[u8]) -> RefusalCode {
    let refusal: Signed<Refusal> = user.open(bytes);
    refusal.message.code
}

/// Buys and locks, and has the space ready; the node then loses its power, and the time for the first voucher passes.
async fn takes_and_does_not_pay(street: &Street, node: Node, nonce: u16) -> Node {
    User::new(street, USER).await.ready(nonce).await;
    node.power_cut();
    street.passes(Duration::from_secs(3600));
    let node = sells_again(street).await;
    eventually(|| node.said("no first voucher came in time")).await;
    while street.balance(USER).await < MONEY {
        tokio::task::yield_now().await;
    }
    node
}

async fn sells_again(street: &Street) -> Node {
    let node = Node::start(street, Arc::new(Machine::default()), Vec::new()).await;
    sells(&User::new(street, USER).await).await;
    node
}

/// The money comes back each time: without a count the same money would hold a machine for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_served_three_times_and_does_not_pay_waits_a_day() {
    let (street, mut node, _) = opened().await;
    for nonce in 1..=3 {
        node = takes_and_does_not_pay(&street, node, nonce).await;
    }
    let user = User::new(&street, USER).await;
    let refused = user.offered(4).await;
    let mut stream = user.dial(&refused.node).await;
    let answer = say(&mut stream, &refused.agree.bytes).await;
    assert_eq!(code(&user, &answer), RefusalCode::Unpaid);
    // Another account is served, and a day later this one is.
    street.fund(21).await;
    let other = User::new(&street, 21).await;
    other.buy(5).await;
    node.power_cut();
    street.passes(Duration::from_secs(86_400));
    let _node = sells_again(&street).await;
    User::new(&street, USER).await.buy(6).await;
}
