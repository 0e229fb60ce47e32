//! One user with one sale takes all that a node has: streams that are kept, and tunnels. Others are served all the same.
//!
//! Each is done twice: the second time nothing gives way, which is the control.

use std::sync::Arc;
use std::time::Duration;

use crate::street::user::Bought;
use crate::street::{Machine, Node, Street, User};
use agent::direct::Most;
use escrow::{RailTime, Wallet};
use grid::{DirectStream, TunnelStream};
use market::book::Room;
use market::message::*;
use market::quantity::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HONEST: u8 = 20;
const HOSTILE: u8 = 21;
/// For what comes; what does not come is not waited for, for a stream that is let go errs at once.
const WITHIN: Duration = Duration::from_secs(60);

/// A node with so many streams and tunnels, half of each for one peer; two users with money.
async fn small(places: usize, gives_way: bool) -> (Street, Node, User, User) {
    let street = Street::new().await;
    let most = Most {
        streams: places,
        streams_a_peer: places / 2,
        tunnels: places,
        tunnels_a_peer: places / 2,
        gives_way,
    };
    let (machine, room) = (Arc::new(Machine::default()), Room::default());
    let node = Node::start_with(&street, machine, Vec::new(), None, (room, most)).await;
    street.fund(HONEST).await;
    street.fund(HOSTILE).await;
    let (honest, hostile) = (
        User::new(&street, HONEST).await,
        User::new(&street, HOSTILE).await,
    );
    crate::street::sells(&honest).await;
    (street, node, honest, hostile)
}

/// Whether it is answered.
async fn answers(stream: &mut DirectStream, question: &[u8]) -> bool {
    stream.send(question).await.is_ok() && stream.receive_within(WITHIN).await.is_ok()
}

/// Another user, who has one stream: whether he is still heard on it, whether he gets one more, and whether he still has
/// that one when the first user comes from yet another endpoint.
async fn is_served(
    (street, theirs): (&Street, &Bought),
    (honest, bought): (&User, &Bought),
    stream: &mut DirectStream,
) -> [bool; 3] {
    let query = |of: &User, sale| {
        let nonce = [3; 16];
        of.sign(StatusQuery { sale, nonce }).bytes
    };
    let ours = query(honest, bought.id);
    let heard = answers(stream, &ours).await;
    let mut more = honest.speak(bought).await;
    let gets_more = answers(&mut more, &ours).await;
    let endpoint = User::new(street, HOSTILE).await;
    let mut another = endpoint.speak(theirs).await;
    answers(&mut another, &query(&endpoint, theirs.id)).await;
    [heard, gets_more, answers(&mut more, &ours).await]
}

/// One user says a key again, over as many streams as he gets.
async fn keys_said_again(gives_way: bool) -> [bool; 3] {
    let (street, _node, honest, hostile) = small(8, gives_way).await;
    let (bought, mut stream) = honest.ready(1).await;
    let (theirs, own) = hostile.ready(2).await;
    drop(own);
    let junk = hostile.sign(SealedKey {
        sale: theirs.id,
        epoch: 77,
        encapsulated: [1; 32],
        ciphertext: [2; 80],
        authorized_keys: vec![openssh_ed25519(&[1; 32])],
    });
    let mut held = Vec::new();
    for _ in 0..3 {
        let endpoint = User::new(&street, HOSTILE).await;
        for _ in 0..4 {
            let mut stream = endpoint.speak(&theirs).await;
            let _ = stream.send(&junk.bytes).await;
            if let Ok(answer) = stream.receive_within(WITHIN).await {
                endpoint.open::<Status>(&answer);
                held.push(stream);
            }
        }
        std::mem::forget(endpoint);
    }
    assert!(held.len() >= 7, "all but one: {}", held.len());
    is_served((&street, &theirs), (&honest, &bought), &mut stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_his_key_again_on_all_streams_keeps_nobody_out() {
    assert_eq!(keys_said_again(true).await, [true; 3]);
    assert_eq!(keys_said_again(false).await, [true, false, false], "the control");
}

/// One user brings a voucher over each stream that he gets: all of them are kept.
async fn vouchers_everywhere(gives_way: bool) -> [bool; 3] {
    let (street, _node, honest, hostile) = small(4, gives_way).await;
    let (bought, mut stream) = honest.ready(1).await;
    let (theirs, own) = hostile.ready(2).await;
    let mut held = vec![own];
    for periods in 1..=3 {
        let endpoint = User::new(&street, HOSTILE).await;
        let mut stream = endpoint.speak(&theirs).await;
        let sum = theirs.body.owed_after(periods);
        let voucher = endpoint.wallet().voucher(&theirs.terms, sum, RailTime(0));
        let message = endpoint.sign(VoucherMessage {
            sale: theirs.id,
            vouchers: vec![voucher.unwrap().to_bytes()],
        });
        if answers(&mut stream, &message.bytes).await {
            held.push(stream);
        }
        std::mem::forget(endpoint);
    }
    assert!(held.len() >= 3, "all but one: {}", held.len());
    is_served((&street, &theirs), (&honest, &bought), &mut stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pays_over_all_streams_keeps_nobody_out() {
    assert_eq!(
        vouchers_everywhere(true).await,
        [true, true, false],
        "his are kept, so what serves nothing yet goes first: were keys that are said again kept, it would there too"
    );
    assert_eq!(
        vouchers_everywhere(false).await,
        [true, false, false],
        "the control"
    );
}

/// A login through the grid, if it is let in.
async fn login(user: &User, to: &Bought) -> Option<TunnelStream> {
    let opening = TunnelOpening {
        delegate: user.delegate(to.id).await.bytes,
        port: 22,
    };
    let dialled = user.grid.dial_tunnel(&to.node, &opening.to_bytes(), WITHIN).await;
    let (answer, tunnel) = dialled.ok()?;
    let answer = TunnelAnswer::from_bytes(&answer).ok()?;
    (answer == TunnelAnswer::Open).then_some(tunnel)
}

async fn echoes(tunnel: &mut TunnelStream) -> bool {
    let mut echo = [0; 8];
    let said = async {
        tunnel.write_all(b"who am I").await?;
        tunnel.read_exact(&mut echo).await
    };
    tokio::time::timeout(WITHIN, said)
        .await
        .is_ok_and(|said| said.is_ok())
}

/// One user opens as many tunnels into his space as he gets. Whether another's login goes on, and whether he gets one more.
async fn logins_of_one(gives_way: bool) -> (bool, bool) {
    let (street, _node, honest, hostile) = small(8, gives_way).await;
    let (bought, _stream) = honest.ready(1).await;
    let (theirs, _own) = hostile.ready(2).await;
    let mut first = login(&honest, &bought).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let endpoint = User::new(&street, HOSTILE).await;
        for _ in 0..4 {
            held.extend(login(&endpoint, &theirs).await);
        }
        std::mem::forget(endpoint);
    }
    assert!(held.len() >= 7, "all but one: {}", held.len());
    let more = match login(&honest, &bought).await {
        Some(mut more) => echoes(&mut more).await,
        None => false,
    };
    (echoes(&mut first).await, more)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_all_tunnels_keeps_nobody_out() {
    assert_eq!(logins_of_one(true).await, (true, true));
    assert_eq!(logins_of_one(false).await, (true, false), "the control");
}

/// Of what the node keeps for itself a quarter stays for the rest: an idle one was measured to use less.
#[test]
fn what_connections_can_fill_is_kept_by_the_node() {
    let all = Bytes(4 << 30);
    let own = all.0 - agent::desk::capacity(2, all, None, &[]).memory.0;
    let most = grid::most_bytes(&grid::Limits::default()).unwrap();
    assert!(most <= own / 4 * 3, "{most} of {own}");
    let open = grid::Limits {
        windows: None,
        ..grid::Limits::default()
    };
    assert_eq!(grid::most_bytes(&open), None, "the control: nothing bounds it");
}
