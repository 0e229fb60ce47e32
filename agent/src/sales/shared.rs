//! What all keepers, the desk and the direct streams share.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::SigningKey;
use escrow::{Account, Amount, Asset, LEDGER_DECIMALS, Rail};
use grid::Grid;
use market::book::{Book, Capacity};
use market::id::{GridId, GroupId, SaleId};
use market::quantity::Bytes;
use market::sale::Sale;
use provision::journal::Journal;

use super::earned::{self, Earned};
use super::retired::{self, Retired};
use super::unpaid::Unpaid;
use super::{Keeper, RailClock, RecordError, Spaces};
use crate::console::Board;

/// What a node's shop stands on from its start.
pub struct Given {
    /// The grid, joined with the node's key.
    pub grid: Arc<Grid>,
    /// Its id.
    pub grid_id: GridId,
    /// Signs for the node.
    pub node_key: SigningKey,
    /// Gives money back on the rail; another key than the node's.
    pub give_back_key: SigningKey,
    /// The rail.
    pub rail: Arc<dyn Rail>,
    /// The money.
    pub asset: Asset,
    /// The journal.
    pub journal: Journal,
    /// The machine.
    pub spaces: Arc<dyn Spaces>,
    /// The consoles.
    pub board: Board,
    /// This boot.
    pub boot: [u8; 16],
    /// The image that runs.
    pub image_version: String,
    /// How long after a snapshot of a space was begun there is no other one of it.
    pub snapshot_every_ms: u64,
    /// How long after a snapshot of a space was put back it is not put back again.
    pub restore_every_ms: u64,
}

/// A volume or snapshot of a space, as it lies on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceVolume {
    /// Whose.
    pub sale: SaleId,
    /// On which disk.
    pub group: GroupId,
    /// What it takes.
    pub bytes: Bytes,
}

/// One node's shop: what it was given, and what came to be.
pub struct Shared {
    given: Given,
    /// The rail's time.
    pub clock: RailClock,
    /// How the node is reached from the internet, as declared.
    pub public_address: Option<String>,
    book: Mutex<Book>,
    keepers: Mutex<HashMap<SaleId, Keeper>>,
    earned: Mutex<Earned>,
    retired: Mutex<Retired>,
    unpaid: Mutex<Unpaid>,
    /// One count a keeper that lives; the task holds it.
    alive: Arc<()>,
}

impl Deref for Shared {
    type Target = Given;

    fn deref(&self) -> &Given {
        &self.given
    }
}

impl Shared {
    /// A shop with this book and no keeper yet. The rail's clock is followed from here on.
    pub fn new(given: Given, public_address: Option<String>, book: Book) -> Shared {
        Shared {
            clock: RailClock::follow(given.rail.clone()),
            given,
            public_address,
            book: Mutex::new(book),
            keepers: Mutex::default(),
            earned: Mutex::default(),
            retired: Mutex::default(),
            unpaid: Mutex::default(),
            alive: Arc::default(),
        }
    }

    /// The book. Held for one question at a time, never across an await.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keeper of a sale.
    pub fn keeper(&self, sale: SaleId) -> Option<Keeper> {
        self.keepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&sale)
            .cloned()
    }

    /// All keepers.
    pub fn keepers(&self) -> Vec<Keeper> {
        self.keepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// How many keepers live: one for each sale that is known, never more.
    pub fn keepers_alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    pub(super) fn alive(&self) -> Arc<()> {
        self.alive.clone()
    }

    pub(super) fn add_keeper(&self, sale: SaleId, keeper: Keeper) {
        self.keepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sale, keeper);
    }

    /// A sale has paid so much in all.
    pub(super) fn earned(&self, sale: SaleId, paid: Amount) {
        self.earnings().paid(sale, paid);
        self.show_earned();
    }

    fn earnings(&self) -> MutexGuard<'_, Earned> {
        self.earned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says on the board what sales have paid.
    fn show_earned(&self) {
        let (all, today) = {
            let earned = self.earnings();
            (earned.all(), earned.today())
        };
        let figure = self.decimal(all);
        let today = today.map(|today| format!("{} today · ", self.decimal(today)));
        let words = format!("{}{figure} in all", today.unwrap_or_default());
        self.board.update(|status| {
            status.earned = (!all.is_zero()).then_some(words);
            status.figures.asset = self.asset.to_string();
            status.figures.earned = Some(figure);
        });
    }

    /// Takes up what was earned, at start: of forgotten sales, of those that the journal knows, and of today.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn recall_earned(
        &self,
        known: impl Iterator<Item = (SaleId, Amount)>,
    ) -> Result<(), RecordError> {
        let forgotten = retired::earned_before(&self.journal).await?;
        let day = earned::kept(&self.journal).await?;
        *self.earnings() = Earned::new(forgotten, known, day);
        self.show_earned();
        Ok(())
    }

    /// Begins the day of the farmer's screen, where it has begun by the rail's clock.
    pub async fn turn_day(&self) {
        let Some(now) = self.clock.rail() else { return };
        let Some(day) = self.earnings().turn(now) else {
            return;
        };
        if let Err(error) = earned::keep(&self.journal, day).await {
            tracing::warn!(%error, "the day of what was earned is not kept");
        }
        self.show_earned();
    }

    /// Whether so many of the payer's spaces ended unpaid that there is no other for now.
    pub(crate) fn is_owed_too_often(&self, payer: &Account) -> bool {
        let now = self.clock.rail();
        now.is_some_and(|now| self.unpaid().is_too_many(payer, now))
    }

    fn unpaid(&self) -> MutexGuard<'_, Unpaid> {
        self.unpaid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sale is over: it is kept, and the oldest of its kind beyond the bound is forgotten.
    pub(super) fn retire(&self, sale: &Sale, payer: &Account) {
        self.unpaid().add(sale, payer);
        let oldest = {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.add(sale.deal.id, !sale.lock.paid.is_zero())
        };
        if let Some(keeper) = oldest.and_then(|oldest| self.keeper(oldest)) {
            keeper.forget();
        }
    }

    /// Nothing of it is known from here on.
    pub(super) async fn forget(&self, sale: SaleId, paid: Amount) -> Result<(), RecordError> {
        retired::forget(&self.journal, sale, paid).await?;
        self.unpaid().forget(sale);
        self.keepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&sale);
        self.earnings().forget(sale, paid);
        Ok(())
    }

    /// What there is to sell from now on: what all spaces together may take, less the volumes that no sale in the book has.
    pub fn set_capacity(&self, mut capacity: Capacity, volumes: &[SpaceVolume]) {
        let mut book = self.book();
        let nobodys = volumes
            .iter()
            .filter(|volume| book.group_of(volume.sale).is_none());
        for SpaceVolume { sale, group, bytes } in nobodys {
            tracing::warn!(%sale, "a volume of a sale that is not known takes room");
            if let Some(room) = capacity.disks.get_mut(group) {
                *room = room.saturating_sub(*bytes);
            }
        }
        book.set_capacity(capacity);
    }

    /// An amount as people read it.
    pub fn decimal(&self, amount: Amount) -> String {
        amount.to_decimal(self.rail.decimals(&self.asset).unwrap_or(LEDGER_DECIMALS))
    }
}
