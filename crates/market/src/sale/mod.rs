//! A sale as one pure function: `(sale, event, now) -> (sale, effects)` or a rejection.
//!
//! ```text
//! Offered ─► Agreed ─► Funded ─► Keyed ─► Building ─► Ready ─► Active ─► Ending ─► Ended
//!  (book)      │        │ ▲       │         │          │       │ ▲        ▲ │
//!              ▼        │ └───────┴─────────┘          │       ▼ │        │ ▼
//!            Lapsed     │   power lost before Ready:   │     Locked ──────┘ Quarantined
//!                       ▼   all torn down, key again   ▼   (after a reboot,  (an undo failed)
//!                    Refunded ◄────(by Ending)─────────┘    down for long, or put
//!                                                           back to its snapshot;
//!                                                           key again, or it ends)
//! ```
//!
//! What serves nobody waits with a bound: see `waiting`, with a drawing of its own.
//!
//! Ending is one path for every sale that has a lock, from each state from Funded on, and from Lapsed where the lock
//! turned up late: tear down, redeem what was earned, give back the rest, sign the
//! receipt. It leads to Ended where something was paid, to Refunded where nothing was, to Quarantined where an undo
//! failed.
//!
//! Invariants: money is redeemed only for periods that began in service, and a space that is down does not serve; nothing ends because the rail is silent; a
//! closed lock never serves; each state has a deadline or waits for one of our own tasks; what a peer causes is
//! rejected, never asserted. The caller persists the new sale before it acts on the effects, and each effect can be
//! repeated.

mod amending;
mod effects;
mod ending;
mod machine;
mod restoring;
#[cfg(test)]
mod tests;
mod waiting;

use escrow::{Amount, LockView, RailTime, Voucher};
use serde::{Deserialize, Serialize};

pub use effects::{Change, Effect, Event, Made, Now, PutBack, Rejection, Say};
pub use machine::step;

use crate::id::SaleId;
use crate::message::{Receipt, SaleState};
use crate::prices::Prices;
use crate::quantity::{Bytes, Seconds, UnixMillis};

/// Most vouchers that are kept for later.
pub const MOST_VOUCHERS: usize = 64;

/// What was agreed; changed by amendments alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    /// Which sale.
    pub id: SaleId,
    /// The price of each period.
    #[serde(flatten)]
    pub prices: Prices,
    /// One period.
    pub period: Seconds,
    /// How many.
    pub periods: u32,
    /// From closing or expiry to the refund.
    pub notice: Seconds,
}

/// Why a sale ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The user cancelled.
    Cancelled,
    /// The farmer stopped it.
    Stopped,
    /// All periods were served, or the lock expired.
    Expired,
    /// No first voucher before `accept_by`.
    NotAccepted,
    /// It was down, or waited for its key, as long as its money would have lasted.
    Waited,
    /// No voucher for a period that began.
    NotPaid,
    /// The user closed the lock.
    Closed,
    /// The capacity was gone when the lock was seen.
    NoCapacity,
    /// The lock turned up after the sale had lapsed.
    Late,
    /// The space could not be built.
    BuildFailed(String),
}

impl Why {
    /// As a receipt and a screen say it.
    pub fn words(&self) -> String {
        match self {
            Why::Cancelled => "the user cancelled".to_owned(),
            Why::Stopped => "the farmer stopped it".to_owned(),
            Why::Expired => "its time is over".to_owned(),
            Why::NotAccepted => "no first voucher came in time".to_owned(),
            Why::Waited => {
                "it was down or waited for its key for as long as its money would have paid".to_owned()
            }
            Why::NotPaid => "no voucher came for the period".to_owned(),
            Why::Closed => "the user closed the lock".to_owned(),
            Why::NoCapacity => "the capacity was gone when the money was locked".to_owned(),
            Why::Late => "the money was locked too late".to_owned(),
            Why::BuildFailed(why) => format!("the space could not be built: {why}"),
        }
    }
}

/// A sale as the node keeps it; its JSON goes into the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// What was agreed.
    pub deal: Deal,
    /// Where it stands.
    #[serde(with = "state_word")]
    pub state: SaleState,
    /// Since when, by the rail's time.
    pub since: RailTime,
    /// The newest grant; 0 where there was none.
    pub epoch: u64,
    /// The lock as last seen.
    pub lock: LockView,
    /// When the lock was last looked at, in served or waiting time of this boot.
    pub looked_boot_ms: u64,
    /// Time in service, over all boots.
    pub served_ms: u64,
    /// The clock of this boot at the last event; how service is measured.
    pub last_boot_ms: Option<u64>,
    /// When the space was first ready.
    pub ready_at: Option<RailTime>,
    /// A voucher was redeemed once: from then on the host key may not change.
    pub proven: bool,
    /// The space's process ended by itself and is being started again: such time is not service.
    #[serde(default)]
    pub down: bool,
    /// How long it was down or locked since a period was last paid.
    #[serde(default)]
    pub waited_ms: u64,
    /// What that was when the space went down.
    #[serde(default)]
    pub down_from_ms: u64,
    /// The user's key came and the volume is being opened again.
    pub unlocking: bool,
    /// Vouchers that are not redeemed yet, by rising sum.
    pub vouchers: Vec<Voucher>,
    /// The rail refused one since it last redeemed one: from then on only what it redeems counts as paid.
    #[serde(default)]
    pub refused: bool,
    /// Why it ends.
    pub why: Option<Why>,
    /// Torn down, and what an undo that failed said.
    pub torn_down: Option<TornDown>,
    /// The rail was asked after the sale had lapsed, and has answered.
    #[serde(default)]
    pub looked_back: bool,
    /// When it was over.
    pub ended_at: Option<RailTime>,
    /// What the lock held when it was closed and went back.
    pub returned: Amount,
    /// Changes that both signed.
    #[serde(default)]
    pub amendments: u32,
    /// Of these, those that did not make it longer.
    #[serde(default)]
    pub unpaid_changes: u32,
    /// Both signed another size, and the machine does not have it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resizing: Option<Resizing>,
    /// When the snapshot of its volume was taken, where the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_at: Option<RailTime>,
    /// Its volume is being made what the snapshot is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<Restoring>,
    /// The last restore that came through: said again, it is not done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<[u8; 16]>,
}

/// Another size that the machine does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resizing {
    /// By which change.
    #[serde(default)]
    pub number: u32,
    /// The volume's size that was agreed.
    #[serde(default = "nothing")]
    pub disk: Bytes,
    /// Where the volume grows: the size that it has for certain. Growing it needs the user's key.
    pub grows_from: Option<Bytes>,
    /// The size for which the machine was handed the key: the volume may have it, so it is not taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<Bytes>,
    /// Where a snapshot is to be taken (`true`) or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<bool>,
}

fn nothing() -> Bytes {
    Bytes(0)
}

impl Resizing {
    /// To a volume of this size, where it has that size for certain.
    pub fn new(disk: Bytes, has: Bytes) -> Resizing {
        Resizing {
            number: 0,
            disk,
            grows_from: (disk > has).then_some(has),
            handed: None,
            snapshot: None,
        }
    }

    /// Also takes a snapshot, or removes it.
    #[must_use]
    pub fn with_snapshot(self, snapshot: Option<bool>) -> Resizing {
        Resizing { snapshot, ..self }
    }
}

/// A restore that did not come through yet. Until it has, no key opens the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Which.
    pub nonce: [u8; 16],
    /// It was stopped; another one goes on with it.
    #[serde(default)]
    pub failed: bool,
}

/// What tearing down came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// The key slot is destroyed, or there never was one.
    pub key_slot: bool,
    /// The volume is gone, or there never was one.
    pub volume: bool,
    /// Both causes, where an undo failed.
    pub quarantine: Option<String>,
}

impl TornDown {
    /// There was nothing, or all of it is gone.
    pub const CLEAN: TornDown = TornDown {
        key_slot: true,
        volume: true,
        quarantine: None,
    };
}

impl Sale {
    /// A sale that was just signed by both.
    pub fn agreed(deal: Deal, now: Now) -> Sale {
        Sale {
            deal,
            state: SaleState::Agreed,
            since: now.rail,
            epoch: 0,
            lock: LockView::NONE,
            looked_boot_ms: now.boot_ms,
            served_ms: 0,
            last_boot_ms: Some(now.boot_ms),
            ready_at: None,
            proven: false,
            down: false,
            waited_ms: 0,
            down_from_ms: 0,
            unlocking: false,
            vouchers: Vec::new(),
            refused: false,
            why: None,
            torn_down: None,
            looked_back: false,
            ended_at: None,
            returned: Amount::ZERO,
            amendments: 0,
            unpaid_changes: 0,
            resizing: None,
            snapshot_at: None,
            restoring: None,
            restored: None,
        }
    }

    /// What is owed in all once so many periods began.
    pub fn owed(&self, periods: u64) -> Amount {
        self.deal.prices.owed(periods).unwrap_or(Amount(u128::MAX))
    }

    /// Periods that began in service: the first begins when the space is ready.
    pub fn periods_begun(&self) -> u64 {
        if self.ready_at.is_none() {
            return 0;
        }
        let whole = self.served_ms / self.deal.period.as_ms().max(1);
        (whole + 1).min(u64::from(self.deal.periods))
    }

    /// Periods that are paid.
    pub fn periods_paid(&self) -> u32 {
        self.deal.prices.paid(self.lock.paid, self.deal.periods)
    }

    /// Whether nothing more can come of it: it is over, and no lock can turn up for it unseen.
    pub fn is_settled(&self) -> bool {
        self.state.is_final() && (self.state != SaleState::Lapsed || self.looked_back)
    }

    /// Whether the user's key is wanted while the space runs: its volume grows.
    pub fn wants_key(&self) -> bool {
        self.resizing
            .is_some_and(|resizing| resizing.grows_from.is_some())
    }

    /// Until when the space lives without another voucher, as far as is known now.
    pub fn paid_until(&self, now: Now) -> Option<UnixMillis> {
        let paid_ms = u64::from(self.periods_paid()).saturating_mul(self.deal.period.as_ms());
        let left_ms = paid_ms.saturating_sub(self.served_ms);
        self.proven
            .then(|| UnixMillis(now.rail.0.saturating_add(left_ms)))
    }

    /// How long an unpaid period is served: as long as the notice, and never more than one period.
    pub fn grace_ms(&self) -> u64 {
        self.deal.notice.as_ms().min(self.deal.period.as_ms())
    }

    /// What the node signs at the end; none before.
    pub fn receipt(&self) -> Option<Receipt> {
        let torn_down = self.torn_down.clone().unwrap_or(TornDown::CLEAN);
        Some(Receipt {
            sale: self.deal.id,
            state: self.state.is_final().then_some(self.state)?,
            why: self.words(),
            ready_at: self.ready_at.map(UnixMillis::from),
            ended_at: self.ended_at.unwrap_or(self.since).into(),
            key_slot_destroyed: torn_down.key_slot,
            volume_destroyed: torn_down.volume,
            periods_served: u32::try_from(self.periods_begun()).unwrap_or(u32::MAX),
            paid: self.lock.paid,
            returned: self.returned,
        })
    }

    /// Why it ends or ended, in words of at most 1000 bytes; empty before.
    pub fn words(&self) -> String {
        let mut words = self.why.as_ref().map(Why::words).unwrap_or_default();
        if let Some(causes) = self
            .torn_down
            .as_ref()
            .and_then(|torn_down| torn_down.quarantine.as_ref())
        {
            words = format!("{words}; not all could be undone: {causes}");
        }
        words.retain(crate::is_plain);
        while words.len() > 1000 {
            words.pop();
        }
        words
    }
}

/// The state as its word.
mod state_word {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::message::SaleState;

    pub fn serialize<S: Serializer>(state: &SaleState, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.word())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SaleState, D::Error> {
        let word = String::deserialize(deserializer)?;
        let state = SaleState::ALL.into_iter().find(|state| state.word() == word);
        state.ok_or_else(|| serde::de::Error::custom(format!("\"{word}\" is no state of a sale")))
    }
}
