//! How a sale stands: the user asks, the node answers; vouchers are answered in the same way.

use std::fmt;

use escrow::Amount;

use super::{Kind, MOST_ADDRESS_BYTES, Message, MessageError, ensure, of};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::SaleId;
use crate::quantity::UnixMillis;

const MOST_VOUCHERS: usize = 64;
pub(super) const MOST_VOUCHER_BYTES: usize = 512;
const MOST_WORDS: usize = 1024;
const MOST_CANDIDATES: usize = 8;
const MOST_RECEIPT_BYTES: usize = 4096;

/// Where a sale stands, in the design's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SaleState {
    /// An offer was made.
    Offered,
    /// Both signed; the money is not locked yet.
    Agreed,
    /// The lock was seen and is right.
    Funded,
    /// The grant was sent.
    Keyed,
    /// The space is being built.
    Building,
    /// Built, not paid for yet.
    Ready,
    /// A voucher was redeemed.
    Active,
    /// After a reboot: the volume is closed until the user's key comes again.
    Locked,
    /// Being torn down.
    Ending,
    /// Torn down.
    Ended,
    /// Torn down in part: an undo failed.
    Quarantined,
    /// Never funded.
    Lapsed,
    /// Ended before it was active; the money went back.
    Refunded,
}

impl SaleState {
    /// All, in the order of their numbers.
    pub const ALL: [SaleState; 13] = [
        SaleState::Offered,
        SaleState::Agreed,
        SaleState::Funded,
        SaleState::Keyed,
        SaleState::Building,
        SaleState::Ready,
        SaleState::Active,
        SaleState::Locked,
        SaleState::Ending,
        SaleState::Ended,
        SaleState::Quarantined,
        SaleState::Lapsed,
        SaleState::Refunded,
    ];

    /// As it travels: 1, 2, … in the order above.
    pub fn number(self) -> u64 {
        SaleState::ALL
            .iter()
            .zip(1..)
            .find(|(state, _)| **state == self)
            .map_or(0, |(_, number)| number)
    }

    /// From its number.
    pub fn from_number(number: u64) -> Option<SaleState> {
        usize::try_from(number.checked_sub(1)?)
            .ok()
            .and_then(|at| SaleState::ALL.get(at))
            .copied()
    }

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            SaleState::Ended | SaleState::Quarantined | SaleState::Lapsed | SaleState::Refunded
        )
    }

    /// As a screen says it.
    pub fn word(self) -> &'static str {
        match self {
            SaleState::Offered => "offered",
            SaleState::Agreed => "agreed",
            SaleState::Funded => "funded",
            SaleState::Keyed => "keyed",
            SaleState::Building => "building",
            SaleState::Ready => "ready",
            SaleState::Active => "active",
            SaleState::Locked => "locked",
            SaleState::Ending => "ending",
            SaleState::Ended => "ended",
            SaleState::Quarantined => "quarantined",
            SaleState::Lapsed => "lapsed",
            SaleState::Refunded => "refunded",
        }
    }
}

impl fmt::Display for SaleState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The user asks how a sale stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusQuery {
    /// Which sale.
    pub sale: SaleId,
    /// The asker's nonce; the status repeats it, so that an old answer is not taken for a new one.
    pub nonce: [u8; 16],
}

impl Message for StatusQuery {
    const KIND: Kind = Kind::StatusQuery;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .bytes(2, &self.nonce)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<StatusQuery, CborError> {
            let mut fields = Fields::read(payload)?;
            let query = StatusQuery {
                sale: SaleId(fields.array(1)?),
                nonce: fields.array(2)?,
            };
            fields.finish()?;
            Ok(query)
        };
        read().map_err(of(Self::KIND))
    }
}

/// A way to reach the space's SSH server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// Through a tunnel stream to the node's endpoint.
    Grid,
    /// Straight.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Candidate {
    fn write(&self) -> MapWriter {
        match self {
            Candidate::Grid => MapWriter::new().uint(1, 1),
            Candidate::Tcp { host, port } => MapWriter::new()
                .uint(1, 2)
                .text(2, host)
                .uint(3, u64::from(*port)),
        }
    }

    fn read(item: &[u8]) -> Result<Candidate, CborError> {
        let mut fields = Fields::split(item)?;
        let candidate = match fields.uint(1)? {
            1 => Candidate::Grid,
            2 => {
                let host = fields.text(2, 255)?;
                let port = u16::try_from(fields.uint(3)?).ok().filter(|port| *port != 0);
                Candidate::Tcp {
                    host,
                    port: port.ok_or(CborError::Value {
                        key: 3,
                        expected: "a port",
                    })?,
                }
            }
            _ => {
                return Err(CborError::Value {
                    key: 1,
                    expected: "a kind of candidate",
                });
            }
        };
        fields.finish()?;
        Ok(candidate)
    }
}

/// How a sale stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which sale.
    pub sale: SaleId,
    /// The query's nonce; zeros where it answers a voucher or another message.
    pub nonce: [u8; 16],
    /// Where it stands.
    pub state: SaleState,
    /// Since when.
    pub since: UnixMillis,
    /// Why, in words, where there is something to say.
    pub why: Option<String>,
    /// Ways to reach the space, the best first; empty where there is none yet.
    pub candidates: Vec<Candidate>,
    /// The node's endpoint, as the grid writes it.
    pub address: Vec<u8>,
    /// The boot the node is in.
    pub boot: [u8; 16],
    /// The newest grant's epoch; 0 where there was none.
    pub epoch: u64,
    /// Periods that are paid.
    pub periods_paid: u32,
    /// Paid in all.
    pub paid: Amount,
    /// The space lives until then without another voucher; none before Active.
    pub paid_until: Option<UnixMillis>,
    /// The signed receipt, once there is one.
    pub receipt: Option<Vec<u8>>,
    /// When the snapshot of its volume was taken; none where there is none yet.
    pub snapshot: Option<UnixMillis>,
}

impl Message for Status {
    const KIND: Kind = Kind::Status;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .bytes(2, &self.nonce)
            .uint(3, self.state.number())
            .uint(4, self.since.0)
            .when(self.why.as_deref(), |map, why| map.text(5, why))
            .list(
                6,
                self.candidates
                    .iter()
                    .map(|candidate| Item::map(candidate.write())),
            )
            .bytes(7, &self.address)
            .bytes(8, &self.boot)
            .uint(9, self.epoch)
            .uint(10, u64::from(self.periods_paid))
            .amount(11, self.paid.0)
            .when(self.paid_until, |map, until| map.uint(12, until.0))
            .when(self.receipt.as_deref(), |map, receipt| map.bytes(13, receipt))
            .when(self.snapshot, |map, taken| map.uint(14, taken.0))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Status, CborError> {
            let mut fields = Fields::read(payload)?;
            let status = Status {
                sale: SaleId(fields.array(1)?),
                nonce: fields.array(2)?,
                state: SaleState::from_number(fields.uint(3)?).ok_or(CborError::Value {
                    key: 3,
                    expected: "a state",
                })?,
                since: UnixMillis(fields.uint(4)?),
                why: fields.optional(5, |fields, key| fields.text(key, MOST_WORDS))?,
                candidates: fields.list(6, MOST_CANDIDATES, Candidate::read)?,
                address: fields.bytes(7, MOST_ADDRESS_BYTES)?.to_vec(),
                boot: fields.array(8)?,
                epoch: fields.uint(9)?,
                periods_paid: fields.uint_32(10)?,
                paid: Amount(fields.amount(11)?),
                paid_until: fields.optional(12, Fields::uint)?.map(UnixMillis),
                receipt: fields
                    .optional(13, |fields, key| fields.bytes(key, MOST_RECEIPT_BYTES))?
                    .map(<[u8]>::to_vec),
                snapshot: fields.optional(14, Fields::uint)?.map(UnixMillis),
            };
            fields.finish()?;
            Ok(status)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        let (kind, words) = (Self::KIND, self.why.as_deref().unwrap_or(""));
        let plain = words.len() <= MOST_WORDS && words.chars().all(crate::is_plain);
        ensure(kind, plain, "why", words, "one line of at most 1024 bytes")?;
        ensure(
            kind,
            self.candidates.len() <= MOST_CANDIDATES,
            "candidates",
            self.candidates.len(),
            "at most 8",
        )?;
        let length = self.address.len();
        ensure(
            kind,
            length <= MOST_ADDRESS_BYTES,
            "address",
            length,
            "at most 1024 bytes",
        )
    }
}

/// Vouchers of one sale, as its rail writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoucherMessage {
    /// Which sale.
    pub sale: SaleId,
    /// `escrow::Voucher::to_bytes` each, by rising cumulative sum.
    pub vouchers: Vec<Vec<u8>>,
}

impl Message for VoucherMessage {
    const KIND: Kind = Kind::Voucher;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .list(2, self.vouchers.iter().map(|voucher| Item::bytes(voucher)))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<VoucherMessage, CborError> {
            let mut fields = Fields::read(payload)?;
            let sale = SaleId(fields.array(1)?);
            let vouchers = fields.byte_strings(2, MOST_VOUCHERS, MOST_VOUCHER_BYTES)?;
            fields.finish()?;
            Ok(VoucherMessage { sale, vouchers })
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        let count = self.vouchers.len();
        ensure(
            Self::KIND,
            (1..=MOST_VOUCHERS).contains(&count),
            "vouchers",
            count,
            "1 to 64",
        )?;
        let long = self
            .vouchers
            .iter()
            .map(Vec::len)
            .find(|length| *length > MOST_VOUCHER_BYTES);
        ensure(
            Self::KIND,
            long.is_none(),
            "voucher",
            long.unwrap_or(0),
            "at most 512 bytes",
        )
    }
}
