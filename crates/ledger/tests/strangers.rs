//! Who holds the ledger's connections, or its patience, harms himself alone. Each bound has its control: the same with
//! the bound far away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test stops loudly

mod setting;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use escrow::{Amount, RailTime, Wallet};
use ledger::server::Bounds;
use setting::{HOUR_MS, PAYER, START_MS, Setting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(300);
const FAR: Duration = Duration::from_secs(3600);
/// What must come has come by then.
const SOON: Duration = Duration::from_secs(20);
/// What must not come is waited for so long: some times [`SHORT`].
const A_WHILE: Duration = Duration::from_millis(1500);

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

async fn connect(setting: &Setting, from: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let to = setting.address().authority().parse().unwrap();
    socket.connect(to).await.unwrap()
}

fn head(length: usize) -> String {
    format!("POST /v1 HTTP/1.1\r\nhost: ledger\r\ncontent-length: {length}\r\n\r\n")
}

/// What the ledger says before it closes; none if it says and does nothing.
async fn said(stream: &mut TcpStream, within: Duration) -> Option<String> {
    let mut all = Vec::new();
    // A reset is a close too.
    timeout(within, stream.read_to_end(&mut all))
        .await
        .ok()?
        .unwrap_or_default();
    Some(String::from_utf8_lossy(&all).into_owned())
}

/// Whether somebody there gets an answer.
async fn is_answered(setting: &Setting, from: IpAddr) -> bool {
    let body = format!(
        "{{\"nonce\":\"{}\",\"ask\":{{\"kind\":\"now\"}}}}",
        "00".repeat(32)
    );
    let mut stream = connect(setting, from).await;
    let request = format!("{}{body}", head(body.len())).replace("host:", "connection: close\r\nhost:");
    stream.write_all(request.as_bytes()).await.is_ok()
        && said(&mut stream, SOON).await.unwrap().starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    for (head, ends) in [(SHORT, true), (FAR, false)] {
        let setting = Setting::with(Bounds {
            head,
            ..Bounds::default()
        })
        .await;
        let (mut half, mut silent) = (connect(&setting, HERE).await, connect(&setting, HERE).await);
        half.write_all(b"POST /v1 HTTP/1.1\r\nhost:").await.unwrap();
        let within = if ends { SOON } else { A_WHILE };
        let (of_half, of_silent) = tokio::join!(said(&mut half, within), said(&mut silent, within));
        assert_eq!((of_half.is_some(), of_silent.is_some()), (ends, ends), "{head:?}");
        assert!(is_answered(&setting, HERE).await);
    }
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    for (body, ends) in [(SHORT, true), (FAR, false)] {
        let setting = Setting::with(Bounds {
            body,
            ..Bounds::default()
        })
        .await;
        let mut slow = connect(&setting, HERE).await;
        slow.write_all(head(100).as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        let within = if ends { SOON } else { A_WHILE };
        let read = timeout(within, slow.read_exact(&mut begun)).await;
        assert_eq!(read.is_ok(), ends, "{body:?}");
        if ends {
            assert_eq!(&begun, b"HTTP/1.1 408");
        }
        assert!(is_answered(&setting, HERE).await);
    }
}

#[tokio::test]
async fn one_address_leaves_connections_to_another() {
    for (connections_an_address, leaves) in [(4, true), (usize::MAX, false)] {
        let setting = Setting::with(Bounds {
            connections: 8,
            connections_an_address,
            ..Bounds::default()
        })
        .await;
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(connect(&setting, HERE).await);
        }
        let mut last = held.pop().unwrap();
        let is_closed = said(&mut last, if leaves { SOON } else { A_WHILE })
            .await
            .is_some();
        assert_eq!(is_closed, leaves, "the eighth of one address");
        held.push(last);
        assert_eq!(is_answered(&setting, ELSEWHERE).await, leaves, "another address");
        drop(held);
        let free_again = async {
            while !is_answered(&setting, HERE).await {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, free_again).await.expect("a place is given back");
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_a_while_only() {
    for (connection, ends) in [(SHORT, true), (FAR, false)] {
        let setting = Setting::with(Bounds {
            connection,
            goodbye: SHORT,
            ..Bounds::default()
        })
        .await;
        let mut slow = connect(&setting, HERE).await;
        slow.write_all(head(100).as_bytes()).await.unwrap();
        let within = if ends { SOON } else { A_WHILE };
        assert_eq!(said(&mut slow, within).await.is_some(), ends, "{connection:?}");
    }
}

/// A payer who extends his lock by a millisecond a thousand times leaves no record; by a minute, or with money, he does.
#[tokio::test]
async fn an_extension_that_costs_nothing_leaves_nothing() {
    let setting = Setting::new().await;
    let (wallet, terms) = (setting.wallet(), setting.terms(1));
    setting.fund(PAYER, 500, 1).await;
    let expiry = RailTime(START_MS + HOUR_MS);
    let records = async || {
        let now = setting.rail().ask(ledger::wire::Ask::Now).await.unwrap();
        now.journal.sequence
    };
    wallet.lock(&terms, Amount(100), expiry).await.unwrap();
    let before = records().await;
    for ms in 1..100 {
        let view = wallet
            .lock(&terms, Amount(100), expiry.plus_ms(ms * 600))
            .await
            .unwrap();
        assert_eq!(view.expiry, expiry);
    }
    assert_eq!(records().await, before);
    let later = expiry.plus_ms(escrow::lock::LEAST_STEP_MS);
    let view = wallet.lock(&terms, Amount(100), later).await.unwrap();
    assert_eq!(
        (view.expiry, records().await),
        (later, before + 1),
        "the control: a step"
    );
    let with_money = later.plus_ms(1);
    let view = wallet.lock(&terms, Amount(101), with_money).await.unwrap();
    assert_eq!(
        (view.expiry, records().await),
        (with_money, before + 2),
        "the control: money"
    );
}
