//! What a node answers to a request: an offer, or why not.

use std::fmt;

use escrow::{Account, Amount, Asset, RailKey, RailName};

use super::agreement::check_windows;
use super::request::{is_country, is_feature};
use super::{Gives, Kind, MOST_ADDRESS_BYTES, Message, MessageError, ensure, of, parse};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::{Digest, RequestHash};
use crate::quantity::{BitsPerSecond, Bytes, Seconds, UnixMillis};

const MOST_TEXT: usize = 96;
const MOST_NOTES: usize = 6;
const MOST_NOTE: usize = 160;
const MOST_REASONS: usize = 8;

/// What a node says about itself; country and features as its farmer declared them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Two capital letters.
    pub country: Option<String>,
    /// What the farmer calls the node.
    pub name: Option<String>,
    /// Declared features.
    pub features: Vec<String>,
    /// The processor.
    pub cpu_model: Option<String>,
    /// Its cores.
    pub cores: Option<u32>,
    /// All memory.
    pub memory: Option<Bytes>,
    /// `nvme`, `ssd` or `hdd`: of the disk the space would lie on.
    pub disk_kind: Option<String>,
    /// The uplink as the network card sees it.
    pub link: Option<BitsPerSecond>,
    /// The image that runs.
    pub image_version: Option<String>,
    /// Its kernel.
    pub kernel: Option<String>,
    /// `bios`, `uefi` or `uefi, secure boot`.
    pub firmware: Option<String>,
    /// Whether there is a TPM.
    pub tpm: Option<bool>,
    /// What is not sold, and why; disks not touched, for example.
    pub notes: Vec<String>,
}

/// A node's offer in answer to one request. The node is whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The request's hash.
    pub request: RequestHash,
    /// What the space gets; at least what was asked.
    pub gives: Gives,
    /// The price of one period.
    pub price: Amount,
    /// One period.
    pub period: Seconds,
    /// From the lock to the latest first voucher.
    pub accept_window: Seconds,
    /// From closing or expiry to the refund.
    pub notice: Seconds,
    /// Where to lock.
    pub rail: RailName,
    /// Which money.
    pub asset: Asset,
    /// The farmer's account.
    pub payee: Account,
    /// The node's key for returning money on that rail.
    pub give_back_key: RailKey,
    /// The base file system.
    pub base: Digest,
    /// About the node.
    pub facts: Facts,
    /// The offer can be agreed until then.
    pub valid_until: UnixMillis,
    /// Whether the capacity is held until then.
    pub held: bool,
    /// The node's endpoint, as the grid writes it.
    pub address: Vec<u8>,
}

impl Facts {
    fn write(&self) -> MapWriter {
        let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
        let texts = |values: Vec<String>| {
            values
                .into_iter()
                .map(|value| Item::text(&value))
                .collect::<Vec<_>>()
        };
        MapWriter::new()
            .when(self.country.as_deref(), |map, value| map.text(1, value))
            .when(self.name.as_deref(), |map, value| map.text(2, value))
            .when(list(&self.features), |map, values| map.list(3, texts(values)))
            .when(self.cpu_model.as_deref(), |map, value| map.text(4, value))
            .when(self.cores, |map, value| map.uint(5, u64::from(value)))
            .when(self.memory, |map, value| map.uint(6, value.0))
            .when(self.disk_kind.as_deref(), |map, value| map.text(7, value))
            .when(self.link, |map, value| map.uint(8, value.0))
            .when(self.image_version.as_deref(), |map, value| map.text(9, value))
            .when(self.kernel.as_deref(), |map, value| map.text(10, value))
            .when(self.firmware.as_deref(), |map, value| map.text(11, value))
            .when(self.tpm, |map, value| map.boolean(12, value))
            .when(list(&self.notes), |map, values| map.list(13, texts(values)))
    }

    fn read(mut fields: Fields<'_>) -> Result<Facts, CborError> {
        let text = |fields: &mut Fields<'_>, key| fields.text(key, MOST_TEXT);
        let facts = Facts {
            country: fields.optional(1, text)?,
            name: fields.optional(2, text)?,
            features: fields
                .optional(3, |fields, key| fields.texts(key, 16, 32))?
                .unwrap_or_default(),
            cpu_model: fields.optional(4, text)?,
            cores: fields.optional(5, Fields::uint_32)?,
            memory: fields.optional(6, Fields::uint)?.map(Bytes),
            disk_kind: fields.optional(7, text)?,
            link: fields.optional(8, Fields::uint)?.map(BitsPerSecond),
            image_version: fields.optional(9, text)?,
            kernel: fields.optional(10, text)?,
            firmware: fields.optional(11, text)?,
            tpm: fields.optional(12, Fields::boolean)?,
            notes: fields
                .optional(13, |fields, key| fields.texts(key, MOST_NOTES, MOST_NOTE))?
                .unwrap_or_default(),
        };
        fields.finish()?;
        Ok(facts)
    }

    fn check(&self) -> Result<(), MessageError> {
        let kind = Kind::Offer;
        let country = self.country.as_deref();
        ensure(
            kind,
            country.is_none_or(is_country),
            "country",
            country.unwrap_or(""),
            "two capital letters",
        )?;
        let odd = self.features.iter().find(|feature| !is_feature(feature));
        ensure(
            kind,
            odd.is_none(),
            "feature",
            odd.map_or("", String::as_str),
            "1 to 32 of a-z, 0-9 and -",
        )?;
        let texts = [
            &self.name,
            &self.cpu_model,
            &self.disk_kind,
            &self.image_version,
            &self.kernel,
            &self.firmware,
        ];
        let long = texts.into_iter().flatten().find(|text| text.len() > MOST_TEXT);
        ensure(
            kind,
            long.is_none(),
            "a fact",
            long.map_or("", String::as_str),
            "at most 96 bytes",
        )?;
        let long = self.notes.iter().find(|note| note.len() > MOST_NOTE);
        ensure(
            kind,
            long.is_none(),
            "a note",
            long.map_or("", String::as_str),
            "at most 160 bytes",
        )?;
        ensure(
            kind,
            self.notes.len() <= MOST_NOTES,
            "notes",
            self.notes.len(),
            "at most 6",
        )?;
        ensure(
            kind,
            self.features.len() <= 16,
            "features",
            self.features.len(),
            "at most 16",
        )
    }

    /// Cuts every text and list to its bound, so that facts read from hardware always fit an offer.
    pub fn cut_to_bounds(mut self) -> Facts {
        let texts = [
            &mut self.name,
            &mut self.cpu_model,
            &mut self.disk_kind,
            &mut self.image_version,
            &mut self.kernel,
            &mut self.firmware,
        ];
        texts.into_iter().flatten().for_each(|text| cut(text, MOST_TEXT));
        self.notes.iter_mut().for_each(|note| cut(note, MOST_NOTE));
        self.notes.truncate(MOST_NOTES);
        self.features.truncate(16);
        self
    }
}

/// Drops control characters, then cuts at a character's border.
fn cut(text: &mut String, most: usize) {
    text.retain(crate::is_plain);
    while text.len() > most {
        text.pop();
    }
}

impl Message for Offer {
    const KIND: Kind = Kind::Offer;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.request.as_bytes())
            .map(2, self.gives.write())
            .amount(3, self.price.0)
            .uint(4, self.period.0)
            .uint(5, self.accept_window.0)
            .uint(6, self.notice.0)
            .text(7, self.rail.as_str())
            .text(8, self.asset.as_str())
            .text(9, self.payee.as_str())
            .bytes(10, self.give_back_key.as_bytes())
            .bytes(11, self.base.as_bytes())
            .map(12, self.facts.write())
            .uint(13, self.valid_until.0)
            .boolean(14, self.held)
            .bytes(15, &self.address)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Offer, CborError> {
            let mut fields = Fields::read(payload)?;
            let offer = Offer {
                request: RequestHash(fields.array(1)?),
                gives: Gives::read(fields.map(2)?)?,
                price: Amount(fields.amount(3)?),
                period: Seconds(fields.uint(4)?),
                accept_window: Seconds(fields.uint(5)?),
                notice: Seconds(fields.uint(6)?),
                rail: parse(&fields.text(7, 80)?, 7, "a rail")?,
                asset: parse(&fields.text(8, 64)?, 8, "an asset")?,
                payee: parse(&fields.text(9, 170)?, 9, "an account")?,
                give_back_key: read_key(&mut fields, 10)?,
                base: Digest(fields.array(11)?),
                facts: Facts::read(fields.map(12)?)?,
                valid_until: UnixMillis(fields.uint(13)?),
                held: fields.boolean(14)?,
                address: fields.bytes(15, MOST_ADDRESS_BYTES)?.to_vec(),
            };
            fields.finish()?;
            Ok(offer)
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        self.gives.check_offered(Self::KIND)?;
        self.facts.check()?;
        check_windows(Self::KIND, self.accept_window, self.notice)?;
        ensure(
            Self::KIND,
            self.period.0 > 0,
            "period",
            self.period,
            "more than zero",
        )?;
        let length = self.address.len();
        ensure(
            Self::KIND,
            (1..=MOST_ADDRESS_BYTES).contains(&length),
            "address",
            length,
            "1 to 1024 bytes",
        )
    }
}

/// A key of a kind that the rail can check.
pub(super) fn read_key(fields: &mut Fields<'_>, key: i64) -> Result<RailKey, CborError> {
    RailKey::new(fields.bytes(key, 33)?).ok_or(CborError::Value {
        key,
        expected: "a key of 32 or 33 bytes",
    })
}

/// Why a node does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeclineCode {
    /// Not enough CPU time free (thousandths).
    Cpu,
    /// Not enough memory free (bytes).
    Memory,
    /// Not enough free on one disk (bytes).
    Disk,
    /// Not enough network rate free (bits a second).
    Rate,
    /// Dearer than the asker allows (an hour).
    Price,
    /// Another country.
    Country,
    /// Another farmer.
    Farmer,
    /// Another node.
    Node,
    /// A feature is not declared.
    Feature,
    /// Not paid on any of the asked rails, or in another asset.
    Rail,
    /// The period or duration does not suit.
    Duration,
    /// Too many processes are sold, or too many spaces.
    Spaces,
    /// The node sells nothing now.
    NotSelling,
    /// The request had expired, or was meant for the far future.
    Expired,
    /// Asked too often.
    Busy,
    /// A reason of a later version.
    Other(u32),
}

impl DeclineCode {
    const KNOWN: [DeclineCode; 15] = [
        DeclineCode::Cpu,
        DeclineCode::Memory,
        DeclineCode::Disk,
        DeclineCode::Rate,
        DeclineCode::Price,
        DeclineCode::Country,
        DeclineCode::Farmer,
        DeclineCode::Node,
        DeclineCode::Feature,
        DeclineCode::Rail,
        DeclineCode::Duration,
        DeclineCode::Spaces,
        DeclineCode::NotSelling,
        DeclineCode::Expired,
        DeclineCode::Busy,
    ];

    /// As it travels: 1, 2, … in the order above.
    pub fn number(self) -> u32 {
        match self {
            DeclineCode::Other(number) => number,
            known => DeclineCode::KNOWN
                .iter()
                .zip(1..)
                .find(|(code, _)| **code == known)
                .map_or(0, |(_, number)| number),
        }
    }

    /// From its number.
    pub fn from_number(number: u32) -> DeclineCode {
        let known = DeclineCode::KNOWN
            .iter()
            .zip(1..)
            .find(|(_, known)| *known == number);
        known.map_or(DeclineCode::Other(number), |(code, _)| *code)
    }
}

impl fmt::Display for DeclineCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            DeclineCode::Cpu => "not enough cpu",
            DeclineCode::Memory => "not enough memory",
            DeclineCode::Disk => "not enough free on one disk",
            DeclineCode::Rate => "not enough network rate",
            DeclineCode::Price => "dearer than you allow",
            DeclineCode::Country => "in another country",
            DeclineCode::Farmer => "of another farmer",
            DeclineCode::Node => "another node",
            DeclineCode::Feature => "without a feature you ask for",
            DeclineCode::Rail => "not paid where you pay",
            DeclineCode::Duration => "not for this duration or period",
            DeclineCode::Spaces => "no room for another space",
            DeclineCode::NotSelling => "not selling now",
            DeclineCode::Expired => "your request had expired",
            DeclineCode::Busy => "asked too often",
            DeclineCode::Other(number) => return write!(formatter, "for reason {number}"),
        })
    }
}

/// One reason, with its numbers in smallest parts where it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Which.
    pub code: DeclineCode,
    /// What was asked.
    pub asked: Option<u128>,
    /// What there is.
    pub have: Option<u128>,
    /// In words, where numbers do not say it.
    pub words: Option<String>,
}

impl Reason {
    /// A reason without numbers.
    pub fn plain(code: DeclineCode) -> Reason {
        Reason {
            code,
            asked: None,
            have: None,
            words: None,
        }
    }

    /// A reason with both numbers.
    pub fn numbers(code: DeclineCode, asked: u128, have: u128) -> Reason {
        Reason {
            code,
            asked: Some(asked),
            have: Some(have),
            words: None,
        }
    }

    pub(super) fn write(&self) -> MapWriter {
        MapWriter::new()
            .uint(1, u64::from(self.code.number()))
            .when(self.asked, |map, value| map.amount(2, value))
            .when(self.have, |map, value| map.amount(3, value))
            .when(self.words.as_deref(), |map, value| map.text(4, value))
    }

    pub(super) fn read(item: &[u8]) -> Result<Reason, CborError> {
        let mut fields = Fields::split(item)?;
        let reason = Reason {
            code: DeclineCode::from_number(fields.uint_32(1)?),
            asked: fields.optional(2, Fields::amount)?,
            have: fields.optional(3, Fields::amount)?,
            words: fields.optional(4, |fields, key| fields.text(key, MOST_NOTE))?,
        };
        fields.finish()?;
        Ok(reason)
    }
}

/// A node's answer to a request that it does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline {
    /// The request's hash.
    pub request: RequestHash,
    /// At least one, the weightiest first.
    pub reasons: Vec<Reason>,
}

impl Message for Decline {
    const KIND: Kind = Kind::Decline;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.request.as_bytes())
            .list(2, self.reasons.iter().map(|reason| Item::map(reason.write())))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Decline, CborError> {
            let mut fields = Fields::read(payload)?;
            let request = RequestHash(fields.array(1)?);
            let reasons = fields.list(2, MOST_REASONS, Reason::read)?;
            fields.finish()?;
            Ok(Decline { request, reasons })
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        let (count, rule) = (self.reasons.len(), "1 to 8");
        ensure(
            Self::KIND,
            (1..=MOST_REASONS).contains(&count),
            "reasons",
            count,
            rule,
        )?;
        let zero = self.reasons.iter().any(|reason| reason.code.number() == 0);
        ensure(Self::KIND, !zero, "reason", 0, "1 or more")
    }
}
