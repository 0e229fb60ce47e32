//! How a sale ends, and how a node refuses a direct message.

use escrow::Amount;

use super::{Kind, Message, MessageError, SaleState, ensure, of};
use crate::cbor::{CborError, Fields, MapWriter};
use crate::id::{Digest, SaleId};
use crate::quantity::UnixMillis;

const MOST_WORDS: usize = 1024;

/// The user ends a sale. Answered by the receipt once everything is torn down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// Which sale.
    pub sale: SaleId,
    /// Why, for the farmer's screen.
    pub why: Option<String>,
}

impl Message for Cancel {
    const KIND: Kind = Kind::Cancel;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .when(self.why.as_deref(), |map, why| map.text(2, why))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Cancel, CborError> {
            let mut fields = Fields::read(payload)?;
            let sale = SaleId(fields.array(1)?);
            let why = fields.optional(2, |fields, key| fields.text(key, MOST_WORDS))?;
            fields.finish()?;
            Ok(Cancel { sale, why })
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        check_words(Self::KIND, self.why.as_deref())
    }
}

fn check_words(kind: Kind, words: Option<&str>) -> Result<(), MessageError> {
    let words = words.unwrap_or("");
    let plain = words.len() <= MOST_WORDS && words.chars().all(crate::is_plain);
    ensure(kind, plain, "why", words, "one line of at most 1024 bytes")
}

/// The node says what was destroyed, when, and what was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which sale.
    pub sale: SaleId,
    /// Ended, Quarantined, Refunded or Lapsed.
    pub state: SaleState,
    /// Why it ended, in words.
    pub why: String,
    /// When the space was first ready; none where it never was.
    pub ready_at: Option<UnixMillis>,
    /// When everything was torn down.
    pub ended_at: UnixMillis,
    /// The volume's key slot was destroyed, or there never was a volume.
    pub key_slot_destroyed: bool,
    /// The volume is gone, or there never was one.
    pub volume_destroyed: bool,
    /// Whole or begun periods in service.
    pub periods_served: u32,
    /// Paid in all.
    pub paid: Amount,
    /// Went back to the payer.
    pub returned: Amount,
}

impl Message for Receipt {
    const KIND: Kind = Kind::Receipt;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .uint(2, self.state.number())
            .text(3, &self.why)
            .when(self.ready_at, |map, at| map.uint(4, at.0))
            .uint(5, self.ended_at.0)
            .boolean(6, self.key_slot_destroyed)
            .boolean(7, self.volume_destroyed)
            .uint(8, u64::from(self.periods_served))
            .amount(9, self.paid.0)
            .amount(10, self.returned.0)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Receipt, CborError> {
            let mut fields = Fields::read(payload)?;
            let receipt = Receipt {
                sale: SaleId(fields.array(1)?),
                state: SaleState::from_number(fields.uint(2)?).ok_or(CborError::Value {
                    key: 2,
                    expected: "a state",
                })?,
                why: fields.text(3, MOST_WORDS)?,
                ready_at: fields.optional(4, Fields::uint)?.map(UnixMillis),
                ended_at: UnixMillis(fields.uint(5)?),
                key_slot_destroyed: fields.boolean(6)?,
                volume_destroyed: fields.boolean(7)?,
                periods_served: fields.uint_32(8)?,
                paid: Amount(fields.amount(9)?),
                returned: Amount(fields.amount(10)?),
            };
            fields.finish()?;
            Ok(receipt)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        ensure(
            Self::KIND,
            self.state.is_final(),
            "state",
            self.state,
            "a state in which a sale ends",
        )?;
        check_words(Self::KIND, Some(&self.why))
    }
}

/// Why a node refuses a direct message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// Not a message this node can read or expects here.
    NotExpected,
    /// The endpoint may not speak for this sale: show a Delegate first.
    NotAllowed,
    /// No such sale here.
    NoSale,
    /// The offer is not this node's, has lapsed, or was agreed by another sale.
    OfferGone,
    /// The body is not what was requested and offered.
    Mismatch,
    /// The capacity is gone.
    NoCapacity,
    /// The lock is not there, or not as agreed.
    NotFunded,
    /// The rail cannot be asked now: try again.
    RailSilent,
    /// Not in this state.
    State,
    /// Not the newest grant.
    Epoch,
    /// The sealed key does not open, or is not the volume's.
    Key,
    /// The voucher is not valid.
    Voucher,
    /// Too many messages.
    Busy,
    /// Too many spaces of this payer's ended unpaid.
    Unpaid,
    /// A reason of a later version.
    Other(u32),
}

impl RefusalCode {
    const KNOWN: [RefusalCode; 14] = [
        RefusalCode::NotExpected,
        RefusalCode::NotAllowed,
        RefusalCode::NoSale,
        RefusalCode::OfferGone,
        RefusalCode::Mismatch,
        RefusalCode::NoCapacity,
        RefusalCode::NotFunded,
        RefusalCode::RailSilent,
        RefusalCode::State,
        RefusalCode::Epoch,
        RefusalCode::Key,
        RefusalCode::Voucher,
        RefusalCode::Busy,
        RefusalCode::Unpaid,
    ];

    /// As it travels: 1, 2, … in the order above.
    pub fn number(self) -> u32 {
        match self {
            RefusalCode::Other(number) => number,
            known => RefusalCode::KNOWN
                .iter()
                .zip(1..)
                .find(|(code, _)| **code == known)
                .map_or(0, |(_, number)| number),
        }
    }

    /// From its number.
    pub fn from_number(number: u32) -> RefusalCode {
        let known = RefusalCode::KNOWN
            .iter()
            .zip(1..)
            .find(|(_, known)| *known == number);
        known.map_or(RefusalCode::Other(number), |(code, _)| *code)
    }

    /// Whether the same message may be accepted later.
    pub fn is_worth_repeating(self) -> bool {
        matches!(
            self,
            RefusalCode::RailSilent | RefusalCode::NotFunded | RefusalCode::Busy
        )
    }
}

/// A node's answer to a direct message that it does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SHA-256 of the refused bytes.
    pub about: Digest,
    /// Why.
    pub code: RefusalCode,
    /// In words.
    pub words: String,
}

impl Message for Refusal {
    const KIND: Kind = Kind::Refusal;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.about.as_bytes())
            .uint(2, u64::from(self.code.number()))
            .text(3, &self.words)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Refusal, CborError> {
            let mut fields = Fields::read(payload)?;
            let about = Digest(fields.array(1)?);
            let code = RefusalCode::from_number(fields.uint_32(2)?);
            let words = fields.text(3, MOST_WORDS)?;
            fields.finish()?;
            Ok(Refusal { about, code, words })
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        ensure(
            Self::KIND,
            self.code.number() > 0,
            "code",
            self.code.number(),
            "1 or more",
        )?;
        check_words(Self::KIND, Some(&self.words))
    }
}
