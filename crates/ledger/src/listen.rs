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

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
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
        Bounds {
            connections: 1024,
            connections_an_address: 256,
            head: Duration::from_secs(30),
            body: Duration::from_secs(10),
            connection: Duration::from_secs(600),
            goodbye: Duration::from_secs(30),
            pace: Pace::default(),
        }
    }
}

/// The connections that are open, by address.
#[derive(Debug, Clone)]
struct Open {
    bounds: Bounds,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

struct Place {
    open: Open,
    address: IpAddr,
}

impl Open {
    fn take(&self, address: IpAddr) -> Option<Place> {
        let address = counted_as(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&address).copied().unwrap_or_default();
        let all: usize = taken.values().sum();
        if all >= self.bounds.connections || own >= self.bounds.connections_an_address {
            return None;
        }
        taken.insert(address, own + 1);
        Some(Place {
            open: self.clone(),
            address,
        })
    }
}

/// One subscriber of IPv6 has a /64, and would be as many strangers as it likes.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        four @ IpAddr::V4(_) => four,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.open.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
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
    let open = Open {
        bounds,
        taken: Arc::default(),
    };
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
                if let Some(place) = open.take(from.ip()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_of_ipv6_is_one_stranger() {
        let open = Open {
            bounds: Bounds {
                connections: 8,
                connections_an_address: 2,
                ..Bounds::default()
            },
            taken: Arc::default(),
        };
        let from = |address: &str| open.take(address.parse().unwrap());
        let first = from("2001:db8:0:1::1").unwrap();
        let _second = from("2001:db8:0:1:ffff::2").unwrap();
        assert!(from("2001:db8:0:1:aaaa:bbbb:cccc:dddd").is_none(), "the same /64");
        let _other = from("2001:db8:0:2::1").unwrap();
        drop(first);
        let _again = from("2001:db8:0:1::3").unwrap();
        let _four = (from("192.0.2.1").unwrap(), from("::ffff:192.0.2.1").unwrap());
        assert!(from("192.0.2.1").is_none());
        assert!(from("192.0.2.2").is_some());
    }
}
