//! What goes wrong: on purpose in one of the parties, by itself on the ledger's side and on the way.

/// One thing that is deliberately wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The node redeems what it may by date, served or not.
    RedeemsEarly,
    /// The node takes silence for a closed lock.
    StopsOnSilence,
    /// The node takes a ledger's word that it knows no lock for a refusal of the voucher.
    BelievesTheEmpty,
    /// The node never ends a space for want of vouchers.
    ServesUnpaid,
    /// The node gives the rest back and forgets what it earned.
    ForgetsVouchers,
    /// The node prices what has begun anew when the price changes.
    PricesAnew,
    /// The ledger books a repeated request again.
    BooksTwice,
    /// The ledger pays vouchers before their time, and after the close.
    PaysEarly,
    /// The ledger refunds nothing that the farmer does not give back.
    KeepsTheRest,
}

/// How the ledger answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Nobody there, for so long as the client waits.
    Silent,
    /// HTTP status 500, an answer that was replayed or is another's: none that counts, at once.
    Errors,
    /// Answers after 30 s.
    Slow,
    /// Its own signed word that it knows nothing, as after a restore of an older file.
    Empty,
}

impl Mode {
    /// All in which the ledger does nothing, or late.
    pub const BAD: [Mode; 4] = [Mode::Silent, Mode::Errors, Mode::Slow, Mode::Empty];
}

/// What the network does to the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Good,
    RequestLost,
    ReplyLost,
    Twice,
    Late(u64),
}
