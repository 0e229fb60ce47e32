use std::net::SocketAddr;

use axum::body::to_bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::NetState;

async fn ask(board: &Board, method: &str, path: &str, host: &str) -> (StatusCode, HeaderMap, String) {
    let method: Method = method.parse().expect("a method");
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host.parse().expect("a host"));
    let answer = answer(
        State(board.clone()),
        method,
        path.parse().expect("a path"),
        headers,
    )
    .await;
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    (
        head.status,
        head.headers,
        String::from_utf8_lossy(&body).into_owned(),
    )
}

#[tokio::test]
async fn it_is_read_by_an_address_and_by_no_name() {
    let board = Board::new("0.1.0");
    for host in ["192.168.7.20", "192.168.7.20:80", "[fd00::20]", "[fd00::20]:80"] {
        let (status, headers, body) = ask(&board, "GET", "/", host).await;
        assert_eq!(status, StatusCode::OK, "{host}");
        assert!(body.contains("Steading 0.1.0"));
        assert!(
            headers["content-security-policy"]
                .to_str()
                .expect("text")
                .contains("default-src 'none'")
        );
        assert_eq!(headers["cache-control"], "no-store");
    }
    for host in [
        "node.example.org",
        "localhost",
        "",
        "192.168.7.20.example.org",
        "[fd00::20",
    ] {
        assert_eq!(
            ask(&board, "GET", "/", host).await.0,
            StatusCode::FORBIDDEN,
            "{host}"
        );
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(
            ask(&board, method, "/", "10.0.0.1").await.0,
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
    assert_eq!(
        ask(&board, "GET", "/../etc/passwd", "10.0.0.1").await.0,
        StatusCode::NOT_FOUND
    );
    let (_, headers, metrics) = ask(&board, "GET", "/metrics", "10.0.0.1").await;
    assert!(
        headers["content-type"]
            .to_str()
            .expect("text")
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(metrics.contains("\nsteading_selling 0\n"));
    let (_, _, json) = ask(&board, "GET", "/status.json", "10.0.0.1").await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["status"]["version"], "0.1.0");
}

async fn connect(port: u16) -> TcpStream {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect(to).await.expect("connected")
}

#[tokio::test]
async fn a_stranger_is_closed_at_once() {
    let listener = listen(0).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    // Loopback is no private network of a card.
    let server = tokio::spawn(async move {
        let network = NetState::default();
        serve(Board::new("0"), listener, |from| is_neighbour(from, &network)).await
    });
    let mut stream = connect(port).await;
    let _ = stream
        .write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await;
    let mut said = Vec::new();
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut said))
        .await
        .expect("closed");
    assert_eq!(said, b"");
    server.abort();
}

/// One connection, one answer; who says nothing, or says it slowly, is let go.
#[tokio::test]
async fn a_connection_is_answered_once_and_ends_by_itself() {
    let listener = listen(0).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(serve(Board::new("0.1.0"), listener, |_| true));
    let mut stream = connect(port).await;
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        )
        .await
        .expect("asked");
    let mut said = String::new();
    let read = timeout(Duration::from_secs(60), stream.read_to_string(&mut said)).await;
    let _ = read.expect("it ends");
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 1, "{said}");
    let mut silent = connect(port).await;
    silent.write_all(b"GET / HT").await.expect("begun");
    let ended = timeout(Duration::from_secs(60), silent.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "a head that never ends is let go");
    // All places are taken by who says nothing: the next one is closed, and let in when they are let go.
    let mut taken = Vec::new();
    for _ in 0..MOST_CONNECTIONS {
        taken.push(connect(port).await);
    }
    let mut one_more = connect(port).await;
    let ended = timeout(Duration::from_secs(60), one_more.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "closed at once");
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut said = String::new();
        let mut stream = connect(port).await;
        let _ = stream
            .write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            .await;
        let _ = timeout(Duration::from_secs(60), stream.read_to_string(&mut said)).await;
        if said.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "nobody is let in again");
        sleep(Duration::from_millis(100)).await;
    }
    serving.abort();
}
