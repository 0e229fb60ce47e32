//! What a user asks for.

use escrow::{Account, Amount, Asset, RailName};

use super::{Kind, MOST_ADDRESS_BYTES, Message, MessageError, ensure, of, parse};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::{NodeId, RequestHash};
use crate::quantity::{BitsPerSecond, Bytes, MilliCpus, Seconds, UnixMillis};

const KIND: Kind = Kind::Request;
const MOST_RAILS: usize = 4;
const MOST_FEATURES: usize = 8;
const MOST_PERIODS: u32 = 100_000;
/// Ten years.
const MOST_DURATION_S: u64 = 10 * 365 * 86400;
/// 1 PiB: no single quantity of bytes is larger.
const MOST_SIZE: u64 = 1 << 50;

/// What the user needs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Needs {
    /// CPU time.
    pub cpu: MilliCpus,
    /// Memory.
    pub memory: Bytes,
    /// The volume.
    pub disk: Bytes,
    /// Network rate; none: whatever the node gives.
    pub rate: Option<BitsPerSecond>,
}

/// What a node gives: every figure is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gives {
    /// CPU time.
    pub cpu: MilliCpus,
    /// Memory.
    pub memory: Bytes,
    /// The volume.
    pub disk: Bytes,
    /// Network rate, each way.
    pub rate: BitsPerSecond,
    /// Processes and threads.
    pub pids: u32,
    /// What a snapshot of the volume takes of the disk beside it; 0: there is none.
    pub snapshot: Bytes,
}

/// One rail the user can pay on, and with which money.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RailAsset {
    /// The rail.
    pub rail: RailName,
    /// The money.
    pub asset: Asset,
}

/// Who may answer. Nothing set: anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// Two upper-case letters (ISO 3166-1), as the farmer declared it.
    pub country: Option<String>,
    /// The payee's account.
    pub farmer: Option<Account>,
    /// One node.
    pub node: Option<NodeId>,
    /// All of these, as the farmer declared them.
    pub features: Vec<String>,
}

/// A capacity request: broadcast, answered by offers and declines straight to `answer_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityRequest {
    /// How much.
    pub needs: Needs,
    /// How long; a whole number of periods.
    pub duration: Seconds,
    /// What is paid for at a time.
    pub period: Seconds,
    /// The highest price an hour; none: any.
    pub max_price_per_hour: Option<Amount>,
    /// At least one.
    pub rails: Vec<RailAsset>,
    /// Who may answer.
    pub filters: Filters,
    /// Answers are not wanted after this; a node refuses one more than ten minutes ahead.
    pub expires: UnixMillis,
    /// Makes two equal requests differ.
    pub nonce: [u8; 16],
    /// The asker's endpoint, as the grid writes it.
    pub answer_to: Vec<u8>,
    /// The asker wants to see offers and agrees to none: nothing is held, nothing can be agreed. On the wire it stands
    /// only where it is true, so a request without it holds, and a node that does not know it refuses it.
    pub only_looks: bool,
}

impl Needs {
    pub(super) fn write(&self) -> MapWriter {
        MapWriter::new()
            .uint(1, u64::from(self.cpu.0))
            .uint(2, self.memory.0)
            .uint(3, self.disk.0)
            .when(self.rate, |map, rate| map.uint(4, rate.0))
    }

    pub(super) fn read(mut fields: Fields<'_>) -> Result<Needs, CborError> {
        let needs = Needs {
            cpu: MilliCpus(fields.uint_32(1)?),
            memory: Bytes(fields.uint(2)?),
            disk: Bytes(fields.uint(3)?),
            rate: fields.optional(4, Fields::uint)?.map(BitsPerSecond),
        };
        fields.finish()?;
        Ok(needs)
    }

    /// Whether what a node gives is at least this.
    pub fn are_met_by(&self, gives: &Gives) -> bool {
        gives.cpu >= self.cpu
            && gives.memory >= self.memory
            && gives.disk >= self.disk
            && self.rate.is_none_or(|rate| gives.rate >= rate)
    }
}

impl Gives {
    /// What it takes of a disk: the volume, and its snapshot.
    pub fn on_disk(&self) -> Bytes {
        Bytes(self.disk.0.saturating_add(self.snapshot.0))
    }

    /// What it takes of a machine's memory: the space's, and the kernel's list of what its snapshot holds, which is at
    /// most 64 bytes for each 64 KiB.
    pub fn in_memory(&self) -> Bytes {
        Bytes(self.memory.0.saturating_add(self.snapshot.0 / 1024))
    }

    pub(super) fn write(&self) -> MapWriter {
        MapWriter::new()
            .uint(1, u64::from(self.cpu.0))
            .uint(2, self.memory.0)
            .uint(3, self.disk.0)
            .uint(4, self.rate.0)
            .uint(5, u64::from(self.pids))
            .when(Some(self.snapshot).filter(|bytes| bytes.0 > 0), |map, bytes| {
                map.uint(6, bytes.0)
            })
    }

    pub(super) fn read(mut fields: Fields<'_>) -> Result<Gives, CborError> {
        let gives = Gives {
            cpu: MilliCpus(fields.uint_32(1)?),
            memory: Bytes(fields.uint(2)?),
            disk: Bytes(fields.uint(3)?),
            rate: BitsPerSecond(fields.uint(4)?),
            pids: fields.uint_32(5)?,
            snapshot: match fields.optional(6, Fields::uint)? {
                Some(0) => {
                    return Err(CborError::Value {
                        key: 6,
                        expected: "more than zero, or the key left out",
                    });
                }
                bytes => Bytes(bytes.unwrap_or(0)),
            },
        };
        fields.finish()?;
        Ok(gives)
    }

    /// As [`Gives::check`]; a snapshot is taken of a space that runs, and never offered.
    pub(super) fn check_offered(&self, kind: Kind) -> Result<(), MessageError> {
        ensure(
            kind,
            self.snapshot == Bytes::ZERO,
            "snapshot",
            self.snapshot,
            "zero",
        )?;
        self.check(kind)
    }

    pub(super) fn check(&self, kind: Kind) -> Result<(), MessageError> {
        check_sizes(kind, self.cpu, self.memory, self.disk)?;
        ensure(kind, self.rate.0 > 0, "rate", self.rate, "more than zero")?;
        ensure(
            kind,
            self.snapshot.0 <= 2 * MOST_SIZE,
            "snapshot",
            self.snapshot,
            "at most 2048TiB",
        )?;
        ensure(
            kind,
            (1..=1 << 22).contains(&self.pids),
            "pids",
            self.pids,
            "1 to 4194304",
        )
    }
}

fn check_sizes(kind: Kind, cpu: MilliCpus, memory: Bytes, disk: Bytes) -> Result<(), MessageError> {
    let cpu_rule = "0.001 to 4096 CPUs";
    ensure(kind, (1..=4_096_000).contains(&cpu.0), "cpu", cpu, cpu_rule)?;
    ensure(
        kind,
        (1..=MOST_SIZE).contains(&memory.0),
        "memory",
        memory,
        "more than zero, at most 1024TiB",
    )?;
    ensure(
        kind,
        (1..=MOST_SIZE).contains(&disk.0),
        "disk",
        disk,
        "more than zero, at most 1024TiB",
    )
}

impl CapacityRequest {
    /// Refuses what breaks the bounds: done anyway when it is signed, here for a good message before anything else.
    pub fn checked(self) -> Result<CapacityRequest, MessageError> {
        self.check()?;
        Ok(self)
    }

    /// How many periods the duration is; 0 never occurs in a checked one.
    pub fn periods(&self) -> u32 {
        self.period.periods_in(self.duration).unwrap_or(0)
    }

    /// What offers name: the hash of these signed bytes.
    pub fn hash_of(bytes: &[u8]) -> RequestHash {
        RequestHash(crate::id::Digest::of(bytes).0)
    }
}

/// Country as ISO 3166-1 writes it.
pub(super) fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A feature: 1 to 32 of `[a-z0-9-]`.
pub(super) fn is_feature(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl Filters {
    fn write(&self) -> Option<MapWriter> {
        let features = (!self.features.is_empty()).then_some(&self.features);
        let map = MapWriter::new()
            .when(self.country.as_deref(), |map, country| map.text(1, country))
            .when(self.farmer.as_ref(), |map, farmer| map.text(2, farmer.as_str()))
            .when(self.node, |map, node| map.bytes(3, node.as_bytes()))
            .when(features, |map, features| {
                map.list(4, features.iter().map(|feature| Item::text(feature)))
            });
        (*self != Filters::default()).then_some(map)
    }

    fn read(mut fields: Fields<'_>) -> Result<Filters, CborError> {
        let filters = Filters {
            country: fields.optional(1, |fields, key| fields.text(key, 2))?,
            farmer: fields.optional(2, |fields, key| parse(&fields.text(key, 170)?, key, "an account"))?,
            node: fields.optional(3, Fields::array)?.map(NodeId),
            features: fields
                .optional(4, |fields, key| fields.texts(key, MOST_FEATURES, 32))?
                .unwrap_or_default(),
        };
        fields.finish()?;
        Ok(filters)
    }
}

impl RailAsset {
    fn read(item: &[u8]) -> Result<RailAsset, CborError> {
        let mut fields = Fields::split(item)?;
        let pair = RailAsset {
            rail: parse(&fields.text(1, 80)?, 1, "a rail")?,
            asset: parse(&fields.text(2, 64)?, 2, "an asset")?,
        };
        fields.finish()?;
        Ok(pair)
    }
}

/// A mark is there or not: one that is written says `true`, so that a request has one encoding.
fn read_mark(fields: &mut Fields<'_>, key: i64) -> Result<(), CborError> {
    match fields.boolean(key)? {
        true => Ok(()),
        false => Err(CborError::Value {
            key,
            expected: "true, or the key left out",
        }),
    }
}

impl Message for CapacityRequest {
    const KIND: Kind = KIND;

    fn to_payload(&self) -> Vec<u8> {
        let rail = |pair: &RailAsset| {
            Item::map(
                MapWriter::new()
                    .text(1, pair.rail.as_str())
                    .text(2, pair.asset.as_str()),
            )
        };
        MapWriter::new()
            .map(1, self.needs.write())
            .uint(2, self.duration.0)
            .uint(3, self.period.0)
            .when(self.max_price_per_hour, |map, price| map.amount(4, price.0))
            .list(5, self.rails.iter().map(rail))
            .when(self.filters.write(), |map, filters| map.map(6, filters))
            .uint(7, self.expires.0)
            .bytes(8, &self.nonce)
            .bytes(9, &self.answer_to)
            .when(self.only_looks.then_some(true), |map, looks| {
                map.boolean(10, looks)
            })
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<CapacityRequest, CborError> {
            let mut fields = Fields::read(payload)?;
            let request = CapacityRequest {
                needs: Needs::read(fields.map(1)?)?,
                duration: Seconds(fields.uint(2)?),
                period: Seconds(fields.uint(3)?),
                max_price_per_hour: fields.optional(4, Fields::amount)?.map(Amount),
                rails: fields.list(5, MOST_RAILS, RailAsset::read)?,
                filters: fields
                    .optional(6, |fields, key| Filters::read(fields.map(key)?))?
                    .unwrap_or_default(),
                expires: UnixMillis(fields.uint(7)?),
                nonce: fields.array(8)?,
                answer_to: fields.bytes(9, MOST_ADDRESS_BYTES)?.to_vec(),
                only_looks: fields.optional(10, read_mark)?.is_some(),
            };
            fields.finish()?;
            Ok(request)
        };
        read().map_err(of(KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        check_sizes(KIND, self.needs.cpu, self.needs.memory, self.needs.disk)?;
        if let Some(rate) = self.needs.rate {
            ensure(KIND, rate.0 > 0, "rate", rate, "more than zero")?;
        }
        ensure(
            KIND,
            self.duration.0 <= MOST_DURATION_S,
            "duration",
            self.duration,
            "at most ten years",
        )?;
        let periods = self.period.periods_in(self.duration);
        let rule = "the duration must be a whole number of periods";
        ensure(KIND, periods.is_some(), "period", self.period, rule)?;
        ensure(
            KIND,
            self.periods() <= MOST_PERIODS,
            "period",
            self.period,
            "at most 100000 periods",
        )?;
        ensure(
            KIND,
            (1..=MOST_RAILS).contains(&self.rails.len()),
            "rails",
            self.rails.len(),
            "1 to 4 rails",
        )?;
        let (country, features) = (self.filters.country.as_deref(), &self.filters.features);
        ensure(
            KIND,
            country.is_none_or(is_country),
            "country",
            country.unwrap_or(""),
            "two capital letters, as in BE",
        )?;
        ensure(
            KIND,
            features.len() <= MOST_FEATURES,
            "features",
            features.len(),
            "at most 8",
        )?;
        let odd = features.iter().find(|feature| !is_feature(feature));
        let rule = "1 to 32 of a-z, 0-9 and -";
        ensure(
            KIND,
            odd.is_none(),
            "feature",
            odd.map_or("", String::as_str),
            rule,
        )?;
        let length = self.answer_to.len();
        ensure(
            KIND,
            (1..=MOST_ADDRESS_BYTES).contains(&length),
            "address",
            length,
            "1 to 1024 bytes",
        )
    }
}
