//! What travels between users, nodes and farmers: one struct a message, one encoding each.
//!
//! Invariant: a message is checked when it is signed and when it is opened, so one that breaks its own bounds neither
//! leaves nor enters. Keys of the encodings are in docs/protocol.md, beside the bounds; the golden files freeze them.

mod agreement;
mod amend;
mod command;
mod delegate;
mod end;
mod keys;
mod offer;
mod recall;
mod request;
mod resize;
mod restore;
mod status;

pub(crate) use agreement::MOST_ACCEPT_S;
pub use agreement::{Agree, Mismatch, Sale, SaleBody};
pub use amend::{Amend, Amended};
pub use command::{Act, Answer, Command, read_space_line, space_line};
pub use delegate::{Delegate, TunnelAnswer, TunnelOpening};
pub use end::{Cancel, Receipt, Refusal, RefusalCode};
pub use keys::{Funded, KeyGrant, SealedKey, openssh_ed25519};
pub use offer::{Decline, DeclineCode, Facts, Offer, Reason};
pub use recall::{MOST_RECALLED, Recall, Recalled, RecalledSale};
pub use request::{CapacityRequest, Filters, Gives, Needs, RailAsset};
pub use resize::{Quote, Resize};
pub use restore::Restore;
pub use status::{Candidate, SaleState, Status, StatusQuery, VoucherMessage};

use crate::cbor::CborError;
use crate::id::GridId;

/// An endpoint's address as the grid writes it: opaque here, at most 1 KiB.
pub const MOST_ADDRESS_BYTES: usize = 1024;

/// Which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A user asks all nodes for capacity.
    Request,
    /// A node offers.
    Offer,
    /// A node says why it does not.
    Decline,
    /// A user signs a sale's body.
    Agree,
    /// A node signs the user's Agree.
    Sale,
    /// A user says that the money is locked.
    Funded,
    /// A node hands out the keys to seal to and to pin.
    Grant,
    /// A user hands over the sealed unlock key.
    SealedKey,
    /// A user asks how a sale stands.
    StatusQuery,
    /// A node says how it stands.
    Status,
    /// A user hands over vouchers.
    Voucher,
    /// A user ends a sale.
    Cancel,
    /// A user extends or resizes a sale.
    Amend,
    /// A node signs the user's Amend.
    Amended,
    /// A user asks what another size would cost.
    Resize,
    /// A node says what it would cost, or why it cannot be.
    Quote,
    /// A user wants a space as its snapshot is.
    Restore,
    /// A user lets an endpoint speak for a sale.
    Delegate,
    /// A farmer tells a node to do something.
    Command,
    /// A node answers a command.
    Answer,
    /// A node says what was destroyed and paid.
    Receipt,
    /// A node refuses a direct message, and says why.
    Refusal,
    /// A user who has the keys alone asks for the signed sales.
    Recall,
    /// A node hands them out.
    Recalled,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 24] = [
        Kind::Request,
        Kind::Offer,
        Kind::Decline,
        Kind::Agree,
        Kind::Sale,
        Kind::Funded,
        Kind::Grant,
        Kind::SealedKey,
        Kind::StatusQuery,
        Kind::Status,
        Kind::Voucher,
        Kind::Cancel,
        Kind::Amend,
        Kind::Amended,
        Kind::Delegate,
        Kind::Command,
        Kind::Answer,
        Kind::Receipt,
        Kind::Refusal,
        Kind::Recall,
        Kind::Recalled,
        Kind::Resize,
        Kind::Quote,
        Kind::Restore,
    ];

    /// As it stands in the content type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::Offer => "offer",
            Kind::Decline => "decline",
            Kind::Agree => "agree",
            Kind::Sale => "sale",
            Kind::Funded => "funded",
            Kind::Grant => "grant",
            Kind::SealedKey => "sealed-key",
            Kind::StatusQuery => "status-query",
            Kind::Status => "status",
            Kind::Voucher => "voucher",
            Kind::Cancel => "cancel",
            Kind::Amend => "amend",
            Kind::Amended => "amended",
            Kind::Resize => "resize",
            Kind::Quote => "quote",
            Kind::Restore => "restore",
            Kind::Delegate => "delegate",
            Kind::Command => "command",
            Kind::Answer => "answer",
            Kind::Receipt => "receipt",
            Kind::Refusal => "refusal",
            Kind::Recall => "recall",
            Kind::Recalled => "recalled",
        }
    }

    /// The version this program writes and reads.
    pub fn version(self) -> u32 {
        1
    }

    /// How large a whole signed message may be.
    pub fn most_bytes(self) -> usize {
        match self {
            Kind::Request => 2 << 10,
            Kind::Offer | Kind::Decline => 4 << 10,
            Kind::Agree
            | Kind::Sale
            | Kind::Funded
            | Kind::Grant
            | Kind::SealedKey
            | Kind::StatusQuery
            | Kind::Status
            | Kind::Voucher
            | Kind::Cancel
            | Kind::Amend
            | Kind::Amended
            | Kind::Delegate
            | Kind::Command
            | Kind::Answer
            | Kind::Receipt
            | Kind::Refusal
            | Kind::Recall
            | Kind::Recalled
            | Kind::Resize
            | Kind::Quote
            | Kind::Restore => 64 << 10,
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The content type: `application/steading.KIND+cbor;v=N`.
    pub fn content_type(self) -> String {
        format!("application/steading.{}+cbor;v={}", self.name(), self.version())
    }
}

/// Why a message is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes are not its encoding.
    #[error("the {} is not well formed", kind.name())]
    Encoding {
        /// Of which message.
        kind: Kind,
        /// What is wrong.
        source: CborError,
    },
    /// A value is out of its bounds.
    #[error("the {} says {field} = {value}: {rule}", kind.name())]
    Bound {
        /// Of which message.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        rule: &'static str,
    },
    /// Signed by somebody else than the message itself names, or for another grid.
    #[error("the {} names another {what} than it is signed with", kind.name())]
    Signer {
        /// Of which message.
        kind: Kind,
        /// Signer or grid.
        what: &'static str,
    },
    /// The signed message inside is not valid.
    #[error("the {} carries no valid {}", outer.name(), inner.name())]
    Inner {
        /// Of which message.
        outer: Kind,
        /// What it should carry.
        inner: Kind,
        /// What is wrong, in words.
        why: String,
    },
}

/// What every message can do. `envelope` is the only caller.
pub trait Message: Sized {
    /// Which one it is.
    const KIND: Kind;

    /// Its encoding.
    fn to_payload(&self) -> Vec<u8>;

    /// From its encoding.
    fn from_payload(payload: &[u8]) -> Result<Self, MessageError>;

    /// Its own bounds.
    fn check(&self) -> Result<(), MessageError> {
        Ok(())
    }

    /// Where the message itself names its signer or its grid: that they are those of the envelope.
    fn check_signer(&self, _signer: &[u8; 32], _grid: GridId) -> Result<(), MessageError> {
        Ok(())
    }
}

/// Names the message in an encoding error.
fn of(kind: Kind) -> impl Fn(CborError) -> MessageError {
    move |source| MessageError::Encoding { kind, source }
}

/// Refuses a value that breaks its rule.
fn ensure(
    kind: Kind,
    good: bool,
    field: &'static str,
    value: impl ToString,
    rule: &'static str,
) -> Result<(), MessageError> {
    if good {
        Ok(())
    } else {
        Err(MessageError::Bound {
            kind,
            field,
            value: value.to_string(),
            rule,
        })
    }
}

/// A text that must read as a typed name.
fn parse<T: std::str::FromStr>(text: &str, key: i64, expected: &'static str) -> Result<T, CborError> {
    text.parse().map_err(|_| CborError::Value { key, expected })
}
