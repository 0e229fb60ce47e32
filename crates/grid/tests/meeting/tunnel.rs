//! Tunnels: the right bytes, each way with its own end, many at once.

use bytes::Bytes;
use grid::{DialError, Grid, JoinConfig, MAX_OPENING_BYTES, fresh_secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{SOON, accept_all, direct::raw, joined, quick, serve, within};

/// Accepts tunnels and echoes what comes, until the other end has ended.
fn echo(node: &Grid) {
    let node = node.clone();
    tokio::spawn(async move {
        while let Some(incoming) = node.accept_tunnel().await {
            if incoming.opening() == "no" {
                incoming.refuse(b"as you say").await.unwrap();
                continue;
            }
            tokio::spawn(async move {
                let answer = incoming.opening().clone();
                let (mut reader, mut writer) = tokio::io::split(incoming.accept(&answer).await.unwrap());
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
    });
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

async fn round_trip(client: &Grid, node: &Grid, seed: u64, length: usize) {
    let opening = seed.to_string();
    let (answer, stream) = client
        .dial_tunnel(&node.address(), opening.as_bytes(), SOON)
        .await
        .unwrap();
    assert_eq!(answer, opening);
    let sent = pattern(seed, length);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            // Only this direction ends; the echo of all of it is still to come.
            writer.shutdown().await.unwrap();
        })
    };
    let mut back = Vec::new();
    within("the echo", reader.read_to_end(&mut back)).await.unwrap();
    assert!(
        back == sent,
        "{} of {} bytes came back, or others",
        back.len(),
        sent.len()
    );
    within("the writer", writing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_mebibytes_come_back_and_each_way_ends_by_itself() {
    let serve = serve().await;
    let (node, client) = (joined(&serve).await, joined(&serve).await);
    echo(&node);
    let start = std::time::Instant::now();
    round_trip(&client, &node, 1, 4 << 20).await;
    println!("4 MiB there and back: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_tunnels_at_once_from_two_clients() {
    let serve = serve().await;
    let node = joined(&serve).await;
    echo(&node);
    let clients = [joined(&serve).await, joined(&serve).await];
    let mut tunnels = tokio::task::JoinSet::new();
    for number in 0..10u64 {
        let (client, node) = (clients[number as usize % 2].clone(), node.clone());
        tunnels.spawn(async move { round_trip(&client, &node, number + 2, 256 << 10).await });
    }
    while let Some(done) = within("ten tunnels", tunnels.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_tunnel_delivers_what_was_written() {
    let serve = serve().await;
    let (node, client) = (joined(&serve).await, joined(&serve).await);
    let (_, mut stream) = {
        let accepting = node.clone();
        let taken = tokio::spawn(async move {
            accepting
                .accept_tunnel()
                .await
                .unwrap()
                .accept(b"")
                .await
                .unwrap()
        });
        let (answer, mut out) = client.dial_tunnel(&node.address(), b"once", SOON).await.unwrap();
        assert_eq!(answer, Bytes::new());
        out.write_all(&pattern(3, 1 << 20)).await.unwrap();
        drop(out);
        ((), within("the tunnel", taken).await.unwrap())
    };
    let mut all = Vec::new();
    within("all of it", stream.read_to_end(&mut all)).await.unwrap();
    assert!(all == pattern(3, 1 << 20), "{} bytes", all.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_carries_its_words_and_a_large_opening_is_refused_here() {
    let serve = serve().await;
    let (node, client) = (joined(&serve).await, joined(&serve).await);
    echo(&node);
    let refused = client.dial_tunnel(&node.address(), b"no", SOON).await;
    assert!(
        matches!(&refused, Err(DialError::Refused(why)) if why == "as you say"),
        "{refused:?}"
    );
    let large = client
        .dial_tunnel(&node.address(), &[0; MAX_OPENING_BYTES + 1], SOON)
        .await;
    assert!(matches!(large, Err(DialError::Broken(_))), "{large:?}");
}

/// More openings than are read at a time, which strangers begin and never end: who says his goes through.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_open_and_say_nothing_keep_nobody_out() {
    let serve = serve().await;
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    config.timing = quick();
    config.limits.streams_per_connection = 8;
    let node = Grid::join(config, accept_all()).await.unwrap();
    node.joined(SOON).await.unwrap();
    let client = joined(&serve).await;
    echo(&node);
    let mut held = Vec::new();
    for _ in 0..10 {
        let (mut first, recv, connection, endpoint) = raw(&node.address(), grid::TUNNEL_ALPN).await;
        first.write_all(&[0]).await.unwrap();
        let mut streams = vec![(first, recv)];
        while streams.len() < 8 {
            let (mut send, recv) = within("a stream", connection.open_bi()).await.unwrap();
            send.write_all(&[0]).await.unwrap();
            streams.push((send, recv));
        }
        held.push((streams, connection, endpoint));
    }
    round_trip(&client, &node, 1, 4096).await;
}
