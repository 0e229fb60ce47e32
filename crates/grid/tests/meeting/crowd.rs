//! More want a connection than there are places: who has most gives way, and what is kept goes last.

use std::time::Duration;

use bytes::Bytes;
use grid::{BROADCAST_ALPN, DIRECT_ALPN, EndpointAddress, Grid, JoinConfig, fresh_secret, serve::Serve};
use iroh::{
    Endpoint,
    endpoint::{Connection, QuicTransportConfig},
};

use crate::{SOON, accept_all, bare, joined, member, quick, serve_config, straight, within};

/// An endpoint with a key of its own, and so many connections in which it says nothing.
async fn silent(to: &EndpointAddress, alpn: &[u8], many: usize) -> (Endpoint, Vec<Connection>) {
    let endpoint = bare(QuicTransportConfig::default()).await;
    let address = straight(to);
    let mut held = Vec::new();
    for _ in 0..many {
        // Where it is refused, it has what it has.
        held.extend(endpoint.connect(address.clone(), alpn).await);
    }
    (endpoint, held)
}

/// Three keys take every connection of the first peer and stay out of the topic. Whether another is let in.
async fn one_more_is_let_in(gives_way: bool) -> bool {
    crate::logs();
    let mut config = serve_config(1);
    config.limits.connections = 8;
    config.limits.connections_per_peer = 4;
    config.limits.gives_way = gives_way;
    let serve = Serve::start(config).await.unwrap();
    let before = joined(&serve).await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(silent(&serve.grid().address(), BROADCAST_ALPN, 4).await);
    }
    let late = member(&serve).await;
    let is_in = late
        .joined(Duration::from_secs(if gives_way { 30 } else { 4 }))
        .await;
    let still = serve.grid().neighbours().contains(&before.id());
    assert!(still, "who was there before, with one connection, is there");
    is_in.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn few_keys_that_take_all_connections_keep_nobody_out() {
    let (with, without) = tokio::join!(one_more_is_let_in(true), one_more_is_let_in(false));
    assert!(with);
    assert!(!without, "the control: nobody gives way");
}

/// A client's stream, and then more strangers, each with a key of his own, than there are places. Whether it is heard.
async fn is_heard(is_kept: bool) -> bool {
    let serve = crate::serve().await;
    let client = joined(&serve).await;
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    config.timing = quick();
    config.limits.connections = 6;
    let node = Grid::join(config, accept_all()).await.unwrap();
    node.joined(SOON).await.unwrap();
    let mut out = client.dial(&node.address(), SOON).await.unwrap();
    out.send(b"a voucher").await.unwrap();
    let (_, mut stream) = within("the stream", node.accept()).await.unwrap();
    assert_eq!(stream.receive().await.unwrap(), Bytes::from_static(b"a voucher"));
    let _kept = is_kept.then(|| stream.keep([7; 32]).unwrap());
    let mut strangers = Vec::new();
    for _ in 0..8 {
        strangers.push(silent(&node.address(), DIRECT_ALPN, 1).await);
    }
    out.send(b"the next").await.is_ok() && stream.receive_within(Duration::from_secs(5)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_kept_stream_outlasts_those_of_strangers() {
    let (kept, not_kept) = tokio::join!(is_heard(true), is_heard(false));
    assert!(kept);
    assert!(!not_kept, "the control: the oldest of all gave way");
}
