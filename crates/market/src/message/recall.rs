//! A user who has nothing left but the keys asks a node for the sales that both signed.
//!
//! Each answer holds a few sales whole, so that even the largest fit one message; the rest is asked for by the id of
//! the last one. What comes back is bytes that were signed before: the asker opens every one of them.

use super::{Kind, Message, MessageError, ensure, of};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::{Digest, EndpointId, SaleId};
use crate::quantity::UnixMillis;

/// Sales in one answer: this many of the largest stay below the bound of a message.
pub const MOST_RECALLED: usize = 3;
const MOST_REQUEST: usize = 2 << 10;
const MOST_OTHER: usize = 4 << 10;
const MOST_GRANT: usize = 1 << 10;

/// The user asks for the sales of the key that signs this. Like a delegate it names the endpoint at the stream's other
/// end and ends soon, so that nobody else can say it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    /// Which endpoint asks.
    pub endpoint: EndpointId,
    /// Until when.
    pub expires: UnixMillis,
    /// Only sales with a greater id: the last one of the answer before.
    pub after: Option<SaleId>,
}

impl Message for Recall {
    const KIND: Kind = Kind::Recall;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.endpoint.as_bytes())
            .uint(2, self.expires.0)
            .when(self.after, |map, sale| map.bytes(3, sale.as_bytes()))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Recall, CborError> {
            let mut fields = Fields::read(payload)?;
            let recall = Recall {
                endpoint: EndpointId(fields.array(1)?),
                expires: UnixMillis(fields.uint(2)?),
                after: fields.optional(3, Fields::array)?.map(SaleId),
            };
            fields.finish()?;
            Ok(recall)
        };
        read().map_err(of(Self::KIND))
    }
}

/// One sale: whole signed messages, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecalledSale {
    /// The user's request.
    pub request: Vec<u8>,
    /// The node's offer.
    pub offer: Vec<u8>,
    /// What both signed.
    pub sale: Vec<u8>,
    /// The newest grant: it names the host key to pin.
    pub grant: Option<Vec<u8>>,
    /// The newest change that both signed.
    pub amended: Option<Vec<u8>>,
    /// The receipt, once there is one.
    pub receipt: Option<Vec<u8>>,
}

impl RecalledSale {
    fn write(&self) -> MapWriter {
        MapWriter::new()
            .bytes(1, &self.request)
            .bytes(2, &self.offer)
            .bytes(3, &self.sale)
            .when(self.grant.as_deref(), |map, grant| map.bytes(4, grant))
            .when(self.amended.as_deref(), |map, amended| map.bytes(5, amended))
            .when(self.receipt.as_deref(), |map, receipt| map.bytes(6, receipt))
    }

    fn read(item: &[u8]) -> Result<RecalledSale, CborError> {
        let mut fields = Fields::split(item)?;
        let other = |fields: &mut Fields<'_>, key| fields.bytes(key, MOST_OTHER).map(<[u8]>::to_vec);
        let sale = RecalledSale {
            request: fields.bytes(1, MOST_REQUEST)?.to_vec(),
            offer: other(&mut fields, 2)?,
            sale: other(&mut fields, 3)?,
            grant: fields
                .optional(4, |fields, key| fields.bytes(key, MOST_GRANT))?
                .map(<[u8]>::to_vec),
            amended: fields.optional(5, other)?,
            receipt: fields.optional(6, other)?,
        };
        fields.finish()?;
        Ok(sale)
    }

    /// Each part with its bound.
    fn parts(&self) -> [(&'static str, usize, usize); 6] {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        [
            ("request", self.request.len(), MOST_REQUEST),
            ("offer", self.offer.len(), MOST_OTHER),
            ("sale", self.sale.len(), MOST_OTHER),
            ("grant", length(&self.grant), MOST_GRANT),
            ("change", length(&self.amended), MOST_OTHER),
            ("receipt", length(&self.receipt), MOST_OTHER),
        ]
    }
}

/// The node's answer: the user's sales by rising id, a few at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// The hash of the signed Recall.
    pub recall: Digest,
    /// At most [`MOST_RECALLED`].
    pub sales: Vec<RecalledSale>,
    /// There are further ones.
    pub more: bool,
}

impl Message for Recalled {
    const KIND: Kind = Kind::Recalled;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.recall.as_bytes())
            .list(2, self.sales.iter().map(|sale| Item::map(sale.write())))
            .boolean(3, self.more)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Recalled, CborError> {
            let mut fields = Fields::read(payload)?;
            let recalled = Recalled {
                recall: Digest(fields.array(1)?),
                sales: fields.list(2, MOST_RECALLED, RecalledSale::read)?,
                more: fields.boolean(3)?,
            };
            fields.finish()?;
            Ok(recalled)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        let count = self.sales.len();
        ensure(Self::KIND, count <= MOST_RECALLED, "sales", count, "at most 3")?;
        let mut parts = self.sales.iter().flat_map(RecalledSale::parts);
        match parts.find(|(_, length, most)| length > most) {
            Some((part, length, _)) => ensure(Self::KIND, false, part, length, "within its bound"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_answer_fits_one_message() {
        let part = |most| vec![0x55; most];
        let sale = RecalledSale {
            request: part(MOST_REQUEST),
            offer: part(MOST_OTHER),
            sale: part(MOST_OTHER),
            grant: Some(part(MOST_GRANT)),
            amended: Some(part(MOST_OTHER)),
            receipt: Some(part(MOST_OTHER)),
        };
        let full = Recalled {
            recall: Digest([1; 32]),
            sales: vec![sale.clone(); MOST_RECALLED],
            more: true,
        };
        let envelope_bytes = 512;
        assert!(full.to_payload().len() + envelope_bytes <= Kind::Recalled.most_bytes());
        assert_eq!(Recalled::from_payload(&full.to_payload()), Ok(full.clone()));
        assert_eq!(full.check(), Ok(()));

        let four = Recalled {
            sales: vec![sale.clone(); MOST_RECALLED + 1],
            ..full.clone()
        };
        let long = RecalledSale {
            offer: part(MOST_OTHER + 1),
            ..sale
        };
        let long = Recalled {
            sales: vec![long],
            ..full
        };
        for broken in [four, long] {
            assert!(broken.check().is_err());
            assert!(Recalled::from_payload(&broken.to_payload()).is_err());
        }
    }
}
