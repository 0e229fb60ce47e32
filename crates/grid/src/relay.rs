//! The relay's door: its connections are ours to accept, so strangers hold a bounded number of them.
//!
//! ```text
//!   accept ─► Places::take ─► HTTP ─► /relay: upgrade, handshake ─► the relay's own loop until it ends
//!                │ none: closed     └────────── the place goes with the request ──┴─ Guests ──────┘
//! ```
//!
//! The relay takes a connection out of the hands of who accepted it, and says only when it has admitted it and when it
//! ended. So the request carries its place, under a number that replaces whatever the client says under that name, and
//! [`Guests`] keeps it from the one to the other.
//!
//! Invariant: a connection has a place as long as its socket is open, whichever hands it is in.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use iroh::EndpointId;
use iroh_relay::server::http_server::{RelayService, RelayServiceWithNotify};
use iroh_relay::server::streams::MaybeTlsStream;
use iroh_relay::server::{Access, AccessControl, ClientRequest, ConnectionId};
use places::{Place, Places};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Whoever has not become a guest of the relay by then has to come again. The engine's own bound.
const ESTABLISH: Duration = Duration::from_secs(30);
/// After a failure to accept: descriptors are short, and a loop without a pause would only spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Under which a request says which place it has.
const PLACE: HeaderName = HeaderName::from_static("steading-place");

/// The places of those whom the relay has admitted, and of those who are on the way to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guests(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The number of the last that came.
    last: u64,
    coming: HashMap<u64, Arc<Place>>,
    admitted: HashMap<ConnectionId, Arc<Place>>,
}

impl Guests {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessControl for Guests {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let number = request.headers().get(PLACE);
        let number = number.and_then(|number| number.to_str().ok()?.parse::<u64>().ok());
        let mut known = self.known();
        match number.and_then(|number| known.coming.get(&number).cloned()) {
            Some(place) => {
                known.admitted.insert(request.connection_id(), place);
                Access::Allow
            }
            None => Access::Deny {
                reason: Some("it came by another door".to_owned()),
            },
        }
    }

    fn on_disconnect(&self, _: EndpointId, connection: ConnectionId) {
        self.known().admitted.remove(&connection);
    }
}

/// A place on its way with a request: forgotten when the connection is over, or the relay has it.
struct Coming {
    guests: Guests,
    number: u64,
}

impl Guests {
    fn coming(&self, place: Place) -> Coming {
        let mut known = self.known();
        known.last += 1;
        let number = known.last;
        known.coming.insert(number, Arc::new(place));
        Coming {
            guests: self.clone(),
            number,
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.guests.known().coming.remove(&self.number);
    }
}

/// Accepts for the relay until it is dropped.
pub(crate) async fn run(listener: TcpListener, relay: RelayService, places: Places, guests: Guests) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) => {
                // Who finds no place is closed at once.
                if let Some(place) = places.take(from.ip()) {
                    let coming = guests.coming(place);
                    connections.spawn(serve(answering(stream, relay.clone(), coming)));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the relay could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Until it ends, is over its time, or is the relay's.
async fn serve(connection: Answering) {
    match timeout(ESTABLISH, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the relay ended early"),
        Err(_) => tracing::debug!("a connection to the relay asked for nothing"),
    }
}

type Answering = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// The relay's answers to what comes over this connection, each request with its place.
fn answering(stream: TcpStream, relay: RelayService, coming: Coming) -> Answering {
    let relay = RelayServiceWithNotify::new(relay, Arc::new(Notify::new()));
    let coming = Arc::new(coming);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let number = HeaderValue::from(coming.number);
        request.headers_mut().insert(PLACE, number);
        request.extensions_mut().insert(coming.clone());
        relay.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ESTABLISH)
        .serve_connection(TokioIo::new(MaybeTlsStream::Plain(stream)), answer)
        .with_upgrades();
    Box::pin(connection)
}
