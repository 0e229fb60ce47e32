//! A sale changed by both: longer, or larger. Signed as Agree and Sale are; the sale's id stays.

use escrow::Amount;

use super::status::MOST_VOUCHER_BYTES;
use super::{Gives, Kind, Message, MessageError, ensure, of};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::envelope::{self, Signed};
use crate::id::{GridId, SaleId};
use crate::prices::{Earlier, MOST_EARLIER, Prices};

/// The user asks to change a sale. The node answers with its Amended over these exact bytes, or a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amend {
    /// Which sale.
    pub sale: SaleId,
    /// Counts this sale's changes from 1; each is accepted once, in order.
    pub number: u32,
    /// All periods from the start, the served ones included.
    pub periods: u32,
    /// What the space gets from now on; none: as before. Once it was resized, each further change says it again, so
    /// that the newest change alone tells how the sale stands.
    pub gives: Option<Gives>,
    /// The price of each period, from the first one on. On the wire the earlier ones stand only where there are some.
    pub prices: Prices,
    /// What costs more than the period that runs begins the next one, and this voucher pays it (protocol, section 6).
    pub voucher: Option<Vec<u8>>,
}

impl Amend {
    fn earlier(&self) -> Option<&[Earlier]> {
        let earlier = self.prices.earlier.as_slice();
        (!earlier.is_empty()).then_some(earlier)
    }
}

fn write(run: &Earlier) -> Item {
    let map = MapWriter::new();
    Item::map(map.uint(1, u64::from(run.until)).amount(2, run.price.0))
}

fn read(item: &[u8]) -> Result<Earlier, CborError> {
    let mut fields = Fields::split(item)?;
    let run = Earlier {
        until: fields.uint_32(1)?,
        price: Amount(fields.amount(2)?),
    };
    fields.finish()?;
    Ok(run)
}

impl Message for Amend {
    const KIND: Kind = Kind::Amend;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .uint(2, u64::from(self.number))
            .uint(3, u64::from(self.periods))
            .when(self.gives.as_ref(), |map, gives| map.map(4, gives.write()))
            .amount(5, self.prices.price.0)
            .when(self.earlier(), |map, earlier| {
                map.list(6, earlier.iter().map(write))
            })
            .when(self.voucher.as_ref(), |map, voucher| map.bytes(7, voucher))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let whole = || -> Result<Amend, CborError> {
            let mut fields = Fields::read(payload)?;
            let amend = Amend {
                sale: SaleId(fields.array(1)?),
                number: fields.uint_32(2)?,
                periods: fields.uint_32(3)?,
                gives: fields.optional(4, |fields, key| Gives::read(fields.map(key)?))?,
                prices: Prices {
                    price: Amount(fields.amount(5)?),
                    earlier: fields
                        .optional(6, |fields, key| fields.list(key, MOST_EARLIER, read))?
                        .unwrap_or_default(),
                },
                voucher: fields.optional(7, |fields, key| {
                    fields.bytes(key, MOST_VOUCHER_BYTES).map(<[u8]>::to_vec)
                })?,
            };
            fields.finish()?;
            Ok(amend)
        };
        whole().map_err(of(Self::KIND))
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
        let prices = &self.prices;
        ensure(
            Self::KIND,
            prices.are_in_order(),
            "earlier prices",
            prices.earlier.len(),
            "at most 64, each until a later period",
        )?;
        ensure(
            Self::KIND,
            prices.owed(u64::from(self.periods)).is_some(),
            "price",
            prices.price,
            "small enough that all periods fit an amount",
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
