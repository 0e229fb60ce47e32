//! Who may hold a connection, and for how long: what stands before a request is read.
//!
//! ```text
//!   accept ─► places in all? ─► of this address? ─► head within a time ─► body within a time ─► answer
//!      │           │ none: closed at once                │ not: closed          │ not: 408
//!      └───────────┴── a connection ends after a while in any case: whoever needs it opens another
//! ```
//!
//! Invariant: strangers hold a bounded number of connections, one address (of IPv6: one /64) a share of them, each for a bounded time; the
//! loop itself waits for nobody.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use places::{Place, Places};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::store::pace::Pace;

/// After a failure to accept: descriptors are short, and a loop without a pause would only spin.
const PAUSE: Duration = Duration::from_millis(100);
/// What one connection buffers.
const BUFFER_BYTES: usize = 64 << 10;

/// How much strangers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// Of these, from one address, or one /64 of IPv6. Many nodes and users may stand behind one.
    pub connections_an_address: usize,
    /// From the connection, or the answer before, to the end of a request's head.
    pub head: Duration,
    /// How long a request's body may take to arrive.
    pub body: Duration,
    /// How long one connection is kept.
    pub connection: Duration,
    /// How long it then still has for the request that is under way; and at the end all of them.
    pub goodbye: Duration,
    /// How fast they may add to the journal.
    pub pace: Pace,
}

impl Default for Bounds {
    fn default() -> Self {
        let places::Bounds {
            connections,
            connections_an_address,
        } = places::Bounds::default();
        Bounds {
            connections,
            connections_an_address,
            head: Duration::from_secs(30),
            body: Duration::from_secs(10),
            connection: Duration::from_secs(600),
            goodbye: Duration::from_secs(30),
            pace: Pace::default(),
        }
    }
}

/// Serves until `stopped`, then answers what has begun, within a bound.
pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stopped: oneshot::Receiver<()>,
) {
    let places = Places::new(places::Bounds {
        connections: bounds.connections,
        connections_an_address: bounds.connections_an_address,
    });
    let (ending, ends) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) => {
                // Who finds no place is closed at once.
                if let Some(place) = places.take(from.ip()) {
                    connections.spawn(serve(stream, router.clone(), bounds, ends.clone(), place));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(bounds.goodbye, all).await;
}

async fn serve(
    stream: TcpStream,
    router: Router,
    bounds: Bounds,
    mut ends: watch::Receiver<bool>,
    _place: Place,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return said(ended),
        () = sleep(bounds.connection) => {}
        _ = ends.wait_for(|ending| *ending) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(bounds.goodbye, connection).await {
        said(ended);
    }
}

fn said(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
