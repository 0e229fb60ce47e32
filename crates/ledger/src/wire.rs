//! What client and ledger say to each other: one POST, JSON both ways.
//!
//! ```text
//! POST /v1        {"nonce": "<64 hex>", "ask": {"kind": "lock", …}}
//! 200             {"time": 1764…, "journal": {"sequence": 7, "hash": "…"}, "answer": {"kind": "lease", …}}
//!                 steading-signature: <128 hex>, the ledger's over both bodies (signing::answer)
//! ```
//! Any other status, a redirect, a longer body, a wrong signature: no answer.

use escrow::{Account, Amount, Asset, LeaseId, LockView, RailTime, Refusal, Terms, Voucher};
use serde::{Deserialize, Serialize};

/// The one path.
pub const PATH: &str = "/v1";
/// The header in which an answer's signature travels.
pub const SIGNATURE_HEADER: &str = "steading-signature";
/// Longest body of a request.
pub const REQUEST_BYTES: usize = 16 * 1024;
/// Longest body of an answer: `LEASES` leases and room to spare.
pub const ANSWER_BYTES: usize = 256 * 1024;
/// Most leases in one answer.
pub const LEASES: usize = 100;

/// A request's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Fresh for every request: 32 random bytes.
    #[serde(with = "crate::hex::array")]
    pub nonce: [u8; 32],
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The ledger's name, asset, time.
    Now,
    /// What an account holds.
    Balance {
        /// Whose.
        account: Account,
    },
    /// How a lease stands.
    View {
        /// Which.
        terms: Terms,
    },
    /// The leases that an account pays and that are not closed, oldest id
    /// first, at most [`LEASES`].
    Open {
        /// Whose.
        payer: Account,
        /// Only ids after this one.
        after: Option<LeaseId>,
    },
    /// Fund a lease up to `total`, until `expiry`.
    Lock {
        /// Under which terms.
        terms: Terms,
        /// All that shall have been paid in.
        total: Amount,
        /// Until when.
        expiry: RailTime,
        /// The payer's.
        #[serde(with = "crate::hex::signature")]
        signature: [u8; 64],
    },
    /// Pay out what the voucher says in all.
    Redeem {
        /// Under which terms.
        terms: Terms,
        /// Signed by their voucher key.
        voucher: Voucher,
    },
    /// The payer asks to close.
    Close {
        /// Under which terms.
        terms: Terms,
        /// The payer's.
        #[serde(with = "crate::hex::signature")]
        signature: [u8; 64],
    },
    /// Return the rest, after the deadline.
    Refund {
        /// Under which terms.
        terms: Terms,
    },
    /// Return the rest now.
    GiveBack {
        /// Under which terms.
        terms: Terms,
        /// What vouchers have redeemed, in the node's words.
        paid: Amount,
        /// The give-back key's.
        #[serde(with = "crate::hex::signature")]
        signature: [u8; 64],
    },
    /// Issue play money.
    Fund {
        /// To whom.
        to: Account,
        /// How much.
        amount: Amount,
        /// Once for each id.
        #[serde(with = "crate::hex::array")]
        id: [u8; 32],
        /// The operator's.
        #[serde(with = "crate::hex::signature")]
        signature: [u8; 64],
    },
}

/// An answer's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The ledger's clock.
    pub time: RailTime,
    /// How far the journal had grown: whoever keeps answers can show a
    /// rewriting.
    pub journal: Head,
    /// What was asked for.
    pub answer: Answer,
}

/// The newest entry of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number, zero before the first.
    pub sequence: u64,
    /// Its hash.
    #[serde(with = "crate::hex::array")]
    pub hash: [u8; 32],
}

/// What the ledger answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Ask::Now`].
    Ledger {
        /// The asset that it holds.
        asset: Asset,
    },
    /// To [`Ask::Balance`] and [`Ask::Fund`].
    Balance {
        /// Free for use.
        free: Amount,
        /// In open leases that this account pays.
        locked: Amount,
    },
    /// To everything about one lease.
    Lease {
        /// How it stands now.
        view: LockView,
    },
    /// To [`Ask::Open`].
    Leases {
        /// In the order of their ids.
        leases: Vec<OpenLease>,
    },
    /// The rules say no; asking again changes nothing until time or money do.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// The request is no request of this ledger; repeating it is useless.
    Invalid {
        /// Why, for a person.
        why: String,
    },
    /// The ledger could not write; the same request may be sent again.
    Failed {
        /// Why, for a person.
        why: String,
    },
}

/// One open lease of a payer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenLease {
    /// Its terms.
    pub terms: Terms,
    /// How it stands.
    pub view: LockView,
}
