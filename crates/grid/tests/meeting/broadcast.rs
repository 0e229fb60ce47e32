//! One says it, all hear it once, and what must not pass does not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use grid::{BroadcastError, EndpointAddress, GridState, JoinConfig, MAX_BROADCAST_BYTES, PeerId, Verdict};
use tokio::sync::watch;

use crate::{SOON, accept_all, joined, member, member_with, quick, serve, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_heard_by_all_and_answered_to_the_address_in_it() {
    let serve = serve().await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let node = joined(&serve).await;
        let mut heard = node.broadcasts();
        let answering = node.clone();
        nodes.push(node);
        tokio::spawn(async move {
            while let Some(request) = heard.next().await {
                let asker = EndpointAddress::from_bytes(&request.bytes).unwrap();
                let mut stream = answering.dial(&asker, SOON).await.unwrap();
                stream.send(b"an offer").await.unwrap();
                assert_eq!(stream.receive().await.unwrap(), Bytes::from_static(b"thanks"));
            }
        });
    }
    let start = Instant::now();
    let client = joined(&serve).await;
    let after_join = start.elapsed();
    client
        .broadcast(client.address().to_bytes().into())
        .await
        .unwrap();
    let mut answered = Vec::new();
    for _ in 0..3 {
        let (peer, mut stream) = within("an offer", client.accept()).await.unwrap();
        assert_eq!(
            within("its frame", stream.receive()).await.unwrap(),
            Bytes::from_static(b"an offer")
        );
        stream.send(b"thanks").await.unwrap();
        stream.finish().await;
        answered.push(peer);
    }
    println!(
        "joined after {after_join:?}, all offers after {:?}",
        start.elapsed()
    );
    answered.sort();
    let mut all: Vec<PeerId> = nodes.iter().map(|node| node.id()).collect();
    all.sort();
    assert_eq!(answered, all);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_check_refuses_is_not_heard_and_nothing_is_heard_twice() {
    let serve = serve().await;
    let (ask, mut asked) = watch::channel(0);
    let check = move |bytes: &[u8], _: PeerId| {
        ask.send_modify(|times| *times += 1);
        if bytes.starts_with(b"bad") {
            Verdict::Reject("it is bad".into())
        } else {
            Verdict::Accept
        }
    };
    let node = member_with(&serve, Arc::new(check)).await;
    node.joined(SOON).await.unwrap();
    let mut heard = node.broadcasts();
    let client = joined(&serve).await;
    for message in ["bad one", "good", "good", "last"] {
        client.broadcast(message.into()).await.unwrap();
    }
    // Gossip promises no order among what is on its way at once.
    let mut two = Vec::new();
    for which in ["one of two", "the other"] {
        two.push(within(which, heard.next()).await.unwrap().bytes);
    }
    two.sort();
    assert_eq!(two, ["good", "last"]);
    client.broadcast("after both".into()).await.unwrap();
    assert_eq!(
        within("what came after", heard.next()).await.unwrap().bytes,
        "after both"
    );
    let times = *within("all checks", asked.wait_for(|times| *times >= 4))
        .await
        .unwrap();
    assert_eq!(times, 4, "each different message is checked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_bounded_and_nobody_speaks_into_the_void() {
    let serve = serve().await;
    let client = joined(&serve).await;
    let largest = vec![7; MAX_BROADCAST_BYTES];
    let node = joined(&serve).await;
    let mut heard = node.broadcasts();
    client.broadcast(largest.clone().into()).await.unwrap();
    assert_eq!(within("the largest", heard.next()).await.unwrap().bytes, largest);
    let larger = client.broadcast(vec![7; MAX_BROADCAST_BYTES + 1].into()).await;
    assert_eq!(larger, Err(BroadcastError::Size(MAX_BROADCAST_BYTES + 1)));
    assert_eq!(client.broadcast(Bytes::new()).await, Err(BroadcastError::Size(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_that_is_not_there_is_named() {
    let serve = serve().await;
    let ticket = serve.ticket().clone();
    let place = format!("{}:{}", ticket.host(), ticket.relay_port());
    serve.shutdown().await;
    let mut config = JoinConfig::new(ticket, [5; 32]);
    config.timing = quick();
    let lonely = grid::Grid::join(config, accept_all()).await.unwrap();
    let mut state = lonely.state();
    let alone = |state: &GridState| matches!(state, GridState::Alone { .. });
    let why = within("alone", state.wait_for(alone)).await.unwrap().to_string();
    assert!(why.contains(&place) && why.contains("grid serve"), "{why}");
    let refused = lonely.broadcast("hello".into()).await;
    assert!(
        matches!(refused, Err(BroadcastError::NotJoined(_))),
        "{refused:?}"
    );
    assert!(lonely.joined(Duration::from_millis(50)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_that_join_at_once_all_hear() {
    let serve = serve().await;
    let mut members = Vec::new();
    for _ in 0..12 {
        members.push(member(&serve).await);
    }
    for grid in &members {
        grid.joined(SOON).await.unwrap();
    }
    let mut ears: Vec<_> = members[1..].iter().map(|grid| grid.broadcasts()).collect();
    members[0].broadcast("to all".into()).await.unwrap();
    for (number, ear) in ears.iter_mut().enumerate() {
        let heard = within(&format!("member {number}"), ear.next()).await.unwrap();
        assert_eq!(heard.bytes, "to all");
    }
}
