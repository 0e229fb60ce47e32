//! What a node has, what of it is held for offers, and what is sold: so that nothing is sold twice.
//!
//! ```text
//!            offer                agree                 lock seen                torn down
//!  free ───────────► held 30 s ────────► agreed 120 s ─────────────► sold ────────────────► free
//!    │    (or not)      │ lapse              │ lapse, or gave way      (a failed undo: withheld,
//!    └──────────────► unheld ──────► agreed, unheld ── lock seen, if     stays sold)
//!                                                      it still fits ──► sold
//! ```
//!
//! Invariants: sold and held together never exceed the capacity when something is added (capacity itself may shrink: a
//! disk fails); a space lies on one disk; a hold lasts at most 30 s, all holds together are at most half of what is not
//! sold, at most 4 for one asker and 8 for one neighbour. What exceeds that is offered unheld: the first lock seen is
//! served. So a flood takes holds, never sales. What is remembered is bounded ([`Room`]): where it is full, the oldest
//! offer that promised no hold gives way, of the neighbour who has most, so a flood takes its own place and no one
//! else's. Agreements wait for their money in a room of their own: where it is full, the oldest of the user who has most gives
//! way, and a lock for it that comes all the same is given back. Time is an argument: milliseconds of one clock that never steps.

mod capacity;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

pub use capacity::Capacity;

use crate::id::{EndpointId, GroupId, RequestHash, SaleId, UserId};
use crate::message::{DeclineCode, Gives, Reason};
use crate::quantity::Bytes;

/// Longest hold of an offer.
pub const HOLD_MS: u64 = 30_000;
/// From agreed to funded.
pub const AGREED_MS: u64 = 120_000;
/// Most holds for one asker's key.
pub const MOST_HOLDS_A_USER: usize = 4;
/// Most holds for one neighbour on the grid.
pub const MOST_HOLDS_A_NEIGHBOUR: usize = 8;
/// Most offers and agreements that are remembered at a time, held or not.
pub const MOST_ENTRIES: usize = 4096;
/// Most of them that came by one neighbour, so that one who floods leaves room for the others.
pub const MOST_ENTRIES_A_NEIGHBOUR: usize = 1024;
/// Most agreements of one user's key that wait for their money.
pub const MOST_AGREED_A_USER: usize = 8;
/// Most agreements that wait for their money.
pub const MOST_AGREED: usize = 1024;

/// How much is remembered at a time, and what happens to who asks when that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Offers and agreements.
    pub entries: usize,
    /// Of these, by one neighbour.
    pub entries_a_neighbour: usize,
    /// Agreements that wait for their money.
    pub agreed: usize,
    /// Whether what is older gives way. Without it who comes later is declined, and a flood starves all others: the
    /// control of the tests.
    pub gives_way: bool,
}

impl Default for Room {
    fn default() -> Self {
        Room {
            entries: MOST_ENTRIES,
            entries_a_neighbour: MOST_ENTRIES_A_NEIGHBOUR,
            agreed: MOST_AGREED,
            gives_way: true,
        }
    }
}

/// Who asks: both are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Who signed the request.
    pub user: UserId,
    /// Through which neighbour it came.
    pub neighbour: EndpointId,
}

/// Where a space would lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// On which disk.
    pub group: GroupId,
    /// Whether the capacity is held.
    pub held: bool,
    /// The offer can be agreed until then.
    pub until_ms: u64,
    /// The offer that gave way: nothing is remembered of it.
    pub instead_of: Option<RequestHash>,
}

/// Why a sale is not taken into the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The offer lapsed, or never was.
    #[error("the offer has lapsed")]
    OfferGone,
    /// Another sale took the offer.
    #[error("the offer was agreed by another sale")]
    AgreedAlready,
    /// Too many agreements of this user wait for their money.
    #[error("too many agreements wait for their money, {MOST_AGREED_A_USER} are let to one user")]
    TooManyAgreed,
    /// The agreement lapsed, or never was: a lock for it is given back.
    #[error("the agreement has lapsed")]
    Lapsed,
    /// The capacity was not held, and is gone.
    #[error("the capacity is gone")]
    NoCapacity,
}

/// What ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lapse {
    /// An offer that nobody agreed to.
    Offer {
        /// To which request.
        request: RequestHash,
        /// Whether capacity was held for it.
        held: bool,
    },
    /// A sale that was not funded, in its time or before another took its place.
    Agreement {
        /// Which.
        sale: SaleId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    gives: Gives,
    group: GroupId,
    asker: Asker,
    held: bool,
    until_ms: u64,
    /// The sale that agreed to it.
    sale: Option<SaleId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sold {
    gives: Gives,
    group: GroupId,
}

/// The book. One task owns it; requests, lapses, locks and ends are events to it.
#[derive(Debug, Clone)]
pub struct Book {
    capacity: Capacity,
    room: Room,
    pending: BTreeMap<RequestHash, Pending>,
    sold: BTreeMap<SaleId, Sold>,
    /// What lapsed and was not reported yet.
    lapsed: Vec<Lapse>,
}

impl Book {
    /// A node with this to sell, and nothing sold.
    pub fn new(capacity: Capacity) -> Book {
        Book::with_room(capacity, Room::default())
    }

    /// The same, with another bound on what is remembered.
    pub fn with_room(capacity: Capacity, room: Room) -> Book {
        Book {
            capacity,
            room,
            pending: BTreeMap::new(),
            sold: BTreeMap::new(),
            lapsed: Vec::new(),
        }
    }

    /// What there is to sell in all, from now on: a disk came or went.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// Places a request: where the space would lie, and whether that is held. Asked again, the answer is the same.
    pub fn offer(
        &mut self,
        request: RequestHash,
        asker: Asker,
        gives: Gives,
        now_ms: u64,
    ) -> Result<Placed, Vec<Reason>> {
        self.expire(now_ms);
        if let Some(known) = self.pending.get(&request) {
            return Ok(Placed {
                group: known.group.clone(),
                held: known.held,
                until_ms: known.until_ms,
                instead_of: None,
            });
        }
        let unsold = self.unsold();
        unsold.refuses(&gives).map_or(Ok(()), Err)?;
        let instead_of = self.make_room(asker.neighbour)?;
        let free = self.free();
        let (group, fits) = match free.best_group(gives.disk) {
            Some(group) if free.refuses(&gives).is_none() => (group, true),
            _ => (
                unsold
                    .best_group(gives.disk)
                    .ok_or_else(|| vec![Reason::plain(DeclineCode::Disk)])?,
                false,
            ),
        };
        let held = fits && self.may_hold(&unsold, asker, &gives, &group);
        let until_ms = now_ms.saturating_add(HOLD_MS);
        let entry = Pending {
            gives,
            group: group.clone(),
            asker,
            held,
            until_ms,
            sale: None,
        };
        self.pending.insert(request, entry);
        Ok(Placed {
            group,
            held,
            until_ms,
            instead_of,
        })
    }

    /// Makes room for one more by this neighbour, and says which offer gave way for it: one that promised nothing, the
    /// oldest of who has most of them.
    fn make_room(&mut self, neighbour: EndpointId) -> Result<Option<RequestHash>, Vec<Reason>> {
        if self.pending.len() < self.room.entries.min(self.room.entries_a_neighbour) {
            return Ok(None);
        }
        let by_neighbour = |entry: &Pending| entry.asker.neighbour == neighbour;
        let of_neighbour = self.pending.values().filter(|entry| by_neighbour(entry)).count();
        let own_is_full = of_neighbour >= self.room.entries_a_neighbour;
        if !own_is_full && self.pending.len() < self.room.entries {
            return Ok(None);
        }
        let promises_nothing = |entry: &Pending| !entry.held && entry.sale.is_none();
        let yielding = || {
            self.pending
                .iter()
                .filter(|(_, entry)| promises_nothing(entry) && (by_neighbour(entry) || !own_is_full))
        };
        let mut counts: HashMap<EndpointId, usize> = HashMap::new();
        if !own_is_full {
            for (_, entry) in yielding() {
                *counts.entry(entry.asker.neighbour).or_default() += 1;
            }
        }
        let most =
            yielding().max_by_key(|(_, entry)| (counts.get(&entry.asker.neighbour), Reverse(entry.until_ms)));
        match most.map(|(request, _)| *request) {
            Some(request) if self.room.gives_way => {
                self.pending.remove(&request);
                Ok(Some(request))
            }
            Some(_) | None => Err(vec![Reason::plain(DeclineCode::Busy)]),
        }
    }

    /// Where a space would lie if it were agreed now, for one who only looks: nothing is held and nothing remembered.
    pub fn look(&mut self, gives: &Gives, now_ms: u64) -> Result<GroupId, Vec<Reason>> {
        self.expire(now_ms);
        let unsold = self.unsold();
        unsold.refuses(gives).map_or(Ok(()), Err)?;
        let group = unsold.best_group(gives.disk);
        group.ok_or_else(|| vec![Reason::plain(DeclineCode::Disk)])
    }

    /// A user agreed to the offer for this request: once, by one sale.
    pub fn agree(&mut self, request: RequestHash, sale: SaleId, now_ms: u64) -> Result<(), BookError> {
        self.expire(now_ms);
        let agreed = || self.pending.values().filter(|entry| entry.sale.is_some());
        let known = self.pending.get(&request).ok_or(BookError::OfferGone)?;
        let of_user = agreed()
            .filter(|entry| entry.asker.user == known.asker.user)
            .count();
        match known.sale {
            Some(other) if other != sale => return Err(BookError::AgreedAlready),
            Some(_) => return Ok(()),
            None if of_user >= MOST_AGREED_A_USER => return Err(BookError::TooManyAgreed),
            None if agreed().count() < self.room.agreed => {}
            None if self.room.gives_way => self.yield_agreement(),
            None => return Err(BookError::TooManyAgreed),
        }
        let entry = self.pending.get_mut(&request).ok_or(BookError::OfferGone)?;
        entry.sale = Some(sale);
        entry.until_ms = now_ms.saturating_add(AGREED_MS);
        Ok(())
    }

    /// Ends an agreement that waits for its money: the oldest of the user who has most of them.
    fn yield_agreement(&mut self) {
        let agreed = || self.pending.iter().filter(|(_, entry)| entry.sale.is_some());
        let mut counts: HashMap<UserId, usize> = HashMap::new();
        for (_, entry) in agreed() {
            *counts.entry(entry.asker.user).or_default() += 1;
        }
        let most = agreed().max_by_key(|(_, entry)| (counts.get(&entry.asker.user), Reverse(entry.until_ms)));
        let Some(request) = most.map(|(request, _)| *request) else {
            return;
        };
        let sale = self.pending.remove(&request).and_then(|entry| entry.sale);
        self.lapsed.extend(sale.map(|sale| Lapse::Agreement { sale }));
    }

    /// An agreement that could not be kept: its offer stands again, no longer than any offer.
    pub fn disagree(&mut self, sale: SaleId, now_ms: u64) {
        for entry in self.pending.values_mut().filter(|entry| entry.sale == Some(sale)) {
            entry.sale = None;
            entry.until_ms = entry.until_ms.min(now_ms.saturating_add(HOLD_MS));
        }
    }

    /// The sale's lock was seen: sold from here on, or why not (then the lock is given back at once).
    pub fn fund(&mut self, sale: SaleId, now_ms: u64) -> Result<(), BookError> {
        self.expire(now_ms);
        if self.sold.contains_key(&sale) {
            return Ok(());
        }
        let found = self.pending.iter().find(|(_, entry)| entry.sale == Some(sale));
        let (request, entry) = found
            .map(|(request, entry)| (*request, entry.clone()))
            .ok_or(BookError::Lapsed)?;
        let free = self.free();
        let group = if entry.held || free.fits_on(&entry.gives, &entry.group) {
            entry.group
        } else {
            let another = free
                .refuses(&entry.gives)
                .is_none()
                .then(|| free.best_group(entry.gives.disk));
            another.flatten().ok_or(BookError::NoCapacity)?
        };
        self.pending.remove(&request);
        self.sold.insert(
            sale,
            Sold {
                gives: entry.gives,
                group,
            },
        );
        Ok(())
    }

    /// A sale that the journal knows: sold, whatever the capacity is now. At start, before anything is offered.
    pub fn restore(&mut self, sale: SaleId, gives: Gives, group: GroupId) {
        self.sold.insert(sale, Sold { gives, group });
    }

    /// An agreement that the journal knows; it was made before a restart and lapses anew from now.
    pub fn restore_agreed(
        &mut self,
        request: RequestHash,
        sale: SaleId,
        asker: Asker,
        (gives, group): (Gives, GroupId),
        now_ms: u64,
    ) {
        let until_ms = now_ms.saturating_add(AGREED_MS);
        let held = self.free().fits_on(&gives, &group);
        self.pending.insert(
            request,
            Pending {
                gives,
                group,
                asker,
                held,
                until_ms,
                sale: Some(sale),
            },
        );
    }

    /// What another size of a sale lacks; the figures say what it could have in all, with what it has.
    pub fn room_for(&mut self, sale: SaleId, gives: &Gives, now_ms: u64) -> Result<(), Vec<Reason>> {
        self.expire(now_ms);
        let Some(old) = self.sold.remove(&sale) else {
            return Err(vec![Reason::plain(DeclineCode::NotSelling)]);
        };
        let reasons = self.free().refuses_on(gives, &old.group);
        self.sold.insert(sale, old);
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Another size for a sale, if the difference is free on its disk.
    pub fn resize(&mut self, sale: SaleId, gives: Gives) -> Result<(), BookError> {
        let old = self.sold.remove(&sale).ok_or(BookError::Lapsed)?;
        let fits = self.free().fits_on(&gives, &old.group);
        let entry = if fits {
            Sold {
                gives,
                group: old.group,
            }
        } else {
            old
        };
        self.sold.insert(sale, entry);
        if fits { Ok(()) } else { Err(BookError::NoCapacity) }
    }

    /// The sale is torn down, or was never funded: its capacity is free. Never called for a quarantined one.
    pub fn release(&mut self, sale: SaleId) {
        self.sold.remove(&sale);
        self.pending.retain(|_, entry| entry.sale != Some(sale));
    }

    /// Ends what ran out, and says what did since the last call.
    pub fn lapse(&mut self, now_ms: u64) -> Vec<Lapse> {
        self.expire(now_ms);
        std::mem::take(&mut self.lapsed)
    }

    fn expire(&mut self, now_ms: u64) {
        let lapsed = &mut self.lapsed;
        self.pending.retain(|request, entry| {
            let lives = now_ms < entry.until_ms;
            if !lives {
                lapsed.push(match entry.sale {
                    Some(sale) => Lapse::Agreement { sale },
                    None => Lapse::Offer {
                        request: *request,
                        held: entry.held,
                    },
                });
            }
            lives
        });
    }

    /// When the next thing lapses.
    pub fn next_lapse_ms(&self) -> Option<u64> {
        self.pending.values().map(|entry| entry.until_ms).min()
    }

    /// On which disk a sale lies, agreed or sold.
    pub fn group_of(&self, sale: SaleId) -> Option<GroupId> {
        let sold = self.sold.get(&sale).map(|entry| entry.group.clone());
        sold.or_else(|| {
            self.pending
                .values()
                .find(|entry| entry.sale == Some(sale))
                .map(|entry| entry.group.clone())
        })
    }

    /// What is neither sold nor held.
    pub fn free(&self) -> Capacity {
        let held = self.pending.values().filter(|entry| entry.held);
        held.fold(self.unsold(), |free, entry| free.less(&entry.gives, &entry.group))
    }

    /// What is not sold, holds not counted.
    pub fn unsold(&self) -> Capacity {
        self.sold.values().fold(self.capacity.clone(), |free, entry| {
            free.less(&entry.gives, &entry.group)
        })
    }

    /// How much of one disk is sold.
    pub fn sold_on(&self, group: &GroupId) -> Bytes {
        let on = self.sold.values().filter(|entry| entry.group == *group);
        Bytes(
            on.map(|entry| entry.gives.on_disk().0)
                .fold(0, u64::saturating_add),
        )
    }

    /// Half of what is not sold, four a user, eight a neighbour.
    fn may_hold(&self, unsold: &Capacity, asker: Asker, gives: &Gives, group: &GroupId) -> bool {
        let held = || self.pending.values().filter(|entry| entry.held);
        let of_user = held().filter(|entry| entry.asker.user == asker.user).count();
        let of_neighbour = held()
            .filter(|entry| entry.asker.neighbour == asker.neighbour)
            .count();
        let half = held().fold(unsold.half(), |half, entry| half.less(&entry.gives, &entry.group));
        of_user < MOST_HOLDS_A_USER && of_neighbour < MOST_HOLDS_A_NEIGHBOUR && half.fits_on(gives, group)
    }
}
