//! Whoever holds the relay's connections leaves some to others; a guest of the relay has its place for as long as it stays.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use grid::serve::Serve;
use iroh::{
    Endpoint, RelayMap, RelayUrl,
    endpoint::{RelayMode, presets},
};
use places::Bounds;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{SOON, serve_config, within};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

async fn served(bounds: Bounds) -> Serve {
    crate::logs();
    let mut config = serve_config(1);
    config.relay = bounds;
    let serve = Serve::start(config).await.unwrap();
    // The first peer is a guest of the relay's itself.
    within("the first peer is there", async {
        while held(&serve, ELSEWHERE, 1).await.is_empty() {}
    })
    .await;
    serve
}

/// A connection that asked for something and stays; none where it was closed at once.
async fn held_one(serve: &Serve, from: IpAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let to = SocketAddr::new(HERE, serve.ticket().relay_port());
    let mut stream = socket.connect(to).await.unwrap();
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n");
    asked.await.ok()?;
    let mut said = [0; 12];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut said)).await;
    read.expect("an answer or an end").ok()?;
    assert_eq!(&said, b"HTTP/1.1 200");
    Some(stream)
}

/// As many as it lets in from there, `most` at most.
async fn held(serve: &Serve, from: IpAddr, most: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    while held.len() < most {
        match held_one(serve, from).await {
            Some(stream) => held.push(stream),
            None => break,
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leaves_connections_of_the_relay_to_another() {
    for (connections_an_address, leaves) in [(4, true), (usize::MAX, false)] {
        let serve = served(Bounds {
            connections: 8,
            connections_an_address,
        })
        .await;
        let here = held(&serve, HERE, 9).await;
        assert!(here.len() <= if leaves { 4 } else { 8 }, "{}", here.len());
        let other = held_one(&serve, ELSEWHERE).await;
        assert_eq!(other.is_some(), leaves, "another address");
        drop(here);
        within("a place is given back", async {
            while held_one(&serve, HERE).await.is_none() {}
        })
        .await;
    }
}

/// The relay takes a guest's connection out of the hands of who accepted it: it has its place all the same, until it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_the_relay_has_its_place_until_it_leaves() {
    const ALL: usize = 8;
    let serve = served(Bounds {
        connections: 100,
        connections_an_address: ALL,
    })
    .await;
    let free = async |wanted: usize, what: &str| {
        within(what, async {
            while held(&serve, HERE, ALL + 1).await.len() != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    free(ALL - 1, "the first peer has one").await;
    let url: RelayUrl = format!("http://127.0.0.1:{}", serve.ticket().relay_port())
        .parse()
        .unwrap();
    let mut guests = Vec::new();
    for number in 2..=3 {
        let guest = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Custom(RelayMap::from(url.clone())))
            .bind()
            .await
            .unwrap();
        within("the relay takes it", guest.online()).await;
        guests.push(guest);
        free(ALL - number, "it has one").await;
    }
    for guest in guests {
        guest.close().await;
    }
    free(ALL - 1, "those who left have none").await;
}
