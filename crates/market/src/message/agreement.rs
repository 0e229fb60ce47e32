//! The sale's body, and the two signatures over it.
//!
//! Agree is the user's envelope over the body; Sale is the node's envelope over the exact bytes of Agree. The id is
//! the hash of the body alone, so nothing is circular, and the escrow's terms follow from body and id.

use escrow::{Account, Amount, Asset, RailKey, RailName, Terms};

use super::offer::read_key;
use super::{CapacityRequest, Kind, Message, MessageError, Offer, ensure, of, parse};
use crate::cbor::{CborError, Fields, MapWriter};
use crate::envelope::{self, Signed};
use crate::id::{Digest, GridId, NodeId, OfferHash, RequestHash, SaleId, UserId};
use crate::quantity::Seconds;

/// The version of the body that this program writes and reads.
const BODY_VERSION: u64 = 1;
const MOST_PERIODS: u32 = 100_000;

/// A day: where finality is slow a lock waits long for its first voucher.
pub(crate) const MOST_ACCEPT_S: u64 = 86_400;
/// A week: so long a silent node can keep what was not paid from the user.
const MOST_NOTICE_S: u64 = 7 * 86_400;

/// The windows in which money stands still; no offer and no sale has longer ones.
pub(super) fn check_windows(kind: Kind, accept_window: Seconds, notice: Seconds) -> Result<(), MessageError> {
    let fits = accept_window.0 <= MOST_ACCEPT_S;
    ensure(kind, fits, "accept window", accept_window, "at most a day")?;
    ensure(
        kind,
        notice.0 <= MOST_NOTICE_S,
        "notice",
        notice,
        "at most a week",
    )
}

/// What both sides sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleBody {
    /// The grid both are on.
    pub grid: GridId,
    /// Which request.
    pub request: RequestHash,
    /// Which offer.
    pub offer: OfferHash,
    /// Who buys.
    pub user: UserId,
    /// Who sells.
    pub node: NodeId,
    /// Signs this sale's vouchers.
    pub voucher_key: RailKey,
    /// Signs this sale's give-back.
    pub give_back_key: RailKey,
    /// Who locks the money.
    pub payer: Account,
    /// Who is paid.
    pub payee: Account,
    /// Where.
    pub rail: RailName,
    /// In which money.
    pub asset: Asset,
    /// The price of one period.
    pub price: Amount,
    /// One period.
    pub period: Seconds,
    /// How many.
    pub periods: u32,
    /// From the lock to the latest first voucher.
    pub accept_window: Seconds,
    /// From closing or expiry to the refund.
    pub notice: Seconds,
    /// The base file system.
    pub base: Digest,
    /// Makes two equal sales differ; the client derives the voucher key from it.
    pub nonce: [u8; 32],
}

/// How a body differs from the request and offer it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sale's {0} is not what was requested and offered")]
pub struct Mismatch(pub &'static str);

impl SaleBody {
    /// The body that accepts this offer to this request.
    pub fn accepting(
        request: &Signed<CapacityRequest>,
        offer: &Signed<Offer>,
        payer: Account,
        voucher_key: RailKey,
        nonce: [u8; 32],
    ) -> Result<SaleBody, Mismatch> {
        let terms = &offer.message;
        let body = SaleBody {
            grid: offer.grid,
            request: request.request_hash(),
            offer: offer.offer_hash(),
            user: UserId(request.signer),
            node: NodeId(offer.signer),
            voucher_key,
            give_back_key: terms.give_back_key.clone(),
            payer,
            payee: terms.payee.clone(),
            rail: terms.rail.clone(),
            asset: terms.asset.clone(),
            price: terms.price,
            period: terms.period,
            periods: request.message.periods(),
            accept_window: terms.accept_window,
            notice: terms.notice,
            base: terms.base,
            nonce,
        };
        body.matches(request, offer)?;
        Ok(body)
    }

    /// Whether the body is what this request and this offer say. Both sides ask before they sign.
    pub fn matches(&self, request: &Signed<CapacityRequest>, offer: &Signed<Offer>) -> Result<(), Mismatch> {
        let (asked, offered) = (&request.message, &offer.message);
        let rules = [
            ("grid", self.grid == request.grid && self.grid == offer.grid),
            (
                "request",
                self.request == request.request_hash() && offered.request == self.request,
            ),
            ("offer", self.offer == offer.offer_hash()),
            ("request (it only looks)", !asked.only_looks),
            ("user", self.user.0 == request.signer),
            ("node", self.node.0 == offer.signer),
            ("give-back key", self.give_back_key == offered.give_back_key),
            ("payer", self.payer.is_on(&self.rail)),
            (
                "payee",
                self.payee == offered.payee && self.payee.is_on(&self.rail),
            ),
            ("rail", self.rail == offered.rail),
            ("asset", self.asset == offered.asset),
            (
                "rail",
                asked
                    .rails
                    .iter()
                    .any(|pair| pair.rail == self.rail && pair.asset == self.asset),
            ),
            ("price", self.price == offered.price),
            (
                "period",
                self.period == offered.period && self.period == asked.period,
            ),
            ("number of periods", self.periods == asked.periods()),
            ("accept window", self.accept_window == offered.accept_window),
            ("notice", self.notice == offered.notice),
            ("base", self.base == offered.base),
            ("capacity", asked.needs.are_met_by(&offered.gives)),
        ];
        rules
            .into_iter()
            .find(|(_, holds)| !holds)
            .map_or(Ok(()), |(what, _)| Err(Mismatch(what)))
    }

    /// The sale's id.
    pub fn id(&self) -> SaleId {
        SaleId::of_body(&self.to_bytes())
    }

    /// What the lock is for.
    pub fn terms(&self) -> Terms {
        Terms {
            asset: self.asset.clone(),
            payer: self.payer.clone(),
            payee: self.payee.clone(),
            voucher_key: self.voucher_key.clone(),
            give_back_key: self.give_back_key.clone(),
            sale: self.id().0,
            accept_window_ms: self.accept_window.as_ms(),
            notice_ms: self.notice.as_ms(),
        }
    }

    /// All periods together; a checked body's always fits.
    pub fn total(&self) -> Amount {
        self.owed_after(self.periods)
    }

    /// What is owed in all once so many periods have begun.
    pub fn owed_after(&self, periods: u32) -> Amount {
        self.price
            .checked_mul(u64::from(periods))
            .unwrap_or(Amount(u128::MAX))
    }

    /// The bytes that are hashed into the id.
    pub fn to_bytes(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(0, BODY_VERSION)
            .bytes(1, self.grid.as_bytes())
            .bytes(2, self.request.as_bytes())
            .bytes(3, self.offer.as_bytes())
            .bytes(4, self.user.as_bytes())
            .bytes(5, self.node.as_bytes())
            .bytes(6, self.voucher_key.as_bytes())
            .bytes(7, self.give_back_key.as_bytes())
            .text(8, self.payer.as_str())
            .text(9, self.payee.as_str())
            .text(10, self.rail.as_str())
            .text(11, self.asset.as_str())
            .amount(12, self.price.0)
            .uint(13, self.period.0)
            .uint(14, u64::from(self.periods))
            .uint(15, self.accept_window.0)
            .uint(16, self.notice.0)
            .bytes(17, self.base.as_bytes())
            .bytes(18, &self.nonce)
            .finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<SaleBody, CborError> {
        let mut fields = Fields::read(bytes)?;
        if fields.uint(0)? != BODY_VERSION {
            return Err(CborError::Value {
                key: 0,
                expected: "version 1",
            });
        }
        let body = SaleBody {
            grid: GridId(fields.array(1)?),
            request: RequestHash(fields.array(2)?),
            offer: OfferHash(fields.array(3)?),
            user: UserId(fields.array(4)?),
            node: NodeId(fields.array(5)?),
            voucher_key: read_key(&mut fields, 6)?,
            give_back_key: read_key(&mut fields, 7)?,
            payer: parse(&fields.text(8, 170)?, 8, "an account")?,
            payee: parse(&fields.text(9, 170)?, 9, "an account")?,
            rail: parse(&fields.text(10, 80)?, 10, "a rail")?,
            asset: parse(&fields.text(11, 64)?, 11, "an asset")?,
            price: Amount(fields.amount(12)?),
            period: Seconds(fields.uint(13)?),
            periods: fields.uint_32(14)?,
            accept_window: Seconds(fields.uint(15)?),
            notice: Seconds(fields.uint(16)?),
            base: Digest(fields.array(17)?),
            nonce: fields.array(18)?,
        };
        fields.finish()?;
        Ok(body)
    }
}

/// The user's signature over a sale's body.
///
/// The id is taken from the bytes as they were signed: an Agree with ignored negative keys has another id than the
/// body without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agree {
    /// What it says.
    pub body: SaleBody,
    /// The sale's id, over the exact bytes.
    pub sale: SaleId,
    payload: Vec<u8>,
}

impl Agree {
    /// To be signed by the body's user.
    pub fn new(body: SaleBody) -> Agree {
        let payload = body.to_bytes();
        Agree {
            sale: SaleId::of_body(&payload),
            body,
            payload,
        }
    }
}

impl Message for Agree {
    const KIND: Kind = Kind::Agree;

    fn to_payload(&self) -> Vec<u8> {
        self.payload.clone()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let body = SaleBody::from_bytes(payload).map_err(of(Self::KIND))?;
        if body.to_bytes() != payload {
            // terms are derived from the body: extra keys would give one sale two ids
            return Err(of(Self::KIND)(CborError::Form {
                at: 0,
                what: "a sale's body with keys it does not know",
            }));
        }
        Ok(Agree {
            body,
            sale: SaleId::of_body(payload),
            payload: payload.to_vec(),
        })
    }

    fn check(&self) -> Result<(), MessageError> {
        let (kind, body) = (Self::KIND, &self.body);
        ensure(kind, body.period.0 > 0, "period", body.period, "more than zero")?;
        check_windows(kind, body.accept_window, body.notice)?;
        let periods = body.periods;
        ensure(
            kind,
            (1..=MOST_PERIODS).contains(&periods),
            "periods",
            periods,
            "1 to 100000",
        )?;
        let total = body.price.checked_mul(u64::from(periods));
        ensure(
            kind,
            total.is_some(),
            "price",
            body.price,
            "small enough that all periods fit an amount",
        )
    }

    fn check_signer(&self, signer: &[u8; 32], grid: GridId) -> Result<(), MessageError> {
        match (self.body.user.0 == *signer, self.body.grid == grid) {
            (true, true) => Ok(()),
            (false, _) => Err(MessageError::Signer {
                kind: Self::KIND,
                what: "user",
            }),
            (true, false) => Err(MessageError::Signer {
                kind: Self::KIND,
                what: "grid",
            }),
        }
    }
}

/// The node's signature over the user's Agree: from here on there is a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// What the user signed.
    pub agree: Signed<Agree>,
}

impl Sale {
    /// The body.
    pub fn body(&self) -> &SaleBody {
        &self.agree.message.body
    }

    /// The sale's id.
    pub fn id(&self) -> SaleId {
        self.agree.message.sale
    }
}

impl Message for Sale {
    const KIND: Kind = Kind::Sale;

    fn to_payload(&self) -> Vec<u8> {
        self.agree.bytes.clone()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let inner = |error: envelope::EnvelopeError| MessageError::Inner {
            outer: Kind::Sale,
            inner: Kind::Agree,
            why: error.to_string(),
        };
        envelope::open::<Agree>(payload, None)
            .map(|agree| Sale { agree })
            .map_err(inner)
    }

    fn check_signer(&self, signer: &[u8; 32], grid: GridId) -> Result<(), MessageError> {
        match (self.body().node.0 == *signer, self.agree.grid == grid) {
            (true, true) => Ok(()),
            (false, _) => Err(MessageError::Signer {
                kind: Self::KIND,
                what: "node",
            }),
            (true, false) => Err(MessageError::Signer {
                kind: Self::KIND,
                what: "grid",
            }),
        }
    }
}
