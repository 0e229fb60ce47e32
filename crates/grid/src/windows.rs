//! How much of this machine's memory one connection may fill.
//!
//! ```text
//!   first packet says ─┬─ tunnel, and a wide place is free ─► may send wide ─── let in: takes the place, receives wide
//!                      │                                                  └── let in, and it is taken: closed, to come again
//!                      ├─ tunnel, direct, seat ─────────────► narrow; streams both ways
//!                      ├─ broadcast, enter ─────────────────► narrow; streams one way, which the engine reads
//!                      └─ both, or nothing that is read ────► narrow; no stream before the handshake says which
//! ```
//!
//! What came and is not read yet, and what was sent and is not acknowledged yet, is kept here for as long as the other end
//! likes; its key costs nothing, so it is counted as if everybody did his worst. What sends cannot be widened after the
//! handshake, so it is as wide as it may become; before a tunnel is let in, little is sent over it, and it takes no place.
//!
//! Invariant: all that were accepted hold [`most_bytes`] together at most, whoever they are of; no datagrams are kept, and
//! no streams that nobody reads.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use iroh::{
    Endpoint,
    endpoint::{
        Connection, IdleTimeout, Incoming, QuicTransportConfig, QuicTransportConfigBuilder, ServerConfig,
        VarInt,
    },
};

use crate::{BROADCAST_ALPN, ENTER_ALPN, JoinConfig, Limits, Share, Shares, TUNNEL_ALPN, accept::Source};

/// A stream of the broadcast's engine: what is said to this endpoint. The next may begin when one has ended.
const ONE: VarInt = VarInt::from_u32(1);
const NONE: VarInt = VarInt::from_u32(0);
/// The transport's own bounds for a stream of which it gets small pieces with gaps: so many, so large each ...
const PIECES: u64 = 2048 * 56;
/// ... and the packets that they came in: at least so much, and one and a half times what is kept of them.
const PACKETS: u64 = 32 << 10;

/// What one connection may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Bytes each way.
    pub narrow: u32,
    /// Bytes each way where it carries a tunnel that was let in: 100 Mbit/s over 100 ms.
    pub wide: u32,
    /// Wide ones at once; a tunnel beyond them is narrow.
    pub most_wide: usize,
    /// Of these, from one address.
    pub wide_a_source: usize,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            narrow: 32 << 10,
            wide: 1_250_000,
            most_wide: 24,
            wide_a_source: 8,
        }
    }
}

/// The most bytes that all accepted connections together can make an endpoint hold; none where nothing bounds them.
#[must_use]
pub fn most_bytes(limits: &Limits) -> Option<u64> {
    let windows = limits.windows.as_ref()?;
    let sent_and_came = |bytes: u32| u64::from(bytes) + u64::from(bytes) * 5 / 2;
    let narrow =
        sent_and_came(windows.narrow) + u64::from(limits.streams_per_connection) * (PIECES + PACKETS);
    let wider = sent_and_came(windows.wide.saturating_sub(windows.narrow));
    Some(limits.connections as u64 * narrow + windows.most_wide as u64 * wider)
}

/// Connections that this endpoint opens: only the broadcast's carry anything that the other end began.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// The endpoint's own: the broadcast's engine opens them.
    pub(crate) broadcast: QuicTransportConfig,
    pub(crate) direct: QuicTransportConfig,
    pub(crate) tunnel: QuicTransportConfig,
}

impl Outgoing {
    pub(crate) fn new(config: &JoinConfig) -> Self {
        let idle = IdleTimeout::try_from(config.timing.tunnel_idle).ok();
        let Some(windows) = &config.limits.windows else {
            return Self {
                broadcast: QuicTransportConfig::default(),
                direct: QuicTransportConfig::default(),
                tunnel: QuicTransportConfig::builder().max_idle_timeout(idle).build(),
            };
        };
        let silent = |bytes: u32| {
            bounded(bytes, bytes)
                .max_concurrent_bidi_streams(NONE)
                .max_concurrent_uni_streams(NONE)
        };
        Self {
            broadcast: silent(windows.narrow).max_concurrent_uni_streams(ONE).build(),
            direct: silent(windows.wide).build(),
            tunnel: silent(windows.wide).max_idle_timeout(idle).build(),
        }
    }
}

/// Connections that are accepted. The idle bound is the smaller of the two ends': with a long one here, who dials decides,
/// and only tunnels are dialled with a long one.
pub(crate) struct Incomings {
    windows: Option<Windows>,
    streams: VarInt,
    /// Of the broadcast's engine, which reads one-way streams, and nothing else does.
    one_way: Arc<ServerConfig>,
    two_way: Arc<ServerConfig>,
    /// For tunnels alone.
    wide: Arc<ServerConfig>,
    /// Of which nothing is known before the handshake: no streams until then.
    unknown: Arc<ServerConfig>,
    places: Shares<Source>,
}

impl Incomings {
    pub(crate) fn new(endpoint: &Endpoint, alpns: &[Vec<u8>], config: &JoinConfig) -> Self {
        let windows = config.limits.windows.clone();
        let streams = VarInt::from_u32(config.limits.streams_per_connection);
        let idle = IdleTimeout::try_from(config.timing.tunnel_idle).ok();
        let server = |of: &dyn Fn(&[u8]) -> bool,
                      sent: fn(&Windows) -> u32,
                      two_way: VarInt,
                      one_way: VarInt| {
            let transport = match &windows {
                Some(windows) => bounded(sent(windows), windows.narrow).max_concurrent_uni_streams(one_way),
                None => QuicTransportConfig::builder(),
            };
            let transport = transport
                .max_idle_timeout(idle)
                .max_concurrent_bidi_streams(two_way);
            let alpns = alpns.iter().filter(|alpn| of(alpn)).cloned().collect();
            let server = endpoint.create_server_config_builder(alpns);
            Arc::new(server.set_transport_config(transport.build()).build())
        };
        let (most, a_source) = windows
            .as_ref()
            .map_or((0, 0), |windows| (windows.most_wide, windows.wide_a_source));
        Self {
            one_way: server(&is_one_way, |windows| windows.narrow, NONE, ONE),
            two_way: server(&|alpn| !is_one_way(alpn), |windows| windows.narrow, streams, NONE),
            wide: server(&|alpn| alpn == TUNNEL_ALPN, |windows| windows.wide, streams, NONE),
            unknown: server(&|_| true, |windows| windows.narrow, NONE, NONE),
            places: Shares::new(most, a_source),
            windows,
            streams,
        }
    }

    /// How this one is accepted, and whether it may become wide.
    pub(crate) fn accept(&self, incoming: &Incoming, from: Source) -> (Arc<ServerConfig>, bool) {
        let said = alpns(incoming);
        let all = |of: fn(&[u8]) -> bool| !said.is_empty() && said.iter().all(|alpn| of(alpn));
        if all(|alpn| alpn == TUNNEL_ALPN) && self.places.has_one_for(from) {
            return (self.wide.clone(), true);
        }
        let server = match () {
            () if all(is_one_way) => &self.one_way,
            () if all(|alpn| !is_one_way(alpn)) => &self.two_way,
            () => &self.unknown,
        };
        (server.clone(), false)
    }

    /// Its handshake is over: who was unknown before gets the streams that belong to what he wants.
    pub(crate) fn known(&self, connection: &Connection) {
        if is_one_way(connection.alpn()) {
            connection.set_max_concurrent_uni_streams(ONE);
        } else {
            connection.set_max_concurrent_bi_streams(self.streams);
        }
    }

    /// The place that a connection which may become wide does not have yet.
    pub(crate) fn widens(&self, from: Source) -> Option<Arc<Widens>> {
        Some(Arc::new(Widens {
            wide: self.windows.as_ref()?.wide,
            places: self.places.clone(),
            from,
            place: Mutex::default(),
        }))
    }
}

/// The place of a connection that sends as a wide one, from its first tunnel that was let in until it ends: what it was
/// sent may be unacknowledged after the tunnel.
#[derive(Debug)]
pub(crate) struct Widens {
    wide: u32,
    places: Shares<Source>,
    from: Source,
    place: Mutex<Option<Share<Source>>>,
}

impl Widens {
    /// A tunnel is let in: its connection receives as much as it sends. False where another took the last place meanwhile.
    pub(crate) fn widen(&self, connection: &Connection) -> bool {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = self.places.take(self.from);
            connection.set_receive_window(VarInt::from_u32(self.wide));
        }
        place.is_some()
    }
}

/// What its first packet says that it wants; nothing where that cannot be read, or does not fit into one.
fn alpns(incoming: &Incoming) -> Vec<Bytes> {
    let said = incoming.decrypt().and_then(|first| first.alpns());
    said.and_then(|said| said.collect::<Result<_, _>>().ok())
        .unwrap_or_default()
}

fn is_one_way(alpn: &[u8]) -> bool {
    alpn == BROADCAST_ALPN || alpn == ENTER_ALPN
}

/// So much sent and so much received at most, and no datagrams. The window of one stream stays the transport's: the
/// connection's is the bound.
fn bounded(sent: u32, received: u32) -> QuicTransportConfigBuilder {
    QuicTransportConfig::builder()
        .send_window(sent.into())
        .receive_window(VarInt::from_u32(received))
        .datagram_receive_buffer_size(None)
}
