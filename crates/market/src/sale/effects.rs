//! What can happen to a sale, and what is to be done about it: all of it data.

use escrow::{Amount, LockView, RailTime, Refusal, Voucher};

use super::{Deal, Resizing, TornDown, Why};
use crate::message::{RefusalCode, SaleState};
use crate::quantity::Bytes;

/// The two clocks of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The rail's time: for deadlines about money.
    pub rail: RailTime,
    /// CLOCK_BOOTTIME: for durations.
    pub boot_ms: u64,
}

/// A change as both signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Counts this sale's changes from 1.
    pub number: u32,
    /// What holds from now on.
    pub deal: Deal,
    /// Where it is another size: what the machine has to do for it.
    pub resizing: Option<Resizing>,
    /// Where it costs more: the voucher that pays the period which begins with it.
    pub voucher: Option<Voucher>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The user says the money is locked, or asks for keys again after a reboot. A hint, no more.
    FundedHint,
    /// The rail's answer to CheckLock. `admitted`: the book took the sale (asked only while Agreed).
    LockSeen {
        /// The lock.
        view: LockView,
        /// Whether there is capacity for it.
        admitted: bool,
    },
    /// The user's unlock key, opened for this epoch.
    KeyOpened {
        /// Of which grant.
        epoch: u64,
    },
    /// The space is built, or open again.
    Built,
    /// It is open again with the volume that it had: that could not be grown.
    OpenedSmaller,
    /// It could not be prepared or built, or not be opened again.
    BuildFailed {
        /// In words.
        why: String,
        /// All that was built is undone again; else both causes.
        quarantine: Option<String>,
    },
    /// Vouchers, each checked against the terms offline.
    Vouchers(Vec<Voucher>),
    /// The rail redeemed a voucher.
    Redeemed(LockView),
    /// The rail will not redeem it, ever.
    RedeemRefused {
        /// Which.
        cumulative: Amount,
        /// Why.
        why: Refusal,
    },
    /// The user or the farmer ends it.
    End(Why),
    /// Everything is torn down, or as much as could be.
    TornDown(TornDown),
    /// The rail closed the lock.
    GaveBack(LockView),
    /// The agent is back; `space_runs`: as the provisioner found it.
    Restarted {
        /// The space's process lives.
        space_runs: bool,
    },
    /// The space's process ended by itself, or runs again.
    SpaceRuns(bool),
    /// Both sign another deal: longer, or another size.
    Amended(Change),
    /// The machine has the size that a change says.
    Resized(Made),
    /// The user wants the space as its snapshot is.
    Restore {
        /// The same one again is the same restore.
        nonce: [u8; 16],
    },
    /// What came of it.
    Restored(PutBack),
    /// Time passed.
    Tick,
}

/// What the machine made of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Which change.
    pub number: u32,
    /// The size that the volume was given with the user's key; none where there was no key.
    pub grown: Option<Bytes>,
    /// There is a snapshot of the volume now.
    pub snapshot: bool,
}

/// What came of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// The volume is what the snapshot is; the space is locked.
    Done,
    /// It was stopped on the way.
    Failed,
    /// Nothing was changed.
    Untouched {
        /// The space's process lives.
        runs: bool,
    },
}

/// What to do next. Each can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the rail for the lock (Final), and the book while Agreed.
    CheckLock,
    /// Make a seal key and sign a grant for this epoch.
    SendGrant {
        /// Which.
        epoch: u64,
    },
    /// Make what of the space needs no key.
    PrepareSpace,
    /// Build the space with the key that just came.
    BuildSpace,
    /// Open the space again with the key that just came.
    UnlockSpace,
    /// Take the space down to its volume: it does not come back by itself.
    LockSpace,
    /// Give the running space the size that was agreed; its volume, where the key is here.
    ResizeSpace,
    /// Close the space and make its volume what the snapshot is.
    RestoreSpace,
    /// Undo all that is there.
    TearDown,
    /// Undo what was half built; the sale goes on.
    UndoBuild,
    /// Ask the rail to redeem.
    Redeem(Voucher),
    /// Ask the rail to close and return the rest.
    GiveBack {
        /// Redeemed in all.
        paid: Amount,
    },
    /// Free the capacity in the book.
    Release,
    /// Keep the capacity withheld: an undo failed.
    Withhold,
    /// Sign the receipt and keep it.
    SignReceipt,
    /// Tell the farmer.
    Say(Say),
}

/// What the console says of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// Ready for the user.
    Ready,
    /// The first voucher was redeemed.
    Active,
    /// Closed after a reboot until the key comes.
    Locked,
    /// Its process ended by itself.
    Down,
    /// And did not come back by being started again: locked.
    GaveUp,
    /// And runs again.
    Up,
    /// Over, whichever way.
    Ended,
}

/// Why an event is not accepted now. The sale stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not in this state.
    #[error("the sale is {state}: {what}")]
    State {
        /// In which it is.
        state: SaleState,
        /// What was wanted.
        what: &'static str,
    },
    /// No lock, or not as agreed.
    #[error("the money is not locked as agreed: {0}")]
    NotFunded(&'static str),
    /// Not the newest grant.
    #[error("the key answers grant {got}, the newest is {newest}")]
    Epoch {
        /// Which it answers.
        got: u64,
        /// The newest.
        newest: u64,
    },
    /// More vouchers than are kept.
    #[error("more than 64 vouchers are waiting")]
    TooManyVouchers,
    /// It costs more than what is paid for the period that runs.
    #[error(
        "what costs more is paid when it is signed: a voucher over {0}, good from now on, goes with the change"
    )]
    NotPaidWith(Amount),
    /// There is no period that could begin with it.
    #[error("the last period runs, and what costs more begins one: make the sale longer first")]
    LastPeriod,
    /// Not a whole number of periods of this sale.
    #[error(
        "a voucher is for whole periods, 1 to all of the sale: {0} is not a multiple of the price, or too much"
    )]
    PartOfAPeriod(Amount),
    /// No voucher that says more than was paid.
    #[error("no voucher says more than is already paid")]
    NothingNew,
    /// Its snapshot is being put back.
    #[error("the snapshot is being put back, or was not put back to the end")]
    Restoring,
    /// The amendment is not the next one, prices what began anew, or takes back what was served or paid.
    #[error("the change is not the next one, or takes back what was served, paid or priced")]
    Amendment,
}

impl Rejection {
    /// As a refusal on the wire.
    pub fn code(&self) -> RefusalCode {
        match self {
            Rejection::State { .. } | Rejection::Amendment | Rejection::LastPeriod => RefusalCode::State,
            Rejection::Restoring => RefusalCode::Busy,
            Rejection::NotFunded(_) => RefusalCode::NotFunded,
            Rejection::Epoch { .. } => RefusalCode::Epoch,
            Rejection::TooManyVouchers
            | Rejection::PartOfAPeriod(_)
            | Rejection::NothingNew
            | Rejection::NotPaidWith(_) => RefusalCode::Voucher,
        }
    }
}
