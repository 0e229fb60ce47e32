//! Ten thousand requests, each from a key that nobody has seen, while one honest user buys and buys again.
//!
//! Times beside the flood and without it are taken in turn in one run on one machine, so their ratio says something
//! wherever it runs. The flood comes over streams, which nothing slows but the node itself; broadcasts are slowed by the
//! grid before anybody reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::street::user::say;
use crate::street::{Machine, Node, Street, User, opened};
use agent::direct::Most;
use ed25519_dalek::SigningKey;
use market::book::Room;
use market::envelope::{open, peek_kind, sign};
use market::message::*;
use market::quantity::{Bytes, MilliCpus};
use tokio::task::JoinSet;

const USER: u8 = 20;
/// For what comes; what is let go errs at once.
const SOON: Duration = Duration::from_secs(60);
/// Ten thousand in all; between two rounds the node has rest.
const ROUNDS: usize = 5;
const A_ROUND: usize = 2_000;
/// Beside one round of the flood: the user's money is finite.
const MOST_PURCHASES: usize = 12;
/// Endpoints of the flooder, and streams of each: as many neighbours as fill the room for offers together.
const ENDPOINTS: u8 = 4;
const STREAMS: usize = 2;

/// From the request to the first paid period; ended again, so that the next one finds the same.
async fn buys(user: &User, nonce: u16) -> Duration {
    let started = Instant::now();
    let (bought, mut stream) = user.ready(nonce).await;
    assert_eq!(user.pay(&mut stream, &bought, 1).await.state, SaleState::Active);
    let took = started.elapsed();
    user.cancel(&mut stream, bought.id).await;
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Small requests, signed beforehand, none of whose keys comes twice.
async fn requests(street: &Street, user: &User, round: usize) -> Vec<Vec<u8>> {
    let small = CapacityRequest {
        needs: Needs {
            cpu: MilliCpus(100),
            memory: Bytes(64 << 20),
            disk: Bytes(128 << 20),
            rate: None,
        },
        ..user.request(60_000, 64 << 20).await.message
    };
    let one = |number: usize| {
        let mut seed = [0xf1; 32];
        seed[..8].copy_from_slice(&(round * A_ROUND + number).to_be_bytes());
        let request = CapacityRequest {
            nonce: u128::try_from(number).unwrap().to_be_bytes(),
            ..small.clone()
        };
        sign(&SigningKey::from_bytes(&seed), street.grid(), request)
            .unwrap()
            .bytes
    };
    (0..A_ROUND).map(one).collect()
}

/// Who floods: endpoints of its own, and how its requests were answered.
struct Flood {
    endpoints: Vec<User>,
    node: grid::EndpointAddress,
    offers: Arc<AtomicUsize>,
    declines: Arc<AtomicUsize>,
}

impl Flood {
    async fn at(street: &Street, node: grid::EndpointAddress) -> Flood {
        let mut endpoints = Vec::new();
        for number in 0..ENDPOINTS {
            endpoints.push(User::new(street, 100 + number).await);
        }
        Flood {
            endpoints,
            node,
            offers: Arc::default(),
            declines: Arc::default(),
        }
    }

    /// Asks all of it, as fast as the node answers.
    async fn begin(&self, requests: Vec<Vec<u8>>) -> JoinSet<()> {
        let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
        let mut asking = JoinSet::new();
        for endpoint in &self.endpoints {
            for _ in 0..STREAMS {
                let mut stream = endpoint.dial(&self.node).await;
                let (requests, next) = (requests.clone(), next.clone());
                let (offers, declines) = (self.offers.clone(), self.declines.clone());
                asking.spawn(async move {
                    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let count = match peek_kind(&say(&mut stream, request).await).unwrap() {
                            Kind::Offer => &offers,
                            Kind::Decline => &declines,
                            other => panic!("a request is answered by a {}", other.name()),
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        asking
    }

    fn answered(&self) -> (usize, usize) {
        (
            self.offers.load(Ordering::Relaxed),
            self.declines.load(Ordering::Relaxed),
        )
    }
}

/// Where the node is: every offer says it.
async fn address(user: &User) -> grid::EndpointAddress {
    let look = user.look(49_000).await;
    let offer = user.open::<Offer>(&user.ask(&look).await);
    grid::EndpointAddress::from_bytes(&offer.message.address).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_buys_is_served_while_ten_thousand_ask() {
    let (street, _node, user) = opened().await;
    let flood = Flood::at(&street, address(&user).await).await;
    let mut nonces = 1..;
    let mut nonce = || nonces.next().unwrap();
    buys(&user, nonce()).await; // the first one makes connections
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let mut flooded = Duration::ZERO;
    for round in 0..ROUNDS {
        for _ in 0..6 {
            idle.push(buys(&user, nonce()).await);
        }
        let requests = requests(&street, &user, round).await;
        let started = Instant::now();
        let mut asking = flood.begin(requests).await;
        for _ in 0..MOST_PURCHASES {
            let took = buys(&user, nonce()).await;
            while let Some(ended) = asking.try_join_next() {
                ended.unwrap();
            }
            if asking.is_empty() {
                break; // this purchase saw the flood's end: it says less than those before it
            }
            busy.push(took);
        }
        while let Some(ended) = asking.join_next().await {
            ended.unwrap();
        }
        flooded += started.elapsed();
    }
    let (offers, declines) = flood.answered();
    assert_eq!(offers + declines, ROUNDS * A_ROUND);
    let (purchases, worst) = (busy.len(), busy.iter().max().copied().unwrap());
    let (idle, busy) = (median(idle), median(busy));
    let ratio = busy.as_secs_f64() / idle.as_secs_f64();
    println!(
        "alone {idle:?}; beside {offers} offers and {declines} declines in {flooded:?}: {busy:?}, at worst {worst:?}, \
         over {purchases} purchases: {ratio:.2} times"
    );
    assert!(purchases >= ROUNDS, "only {purchases} purchases beside the flood");
    assert!(ratio <= 2.0, "{ratio:.2} times as long");
}

/// The control: a node where nothing gives way has no room left for who asks after the flood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_gives_way_an_honest_user_is_declined() {
    let street = Street::new().await;
    // Little of it, for what was offered is held for a while only, and a slow machine is flooded slowly.
    let room = Room {
        gives_way: false,
        entries: 64 * usize::from(ENDPOINTS),
        entries_a_neighbour: 64,
        ..Room::default()
    };
    let machine = Arc::new(Machine::default());
    let node = Node::start_with(&street, machine, Vec::new(), None, (room, Most::default())).await;
    let user = User::new(&street, USER).await;
    crate::street::sells(&user).await;
    let flood = Flood::at(&street, address(&user).await).await;
    let mut asking = flood.begin(requests(&street, &user, 0).await).await;
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
    let request = user.request(1, 512 << 20).await;
    let answer = user.ask(&request).await;
    let declined = open::<Decline>(&answer, Some(street.grid())).unwrap();
    assert_eq!(declined.message.reasons, [Reason::plain(DeclineCode::Busy)]);
    drop(node);
}

/// Where there is room for one agreement, who does not pay leaves it to who does; money that he sends late returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_without_money_gives_way_and_its_late_lock_is_given_back() {
    for gives_way in [true, false] {
        let street = Street::new().await;
        let room = Room {
            agreed: 1,
            gives_way,
            ..Room::default()
        };
        let machine = Arc::new(Machine::default());
        let _node = Node::start_with(&street, machine, Vec::new(), None, (room, Most::default())).await;
        street.fund(USER).await;
        street.fund(USER + 1).await;
        let (slow, quick) = (User::new(&street, USER).await, User::new(&street, USER + 1).await);
        crate::street::sells(&quick).await;
        let late = slow.buy(1).await;
        let bought = quick.offered(2).await;
        let answer = say(&mut quick.dial(&bought.node).await, &bought.agree.bytes).await;
        if !gives_way {
            let refused = open::<Refusal>(&answer, Some(street.grid())).unwrap().message;
            assert_eq!(
                refused.code,
                RefusalCode::OfferGone,
                "the control: {refused:?} for two minutes"
            );
            continue;
        }
        quick.open::<Sale>(&answer);
        quick.lock(&bought).await;
        quick.grant(&mut quick.speak(&bought).await, bought.id).await;

        slow.lock(&late).await;
        let mut stream = slow.speak(&late).await;
        let funded = slow.sign(Funded { sale: late.id });
        let answer = say(&mut stream, &funded.bytes).await;
        assert!(
            open::<Refusal>(&answer, Some(street.grid())).is_ok(),
            "no grant for it"
        );
        slow.wait_for(&mut stream, late.id, SaleState::Refunded).await;
        assert_eq!(street.balance(USER).await, crate::street::MONEY);
    }
}

/// A node that sells and has room for so many streams, so many of them for one peer; and a user.
async fn with_streams(streams: usize, streams_a_peer: usize) -> (Street, Node, User) {
    let street = Street::new().await;
    let most = Most {
        streams,
        streams_a_peer,
        ..Most::default()
    };
    let (machine, room) = (Arc::new(Machine::default()), Room::default());
    let node = Node::start_with(&street, machine, Vec::new(), None, (room, most)).await;
    let user = User::new(&street, USER).await;
    crate::street::sells(&user).await;
    (street, node, user)
}

/// One peer opens as many streams as he gets; then another asks.
async fn streams_of_one(streams_a_peer: usize) -> (usize, bool) {
    let (street, node, user) = with_streams(24, streams_a_peer).await;
    let (to, look) = (address(&user).await, user.look(1).await);
    let is_answered = async |stream: &mut grid::DirectStream| {
        stream.send(&look.bytes).await.is_ok() && stream.receive_within(SOON).await.is_ok()
    };
    let hostile = User::new(&street, 21).await;
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut stream = hostile.dial(&to).await;
        if is_answered(&mut stream).await {
            held.push(stream);
        }
    }
    let mut another = user.dial(&to).await;
    let answered = (held.len(), is_answered(&mut another).await);
    drop(node);
    answered
}

/// Strangers together hold every stream, each no more than his share: who comes later is answered, and the oldest gives way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_together_take_all_streams_keep_nobody_out() {
    let (street, node, user) = with_streams(8, 4).await;
    let (to, look) = (address(&user).await, user.look(1).await);
    let mut held = Vec::new();
    for key in [21, 22] {
        let hostile = User::new(&street, key).await;
        for _ in 0..4 {
            let mut stream = hostile.dial(&to).await;
            stream.send(&look.bytes).await.unwrap();
            stream.receive_within(SOON).await.unwrap();
            held.push(stream);
        }
    }
    let mut late = user.dial(&to).await;
    late.send(&look.bytes).await.unwrap();
    let answer = late.receive_within(SOON).await;
    assert!(answer.is_ok(), "{answer:?}");
    let first = held[0].receive_within(SOON).await;
    assert!(first.is_err(), "the oldest gave way: {first:?}");
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_all_streams_that_he_gets_leaves_some_to_another() {
    assert_eq!(streams_of_one(12).await, (12, true));
    assert_eq!(
        streams_of_one(usize::MAX).await,
        (24, true),
        "without a share of his own he gets all, and the oldest gives way"
    );
}

/// Requests that are broadcast from fresh keys, with an address where nobody is; then an honest one. The control, where
/// dials to nowhere keep their places, is `desk/dials.rs`'s own: here it depends on how fast the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_from_nowhere_keep_nobody_from_an_answer() {
    let (street, node, user) = opened().await;
    let gone = User::new(&street, 99).await;
    let nowhere = gone.grid.address().to_bytes();
    gone.grid.close().await;
    let mut heard = user.grid.broadcasts();
    let hostile = User::new(&street, 98).await;
    let like = user.request(60_000, 64 << 20).await.message;
    for number in 0..150u8 {
        let request = CapacityRequest {
            nonce: [number; 16],
            answer_to: nowhere.clone(),
            ..like.clone()
        };
        let signed = sign(&SigningKey::from_bytes(&[number; 32]), street.grid(), request).unwrap();
        hostile.grid.broadcast(signed.bytes.into()).await.unwrap();
    }
    let all = async {
        for _ in 0..150 {
            heard.next().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, all).await.expect("they are heard");
    let honest = user.request(1, 512 << 20).await;
    user.grid.broadcast(honest.bytes.clone().into()).await.unwrap();
    // Less than a dial to nowhere takes.
    let answered = tokio::time::timeout(Duration::from_secs(5), user.grid.accept()).await;
    assert!(answered.is_ok());
    drop(node);
}
