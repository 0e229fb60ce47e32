//! A bounded number of places, and of them a bounded share for each peer.
//!
//! ```text
//!   take    all taken, or this peer's share is ─► none
//!   enter   this peer's share is taken ─► none          all taken ─► the oldest place that is not kept, of the peer who has
//!                                                                    most and more than this one, gives way; else none
//! ```
//!
//! Invariant: at most `most` places are counted, at most `most_a_peer` of them by one peer; a place is free again when its
//! [`Share`] is dropped or gives way. So one peer who takes all that he can leaves the rest to the others, and peers who
//! together take all keep nobody out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

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
    next: u64,
    /// The oldest has the lowest number.
    by_peer: HashMap<PeerId, BTreeMap<u64, Arc<Place>>>,
}

#[derive(Debug, Default)]
struct Place {
    kept: AtomicBool,
    gives_way: Notify,
}

/// One place, as long as it lives.
#[derive(Debug)]
pub struct Share {
    taken: Arc<Mutex<Taken>>,
    peer: PeerId,
    number: u64,
    place: Arc<Place>,
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
        self.place(peer, |_, _| false)
    }

    /// A place for this peer, where all are taken that of another; none if this peer's share is taken, or nobody who has
    /// more than he has one that is not kept. Who enters this way has to watch for [`Share::gives_way`].
    pub fn enter(&self, peer: PeerId) -> Option<Share> {
        self.place(peer, Taken::give_way)
    }

    fn place(&self, peer: PeerId, room: impl FnOnce(&mut Taken, usize) -> bool) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_peer.get(&peer).map_or(0, BTreeMap::len);
        if own >= self.most_a_peer || taken.all >= self.most && !room(&mut taken, own) {
            return None;
        }
        let (number, place) = (taken.next, Arc::<Place>::default());
        taken.next += 1;
        taken.all += 1;
        taken
            .by_peer
            .entry(peer)
            .or_default()
            .insert(number, place.clone());
        Some(Share {
            taken: self.taken.clone(),
            peer,
            number,
            place,
        })
    }
}

impl Taken {
    /// Frees a place of whoever has most, if that is more than `own`.
    fn give_way(&mut self, own: usize) -> bool {
        let loose = |places: &BTreeMap<u64, Arc<Place>>| {
            let mut free = places
                .iter()
                .filter(|(_, place)| !place.kept.load(Ordering::Relaxed));
            free.next().map(|(number, _)| *number)
        };
        let most = self
            .by_peer
            .iter()
            .filter(|(_, places)| places.len() > own)
            .filter_map(|(peer, places)| Some((places.len(), loose(places)?, *peer)))
            .max_by_key(|(many, number, _)| (*many, std::cmp::Reverse(*number)));
        let Some((_, number, peer)) = most else {
            return false;
        };
        if let Some(place) = self.free(peer, number) {
            place.gives_way.notify_one();
        }
        true
    }

    fn free(&mut self, peer: PeerId, number: u64) -> Option<Arc<Place>> {
        let places = self.by_peer.get_mut(&peer)?;
        let place = places.remove(&number)?;
        if places.is_empty() {
            self.by_peer.remove(&peer);
        }
        self.all -= 1;
        Some(place)
    }
}

impl Share {
    /// This place gives way to nobody any more.
    pub fn keep(&self) {
        self.place.kept.store(true, Ordering::Relaxed);
    }

    /// Comes back when another peer has this place: what holds it is to end now.
    pub async fn gives_way(&self) {
        self.place.gives_way.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.free(self.peer, self.number);
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

    /// Eight peers hold all places; another one comes. Whether he gets in, and who gives way.
    async fn nine(way: fn(&Shares, PeerId) -> Option<Share>) -> (bool, usize) {
        let shares = Shares::new(32, 4);
        let held: Vec<Share> = (0..32u8)
            .map(|number| way(&shares, PeerId([number % 8; 32])).unwrap())
            .collect();
        held[0].keep();
        let entered = way(&shares, PeerId([99; 32]));
        let gone = async |share: &Share| {
            tokio::time::timeout(std::time::Duration::from_millis(1), share.gives_way()).await
        };
        let mut told = Vec::new();
        for (number, share) in held.iter().enumerate() {
            if gone(share).await.is_ok() {
                told.push(number);
            }
        }
        assert!(told.len() <= 1 && !told.contains(&0), "{told:?}");
        (entered.is_some(), told.first().copied().unwrap_or(usize::MAX))
    }

    #[tokio::test]
    async fn peers_who_take_all_keep_nobody_out() {
        assert_eq!(
            nine(Shares::enter).await,
            (true, 1),
            "the oldest that is not kept"
        );
        assert_eq!(nine(Shares::take).await, (false, usize::MAX), "the control");
    }

    #[tokio::test]
    async fn who_has_as_much_or_keeps_it_gives_no_way() {
        let shares = Shares::new(2, 2);
        let (one, two) = (shares.enter(ONE).unwrap(), shares.enter(PeerId([2; 32])).unwrap());
        assert!(shares.enter(ONE).is_none(), "the other has no more than he");
        one.keep();
        two.keep();
        assert!(shares.enter(PeerId([3; 32])).is_none(), "all are kept");
        drop((one, two));
        let taken = shares.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_peer.is_empty());
    }
}
