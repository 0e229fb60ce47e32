//! One function a kind of value: from TOML to the type that the node works with.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use escrow::{Account, Amount, LEDGER_DECIMALS};
use grid::GridTicket;
use inventory::Consent;
use ledger::RailAddress;
use market::quantity::{BitsPerSecond, Bytes};
use toml::de::DeValue;

use super::Network;
use super::fault::quote;

/// Longest single value, in bytes: a ticket with a certificate is the longest.
const LONGEST: usize = 4096;
/// Most entries of a list.
const MOST_ENTRIES: usize = 64;

/// Less than this for all spaces together could not be sold.
const LEAST_RATE: BitsPerSecond = BitsPerSecond(1_000_000);
/// Less than this in a month is used up by the node's own messages.
const LEAST_TRAFFIC: Bytes = Bytes(1 << 30);

/// Why a key could not be taken.
pub(super) enum Problem {
    /// Nothing has this name.
    NoSuchKey,
    /// The value will not do.
    Value {
        /// What was found.
        found: String,
        /// What would be right.
        right: String,
    },
}

type Taken<T> = Result<T, Problem>;

fn wrong(found: impl Into<String>, right: impl Into<String>) -> Problem {
    Problem::Value {
        found: found.into(),
        right: right.into(),
    }
}

fn text<'v>(value: &'v DeValue<'_>, like: &str) -> Taken<&'v str> {
    match value.as_str() {
        Some("") => Err(wrong("it is empty", format!("write it like {like}"))),
        Some(text) if text.len() > LONGEST => Err(wrong("it is too long", format!("write it like {like}"))),
        Some(text) => Ok(text.trim()),
        None => Err(wrong(
            format!("this is {}, not text in quotes", kind(value)),
            format!("write it like {like}"),
        )),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// A list of texts; one text alone is a list of one.
fn texts<'v>(value: &'v DeValue<'_>, like: &str) -> Taken<Vec<&'v str>> {
    if value.is_str() {
        return Ok(vec![text(value, like)?]);
    }
    let list = value.as_array().ok_or_else(|| {
        wrong(
            format!("this is {}, not a list", kind(value)),
            format!("write it like [{like}]"),
        )
    })?;
    if list.len() > MOST_ENTRIES {
        return Err(wrong(
            format!("{} entries", list.len()),
            format!("at most {MOST_ENTRIES}"),
        ));
    }
    list.iter().map(|entry| text(entry.get_ref(), like)).collect()
}

pub(super) fn wallet(value: &DeValue<'_>) -> Taken<Account> {
    let text = text(value, "\"steading:…\"")?;
    text.parse().map_err(|error| match error {
        escrow::AccountError::CheckDigits => wrong(
            "the address has a wrong digit",
            "copy it again, whole, from \"steading wallet address\"",
        ),
        _ => wrong(
            format!("\"{}\" is not an address", quote(text)),
            "it looks like \"steading:3f1c…:9ab0…\"",
        ),
    })
}

pub(super) fn owner(value: &DeValue<'_>) -> Taken<[u8; 32]> {
    let text = text(value, "64 hex digits")?;
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            wrong(
                format!("\"{}\" is not a key", quote(text)),
                "a key has 64 digits of 0 to 9 and a to f",
            )
        })
}

/// Decimals of the asset, quoted or not; as written, never through a float.
pub(super) fn price(value: &DeValue<'_>) -> Taken<Amount> {
    let text = match value {
        DeValue::String(text) => text.trim(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        other => {
            return Err(wrong(
                format!("this is {}, not a price", kind(other)),
                "write it like \"0.40\"",
            ));
        }
    };
    let amount = Amount::from_decimal(text, LEDGER_DECIMALS).map_err(|_| {
        wrong(
            format!("\"{}\" is not a price", quote(text)),
            format!("write it like \"0.40\", with at most {LEDGER_DECIMALS} digits after the point"),
        )
    })?;
    if amount.is_zero() {
        return Err(wrong("the price is zero", "the least is \"0.000001\""));
    }
    Ok(amount)
}

pub(super) fn country(value: &DeValue<'_>) -> Taken<String> {
    let text = text(value, "\"BE\"")?;
    if text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Ok(text.to_ascii_uppercase());
    }
    Err(wrong(
        format!("\"{}\" is not a country's two letters", quote(text)),
        "write it like \"BE\" or \"DE\"",
    ))
}

pub(super) fn name(value: &DeValue<'_>) -> Taken<String> {
    let text = text(value, "\"barn-1\"")?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if text.len() <= 32 && text.bytes().all(good) && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    Err(wrong(
        format!("\"{}\" cannot be a name", quote(text)),
        "at most 32 letters, digits and dashes, as in \"barn-1\"",
    ))
}

/// Consents are kept word for word: `provision` compares them with what it finds.
pub(super) fn erase(value: &DeValue<'_>) -> Taken<Vec<String>> {
    let texts = texts(value, "\"wwn or path, size, what was found\"")?;
    for text in &texts {
        if text.parse::<Consent>().is_err() {
            return Err(wrong(
                format!("\"{}\" names no disk with its size and content", quote(text)),
                "copy the whole line that the screen shows for the disk",
            ));
        }
    }
    Ok(texts.into_iter().map(str::to_owned).collect())
}

pub(super) fn grid(value: &DeValue<'_>) -> Taken<GridTicket> {
    let text = text(value, "the line that \"steading grid serve\" prints")?;
    text.parse().map_err(|_| {
        wrong(
            format!("\"{}\" is not a ticket", quote(text)),
            "copy the whole line that \"steading grid serve\" prints",
        )
    })
}

pub(super) fn ledger(value: &DeValue<'_>) -> Taken<RailAddress> {
    let text = text(value, "\"ledger:KEY@http://HOST:PORT\"")?;
    text.parse().map_err(|_| {
        wrong(
            format!("\"{}\" is not a ledger's address", quote(text)),
            "copy the whole line that \"steading ledger serve\" prints",
        )
    })
}

pub(super) fn host(value: &DeValue<'_>) -> Taken<String> {
    host_text(text(value, "\"node.example.org\"")?)
}

pub(super) fn hosts(value: &DeValue<'_>) -> Taken<Vec<String>> {
    texts(value, "\"192.168.1.1\"")?
        .into_iter()
        .map(host_text)
        .collect()
}

fn host_text(text: &str) -> Taken<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = text.len() <= 253
        && text.split('.').all(label)
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if text.parse::<IpAddr>().is_ok() || is_name {
        return Ok(text.to_owned());
    }
    Err(wrong(
        format!("\"{}\" is neither an address nor a name", quote(text)),
        "write it like \"203.0.113.7\" or \"node.example.org\", without a port",
    ))
}

pub(super) fn ports(value: &DeValue<'_>) -> Taken<RangeInclusive<u16>> {
    let text = text(value, "\"30000-30063\"")?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port >= 1024);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(wrong(
            format!("\"{}\" is not a range of ports", quote(text)),
            "write it like \"30000-30063\", between 1024 and 65535",
        )),
    }
}

pub(super) fn features(value: &DeValue<'_>) -> Taken<Vec<String>> {
    let texts = texts(value, "\"ssd\"")?;
    for text in &texts {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.len() > 32 || !text.bytes().all(good) {
            return Err(wrong(
                format!("\"{}\" cannot be a feature", quote(text)),
                "small letters, digits and dashes, as in \"ssd\"",
            ));
        }
    }
    Ok(texts.into_iter().map(str::to_owned).collect())
}

/// Networks, each an IPv4 address with or without a length.
pub(super) fn networks(value: &DeValue<'_>) -> Taken<Vec<Network>> {
    let like = "\"192.168.7.0/24\"";
    let network = |text: &str| -> Option<Network> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let (address, length) = (address.parse().ok()?, length.parse().ok()?);
        // No space has an address of IPv6; and "all of it" is more than anybody means.
        (8..=32).contains(&length).then_some(Network { address, length })
    };
    let texts = texts(value, like)?;
    let parsed = texts.into_iter().map(|text| {
        network(text).ok_or_else(|| {
            wrong(
                format!("\"{}\" is no network", quote(text)),
                format!("an IPv4 address and a length from 8 to 32, as in {like}"),
            )
        })
    });
    parsed.collect()
}

pub(super) fn yes(value: &DeValue<'_>) -> Taken<bool> {
    value.as_bool().ok_or_else(|| {
        wrong(
            format!("this is {}", kind(value)),
            "write true or false, without quotes",
        )
    })
}

/// What all spaces together may send a second: less than one space's least is a slip of the pen.
pub(super) fn rate(value: &DeValue<'_>) -> Taken<BitsPerSecond> {
    let like = "\"50Mbit\"";
    let text = text(value, like)?;
    match text.parse::<BitsPerSecond>() {
        Ok(rate) if rate < LEAST_RATE => Err(wrong(
            format!("\"{}\" is too little to sell", quote(text)),
            format!("the least is \"{LEAST_RATE}\""),
        )),
        Ok(rate) => Ok(rate),
        Err(_) => Err(wrong(
            format!("\"{}\" is no rate", quote(text)),
            format!("a number and kbit, Mbit or Gbit, as in {like}"),
        )),
    }
}

/// What the line may carry in a month.
pub(super) fn traffic(value: &DeValue<'_>) -> Taken<Bytes> {
    let like = "\"500GiB\"";
    let text = text(value, like)?;
    match text.parse::<Bytes>() {
        Ok(bytes) if bytes < LEAST_TRAFFIC => Err(wrong(
            format!("\"{}\" is used up by the node alone", quote(text)),
            format!("the least is \"{LEAST_TRAFFIC}\""),
        )),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(wrong(
            format!("\"{}\" is no amount of traffic", quote(text)),
            format!("a number and MiB, GiB or TiB, as in {like}"),
        )),
    }
}
