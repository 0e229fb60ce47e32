//! One loop that accepts: limits first, then by ALPN.
//!
//! ```text
//!   incoming ─► a place to shake hands ─► address proven, if half are taken ─► windows ─► handshake within a bound
//!            ─► a place among the connections ─► broadcast │ direct │ tunnel │ seat (at the bootstrap)
//! ```
//!
//! Where all places are taken, one of who has most gives way ([`Shares`]); last those that carry a kept stream or tunnel,
//! or a neighbour's broadcasts.
//!
//! Invariant: nothing waits on a consumer. Where the desk does not take streams fast enough, the
//! connection is closed as busy; the loop itself never stops accepting.

use std::{net::IpAddr, sync::Arc, time::Duration};

use iroh::{
    Endpoint,
    endpoint::{Connection, Incoming, IncomingAddr},
};
use iroh_gossip::Gossip;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    BROADCAST_ALPN, DIRECT_ALPN, DirectStream, ENTER_ALPN, IncomingTunnel, Limits, PeerId, SEAT_ALPN, Share,
    Shares, TUNNEL_ALPN, Timing, seat,
    shares::Keeping,
    stream::Carried,
    windows::{Incomings, Widens},
};

mod links;
pub(crate) use links::Links;

const HANDSHAKE: Duration = Duration::from_secs(10);
pub(crate) const BUSY: u32 = 1;
const IDLE: u32 = 2;

/// What the loop needs, and where streams go.
pub(crate) struct Acceptor {
    pub(crate) endpoint: Endpoint,
    pub(crate) gossip: Gossip,
    pub(crate) incomings: Incomings,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
    pub(crate) direct: mpsc::Sender<DirectStream>,
    pub(crate) tunnels: mpsc::Sender<IncomingTunnel>,
    /// Openings of tunnels that are being read: a peer's share of them, for each may take a while.
    pub(crate) openings: Shares,
    pub(crate) links: Links,
    /// Asked for where this is the bootstrap peer.
    pub(crate) seats: seat::Host,
}

/// Where an incoming connection says that it comes from: nothing else is known of it before the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Address(IpAddr),
    Relayed(PeerId),
    Other,
}

impl From<IncomingAddr> for Source {
    fn from(address: IncomingAddr) -> Self {
        match address {
            IncomingAddr::Ip(address) => Self::Address(address.ip()),
            IncomingAddr::Relay { endpoint_id, .. } => Self::Relayed(endpoint_id.into()),
            _ => Self::Other,
        }
    }
}

impl Acceptor {
    /// Runs until the endpoint is closed.
    pub(crate) async fn run(self) {
        let handshakes = Shares::new(self.limits.connections, usize::MAX);
        let shares = Shares::new(self.limits.connections, self.limits.connections_per_peer);
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        while let Some(incoming) = this.endpoint.accept().await {
            while tasks.try_join_next().is_some() {}
            if handshakes.taken() > this.limits.connections / 2 && !incoming.remote_addr_validated() {
                // It may come again with the token; if it cannot be asked to, it is refused.
                let _ = incoming.retry().map_err(|error| error.into_incoming().refuse());
                continue;
            }
            let Some(waits) = handshakes.enter(Source::from(incoming.remote_addr())) else {
                incoming.refuse();
                continue;
            };
            tasks.spawn(this.clone().handle(incoming, waits, shares.clone()));
        }
    }

    async fn handle(self: Arc<Self>, incoming: Incoming, waits: Share<Source>, shares: Shares) {
        let from = Source::from(incoming.remote_addr());
        let (server, may_widen) = self.incomings.accept(&incoming, from);
        let Ok(accepting) = incoming.accept_with(server) else {
            return;
        };
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, accepting) => shaken,
            () = waits.gives_way() => return,
        };
        drop(waits);
        let Ok(Ok(connection)) = shaken else { return };
        let peer = PeerId::from(connection.remote_id());
        let way = if self.limits.gives_way {
            Shares::enter
        } else {
            Shares::take
        };
        let Some(share) = way(&shares, peer) else {
            connection.close(BUSY.into(), b"too many connections");
            return;
        };
        let (gives_way, weak) = (share.gives_way(), connection.weak_handle());
        let widens = may_widen.then(|| self.incomings.widens(from)).flatten();
        tokio::select! {
            () = self.carry(connection, peer, share, widens) => {}
            () = gives_way => if let Some(connection) = weak.upgrade() {
                connection.close(BUSY.into(), b"others need the place");
            }
        }
    }

    /// One connection, until it closes.
    async fn carry(
        self: &Arc<Self>,
        connection: Connection,
        peer: PeerId,
        share: Share,
        widens: Option<Arc<Widens>>,
    ) {
        self.incomings.known(&connection);
        let alpn = connection.alpn().to_vec();
        if alpn == BROADCAST_ALPN || alpn == ENTER_ALPN {
            if alpn == ENTER_ALPN {
                self.links.forget(peer).await;
            }
            self.links.keep(peer, &connection);
            let closed = connection.weak_handle().closed();
            if self.gossip.handle_connection(connection).await.is_ok() {
                tokio::select! {
                    _ = closed => {}
                    () = self.links.hold(peer, &share) => {}
                }
            }
        } else if alpn == DIRECT_ALPN {
            self.streams(connection, &share, None, Self::direct).await;
        } else if alpn == TUNNEL_ALPN {
            self.streams(connection, &share, widens, Self::tunnel).await;
        } else if alpn == SEAT_ALPN {
            self.seats.serve(connection, share).await;
        }
    }

    /// All streams of one connection, until it closes or is idle.
    async fn streams(
        self: &Arc<Self>,
        connection: Connection,
        share: &Share,
        widens: Option<Arc<Widens>>,
        take: fn(&Arc<Self>, Carried) -> bool,
    ) {
        let open: Arc<Keeping> = Arc::new(share.keeping());
        loop {
            match timeout(self.timing.idle, connection.accept_bi()).await {
                Ok(Ok((send, recv))) => {
                    let carried =
                        Carried::new(connection.clone(), send, recv, Some(open.clone()), widens.clone());
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
        let Some(opening) = self.openings.enter(carried.peer()) else {
            return false;
        };
        let (within, tunnels) = (self.timing.frame, self.tunnels.clone());
        tokio::spawn(async move {
            let read = tokio::select! {
                read = IncomingTunnel::read(carried, within) => read,
                () = opening.gives_way() => return,
            };
            drop(opening);
            match read {
                // Nobody waits for a desk that does not take them fast enough.
                Ok(tunnel) => drop(tunnels.try_send(tunnel)),
                Err(why) => tracing::debug!(%why, "a tunnel without a proper opening"),
            }
        });
        true
    }
}
