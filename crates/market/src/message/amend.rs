//! A sale changed by both: longer, or larger. Signed as Agree and Sale are; the sale's id stays.

use escrow::Amount;

use super::{Gives, Kind, Message, MessageError, ensure, of};
use crate::cbor::{CborError, Fields, MapWriter};
use crate::envelope::{self, Signed};
use crate::id::{GridId, SaleId};

/// The user asks to change a sale. The node answers with its Amended over these exact bytes, or a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amend {
    /// Which sale.
    pub sale: SaleId,
    /// Counts this sale's changes from 1; each is accepted once, in order.
    pub number: u32,
    /// All periods from the start, the served ones included.
    pub periods: u32,
    /// What the space gets from now on; none: as before.
    pub gives: Option<Gives>,
    /// The price of one period from now on.
    pub price: Amount,
}

impl Message for Amend {
    const KIND: Kind = Kind::Amend;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .uint(2, u64::from(self.number))
            .uint(3, u64::from(self.periods))
            .when(self.gives.as_ref(), |map, gives| map.map(4, gives.write()))
            .amount(5, self.price.0)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Amend, CborError> {
            let mut fields = Fields::read(payload)?;
            let amend = Amend {
                sale: SaleId(fields.array(1)?),
                number: fields.uint_32(2)?,
                periods: fields.uint_32(3)?,
                gives: fields.optional(4, |fields, key| Gives::read(fields.map(key)?))?,
                price: Amount(fields.amount(5)?),
            };
            fields.finish()?;
            Ok(amend)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        ensure(Self::KIND, self.number > 0, "number", self.number, "1 or more")?;
        ensure(
            Self::KIND,
            (1..=100_000).contains(&self.periods),
            "periods",
            self.periods,
            "1 to 100000",
        )?;
        self.gives
            .as_ref()
            .map_or(Ok(()), |gives| gives.check(Self::KIND))
    }
}

/// The node's signature over the user's Amend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amended {
    /// What the user signed.
    pub amend: Signed<Amend>,
}

impl Message for Amended {
    const KIND: Kind = Kind::Amended;

    fn to_payload(&self) -> Vec<u8> {
        self.amend.bytes.clone()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let inner = |error: envelope::EnvelopeError| MessageError::Inner {
            outer: Kind::Amended,
            inner: Kind::Amend,
            why: error.to_string(),
        };
        envelope::open::<Amend>(payload, None)
            .map(|amend| Amended { amend })
            .map_err(inner)
    }

    fn check_signer(&self, _signer: &[u8; 32], grid: GridId) -> Result<(), MessageError> {
        let same = self.amend.grid == grid;
        if same {
            Ok(())
        } else {
            Err(MessageError::Signer {
                kind: Self::KIND,
                what: "grid",
            })
        }
    }
}
