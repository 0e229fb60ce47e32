//! What a farmer says, and the stick that it is said on, as bytes.
//!
//! `farmer.toml` is the one file that a farmer edits. The node reads it, `steading flash` and `./x qemu --set`
//! change it, all with the code here: what one of them refuses, the others refuse too, in the same words.
//!
//! Invariant: reading never fails. Whatever is wrong becomes a [`Fault`] that says
//! line, column, key, what was found and what would be right; the node boots all
//! the same, sells nothing while there is a fault, and shows them. Nothing here opens a file or a device.
//!
//! ```text
//!  names ──► listing (which file) ──► bytes ──► decode (BOM, UTF-16, CR) ──► toml with places ──► a key each ──► Farmer
//!                 │                                │                          │                  │
//!                 └── notes                        └──────────┴────── Fault ──┴──────────────────┘
//!  text ──► edit: one key set, every other line as it was ──► text, read again before it is given back
//!  sectors ──► table: a GPT, read; and sealed again for a longer stick
//! ```

mod decode;
pub mod edit;
mod fault;
pub mod listing;
pub mod table;
mod value;

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use escrow::{Account, Amount};
use grid::GridTicket;
use ledger::RailAddress;
use market::quantity::{BitsPerSecond, Bytes};
use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use fault::Fault;
use fault::Places;

/// A farmer's file is a page of text; more is something else.
pub const MOST_BYTES: usize = 64 << 10;
/// Faults beyond these add nothing to a screen.
const MOST_FAULTS: usize = 16;

/// A network of IPv4; bits of the address beyond the length do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An address of it.
    pub address: Ipv4Addr,
    /// How many leading bits count, from 8 to 32.
    pub length: u8,
}

/// What the farmer said. Absent means: not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Farmer {
    /// Who is paid.
    pub wallet: Option<Account>,
    /// The public key whose commands the node obeys.
    pub owner: Option<[u8; 32]>,
    /// What an hour costs, in the asset's smallest units.
    pub price: Option<Amount>,
    /// Two capital letters, as declared.
    pub country: Option<String>,
    /// What people call the node.
    pub name: Option<String>,
    /// Consents to erase, each as the console showed it.
    pub erase: Vec<String>,
    /// The grid's ticket.
    pub grid: Option<GridTicket>,
    /// The ledger's address, `ledger:KEY@http://HOST:PORT`.
    pub ledger: Option<RailAddress>,
    /// How the node is reached from the internet.
    pub public_address: Option<String>,
    /// The ports that are forwarded to it.
    pub ports: Option<RangeInclusive<u16>>,
    /// What the machine can do, as declared.
    pub features: Vec<String>,
    /// Time servers of the farmer's choice.
    pub time_servers: Vec<String>,
    /// Networks of the farmer's own that spaces may reach.
    pub open: Vec<Network>,
    /// Whether spaces may hand in mail.
    pub mail: bool,
    /// What all spaces together may send, and receive, in a second.
    pub rate: Option<BitsPerSecond>,
    /// What the line may carry in a month, in and out.
    pub traffic: Option<Bytes>,
    /// Whether a browser on the farmer's own network sees what the console shows.
    pub status_page: bool,
}

/// A file as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// What was understood; of a key at fault, nothing.
    pub farmer: Farmer,
    /// What was wrong, in the order of the file.
    pub faults: Vec<Fault>,
    /// The line where `wallet` is, or stands asleep behind a `#`; counted from 1.
    pub wallet_line: Option<usize>,
    /// The first six hex digits of the file's SHA-256: has my change arrived?
    pub mark: String,
    /// What the file is called on the stick; none where there is none, or where bytes alone were read.
    pub name: Option<String>,
    /// What else is to be known, each to stand behind the words "farmer.toml".
    pub notes: Vec<String>,
}

/// Reads the bytes of a `farmer.toml`.
#[must_use]
pub fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading {
        mark: data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))[..6].to_owned(),
        ..Reading::default()
    };
    let text = match decode::text(bytes) {
        Ok(text) => text,
        Err(fault) => {
            reading.faults.push(fault);
            return reading;
        }
    };
    reading.wallet_line = text
        .lines()
        .position(|line| {
            let line = line.trim_start_matches([' ', '\t', '#']);
            line.strip_prefix("wallet")
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        })
        .map(|index| index + 1);
    let places = Places::new(&text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        reading.faults.push(places.syntax(error));
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        // A line that is no TOML leaves pieces behind: one fault a line is enough.
        let fault = take(&mut reading.farmer, key.get_ref(), value)
            .err()
            .map(|problem| places.value(key, value, problem));
        if let Some(fault) = fault
            && !reading.faults.iter().any(|known| known.line == fault.line)
        {
            reading.faults.push(fault);
        }
    }
    reading.faults.sort_by_key(|fault| (fault.line, fault.column));
    reading.faults.dedup_by_key(|fault| fault.line);
    reading.faults.truncate(MOST_FAULTS);
    reading
}

/// The keys of the file, in the order of the template.
pub const KEYS: [&str; 17] = [
    "wallet",
    "price",
    "grid",
    "ledger",
    "country",
    "name",
    "erase",
    "owner",
    "public_address",
    "ports",
    "features",
    "time_servers",
    "open",
    "mail",
    "rate",
    "traffic",
    "status_page",
];

/// Puts one key's value where it belongs.
fn take(farmer: &mut Farmer, key: &str, value: &Spanned<DeValue<'_>>) -> Result<(), value::Problem> {
    let value = value.get_ref();
    match key {
        "wallet" => farmer.wallet = Some(value::wallet(value)?),
        "owner" => farmer.owner = Some(value::owner(value)?),
        "price" => farmer.price = Some(value::price(value)?),
        "country" => farmer.country = Some(value::country(value)?),
        "name" => farmer.name = Some(value::name(value)?),
        "erase" => farmer.erase = value::erase(value)?,
        "grid" => farmer.grid = Some(value::grid(value)?),
        "ledger" => farmer.ledger = Some(value::ledger(value)?),
        "public_address" => farmer.public_address = Some(value::host(value)?),
        "ports" => farmer.ports = Some(value::ports(value)?),
        "features" => farmer.features = value::features(value)?,
        "time_servers" => farmer.time_servers = value::hosts(value)?,
        "open" => farmer.open = value::networks(value)?,
        "mail" => farmer.mail = value::yes(value)?,
        "rate" => farmer.rate = Some(value::rate(value)?),
        "traffic" => farmer.traffic = Some(value::traffic(value)?),
        "status_page" => farmer.status_page = value::yes(value)?,
        _ => return Err(value::Problem::NoSuchKey),
    }
    Ok(())
}

/// Takes one key's value out again.
#[cfg(test)]
fn forget(farmer: &mut Farmer, key: &str) {
    let empty = Farmer::default();
    match key {
        "wallet" => farmer.wallet = None,
        "owner" => farmer.owner = None,
        "price" => farmer.price = None,
        "country" => farmer.country = None,
        "name" => farmer.name = None,
        "erase" => farmer.erase = empty.erase,
        "grid" => farmer.grid = None,
        "ledger" => farmer.ledger = None,
        "public_address" => farmer.public_address = None,
        "ports" => farmer.ports = None,
        "features" => farmer.features = empty.features,
        "time_servers" => farmer.time_servers = empty.time_servers,
        "open" => farmer.open = empty.open,
        "mail" => farmer.mail = empty.mail,
        "rate" => farmer.rate = None,
        "traffic" => farmer.traffic = None,
        "status_page" => farmer.status_page = empty.status_page,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
