//! A bounded number of places, and of them a bounded share for each peer.
//!
//! Invariant: at most `most` places are taken, at most `most_a_peer` of them by one peer; a place is free again when its
//! [`Share`] is dropped. So one peer who takes all that he can leaves the rest to the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::PeerId;

/// The places. Clones are the same places.
#[derive(Debug, Clone)]
pub struct Shares {
    most: usize,
    most_a_peer: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<PeerId, usize>,
}

/// One place, as long as it lives.
#[derive(Debug)]
pub struct Share {
    taken: Arc<Mutex<Taken>>,
    peer: PeerId,
}

impl Shares {
    /// So many places in all, so many of them for one peer.
    pub fn new(most: usize, most_a_peer: usize) -> Self {
        Self {
            most,
            most_a_peer,
            taken: Arc::default(),
        }
    }

    /// A place for this peer; none if all are taken, or this peer's share is.
    pub fn take(&self, peer: PeerId) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_peer.get(&peer).copied().unwrap_or_default();
        if taken.all >= self.most || own >= self.most_a_peer {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer, own + 1);
        Some(Share {
            taken: self.taken.clone(),
            peer,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId([1; 32]);

    #[test]
    fn a_share_is_given_back() {
        let shares = Shares::new(9, 2);
        let (one, two) = (shares.take(ONE), shares.take(ONE));
        assert!(one.is_some() && two.is_some() && shares.take(ONE).is_none());
        assert!(shares.take(PeerId([2; 32])).is_some());
        drop(one);
        assert!(shares.take(ONE).is_some());
        drop(two);
        let taken = shares.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_peer.is_empty());
    }

    #[test]
    fn who_takes_all_that_he_can_leaves_room() {
        let taken_by_one = |most_a_peer| {
            let shares = Shares::new(8, most_a_peer);
            let taken: Vec<Share> = std::iter::from_fn(|| shares.take(ONE)).collect();
            (taken.len(), shares.take(PeerId([2; 32])).is_some())
        };
        assert_eq!(taken_by_one(3), (3, true));
        assert_eq!(
            taken_by_one(usize::MAX),
            (8, false),
            "the control: without a share of his own"
        );
    }
}
