//! A joined grid: what its owner can do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use iroh::{Endpoint, RelayUrl};
use iroh_gossip::Gossip;
use tokio::{
    sync::{Mutex, Notify, broadcast, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    BroadcastCheck, DIRECT_ALPN, DialError, DirectStream, EndpointAddress, GridState, IncomingTunnel,
    JoinConfig, JoinError, MAX_BROADCAST_BYTES, MAX_OPENING_BYTES, PeerId, StreamError, TUNNEL_ALPN, Timing,
    TunnelStream, dial,
    join::{self, Role},
    membership::Own,
    stream::Carried,
    tunnel::{self, Opened},
    windows::Outgoing,
};

/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// One endpoint in one grid. Clones are the same endpoint; when the last one is dropped it stops.
#[derive(Clone)]
pub struct Grid {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) endpoint: Endpoint,
    pub(crate) gossip: Gossip,
    pub(crate) relay: RelayUrl,
    pub(crate) outgoing: Outgoing,
    pub(crate) timing: Timing,
    pub(crate) direct: Mutex<mpsc::Receiver<DirectStream>>,
    pub(crate) tunnels: Mutex<mpsc::Receiver<IncomingTunnel>>,
    pub(crate) own: mpsc::Sender<Own>,
    pub(crate) heard: broadcast::Sender<Heard>,
    pub(crate) state: watch::Receiver<GridState>,
    pub(crate) neighbours: watch::Receiver<BTreeSet<PeerId>>,
    pub(crate) rejoins: watch::Receiver<u64>,
    pub(crate) poke: Arc<Notify>,
    /// Aborted when dropped.
    pub(crate) _tasks: JoinSet<()>,
}

/// A broadcast that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The message, as its author signed it.
    pub bytes: Bytes,
    /// The neighbour that passed it on; not its author.
    pub from: PeerId,
}

/// The checked broadcasts, from the moment it was made.
#[derive(Debug)]
pub struct Broadcasts(broadcast::Receiver<Heard>);

impl Broadcasts {
    /// The next one; `None` when the grid's handle is gone. A reader that is too slow misses the
    /// oldest ones.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.0.recv().await {
                Ok(heard) => return Some(heard),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "broadcasts came faster than they were handled");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Why a broadcast was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// Too large, or empty.
    #[error("a broadcast has 1 to {MAX_BROADCAST_BYTES} bytes, this has {0}")]
    Size(usize),
    /// Nobody would hear it.
    #[error("nobody would hear it: {0}")]
    NotJoined(GridState),
    /// This endpoint is closed.
    #[error("this endpoint is closed")]
    Closed,
}

/// Not joined within the time given; how it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not joined within {within:?}: {state}")]
pub struct NotJoined {
    /// The time that was given.
    pub within: Duration,
    /// How it stands, in plain words.
    pub state: GridState,
}

impl Grid {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes an endpoint and starts joining; returns at once, whether or not anybody answers.
    /// [`Grid::joined`] waits, [`Grid::state`] tells. Needs a configured interface (or lo), nothing else.
    pub async fn join(config: JoinConfig, check: Arc<dyn BroadcastCheck>) -> Result<Self, JoinError> {
        join::join(config, check, Role::Member).await
    }

    /// This endpoint's id.
    pub fn id(&self) -> PeerId {
        self.inner.endpoint.id().into()
    }

    /// Where this endpoint can be reached now: goes into requests and status answers.
    pub fn address(&self) -> EndpointAddress {
        EndpointAddress::of(&self.inner.endpoint.addr())
    }

    /// How it stands, now and whenever that changes. Do not hold a borrowed value across an await.
    pub fn state(&self) -> watch::Receiver<GridState> {
        self.inner.state.clone()
    }

    /// Who is linked to it directly.
    pub fn neighbours(&self) -> Vec<PeerId> {
        self.inner.neighbours.borrow().iter().copied().collect()
    }

    /// How often it has asked to be let in: at the start, when alone, when it heard nobody for long.
    pub fn rejoins(&self) -> watch::Receiver<u64> {
        self.inner.rejoins.clone()
    }

    /// Waits until a broadcast would be heard.
    pub async fn joined(&self, within: Duration) -> Result<(), NotJoined> {
        let mut state = self.state();
        // The guard that `wait_for` gives must not live on: it blocks the task that tells.
        let joined = timeout(within, async {
            state.wait_for(GridState::is_joined).await.is_ok()
        });
        match joined.await {
            Ok(true) => Ok(()),
            _ => Err(NotJoined {
                within,
                state: self.inner.state.borrow().clone(),
            }),
        }
    }

    /// Waits until the relay is found and this endpoint is known to it; false if not in time.
    /// What is seen of this endpoint from outside ([`Grid::address`]) is known by then.
    pub async fn online(&self, within: Duration) -> bool {
        timeout(within, self.inner.endpoint.online()).await.is_ok()
    }

    /// Says something that all in the grid will hear, each once; this endpoint itself does not.
    /// Without a neighbour it waits a moment for one.
    pub async fn broadcast(&self, bytes: Bytes) -> Result<(), BroadcastError> {
        if bytes.is_empty() || bytes.len() > MAX_BROADCAST_BYTES {
            return Err(BroadcastError::Size(bytes.len()));
        }
        // Neighbours change: one that left a moment ago is soon replaced.
        let deadline = Instant::now() + self.inner.timing.patience;
        loop {
            let said = self.say(bytes.clone()).await;
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(said, Err(BroadcastError::NotJoined(_))) || left.is_zero() {
                return said;
            }
            let _ = self.joined(left).await;
        }
    }

    async fn say(&self, bytes: Bytes) -> Result<(), BroadcastError> {
        let (done, sent) = oneshot::channel();
        let given = self.inner.own.send((bytes, done)).await;
        given.map_err(|_| BroadcastError::Closed)?;
        sent.await.map_err(|_| BroadcastError::Closed)?
    }

    /// What others say, checked, from now on.
    pub fn broadcasts(&self) -> Broadcasts {
        Broadcasts(self.inner.heard.subscribe())
    }

    /// Opens a direct stream to a known address, by repeated short tries within the time given.
    pub async fn dial(&self, address: &EndpointAddress, within: Duration) -> Result<DirectStream, DialError> {
        let to = address.to_engine(&self.inner.relay);
        let transport = self.inner.outgoing.direct.clone();
        let (connection, send, recv) =
            dial::dial(&self.inner.endpoint, to, DIRECT_ALPN, transport, within).await?;
        let Timing { idle, frame, .. } = self.inner.timing;
        Ok(DirectStream::new(
            Carried::new(connection, send, recv, None, None),
            idle,
            frame,
        ))
    }

    /// The next direct stream that somebody opened; `None` when closed.
    pub async fn accept(&self) -> Option<(PeerId, DirectStream)> {
        let stream = self.inner.direct.lock().await.recv().await?;
        Some((stream.peer(), stream))
    }

    /// Opens a tunnel: says `opening` (at most 4 KiB) and returns the other end's answer and the
    /// raw bytes. The time given covers the dial and, again, the answer.
    pub async fn dial_tunnel(
        &self,
        address: &EndpointAddress,
        opening: &[u8],
        within: Duration,
    ) -> Result<(Bytes, TunnelStream), DialError> {
        if opening.len() > MAX_OPENING_BYTES {
            return Err(StreamError::TooLarge {
                bytes: opening.len(),
                max: MAX_OPENING_BYTES,
            }
            .into());
        }
        let Inner {
            endpoint,
            outgoing,
            timing,
            relay,
            ..
        } = &*self.inner;
        let to = address.to_engine(relay);
        let once = async || {
            let (to, transport) = (to.clone(), outgoing.tunnel.clone());
            let (connection, send, recv) = dial::dial(endpoint, to, TUNNEL_ALPN, transport, within).await?;
            let carried = Carried::new(connection, send, recv, None, None);
            Ok::<_, DialError>(tunnel::open(carried, opening, within, timing.frame).await?)
        };
        // The other end may have to let it go for what others opened meanwhile: the next one is as it can be.
        let opened = match once().await {
            Err(DialError::Broken(StreamError::Lost(_))) => once().await?,
            opened => opened?,
        };
        match opened {
            Opened::Accepted(answer, stream) => Ok((answer, stream)),
            Opened::Refused(answer) => Err(DialError::Refused(answer)),
        }
    }

    /// The next tunnel that somebody wants; `None` when closed.
    pub async fn accept_tunnel(&self) -> Option<IncomingTunnel> {
        self.inner.tunnels.lock().await.recv().await
    }

    /// Says that a route or an address came or went: looks again at once instead of in a while.
    pub async fn network_changed(&self) {
        self.inner.endpoint.network_change().await;
        self.inner.poke.notify_one();
    }

    /// Leaves: neighbours are told, connections closed. What was sent on streams is not waited
    /// for: [`DirectStream::finish`] and [`TunnelStream::finish`] do that before.
    pub async fn close(&self) {
        leave(&self.inner.gossip, &self.inner.endpoint).await;
    }
}

impl Drop for Inner {
    /// Who forgot to close says goodbye all the same, if there is still a runtime to say it in.
    fn drop(&mut self) {
        if self.endpoint.is_closed() {
            return;
        }
        let (gossip, endpoint) = (self.gossip.clone(), self.endpoint.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { leave(&gossip, &endpoint).await });
        }
    }
}

fn leave<'a>(gossip: &'a Gossip, endpoint: &'a Endpoint) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let _ = timeout(GOODBYE, gossip.shutdown()).await;
        let _ = timeout(GOODBYE, endpoint.close()).await;
    })
}

impl std::fmt::Debug for Grid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Grid({}, {})", self.id(), &*self.inner.state.borrow())
    }
}
