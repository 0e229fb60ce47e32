//! A bounded number of places, and of them a bounded share for each peer.
//!
//! ```text
//!   take    all taken, or this peer's share is ─► none
//!   enter   this peer's share is taken ─► none
//!           all taken ─► 1. the oldest place that nobody keeps, of the peer who has most such and more than this one
//!                        2. where there is none: the oldest kept place of the holder who keeps most and more than this
//!                           peer has that are not kept
//!                        gives way; else none
//! ```
//!
//! A key of an endpoint costs nothing, so shares by peer alone are a matter of minutes for a stranger. What a place carries
//! may make it a kept one, for a holder that costs something (a user with a sale): such a place gives way last, and then
//! that of whoever keeps most.
//!
//! Invariant: at most `most` places are counted, at most `most_a_peer` of them by one peer; a place is free again when its
//! [`Share`] is dropped or gives way. So one peer who takes all that he can leaves the rest to the others, and peers who
//! together take all keep nobody out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::PeerId;

/// Whom a kept place is counted to: what it means is its user's business.
pub type Holder = [u8; 32];

/// The places. Clones are the same places.
#[derive(Debug, Clone)]
pub struct Shares<P: Peer = PeerId> {
    most: usize,
    most_a_peer: usize,
    taken: Arc<Mutex<Taken<P>>>,
}

/// Who takes places.
pub trait Peer: Debug + Copy + Eq + Hash + Send + 'static {}

impl<P: Debug + Copy + Eq + Hash + Send + 'static> Peer for P {}

#[derive(Debug)]
struct Taken<P> {
    all: usize,
    next: u64,
    /// The oldest has the lowest number.
    by_peer: HashMap<P, BTreeMap<u64, Arc<Place>>>,
}

#[derive(Debug, Default)]
struct Place {
    /// Each once for each [`Kept`]; it is counted to the first.
    holders: Mutex<Vec<Holder>>,
    gives_way: Notify,
}

/// One place, as long as it lives.
#[derive(Debug)]
pub struct Share<P: Peer = PeerId> {
    taken: Arc<Mutex<Taken<P>>>,
    peer: P,
    number: u64,
    place: Arc<Place>,
}

/// A way to keep a place without taking it.
#[derive(Debug)]
pub(crate) struct Keeping(Arc<Place>);

/// While it lives, its place gives way last.
#[derive(Debug)]
pub struct Kept {
    place: Arc<Place>,
    holder: Holder,
}

impl<P: Peer> Shares<P> {
    /// So many places in all, so many of them for one peer.
    pub fn new(most: usize, most_a_peer: usize) -> Self {
        Self {
            most,
            most_a_peer,
            taken: Arc::new(Mutex::new(Taken {
                all: 0,
                next: 0,
                by_peer: HashMap::new(),
            })),
        }
    }

    /// A place for this peer; none if all are taken, or this peer's share is.
    pub fn take(&self, peer: P) -> Option<Share<P>> {
        self.place(peer, |_, _| false)
    }

    /// A place for this peer, where all are taken that of another; none if this peer's share is taken, or nobody has more
    /// than he. Who enters this way has to watch for [`Share::gives_way`].
    pub fn enter(&self, peer: P) -> Option<Share<P>> {
        self.place(peer, Taken::give_way)
    }

    /// Whether one for this peer is free now.
    pub(crate) fn has_one_for(&self, peer: P) -> bool {
        let taken = locked(&self.taken);
        taken.all < self.most && taken.by_peer.get(&peer).map_or(0, BTreeMap::len) < self.most_a_peer
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        locked(&self.taken).all
    }

    fn place(&self, peer: P, room: impl FnOnce(&mut Taken<P>, P) -> bool) -> Option<Share<P>> {
        let mut taken = locked(&self.taken);
        let own = taken.by_peer.get(&peer).map_or(0, BTreeMap::len);
        if own >= self.most_a_peer || taken.all >= self.most && !room(&mut taken, peer) {
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

impl<P: Peer> Taken<P> {
    /// Frees a place for this peer.
    fn give_way(&mut self, to: P) -> bool {
        let (mut loose, mut kept) = (HashMap::new(), HashMap::new());
        for (peer, places) in &self.by_peer {
            for (number, place) in places {
                match place.holder() {
                    None => count(&mut loose, *peer, (*number, *peer)),
                    Some(holder) => count(&mut kept, holder, (*number, *peer)),
                }
            }
        }
        let own = loose.get(&to).map_or(0, |counted| counted.many);
        let Some((number, peer)) = of_most(loose, own).or_else(|| of_most(kept, own)) else {
            return false;
        };
        if let Some(place) = self.free(peer, number) {
            place.gives_way.notify_one();
        }
        true
    }

    fn free(&mut self, peer: P, number: u64) -> Option<Arc<Place>> {
        let places = self.by_peer.get_mut(&peer)?;
        let place = places.remove(&number)?;
        if places.is_empty() {
            self.by_peer.remove(&peer);
        }
        self.all -= 1;
        Some(place)
    }
}

/// How many places somebody has, and the oldest of them.
struct Counted<P> {
    many: usize,
    oldest: (u64, P),
}

fn count<K: Eq + Hash, P: Copy>(counts: &mut HashMap<K, Counted<P>>, of: K, place: (u64, P)) {
    let counted = counts.entry(of).or_insert(Counted {
        many: 0,
        oldest: place,
    });
    counted.many += 1;
    if place.0 < counted.oldest.0 {
        counted.oldest = place;
    }
}

/// The oldest place of whoever has most, if that is more than `own`.
fn of_most<K, P>(counts: HashMap<K, Counted<P>>, own: usize) -> Option<(u64, P)> {
    let more = counts.into_values().filter(|counted| counted.many > own);
    let most = more.max_by_key(|counted| (counted.many, Reverse(counted.oldest.0)));
    most.map(|counted| counted.oldest)
}

impl Place {
    fn holder(&self) -> Option<Holder> {
        locked(&self.holders).first().copied()
    }

    fn keep(self: &Arc<Self>, holder: Holder) -> Kept {
        locked(&self.holders).push(holder);
        Kept {
            place: self.clone(),
            holder,
        }
    }
}

impl<P: Peer> Share<P> {
    /// This place gives way last, as long as that lives; it is counted to this holder.
    pub fn keep(&self, holder: Holder) -> Kept {
        self.place.keep(holder)
    }

    pub(crate) fn keeping(&self) -> Keeping {
        Keeping(self.place.clone())
    }

    /// Comes back when another has this place: what holds it is to end now.
    pub fn gives_way(&self) -> impl Future<Output = ()> + Send + use<P> {
        let place = self.place.clone();
        async move { place.gives_way.notified().await }
    }
}

impl Keeping {
    pub(crate) fn keep(&self, holder: Holder) -> Kept {
        self.0.keep(holder)
    }
}

impl<P: Peer> Drop for Share<P> {
    fn drop(&mut self) {
        locked(&self.taken).free(self.peer, self.number);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut holders = locked(&self.place.holders);
        if let Some(at) = holders.iter().position(|holder| *holder == self.holder) {
            holders.remove(at);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
