//! A sale that changes: what another size costs, and the change that both sign.
//!
//! ```text
//!  Resize ─► Quote: size, price, periods begun; or what it lacks          nothing is held
//!  Amend  ─► book ─► journal ─► Amended                                   from here on it is sold
//!                        └─► ResizeSpace beside the keeper: CPU and memory; the volume waits for the key
//! ```
//!
//! Invariants: the book has the larger size before the node signs it; a volume never shrinks below what the machine
//! has or may have, and does not grow while there is a snapshot of it; less memory than is in use is refused with the
//! figure.

use escrow::Amount;
use market::envelope::Signed;
use market::message::{Amend, Amended, DeclineCode, Gives, Quote, Reason, RefusalCode, Resize, SaleState};
use market::price;
use market::quantity::{Bytes, MilliCpus};
use market::sale::{Change, Deal, Effect, Event, Made, Rejection, Resizing, step};

use super::keeper::{No, Task, no};
use super::{Failed, boot_ms, record};

/// Taking a snapshot keeps LVM from other spaces' work for most of a second: one of a space in so much time.
pub const SNAPSHOT_EVERY_MS: u64 = 10_000;

/// How many of a sale's resizes wait for the machine: one, however often a change is said again, for each is work that
/// stands before the end of the sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resizes {
    /// None.
    None,
    /// One is under way, or waits for what the machine does before.
    UnderWay,
    /// The same, and what was agreed or brought since is made after it.
    OnceMore,
}

impl Resizes {
    pub(super) fn is_under_way(self) -> bool {
        self != Resizes::None
    }
}

/// What the farmer's desk says about a change of size.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// An hour of one unit today; none: he sells nothing.
    pub unit: Option<Amount>,
    /// The least that a space can have.
    pub least: (MilliCpus, Bytes),
    /// Disks are sold in parts of this.
    pub extent: Bytes,
}

impl Task {
    /// What another size would cost.
    pub(super) fn quote(&self, asked: &Resize, rules: &Rules) -> Result<Vec<u8>, No> {
        let now = self.record.spec.gives();
        let extent = rules.extent.0.max(1);
        let whole = |disk: Bytes| Bytes(disk.0.div_ceil(extent).saturating_mul(extent));
        let gives = Gives {
            cpu: asked.cpu.unwrap_or(now.cpu),
            memory: asked.memory.unwrap_or(now.memory),
            disk: asked.disk.map_or(now.disk, whole),
            snapshot: match asked.snapshot {
                None => now.snapshot,
                Some(false) => Bytes::ZERO,
                Some(true) => record::snapshot_of(now.disk),
            },
            ..now
        };
        let price = self.price_of(&gives, rules);
        let mut lacks = self.lacks(&gives, rules);
        if price.is_none() {
            lacks.push(Reason::plain(DeclineCode::NotSelling));
        }
        self.sign(Quote {
            sale: self.record.id(),
            nonce: asked.nonce,
            gives,
            price: price.unwrap_or(Amount::ZERO),
            begun: u32::try_from(self.record.sale.periods_begun()).unwrap_or(u32::MAX),
            lacks,
        })
    }

    fn price_of(&self, gives: &Gives, rules: &Rules) -> Option<Amount> {
        let period = self.record.sale.deal.period;
        price::of_period(rules.unit?, gives.cpu, gives.memory, gives.on_disk(), period)
    }

    /// Why it cannot have this size; the figures say what it could have in all.
    fn lacks(&self, gives: &Gives, rules: &Rules) -> Vec<Reason> {
        let (sale, spec) = (self.record.id(), &self.record.spec);
        let words = |code, words: String| Reason {
            words: Some(words),
            ..Reason::plain(code)
        };
        let mut lacks = Vec::new();
        if gives.cpu < rules.least.0 {
            lacks.push(words(
                DeclineCode::Cpu,
                format!("at least {}", rules.least.0.human()),
            ));
        }
        if gives.memory < rules.least.1 {
            let least = rules.least.1.human();
            lacks.push(words(DeclineCode::Memory, format!("at least {least}")));
        }
        if gives.disk < self.least_disk() {
            let least = self.least_disk().human();
            lacks.push(words(
                DeclineCode::Disk,
                format!("a volume never shrinks, it has {least}"),
            ));
        }
        let no_snapshot = self.no_snapshot(gives);
        lacks.extend(no_snapshot.map(|why| words(DeclineCode::Disk, why.to_owned())));
        if gives.memory < spec.memory {
            match self.shared.spaces.memory_in_use(sale) {
                Ok(used) if used > gives.memory => {
                    lacks.push(words(DeclineCode::Memory, format!("{} is in use", used.human())));
                }
                Ok(_) => {}
                Err(Failed { why, .. }) => {
                    tracing::warn!(why, "the memory in use is not known");
                    lacks.push(words(
                        DeclineCode::Memory,
                        "what is in use is not known now".to_owned(),
                    ));
                }
            }
        }
        let room = self.shared.book().room_for(sale, gives, boot_ms());
        lacks.extend(room.err().into_iter().flatten());
        lacks.truncate(7);
        lacks
    }

    /// Why there cannot be a snapshot of it now, or no growth beside the one there is.
    fn no_snapshot(&self, gives: &Gives) -> Option<&'static str> {
        let (sale, spec) = (&self.record.sale, &self.record.spec);
        let has_one =
            gives.snapshot > Bytes::ZERO || spec.snapshot > Bytes::ZERO || sale.snapshot_at.is_some();
        if has_one && (gives.disk > spec.disk || sale.wants_key()) {
            return Some(
                "a disk does not grow while there is a snapshot of it: the one first, then the other",
            );
        }
        let is_new = gives.snapshot > Bytes::ZERO && spec.snapshot == Bytes::ZERO;
        let since_ms = |begun: u64| boot_ms().saturating_sub(begun);
        let begun_ms = self.snapshot_begun_ms.map(since_ms);
        let is_soon = begun_ms.is_some_and(|since_ms| since_ms < self.shared.snapshot_every_ms);
        (is_new && is_soon).then_some("a snapshot was taken a moment ago: one in ten seconds")
    }

    /// What the volume has for certain.
    fn certain_disk(&self) -> Bytes {
        let grows_from = self.record.sale.resizing.and_then(|resizing| resizing.grows_from);
        grows_from.unwrap_or(self.record.spec.disk)
    }

    /// What the volume may have: the machine was handed the key for it.
    fn least_disk(&self) -> Bytes {
        let handed = self.record.sale.resizing.and_then(|resizing| resizing.handed);
        handed.unwrap_or(self.certain_disk())
    }

    /// Signs a change, once the book and the journal have it; said again, the answer is the one that was given.
    pub(super) async fn amend(&mut self, amend: Signed<Amend>, rules: &Rules) -> Result<Vec<u8>, No> {
        let asked = &amend.message;
        let number = asked.number;
        let deal = Deal {
            periods: asked.periods,
            prices: asked.prices.clone(),
            ..self.record.sale.deal.clone()
        };
        let before = (self.record.spec.clone(), self.record.spec.gives());
        let said_again = number == self.record.sale.amendments && deal == self.record.sale.deal;
        if said_again && asked.gives.is_some_and(|gives| gives != before.1) {
            let other = Rejection::Amendment;
            return Err(no(other.code(), other.to_string()));
        }
        let given = if said_again { self.given().await? } else { None };
        let gives = asked.gives.filter(|gives| *gives != before.1);
        let resizing = gives.map(|gives| {
            let snapshot = gives.snapshot > Bytes::ZERO;
            Resizing::new(gives.disk, self.certain_disk())
                .with_snapshot((gives.snapshot != before.1.snapshot).then_some(snapshot))
        });
        let voucher = asked.voucher.as_deref().filter(|_| !said_again);
        let voucher = voucher.map(|bytes| self.read_voucher(bytes)).transpose()?;
        let event = Event::Amended(Change {
            number,
            deal,
            resizing,
            voucher,
        });
        if let Some(gives) = &gives {
            // Everything is asked before the book is changed.
            self.check_size(gives, asked.prices.price, rules)?;
            if let Err(rejection) = step(&self.record.sale, event.clone(), self.now()) {
                if matches!(rejection, Rejection::NotFunded(_)) {
                    self.perform(Effect::CheckLock).await; // said again, it may be there
                }
                return Err(no(rejection.code(), rejection.to_string()));
            }
            self.book_size(gives)?;
        }
        let bytes = given.map_or_else(|| self.sign(Amended { amend }), Ok)?;
        let earlier = self.record.amended.replace(bytes.clone());
        if let Err(refusal) = self.happen(event).await {
            if self.record.sale.amendments != number {
                (self.record.spec, self.record.amended) = (before.0, earlier);
                let booked = self.record.booked();
                let _ = self.shared.book().resize(self.record.id(), booked);
            }
            return Err(refusal);
        }
        if let Some(gives) = &gives {
            let (name, size) = (&self.record.spec.name, words(gives));
            self.shared.board.event(format!("{name} resized: {size}"));
        }
        self.show();
        Ok(bytes)
    }

    /// The newest change as it was signed: known since it was made, or as the journal has it.
    async fn given(&self) -> Result<Option<Vec<u8>>, No> {
        if let Some(bytes) = &self.record.amended {
            return Ok(Some(bytes.clone()));
        }
        let read = record::newest_change(&self.shared.journal, self.record.id()).await;
        read.map_err(|error| self.not_kept(&error))
    }

    /// Whether it is what would be quoted now.
    fn check_size(&self, gives: &Gives, price: Amount, rules: &Rules) -> Result<(), No> {
        let known = self.record.spec.gives();
        if (gives.rate, gives.pids) != (known.rate, known.pids) {
            return Err(no(
                RefusalCode::Mismatch,
                "rate and processes stay as they were sold",
            ));
        }
        let snapshots = [Bytes::ZERO, record::snapshot_of(known.disk)];
        if !snapshots.contains(&gives.snapshot) {
            return Err(no(RefusalCode::Mismatch, "no snapshot takes so much: ask again"));
        }
        if !gives.disk.0.is_multiple_of(rules.extent.0.max(1)) || self.price_of(gives, rules) != Some(price) {
            return Err(no(
                RefusalCode::Mismatch,
                "this is not what the node would quote now: ask again",
            ));
        }
        if let Some(first) = self.lacks(gives, rules).first() {
            let why = format!("the space cannot have that size: {}", reason(first));
            return Err(no(RefusalCode::NoCapacity, why));
        }
        Ok(())
    }

    /// Takes the difference out of the book; the record says the new size, and is written with the change itself.
    fn book_size(&mut self, gives: &Gives) -> Result<(), No> {
        // The room of a snapshot is free when it is gone, not when that is signed.
        let snapshot = gives.snapshot.max(self.record.booked().snapshot);
        let booked = Gives { snapshot, ..*gives };
        let booked = self.shared.book().resize(self.record.id(), booked);
        booked.map_err(|error| no(RefusalCode::NoCapacity, error.to_string()))?;
        let spec = &mut self.record.spec;
        (spec.cpu, spec.memory, spec.disk) = (gives.cpu, gives.memory, gives.disk);
        spec.snapshot = gives.snapshot;
        Ok(())
    }

    /// Says what the sale has in the book now: the room of a snapshot that is gone is free.
    pub(super) fn count_disk(&self) {
        let sale = &self.record.sale;
        if !matches!(
            sale.state,
            SaleState::Ready | SaleState::Active | SaleState::Locked
        ) {
            return;
        }
        let (sale, spec) = (self.record.id(), &self.record.spec);
        let resizing = self.record.sale.resizing;
        if resizing.is_some_and(|resizing| resizing.snapshot.is_some()) {
            return;
        }
        if let Err(error) = self.shared.book().resize(sale, spec.gives()) {
            tracing::error!(%error, "the book does not have the size that the machine has");
        }
    }

    /// The machine has the new size, or not yet.
    pub(super) async fn resized(&mut self, result: Result<(), Failed>, made: Made) {
        let wanted = std::mem::replace(&mut self.resizes, Resizes::None);
        match result {
            Ok(()) => {
                self.not_resized = None;
                let _ = self.happen(Event::Resized(made)).await;
                self.count_disk();
            }
            Err(failed) => {
                let (name, why) = (&self.record.spec.name, failed.why);
                self.shared
                    .board
                    .event(format!("{name}: it could not be resized: {why}"));
                self.not_resized = Some(why);
            }
        }
        let runs = matches!(self.record.sale.state, SaleState::Ready | SaleState::Active);
        match wanted {
            Resizes::OnceMore if runs && self.record.sale.resizing.is_some() => {
                self.perform(Effect::ResizeSpace).await;
            }
            Resizes::OnceMore if runs => drop(self.keys.take_access(false)), // brought for what is made by now
            Resizes::OnceMore | Resizes::UnderWay | Resizes::None => {}
        }
    }
}

fn words(gives: &Gives) -> String {
    let (cpu, memory, disk) = (gives.cpu.human(), gives.memory.human(), gives.disk.human());
    let snapshot = if gives.snapshot > Bytes::ZERO {
        " with a snapshot"
    } else {
        ""
    };
    format!("{cpu}, {memory}, {disk}{snapshot}")
}

fn reason(reason: &Reason) -> String {
    match (&reason.words, reason.asked, reason.have) {
        (Some(words), _, _) => words.clone(),
        (None, Some(asked), Some(have)) => format!("{asked} asked, {have} free"),
        _ => "it is not sold".to_owned(),
    }
}
