//! Direct streams: frames both ways, bounded, and what is dropped still arrives.

use std::time::Duration;

use bytes::Bytes;
use grid::{AddressError, DialError, EndpointAddress, MAX_FRAME_BYTES, StreamError};
use iroh::{Endpoint, endpoint::QuicTransportConfig};

use crate::{SOON, bare, joined, member, serve, straight, within};

#[tokio::test(flavor = "multi_thread")]
async fn frames_go_both_ways_up_to_their_bound() {
    let serve = serve().await;
    let (node, client) = (joined(&serve).await, joined(&serve).await);
    let mut out = client.dial(&node.address(), SOON).await.unwrap();
    let largest = vec![9; MAX_FRAME_BYTES];
    // The largest is more than is kept for who is not read yet.
    let ((), mut stream) = tokio::join!(
        async {
            out.send(&largest).await.unwrap();
            out.send(&[]).await.unwrap();
        },
        async {
            let (peer, mut stream) = within("the stream", node.accept()).await.unwrap();
            assert_eq!(peer, client.id());
            assert_eq!(stream.receive().await.unwrap(), largest);
            assert_eq!(stream.receive().await.unwrap(), Bytes::new());
            stream
        }
    );
    assert_eq!(out.peer(), node.id());
    let larger = out.send(&vec![9; MAX_FRAME_BYTES + 1]).await;
    assert_eq!(
        larger,
        Err(StreamError::TooLarge {
            bytes: MAX_FRAME_BYTES + 1,
            max: MAX_FRAME_BYTES
        })
    );
    // Dropped at once: what was sent before still arrives, then the end.
    stream.send(&largest).await.unwrap();
    drop(stream);
    assert_eq!(out.receive().await.unwrap(), largest);
    assert_eq!(out.receive().await, Err(StreamError::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
    let serve = serve().await;
    let node = joined(&serve).await;
    let (mut send, _recv, _connection, _endpoint) = raw(&node.address(), grid::DIRECT_ALPN).await;
    send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let (_, mut stream) = within("the stream", node.accept()).await.unwrap();
    let refused = within("the refusal", stream.receive()).await;
    assert_eq!(
        refused,
        Err(StreamError::TooLarge {
            bytes: u32::MAX as usize,
            max: MAX_FRAME_BYTES
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_cut_or_never_comes_is_told_apart() {
    let serve = serve().await;
    let node = joined(&serve).await;
    let (mut send, _recv, _connection, _endpoint) = raw(&node.address(), grid::DIRECT_ALPN).await;
    send.write_all(&[0, 0, 0, 9, 1, 2]).await.unwrap();
    send.finish().unwrap();
    let (_, mut stream) = within("the stream", node.accept()).await.unwrap();
    assert_eq!(stream.receive().await, Err(StreamError::Cut));

    let client = joined(&serve).await;
    let mut out = client.dial(&node.address(), SOON).await.unwrap();
    out.send(b"hello").await.unwrap();
    let moment = Duration::from_millis(50);
    assert_eq!(out.receive_within(moment).await, Err(StreamError::Silent(moment)));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_no_address_and_nobody_is_not_reached() {
    assert_eq!(
        EndpointAddress::from_bytes(b"garbage"),
        Err(AddressError::Version(b'g'))
    );
    let serve = serve().await;
    let client = joined(&serve).await;
    let gone = joined(&serve).await;
    let address = gone.address();
    gone.close().await;
    drop(gone);
    let failed = client.dial(&address, Duration::from_millis(300)).await;
    assert!(matches!(failed, Err(DialError::Unreachable { .. })), "{failed:?}");
    let own = client.dial(&client.address(), SOON).await;
    assert!(matches!(own, Err(DialError::Impossible { .. })), "{own:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_address_works_without_relay_and_bootstrap() {
    let serve = serve().await;
    let node = joined(&serve).await;
    let client = member(&serve).await;
    let address = node.address();
    assert!(!address.direct().is_empty(), "{address:?}");
    serve.shutdown().await;
    let mut out = client.dial(&address, SOON).await.unwrap();
    out.send(b"still here?").await.unwrap();
    let (_, mut stream) = within("the stream", node.accept()).await.unwrap();
    assert_eq!(
        stream.receive().await.unwrap(),
        Bytes::from_static(b"still here?")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_alone_is_enough() {
    let serve = serve().await;
    let (node, client) = (joined(&serve).await, joined(&serve).await);
    // The same address without its direct part: version, id, flags, no addresses.
    let mut bytes = node.address().to_bytes();
    bytes.truncate(34);
    bytes.push(0);
    let address = EndpointAddress::from_bytes(&bytes).unwrap();
    assert!(address.through_relay() && address.direct().is_empty());
    let mut out = client.dial(&address, SOON).await.unwrap();
    out.send(b"by relay").await.unwrap();
    let (_, mut stream) = within("the stream", node.accept()).await.unwrap();
    assert_eq!(stream.receive().await.unwrap(), Bytes::from_static(b"by relay"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_has_a_bounded_share() {
    let serve = serve().await;
    let (node, client) = (joined(&serve).await, joined(&serve).await);
    let most = grid::Limits::default().connections_per_peer;
    let mut held = Vec::new();
    // The two may be neighbours: then the broadcast's connection counts too.
    for number in 0..most + 1 {
        let mut out = client.dial(&node.address(), SOON).await.unwrap();
        let sent = out.send(b"me again").await;
        let (answered, _) = tokio::join!(out.receive_within(Duration::from_secs(5)), async {
            if sent.is_ok()
                && let Ok(Some((_, mut stream))) =
                    tokio::time::timeout(Duration::from_secs(2), node.accept()).await
            {
                let _ = stream.send(b"yes").await;
                held.push(stream);
            }
        });
        if answered.is_err() {
            assert!(number >= most - 2, "refused at {number} already: {answered:?}");
            return;
        }
        std::mem::forget(out);
    }
    panic!("{} connections of one peer were let in", held.len());
}

/// A stranger who speaks the transport and not our rules.
pub(crate) async fn raw(
    to: &EndpointAddress,
    alpn: &[u8],
) -> (
    iroh::endpoint::SendStream,
    iroh::endpoint::RecvStream,
    iroh::endpoint::Connection,
    Endpoint,
) {
    let endpoint = bare(QuicTransportConfig::default()).await;
    let connection = within("a raw connection", endpoint.connect(straight(to), alpn))
        .await
        .unwrap();
    let (send, recv) = connection.open_bi().await.unwrap();
    (send, recv, connection, endpoint)
}
