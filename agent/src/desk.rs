//! The desk: answers capacity requests, and turns an agreed offer into a sale.
//!
//! ```text
//!  broadcast ─► check (size, signature, version, grid, freshness) ─► answer: filters, rail, price, book
//!                                                                       │ Offer / Decline, signed
//!                                                                       ▼
//!                                            dialled straight to the asker's address
//!  direct ─► Agree ─► the offer it names, once ─► journal ─► Sale ─► a keeper in `sales`
//! ```
//!
//! Invariants: no offer leaves that the book did not place; while the node does not sell, nothing is offered, and what
//! was sold goes on; a request is answered once a node, and costs one signature check before anything else.

mod agree;
mod answer;
mod check;
mod dials;
mod policy;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::{EndpointAddress, Grid};
use market::book::{Asker, Book, Capacity, Lapse, Room};
use market::envelope::Signed;
use market::id::{Digest, EndpointId, NodeId, RequestHash, SaleId, UserId};
use market::message::{CapacityRequest, Facts, Gives, Offer, RefusalCode, SaleState};
use market::sale::Why;
use provision::space::{Outcome, Recovered};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use crate::farmer::Farmer;
use crate::sales::{
    Given, Keeper, No, Order, Record, RecordError, Rules, Shared, SpaceVolume, boot_ms, request_of,
};

use dials::Dials;

pub use check::check;
pub use policy::capacity;

/// How long an asker is dialled.
const DIAL: Duration = Duration::from_secs(6);
/// A second try after this.
const DIAL_AGAIN: Duration = Duration::from_millis(400);
/// Holds are looked at so often.
const LAPSE_EVERY: Duration = Duration::from_millis(500);

/// What the desk stands on.
pub struct Parts {
    /// What it shares with the sales and the direct streams.
    pub given: Given,
    /// What the farmer said.
    pub farmer: Farmer,
    /// What offers say of this node.
    pub facts: Facts,
    /// How the provisioner found the spaces.
    pub recovered: Vec<Recovered>,
    /// The base below every new space.
    pub base: Digest,
    /// What there is to sell; on the disks what all spaces together may take, those that are there included.
    pub capacity: Capacity,
    /// The volumes of spaces that are there.
    pub volumes: Vec<SpaceVolume>,
    /// How many offers it has in mind, and of whom.
    pub room: Room,
    /// Whether the node sells: no offers while it does not.
    pub selling: watch::Receiver<bool>,
}

/// An offer that can still be agreed.
#[derive(Clone)]
struct Made {
    request: Signed<CapacityRequest>,
    offer: Signed<Offer>,
    gives: Gives,
}

/// The desk's own state, beside what it shares with the sales.
pub(crate) struct Counter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) farmer: Farmer,
    facts: Facts,
    base: Digest,
    selling: watch::Receiver<bool>,
    made: Mutex<HashMap<RequestHash, Made>>,
    /// Of those who ask over streams.
    turns: turns::Turns,
    /// One agreement at a time: between the question whether a sale is known and its keeper nobody else may come.
    agreeing: tokio::sync::Mutex<()>,
}

impl Counter {
    fn made(&self) -> MutexGuard<'_, HashMap<RequestHash, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds for a change of size now.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            unit: self.farmer.price,
            least: (policy::LEAST_CPU, policy::LEAST_MEMORY),
            extent: policy::EXTENT,
        }
    }

    /// The farmer's word, at a console or by his key.
    pub(crate) async fn stop(&self, sale: SaleId) -> Result<(), No> {
        let keeper = self.shared.keeper(sale).ok_or_else(|| No {
            code: RefusalCode::NoSale,
            words: "no such sale here".to_owned(),
        })?;
        let ended = keeper.ask_first(|reply| Order::End(Why::Stopped, reply)).await;
        ended.map(drop)
    }

    fn node(&self) -> NodeId {
        NodeId(self.shared.node_key.verifying_key().to_bytes())
    }
}

/// The desk as its owner sees it. Dropping it stops nothing.
#[derive(Clone)]
pub struct Desk {
    counter: Arc<Counter>,
}

impl Desk {
    pub(crate) fn counter(&self) -> Arc<Counter> {
        self.counter.clone()
    }

    /// Ends a sale because the farmer wants it to; when its receipt is signed, the rest of the money is on its way back.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn stop(&self, sale: SaleId) -> Result<(), No> {
        self.counter.stop(sale).await
    }

    /// How many sales are kept, over or not.
    pub fn sales(&self) -> usize {
        self.counter.shared.keepers_alive()
    }

    /// What there is to sell from now on, as in [`Parts`].
    pub fn set_capacity(&self, capacity: Capacity, volumes: &[SpaceVolume]) {
        self.counter.shared.set_capacity(capacity, volumes);
    }
}

/// Starts the desk and the sales out of the journal; [`crate::direct::start`] then lets users speak to them.
///
/// # Errors
/// When the journal cannot be read. A row that cannot be read is said on the console and stops nothing else.
pub async fn start(parts: Parts) -> Result<Desk, RecordError> {
    let Parts {
        given,
        farmer,
        facts,
        recovered,
        base,
        capacity,
        volumes,
        room,
        selling,
    } = parts;
    let (mut records, bad) = Record::read_all(&given.journal, given.grid_id).await?;
    records.sort_by_key(|record| record.sale.since); // what has been over longest is forgotten first
    for error in bad {
        let why = crate::words::chain(&error);
        given.board.event(format!("a sale is lost: {why}"));
    }
    let outcomes: HashMap<SaleId, &Outcome> = recovered
        .iter()
        .map(|found| (found.spec.sale, &found.outcome))
        .collect();
    let book = Book::with_room(Capacity::default(), room);
    let shared = Arc::new(Shared::new(given, farmer.public_address.clone(), book));
    let paid = |record: &Record| (record.id(), record.sale.lock.paid);
    shared.recall_earned(records.iter().map(paid)).await?;
    // What is sold is in the book before an agreement asks what is left to hold; both before a keeper acts on it.
    for record in &records {
        restore_sold(&shared, record, &outcomes);
    }
    shared.set_capacity(capacity, &volumes);
    for record in &records {
        restore_agreed(&shared, record).await;
    }
    for record in records {
        let runs = matches!(outcomes.get(&record.id()), Some(Outcome::Running { .. }));
        Keeper::start(shared.clone(), record, Some(runs));
    }
    let counter = Arc::new(Counter {
        shared,
        farmer,
        facts: facts.cut_to_bounds(),
        base,
        selling,
        made: Mutex::default(),
        turns: turns::Turns::default(),
        agreeing: tokio::sync::Mutex::default(),
    });
    crate::task::spawn(hear(counter.clone(), room.gives_way));
    crate::task::spawn(lapse(counter.clone()));
    Ok(Desk { counter })
}

/// What the journal knows as sold: back into the book.
fn restore_sold(shared: &Shared, record: &Record, recovered: &HashMap<SaleId, &Outcome>) {
    let (sale, spec) = (record.id(), &record.spec);
    let torn_down = record.sale.torn_down.as_ref();
    let gone = torn_down.is_some_and(|torn_down| torn_down.quarantine.is_none());
    let stuck = matches!(recovered.get(&sale), Some(Outcome::Quarantined { .. }));
    match record.sale.state {
        SaleState::Ending if gone => {} // only the rail is still to answer
        // what could not be undone was tried again at this start: where nothing is left, it is sold again
        SaleState::Quarantined if !stuck => {}
        SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ready
        | SaleState::Active
        | SaleState::Locked
        | SaleState::Ending
        | SaleState::Quarantined => shared.book().restore(sale, record.booked(), spec.group.clone()),
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Ended
        | SaleState::Lapsed
        | SaleState::Refunded => {}
    }
}

/// What the journal knows as agreed: back into the book, held where what is sold leaves room for it.
async fn restore_agreed(shared: &Shared, record: &Record) {
    if record.sale.state != SaleState::Agreed {
        return;
    }
    let (sale, spec, body) = (record.id(), &record.spec, record.signed.message.body());
    let request = request_of(&shared.journal, sale, shared.grid_id).await;
    let asker = Asker {
        user: request.map_or(body.user, |request| UserId(request.signer)),
        neighbour: EndpointId(body.node.0),
    };
    let place = (spec.gives(), spec.group.clone());
    shared
        .book()
        .restore_agreed(body.request, sale, asker, place, boot_ms());
}

/// Hears requests and answers each beside the others.
async fn hear(counter: Arc<Counter>, gives_way: bool) {
    let mut broadcasts = counter.shared.grid.broadcasts();
    let mut dials = Dials::new(gives_way);
    while let Some(heard) = broadcasts.next().await {
        let neighbour = EndpointId(*heard.from.as_bytes());
        let Some((to, answer)) = counter.answer(&heard.bytes, neighbour) else {
            continue;
        };
        let grid = counter.shared.grid.clone();
        dials.begin(async move {
            if !deliver(&grid, &to, &answer).await {
                sleep(DIAL_AGAIN).await;
                if !deliver(&grid, &to, &answer).await {
                    tracing::info!("an asker could not be reached");
                }
            }
        });
    }
}

/// Whether the answer arrived. The asker's address is only what he said: nothing is sent there beyond a first try.
async fn deliver(grid: &Grid, to: &EndpointAddress, answer: &[u8]) -> bool {
    for to in to.unproven() {
        let Ok(mut stream) = grid.dial(&to, DIAL).await else {
            continue;
        };
        if stream.send(answer).await.is_ok() {
            stream.finish().await;
            return true;
        }
    }
    false
}

/// Ends holds when their time is over, and says so.
async fn lapse(counter: Arc<Counter>) {
    let mut ticks = interval(LAPSE_EVERY);
    loop {
        ticks.tick().await;
        counter.shared.turn_day().await;
        let lapsed = counter.shared.book().lapse(boot_ms());
        for lapse in lapsed {
            match lapse {
                Lapse::Offer { request, held } => {
                    counter.made().remove(&request);
                    if held {
                        counter
                            .shared
                            .board
                            .event(format!("hold lapsed: {}", request.short()));
                    }
                }
                Lapse::Agreement { sale } => {
                    if let Some(keeper) = counter.shared.keeper(sale) {
                        keeper.lapse();
                    }
                    counter
                        .shared
                        .board
                        .event(format!("{} was never funded", sale.name()));
                }
            }
        }
    }
}
