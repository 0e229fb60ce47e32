//! What another size of a space would cost, or a snapshot of it, asked before anybody signs a change.

use escrow::Amount;

use super::{Gives, Kind, Message, MessageError, Reason, ensure, of};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::SaleId;
use crate::quantity::{Bytes, MilliCpus};

const MOST_REASONS: usize = 8;

/// The user asks what a change of size would come to. Nothing is held or changed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// Which sale.
    pub sale: SaleId,
    /// Comes back in the quote.
    pub nonce: [u8; 16],
    /// CPU time; none: as it is.
    pub cpu: Option<MilliCpus>,
    /// Memory; none: as it is.
    pub memory: Option<Bytes>,
    /// The volume; none: as it is.
    pub disk: Option<Bytes>,
    /// Whether there is to be a snapshot of the volume; none: as it is.
    pub snapshot: Option<bool>,
}

/// The node's answer: what the space would get and cost. An Amend that says the same is taken while no further period
/// has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// Which sale.
    pub sale: SaleId,
    /// The question's.
    pub nonce: [u8; 16],
    /// What the space would get.
    pub gives: Gives,
    /// The price of a period of that size.
    pub price: Amount,
    /// Periods that have begun: the price counts from the one after them.
    pub begun: u32,
    /// Why it cannot be; empty: it can.
    pub lacks: Vec<Reason>,
}

impl Message for Resize {
    const KIND: Kind = Kind::Resize;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .bytes(2, &self.nonce)
            .when(self.cpu, |map, cpu| map.uint(3, u64::from(cpu.0)))
            .when(self.memory, |map, memory| map.uint(4, memory.0))
            .when(self.disk, |map, disk| map.uint(5, disk.0))
            .when(self.snapshot, |map, snapshot| map.boolean(6, snapshot))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Resize, CborError> {
            let mut fields = Fields::read(payload)?;
            let resize = Resize {
                sale: SaleId(fields.array(1)?),
                nonce: fields.array(2)?,
                cpu: fields.optional(3, Fields::uint_32)?.map(MilliCpus),
                memory: fields.optional(4, Fields::uint)?.map(Bytes),
                disk: fields.optional(5, Fields::uint)?.map(Bytes),
                snapshot: fields.optional(6, Fields::boolean)?,
            };
            fields.finish()?;
            Ok(resize)
        };
        read().map_err(of(Self::KIND))
    }
}

impl Message for Quote {
    const KIND: Kind = Kind::Quote;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .bytes(2, &self.nonce)
            .map(3, self.gives.write())
            .amount(4, self.price.0)
            .uint(5, u64::from(self.begun))
            .list(6, self.lacks.iter().map(|reason| Item::map(reason.write())))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Quote, CborError> {
            let mut fields = Fields::read(payload)?;
            let quote = Quote {
                sale: SaleId(fields.array(1)?),
                nonce: fields.array(2)?,
                gives: Gives::read(fields.map(3)?)?,
                price: Amount(fields.amount(4)?),
                begun: fields.uint_32(5)?,
                lacks: fields.list(6, MOST_REASONS, Reason::read)?,
            };
            fields.finish()?;
            Ok(quote)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        let many = self.lacks.len();
        ensure(Self::KIND, many <= MOST_REASONS, "reasons", many, "at most 8")
    }
}
