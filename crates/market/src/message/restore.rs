//! A space made what its snapshot is.

use super::{Kind, Message, MessageError, of};
use crate::cbor::{CborError, Fields, MapWriter};
use crate::id::SaleId;
use crate::quantity::UnixMillis;

/// The user wants the space as it was when its snapshot was taken. What runs of it ends, it is locked afterwards, and
/// the snapshot stays. The node answers with a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Which sale.
    pub sale: SaleId,
    /// The same one again is the same restore: it is done once.
    pub nonce: [u8; 16],
    /// When the snapshot was taken, as the status says: another one is not put back.
    pub taken: UnixMillis,
}

impl Message for Restore {
    const KIND: Kind = Kind::Restore;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .bytes(2, &self.nonce)
            .uint(3, self.taken.0)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Restore, CborError> {
            let mut fields = Fields::read(payload)?;
            let restore = Restore {
                sale: SaleId(fields.array(1)?),
                nonce: fields.array(2)?,
                taken: UnixMillis(fields.uint(3)?),
            };
            fields.finish()?;
            Ok(restore)
        };
        read().map_err(of(Self::KIND))
    }
}
