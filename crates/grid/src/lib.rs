//! The grid: how strangers' machines reach each other.
//!
//! Everything that travels between user and node goes through here: a broadcast that all nodes
//! hear, direct streams of bounded frames, and tunnels of raw bytes for SSH. An endpoint's id is
//! its ed25519 public key; sessions are QUIC, encrypted end to end; a relay of the grid's own
//! carries them where no direct path exists.
//!
//! ```text
//!            GridTicket ("where do we meet?")
//!                 │
//!   Grid::join ───┤                          Serve: bootstrap peer
//!                 ▼                          + embedded relay
//!   ┌─────────── Grid ───────────┐              (grid serve)
//!   │ membership  one task: gossip events, rejoin tick, relay's health → GridState
//!   │ gate        size → replay → time → BroadcastCheck → rate, before anything is handed on
//!   │ accept      one loop: limits in total and by peer, windows of bounded bytes, then by ALPN
//!   │   direct    steading/direct/1   frames: u32 BE length, at most 64 KiB
//!   │   tunnel    steading/tunnel/1   opening ≤ 4 KiB, answer, then raw bytes
//!   └────────────────────────────┘
//!   Seat          steading/seat/1     one machine a node's key, asked of the bootstrap peer before a node joins
//! ```
//!
//! Invariants:
//! - nobody but the addresses of the ticket and of peers is contacted: names are answered from
//!   the ticket alone ([`GridTicket`]), there is no default resolver and no third-party relay, and what members say of
//!   where others are is not believed;
//! - bytes from the network are bounded before they are decoded;
//! - what a message means is not known here: checks are handed in ([`BroadcastCheck`]).
//!
//! Where an `async fn` meets the engine its future is boxed: the body of an `async fn` is compiled by every crate that
//! awaits it, and the engine's endpoint and relay with it, unless it stands behind a pointer that is made here.

mod accept;
mod address;
mod certificate;
mod check;
mod dial;
mod direct;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod join;
mod membership;
mod node;
mod peer;
mod relay;
mod resolve;
mod seat;
mod shares;
mod state;
mod stream;
mod ticket;
mod tunnel;
mod windows;

pub mod serve;

pub use address::{AddressError, EndpointAddress};
pub use check::{BroadcastCheck, Verdict};
pub use dial::DialError;
pub use direct::{DirectStream, MAX_FRAME_BYTES, StreamError};
pub use join::{JoinConfig, JoinError, Limits, Listen, Timing, fresh_secret};
pub use node::{BroadcastError, Broadcasts, Grid, Heard, NotJoined};
pub use peer::PeerId;
pub use seat::{Refused, Seat, SeatConfig, SeatState};
pub use shares::{Holder, Kept, Peer, Share, Shares};
pub use state::GridState;
pub use ticket::{GridTicket, TicketError};
pub use tunnel::{IncomingTunnel, MAX_OPENING_BYTES, TunnelStream};
pub use windows::{Windows, most_bytes};

/// The ALPN of direct streams.
pub const DIRECT_ALPN: &[u8] = b"steading/direct/1";
/// The ALPN of tunnels.
pub const TUNNEL_ALPN: &[u8] = b"steading/tunnel/1";
/// The ALPN over which a node asks the bootstrap peer for its seat.
pub const SEAT_ALPN: &[u8] = b"steading/seat/1";
/// The ALPN of the broadcast's membership and messages.
pub const BROADCAST_ALPN: &[u8] = b"steading/broadcast/1";
/// The ALPN of one who is in nobody's view and asks to be let in: the same protocol as [`BROADCAST_ALPN`], but whoever
/// accepts first forgets the connections of the asker's former life.
pub const ENTER_ALPN: &[u8] = b"steading/broadcast-enter/1";
/// The most bytes that one broadcast may have: a capacity request's bound.
pub const MAX_BROADCAST_BYTES: usize = 2048;
