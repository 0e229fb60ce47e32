//! Direct streams and tunnels: who speaks, for which sale, and to whom it goes.
//!
//! ```text
//!  stream ─► frame ─► kind ─┬─ request ─► desk            answered by an offer or a decline
//!                           ├─ agree ───► desk            answered by the sale
//!                           ├─ delegate ► remembered for this stream: this endpoint speaks for that sale
//!                           ├─ command ─► owner's key     answered by an answer
//!                           ├─ recall ──► the journal     answered by the asker's own sales
//!                           └─ others ──► delegate? user's signature? ─► the sale's keeper
//!  tunnel ─► opening (delegate, port) ─► space ─► bytes both ways
//! ```
//!
//! Invariants: a stream speaks for a sale only after a Delegate in which the sale's user key names the endpoint at the
//! other end (the transport has proven it), and every message about a sale is signed by that user's key all the same.
//! Frames and streams are bounded, streams and tunnels by peer too; what is refused is answered by a signed Refusal, and
//! the stream goes on. Where all are taken, one of who has most gives way to the next: first those that serve nobody, by
//! endpoint, for its key is free; then those over which a key, a voucher or a login came, by the sale's user. So who only
//! asks keeps no user from handing over his voucher, and a user who takes all that he gets keeps no other one out.

mod command;
mod recall;
mod stream;
mod tunnel;

use std::sync::Arc;

use grid::{PeerId, Share, Shares};
use market::envelope::{Signed, open};
use market::id::EndpointId;
use market::message::{Delegate, RefusalCode};
use market::quantity::UnixMillis;

use crate::desk::{Counter, Desk};
use crate::sales::No;

/// How many streams and tunnels there are at a time, and of them by one peer: an endpoint is one process of a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Streams.
    pub streams: usize,
    /// Of these, by one peer.
    pub streams_a_peer: usize,
    /// Tunnels: ten logins at once for each of many users.
    pub tunnels: usize,
    /// Of these, by one peer.
    pub tunnels_a_peer: usize,
    /// Whether one of who has most gives way where all are taken; else who comes is let go.
    pub gives_way: bool,
}

impl Default for Most {
    fn default() -> Self {
        Most {
            streams: 256,
            streams_a_peer: 32,
            tunnels: 512,
            tunnels_a_peer: 64,
            gives_way: true,
        }
    }
}

/// A delegate that ends later is refused.
const MOST_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// Starts accepting, for ever.
pub fn start(desk: &Desk, most: Most) {
    let counter = desk.counter();
    let way: Way = if most.gives_way {
        Shares::enter
    } else {
        Shares::take
    };
    let streams_of = Shares::new(most.streams, most.streams_a_peer);
    crate::task::spawn(streams(counter.clone(), streams_of, way));
    let tunnels_of = Shares::new(most.tunnels, most.tunnels_a_peer);
    crate::task::spawn(tunnels(counter, tunnels_of, way));
}

/// How a place is taken.
type Way = fn(&Shares, PeerId) -> Option<Share>;

async fn streams(counter: Arc<Counter>, shares: Shares, way: Way) {
    while let Some((peer, stream)) = counter.shared.grid.accept().await {
        let Some(share) = way(&shares, peer) else {
            continue;
        };
        let counter = counter.clone();
        crate::task::spawn(async move {
            let talk = stream::Conversation::new(counter, EndpointId(*peer.as_bytes()), stream);
            tokio::select! {
                () = talk.run(&share) => {}
                () = share.gives_way() => {}
            }
        });
    }
}

async fn tunnels(counter: Arc<Counter>, shares: Shares, way: Way) {
    while let Some(tunnel) = counter.shared.grid.accept_tunnel().await {
        let Some(share) = way(&shares, tunnel.peer()) else {
            continue;
        };
        let counter = counter.clone();
        crate::task::spawn(async move {
            tokio::select! {
                () = tunnel::serve(counter, tunnel, &share) => {}
                () = share.gives_way() => {}
            }
        });
    }
}

/// Opens a delegate and judges it for the endpoint at the other end. Whether its signer is the sale's user, the caller
/// compares.
fn read_delegate(counter: &Counter, bytes: &[u8], peer: EndpointId) -> Result<Signed<Delegate>, No> {
    let refuse = |words: &str| No {
        code: RefusalCode::NotAllowed,
        words: words.to_owned(),
    };
    let opened = open::<Delegate>(bytes, Some(counter.shared.grid_id));
    let delegate = opened.map_err(|error| refuse(&crate::words::chain(&error)))?;
    if delegate.message.endpoint != peer {
        return Err(refuse("the delegate names another endpoint"));
    }
    ends_in_time(counter, "delegate", delegate.message.expires)?;
    Ok(delegate)
}

/// A word that binds an endpoint ends within a day; while the rail's time is unknown that is not judged.
fn ends_in_time(counter: &Counter, what: &str, expires: UnixMillis) -> Result<(), No> {
    let refuse = |words: &str| No {
        code: RefusalCode::NotAllowed,
        words: format!("the {what} {words}"),
    };
    match counter.shared.clock.rail().map(UnixMillis::from) {
        Some(now) if expires <= now => Err(refuse("has expired")),
        Some(now) if expires.ms_since(now) > MOST_AHEAD_MS => Err(refuse("ends too far ahead")),
        Some(_) | None => Ok(()),
    }
}
