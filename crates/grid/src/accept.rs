//! One loop that accepts: limits first, then by ALPN.
//!
//! ```text
//!   incoming ─► a place free? ─► address proven, if half are taken ─► handshake within a bound
//!            ─► this peer's share ─► broadcast │ direct │ tunnel
//! ```
//!
//! Invariant: nothing waits on a consumer. Where the desk does not take streams fast enough, the
//! connection is closed as busy; the loop itself never stops accepting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::{
    Endpoint,
    endpoint::{Connection, Incoming, ServerConfig},
};
use iroh_gossip::Gossip;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use crate::{
    BROADCAST_ALPN, DIRECT_ALPN, DirectStream, ENTER_ALPN, IncomingTunnel, Limits, PeerId, TUNNEL_ALPN,
    Timing, stream::Carried,
};

mod links;
pub(crate) use links::Links;

const HANDSHAKE: Duration = Duration::from_secs(10);
const BUSY: u32 = 1;
const IDLE: u32 = 2;

/// What the loop needs, and where streams go.
pub(crate) struct Acceptor {
    pub(crate) endpoint: Endpoint,
    pub(crate) gossip: Gossip,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
    pub(crate) direct: mpsc::Sender<DirectStream>,
    pub(crate) tunnels: mpsc::Sender<IncomingTunnel>,
    pub(crate) links: Links,
}

impl Acceptor {
    /// Runs until the endpoint is closed.
    pub(crate) async fn run(self) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let shares = Arc::new(Shares {
            most: self.limits.connections_per_peer,
            taken: Mutex::default(),
        });
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        while let Some(incoming) = this.endpoint.accept().await {
            while tasks.try_join_next().is_some() {}
            let Ok(place) = places.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            if places.available_permits() < this.limits.connections / 2 && !incoming.remote_addr_validated() {
                // It may come again with the token; if it cannot be asked to, it is refused.
                let _ = incoming.retry().map_err(|error| error.into_incoming().refuse());
                continue;
            }
            tasks.spawn(this.clone().handle(incoming, place, shares.clone()));
        }
    }

    async fn handle(self: Arc<Self>, incoming: Incoming, place: OwnedSemaphorePermit, shares: Arc<Shares>) {
        let Ok(accepting) = incoming.accept_with(self.server.clone()) else {
            return;
        };
        let Ok(Ok(connection)) = timeout(HANDSHAKE, accepting).await else {
            return;
        };
        let peer = PeerId::from(connection.remote_id());
        let Some(_share) = Shares::take(&shares, peer) else {
            connection.close(BUSY.into(), b"too many connections of one peer");
            return;
        };
        let alpn = connection.alpn().to_vec();
        if alpn == BROADCAST_ALPN || alpn == ENTER_ALPN {
            if alpn == ENTER_ALPN {
                self.links.forget(peer).await;
            }
            self.links.keep(peer, &connection);
            let closed = connection.weak_handle().closed();
            if self.gossip.handle_connection(connection).await.is_ok() {
                closed.await;
            }
        } else if alpn == DIRECT_ALPN {
            self.streams(connection, Self::direct).await;
        } else if alpn == TUNNEL_ALPN {
            self.streams(connection, Self::tunnel).await;
        }
        drop(place);
    }

    /// All streams of one connection, until it closes or is idle.
    async fn streams(self: &Arc<Self>, connection: Connection, take: fn(&Arc<Self>, Carried) -> bool) {
        let open = Arc::new(());
        loop {
            match timeout(self.timing.idle, connection.accept_bi()).await {
                Ok(Ok((send, recv))) => {
                    let carried = Carried::new(connection.clone(), send, recv, Some(open.clone()));
                    if !take(self, carried) {
                        connection.close(BUSY.into(), b"busy");
                        return;
                    }
                }
                Ok(Err(_closed)) => return,
                Err(_) if Arc::strong_count(&open) == 1 => {
                    connection.close(IDLE.into(), b"idle");
                    return;
                }
                Err(_) => {}
            }
        }
    }

    fn direct(self: &Arc<Self>, carried: Carried) -> bool {
        let stream = DirectStream::new(carried, self.timing.idle, self.timing.frame);
        self.direct.try_send(stream).is_ok()
    }

    fn tunnel(self: &Arc<Self>, carried: Carried) -> bool {
        let Ok(place) = self.tunnels.clone().try_reserve_owned() else {
            return false;
        };
        let within = self.timing.frame;
        tokio::spawn(async move {
            match IncomingTunnel::read(carried, within).await {
                Ok(tunnel) => drop(place.send(tunnel)),
                Err(why) => tracing::debug!(%why, "a tunnel without a proper opening"),
            }
        });
        true
    }
}

/// How many connections each peer has.
struct Shares {
    most: usize,
    taken: Mutex<HashMap<PeerId, usize>>,
}

struct Share {
    shares: Arc<Shares>,
    peer: PeerId,
}

impl Shares {
    fn take(shares: &Arc<Self>, peer: PeerId) -> Option<Share> {
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        if *count >= shares.most {
            return None;
        }
        *count += 1;
        Some(Share {
            shares: shares.clone(),
            peer,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back() {
        let shares = Arc::new(Shares {
            most: 2,
            taken: Mutex::default(),
        });
        let peer = PeerId([1; 32]);
        let one = Shares::take(&shares, peer);
        let two = Shares::take(&shares, peer);
        assert!(one.is_some() && two.is_some() && Shares::take(&shares, peer).is_none());
        assert!(Shares::take(&shares, PeerId([2; 32])).is_some());
        drop(one);
        assert!(Shares::take(&shares, peer).is_some());
        drop(two);
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
