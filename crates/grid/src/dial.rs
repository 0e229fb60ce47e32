//! Dialling: to a known address, within a time, by repeated short tries.
//!
//! A dial over a dead relay, or to a machine that still boots, hangs for long: QUIC waits longer
//! each time before it tries again, and says nothing. So a try that has not connected soon is
//! given up and made anew.

use std::time::Duration;

use futures_util::future::BoxFuture;
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{
        ConnectOptions, ConnectWithOptsError, Connection, QuicTransportConfig, RecvStream, SendStream,
    },
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{PeerId, StreamError};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(4);
/// How long to wait after a try that failed at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Why an endpoint could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// It did not answer in time.
    #[error("{peer} did not answer within {within:?}{}", last.as_ref().map(|why| format!(" (last try: {why})")).unwrap_or_default())]
    Unreachable {
        /// Who was dialled.
        peer: PeerId,
        /// The time that was given.
        within: Duration,
        /// What the last try said, if it said anything.
        last: Option<String>,
    },
    /// The address is one's own, or this endpoint is closed.
    #[error("{peer} cannot be dialled from here: {why}")]
    Impossible {
        /// Who was dialled.
        peer: PeerId,
        /// Why not.
        why: String,
    },
    /// The other end read the opening and said no; its answer.
    #[error("the other end refused the tunnel")]
    Refused(bytes::Bytes),
    /// The connection broke while the tunnel was opened.
    #[error("the connection broke while it was opened")]
    Broken(#[from] StreamError),
}

type Dialled = (Connection, SendStream, RecvStream);

/// One connection and one stream on it.
pub(crate) fn dial<'a>(
    endpoint: &'a Endpoint,
    address: EndpointAddr,
    alpn: &'a [u8],
    transport: QuicTransportConfig,
    within: Duration,
) -> BoxFuture<'a, Result<Dialled, DialError>> {
    Box::pin(tries(endpoint, address, alpn, transport, within))
}

async fn tries(
    endpoint: &Endpoint,
    address: EndpointAddr,
    alpn: &[u8],
    transport: QuicTransportConfig,
    within: Duration,
) -> Result<Dialled, DialError> {
    let peer = PeerId::from(address.id);
    let deadline = Instant::now() + within;
    let mut last = None;
    while Instant::now() < deadline {
        let until = deadline.min(Instant::now() + TRY);
        match timeout_at(until, attempt(endpoint, address.clone(), alpn, transport.clone())).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(Failed::ForGood(why))) => return Err(DialError::Impossible { peer, why }),
            Ok(Err(Failed::Now(why))) => {
                tracing::debug!(%peer, %why, "a try to dial failed");
                last = Some(why);
                // Not a wait for an event: it only keeps a failing loop from spinning.
                sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
            Err(_) => last = None,
        }
    }
    Err(DialError::Unreachable { peer, within, last })
}

/// One connection for the broadcast's membership; `None` if it did not come in time.
pub(crate) async fn try_once(
    endpoint: &Endpoint,
    address: EndpointAddr,
    alpn: &[u8],
    within: Duration,
) -> Option<Connection> {
    match timeout(within, endpoint.connect(address, alpn)).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(why)) => {
            tracing::debug!(%why, "the bootstrap did not answer");
            None
        }
        Err(_) => None,
    }
}

enum Failed {
    Now(String),
    ForGood(String),
}

async fn attempt(
    endpoint: &Endpoint,
    address: EndpointAddr,
    alpn: &[u8],
    transport: QuicTransportConfig,
) -> Result<Dialled, Failed> {
    let options = ConnectOptions::new().with_transport_config(transport);
    let connecting =
        endpoint
            .connect_with_opts(address, alpn, options)
            .await
            .map_err(|error| match error {
                ConnectWithOptsError::SelfConnect { .. } => {
                    Failed::ForGood("it is this endpoint itself".into())
                }
                ConnectWithOptsError::EndpointClosed { .. } => {
                    Failed::ForGood("this endpoint is closed".into())
                }
                other => Failed::Now(other.to_string()),
            })?;
    let connection = connecting.await.map_err(|error| Failed::Now(error.to_string()))?;
    let (send, recv) = connection
        .open_bi()
        .await
        .map_err(|error| Failed::Now(error.to_string()))?;
    Ok((connection, send, recv))
}
