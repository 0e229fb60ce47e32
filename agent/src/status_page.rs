//! The page of the console for a browser on the farmer's own network, where `status_page = true` says so.
//!
//! ```text
//!  a browser next door ─► firewall: uplinks' own private networks alone ─► peer, again ─► Host ─► /             HTML
//!                                                                            │            │       /status.json  the same, as values
//!                                     closed at once ◄───────────────────────┴─ 403 ◄─────┘       /metrics      figures, for Prometheus
//! ```
//!
//! Invariants: it is read, nothing is changed by it; it shows what the console shows and nothing of what is in a space;
//! every word that somebody else chose is escaped, and no script runs; a name that leads here does not open it (a page of a
//! stranger's in the farmer's browser could have one); connections are few, short, and answered once.

mod html;
mod metrics;
mod peers;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::console::{Board, Now};

pub use peers::is_neighbour;

/// Where it is: what a browser asks when it is told no port.
pub const PORT: u16 = 80;

/// Connections at a time: some browsers and a Prometheus.
const MOST_CONNECTIONS: usize = 16;
/// A request's head comes within this.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// A connection ends after this in any case.
const ENDS_AFTER: Duration = Duration::from_secs(20);
/// A head is no longer.
const HEAD_BYTES: usize = 16 << 10;
/// After a failure to accept or to listen.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves for ever whom `admits` lets in, by where he comes from.
pub async fn serve(
    board: Board,
    listener: TcpListener,
    admits: impl Fn(SocketAddr) -> bool,
) -> std::convert::Infallible {
    let router = router(board);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the status page could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !admits(from) {
            continue;
        }
        // Who finds no place is closed at once.
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let router = router.clone();
            crate::task::spawn(async move {
                let _ = timeout(ENDS_AFTER, answer_one(stream, router)).await;
                drop(place);
            });
        }
    }
}

/// IPv6 and IPv4 on one socket; IPv4 alone where the kernel has no IPv6.
///
/// # Errors
/// When the port cannot be had.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |socket: TcpSocket, address: SocketAddr| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(MOST_CONNECTIONS as u32)
    };
    TcpSocket::new_v6()
        .and_then(|socket| open(socket, (Ipv6Addr::UNSPECIFIED, port).into()))
        .or_else(|_| open(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()))
}

async fn answer_one(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

fn router(board: Board) -> Router {
    Router::new().fallback(answer).with_state(board)
}

async fn answer(State(board): State<Board>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, "this page is only read\n").into_response();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_address) {
        return (
            StatusCode::FORBIDDEN,
            "ask for it by the node's address, not by a name\n",
        )
            .into_response();
    }
    let (status, now) = (board.status(), Now::read());
    let (kind, body) = match uri.path() {
        "/" => (
            "text/html; charset=utf-8",
            html::page(&status, now, &board.events()),
        ),
        "/status.json" => ("application/json", json(&status, now)),
        "/metrics" => (
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::text(&status, now),
        ),
        _ => return (StatusCode::NOT_FOUND, "there is /, /status.json and /metrics\n").into_response(),
    };
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_SECURITY_POLICY, html::policy()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    let more = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    (headers, more, body).into_response()
}

/// Whether a Host is an address and no name, with a port or without.
fn is_address(host: &str) -> bool {
    let six = |text: &str| {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
    };
    host.parse::<Ipv4Addr>().is_ok()
        || host.parse::<std::net::SocketAddrV4>().is_ok()
        || host.parse::<std::net::SocketAddrV6>().is_ok()
        || six(host).is_some()
}

fn json(status: &crate::console::Status, now: Now) -> String {
    let value = serde_json::json!({
        "status": status,
        "uptime_seconds": now.uptime_seconds,
        "resident_bytes": now.resident_bytes,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod browser;
#[cfg(test)]
mod tests;
