//! The broadcast connections that each peer has opened to us, so that a former life of it can be forgotten.
//!
//! ```text
//!   power cut at P:   P ═══ old connection, nobody at its end ═══ us       (in our view for 30 s and more)
//!   P starts again:   P ──── "enter" ────► us: close the old, wait until the engine took P out, let P in
//! ```
//!
//! A member whose machine lost its power is still a neighbour here until its connections time out, and the engine answers
//! a neighbour's request to join with nothing. The member would stay alone, for minutes. That it asks to enter says
//! that it is in nobody's view, so what is left of it here is of the past.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::{Connection, WeakConnectionHandle};
use tokio::{sync::watch, time::timeout};

use crate::{PeerId, Share};

/// The engine needs milliseconds to notice; a peer that it links by a connection of its own stays.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);
const FORMER_LIFE: u32 = 3;

/// Broadcast connections by peer; those that ended are dropped from it when their peer comes again.
pub(crate) struct Links {
    open: Mutex<HashMap<PeerId, Vec<WeakConnectionHandle>>>,
    neighbours: watch::Receiver<BTreeSet<PeerId>>,
}

impl Links {
    /// None yet; `neighbours` is who is in the engine's view.
    pub(crate) fn new(neighbours: watch::Receiver<BTreeSet<PeerId>>) -> Self {
        Self {
            open: Mutex::default(),
            neighbours,
        }
    }

    /// Remembers a connection without keeping it open.
    pub(crate) fn keep(&self, peer: PeerId, connection: &Connection) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, handles| {
            handles.retain(|handle| handle.upgrade().is_some());
            !handles.is_empty()
        });
        open.entry(peer).or_default().push(connection.weak_handle());
    }

    /// Keeps the place of a peer's connection while he is a neighbour: as many as the view has can be, no more. Comes back
    /// when the engine has ended.
    pub(crate) async fn hold(&self, peer: PeerId, share: &Share) {
        let mut neighbours = self.neighbours.clone();
        while neighbours.wait_for(|linked| linked.contains(&peer)).await.is_ok() {
            let _kept = share.keep(*peer.as_bytes());
            if neighbours
                .wait_for(|linked| !linked.contains(&peer))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Closes what the peer has open, and waits (bounded) until it is no neighbour any more.
    pub(crate) async fn forget(&self, peer: PeerId) {
        let former = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(&peer).unwrap_or_default()
        };
        let former: Vec<Connection> = former.iter().filter_map(WeakConnectionHandle::upgrade).collect();
        if former.is_empty() {
            return;
        }
        for connection in former {
            connection.close(FORMER_LIFE.into(), b"you have come again");
        }
        let mut neighbours = self.neighbours.clone();
        let gone = neighbours.wait_for(|linked| !linked.contains(&peer));
        let _ = timeout(NOTICED_WITHIN, gone).await;
    }
}
