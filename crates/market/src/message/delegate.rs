//! Who may speak for a sale on a stream, and the two frames that open a tunnel.

use super::{Kind, Message, MessageError, RefusalCode, of};
use crate::cbor::{CborError, Fields, MapWriter};
use crate::id::{EndpointId, SaleId};
use crate::quantity::UnixMillis;

/// The user lets an endpoint speak for a sale. First frame of a direct stream, and part of a tunnel's opening.
///
/// The stream's other end is proven by the grid's transport; this binds it to the sale. A node refuses one that ends
/// more than 24 hours ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    /// Which sale.
    pub sale: SaleId,
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Until when.
    pub expires: UnixMillis,
}

impl Message for Delegate {
    const KIND: Kind = Kind::Delegate;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.sale.as_bytes())
            .bytes(2, self.endpoint.as_bytes())
            .uint(3, self.expires.0)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Delegate, CborError> {
            let mut fields = Fields::read(payload)?;
            let delegate = Delegate {
                sale: SaleId(fields.array(1)?),
                endpoint: EndpointId(fields.array(2)?),
                expires: UnixMillis(fields.uint(3)?),
            };
            fields.finish()?;
            Ok(delegate)
        };
        read().map_err(of(Self::KIND))
    }
}

/// The first frame of a tunnel stream: not signed itself, for the signed delegate in it names the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelOpening {
    /// The signed Delegate, whole.
    pub delegate: Vec<u8>,
    /// The TCP port inside the space; SSH is 22.
    pub port: u16,
}

impl TunnelOpening {
    /// The frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, &self.delegate)
            .uint(2, u64::from(self.port))
            .finish()
    }

    /// From the frame.
    pub fn from_bytes(bytes: &[u8]) -> Result<TunnelOpening, CborError> {
        let mut fields = Fields::read(bytes)?;
        let delegate = fields.bytes(1, 2048)?.to_vec();
        let port = u16::try_from(fields.uint(2)?).ok().filter(|port| *port != 0);
        fields.finish()?;
        Ok(TunnelOpening {
            delegate,
            port: port.ok_or(CborError::Value {
                key: 2,
                expected: "a port",
            })?,
        })
    }
}

/// The node's answer to a tunnel's opening; raw bytes follow where it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelAnswer {
    /// Connected.
    Open,
    /// Not, and why.
    Refused {
        /// Why.
        code: RefusalCode,
        /// In words.
        words: String,
    },
}

impl TunnelAnswer {
    /// The frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            TunnelAnswer::Open => MapWriter::new().boolean(1, true).finish(),
            TunnelAnswer::Refused { code, words } => {
                let words: String = words
                    .chars()
                    .filter(|letter| crate::is_plain(*letter))
                    .take(250)
                    .collect();
                MapWriter::new()
                    .boolean(1, false)
                    .uint(2, u64::from(code.number()))
                    .text(3, &words)
                    .finish()
            }
        }
    }

    /// From the frame.
    pub fn from_bytes(bytes: &[u8]) -> Result<TunnelAnswer, CborError> {
        let mut fields = Fields::read(bytes)?;
        let answer = if fields.boolean(1)? {
            TunnelAnswer::Open
        } else {
            let code = RefusalCode::from_number(fields.uint_32(2)?);
            TunnelAnswer::Refused {
                code,
                words: fields.text(3, 1024)?,
            }
        };
        fields.finish()?;
        Ok(answer)
    }
}
