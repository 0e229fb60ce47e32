//! Sets keys in a `farmer.toml`, and leaves every other line as it was.
//!
//! ```text
//!  key = "old"      is replaced where it stands, however many lines it has
//!  # key = "…"      asleep in the template: woken, in its place
//!  (nothing)        a new line at the end
//! ```
//!
//! Invariant: what comes out was read again and has no fault, and no other key has changed. Nothing that the node
//! would refuse can be written onto a stick by this code.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use crate::{Fault, KEYS, Reading, decode, fault, read};

/// Keys whose values are lists.
const LISTS: [&str; 4] = ["erase", "features", "time_servers", "open"];
/// Keys that are true or false.
const SWITCHES: [&str; 2] = ["mail", "status_page"];

/// Why a key was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Nothing has this name.
    #[error("\"{key}\" is not a key; {right}")]
    NoSuchKey {
        /// As it was given.
        key: String,
        /// What would be right.
        right: String,
    },
    /// A line break or the like.
    #[error("{key}: the value holds a character that no line can; write it in one line")]
    Control {
        /// Which key.
        key: String,
    },
    /// The file that is there is no text.
    #[error("{0}")]
    NoText(Fault),
    /// The file would have a fault: the value will not do, or another line was wrong before.
    #[error("{0}")]
    Refused(Fault),
    /// The line stands inside something else, as in a section or a text of several lines.
    #[error("{key} cannot be set without changing another line; mend the file by hand")]
    Entangled {
        /// Which key.
        key: String,
    },
}

/// Sets keys, in this order; an empty value puts a key to sleep. Returns the file and what it says.
///
/// # Errors
/// When a key is none, when a value will not do, or when the file had a fault that is still there.
pub fn set(bytes: &[u8], keys: &[(String, String)]) -> Result<(Vec<u8>, Reading), EditError> {
    let mut text = decode::text(bytes).map_err(EditError::NoText)?;
    let ends_crlf =
        bytes.windows(2).any(|pair| pair == b"\r\n") || bytes.windows(4).any(|four| four == b"\r\0\n\0");
    for (key, value) in keys {
        text = set_one(&text, key, value)?;
    }
    if ends_crlf {
        text = text.replace('\n', "\r\n");
    }
    let bytes = text.into_bytes();
    let reading = read(&bytes);
    match reading.faults.first() {
        Some(fault) => Err(EditError::Refused(fault.clone())),
        None => Ok((bytes, reading)),
    }
}

fn set_one(text: &str, key: &str, value: &str) -> Result<String, EditError> {
    if !KEYS.contains(&key) {
        return Err(EditError::NoSuchKey {
            key: fault::quote(key),
            right: fault::instead_of(key),
        });
    }
    let key_of = || key.to_owned();
    if value.chars().any(char::is_control) {
        return Err(EditError::Control { key: key_of() });
    }
    let before = spans(text);
    let line = format!("{key} = {}", literal(key, value.trim()));
    let after = match (before.get(key), asleep(text, key), value.trim().is_empty()) {
        (Some(span), _, true) => {
            let asleep = text.get(span.clone()).unwrap_or_default().replace('\n', "\n# ");
            replaced(text, span, &format!("# {asleep}"))
        }
        (None, _, true) => text.to_owned(),
        (Some(span), ..) => replaced(text, span, &line),
        (None, Some(span), _) => replaced(text, &span, &line),
        (None, None, _) if text.is_empty() || text.ends_with('\n') => format!("{text}{line}\n"),
        (None, None, _) => format!("{text}\n{line}\n"),
    };
    // What stood elsewhere must stand there still, word for word.
    let others = |text: &str| -> BTreeMap<String, String> {
        let found = spans(text).into_iter().filter(|(known, _)| known != key);
        found
            .map(|(known, span)| (known, text.get(span).unwrap_or_default().to_owned()))
            .collect()
    };
    if others(text) != others(&after) || spans(&after).contains_key(key) == value.trim().is_empty() {
        return Err(EditError::Entangled { key: key_of() });
    }
    Ok(after)
}

/// From the first letter of each key to the last of its value.
fn spans(text: &str) -> BTreeMap<String, Range<usize>> {
    let (table, _) = DeTable::parse_recoverable(text);
    let found = table.get_ref().iter().map(|(key, value)| {
        let (start, end) = (key.span().start, value.span().end);
        (key.get_ref().to_string(), start..end.max(start))
    });
    found.collect()
}

/// The line in which a key sleeps behind a `#`.
fn asleep(text: &str, key: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end_matches('\n').len();
        let sleeps = line
            .trim_start_matches([' ', '\t'])
            .strip_prefix('#')
            .and_then(|rest| rest.trim_start_matches([' ', '\t', '#']).strip_prefix(key))
            .is_some_and(|rest| rest.trim_start().starts_with('='));
        if sleeps {
            return Some(start..end);
        }
        start += line.len();
    }
    None
}

fn replaced(text: &str, span: &Range<usize>, by: &str) -> String {
    let (before, after) = (text.get(..span.start), text.get(span.end..));
    format!("{}{by}{}", before.unwrap_or_default(), after.unwrap_or_default())
}

/// The value as TOML writes it. What is in quotes or brackets already is taken as it stands.
fn literal(key: &str, value: &str) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    if SWITCHES.contains(&key) {
        return match value.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => "true".to_owned(),
            "no" | "off" | "false" => "false".to_owned(),
            _ => quoted(value),
        };
    }
    if !LISTS.contains(&key) {
        return if value.starts_with('"') {
            value.to_owned()
        } else {
            quoted(value)
        };
    }
    if value.starts_with('[') {
        return value.to_owned();
    }
    // A consent has commas of its own.
    let entries: Vec<String> = match key {
        "erase" => vec![quoted(value)],
        _ => value.split(',').map(|entry| quoted(entry.trim())).collect(),
    };
    format!("[{}]", entries.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEMPLATE: &str = include_str!("../../../image/farmer.toml");

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_sleeping_line_wakes_in_its_place_and_sleeps_again() {
        let (woken, reading) = set(
            TEMPLATE.as_bytes(),
            &[pair("name", "attic"), pair("price", "0.5")],
        )
        .expect("set");
        let woken = text(woken);
        assert_eq!(reading.farmer.name.as_deref(), Some("attic"));
        assert_eq!(reading.farmer.price.map(|price| price.0), Some(500_000));
        assert_eq!(woken.lines().count(), TEMPLATE.lines().count());
        assert_eq!(
            woken,
            TEMPLATE
                .replace("# name = \"barn-1\"", "name = \"attic\"")
                .replace("# price = \"0.40\"", "price = \"0.5\"")
        );
        let (again, reading) = set(woken.as_bytes(), &[pair("name", "")]).expect("set");
        assert_eq!(reading.farmer.name, None);
        assert!(text(again).contains("# name = \"attic\""));
    }

    #[test]
    fn values_are_written_as_their_keys_want_them() {
        for (key, value, line) in [
            ("features", "ssd, ipv6", "features = [\"ssd\", \"ipv6\"]"),
            ("features", "[\"ssd\"]", "features = [\"ssd\"]"),
            (
                "erase",
                "/dev/vdb, 8GiB, ext4 1",
                "erase = [\"/dev/vdb, 8GiB, ext4 1\"]",
            ),
            ("mail", "yes", "mail = true"),
            ("status_page", "yes", "status_page = true"),
            ("country", "\"be\"", "country = \"be\""),
            ("ports", "30000-30063", "ports = \"30000-30063\""),
            ("open", "192.168.7.0/24", "open = [\"192.168.7.0/24\"]"),
        ] {
            let (bytes, _) = set(b"", &[pair(key, value)]).expect(line);
            assert_eq!(text(bytes), format!("{line}\n"));
        }
    }

    #[test]
    fn what_the_node_would_refuse_is_not_written() {
        let wallet = escrow::Account::on_ledger(&[7; 32], &[9; 32]).to_string();
        set(b"", &[pair("wallet", &wallet)]).expect("a good one");
        let last = if wallet.ends_with('0') { "1" } else { "0" };
        let bad = format!("{}{last}", &wallet[..wallet.len() - 1]);
        for (key, value, words) in [
            ("wallet", bad.as_str(), "wrong digit"),
            ("walet", "x", "did you mean \"wallet\"?"),
            ("price", "0,40", "not a price"),
            ("mail", "maybe", "write true or false"),
            ("name", "a\nwallet = \"x\"", "in one line"),
            ("name", "\"a\" , x", "line 1"),
        ] {
            let error = set(b"", &[pair(key, value)]).expect_err(key).to_string();
            assert!(error.contains(words), "{key}: {error}");
            assert!(set(TEMPLATE.as_bytes(), &[pair(key, value)]).is_err(), "{key}");
        }
        // A fault that was there before is not hidden, unless it is what is mended.
        let old = "price = 0\nname = 5\n";
        let error = set(old.as_bytes(), &[pair("name", "a")])
            .expect_err("price")
            .to_string();
        assert!(error.starts_with("line 1"), "{error}");
        set(old.as_bytes(), &[pair("name", "a"), pair("price", "1")]).expect("both");
    }

    #[test]
    fn several_lines_windows_ends_and_sections_are_minded() {
        let old = "features = [\r\n  \"ssd\",\r\n]\r\nname = \"a\" # mine\r\n";
        let (bytes, _) = set(old.as_bytes(), &[pair("features", "gpu"), pair("name", "b")]).expect("set");
        assert_eq!(text(bytes), "features = [\"gpu\"]\r\nname = \"b\" # mine\r\n");
        let utf16: Vec<u8> = "\u{feff}name = \"a\"\r\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let (bytes, _) = set(&utf16, &[pair("name", "b")]).expect("set");
        assert_eq!(text(bytes), "name = \"b\"\r\n");
        let section = "[a]\nb = 1\n";
        assert!(set(section.as_bytes(), &[pair("name", "b")]).is_err());
        assert!(matches!(set(b"\xff\xff", &[]), Err(EditError::NoText(_))));
    }

    proptest! {
        #[test]
        fn one_key_changes_and_no_other(
            key in prop::sample::select(KEYS.to_vec()),
            value in prop_oneof!["[ -~]{0,24}", "\\PC{0,12}", Just("0.40".to_owned()), Just("true".to_owned())],
            old in prop_oneof![
                Just(TEMPLATE.to_owned()),
                Just("price = \"0.1\"\r\ncountry = \"DE\"\r\n".to_owned()),
                "\\PC{0,40}",
            ],
        ) {
            let before = read(old.as_bytes());
            if let Ok((bytes, after)) = set(old.as_bytes(), &[(key.to_owned(), value.clone())]) {
                prop_assert_eq!(&after.faults, &vec![]);
                let undone = |reading: &Reading| {
                    let mut farmer = reading.farmer.clone();
                    crate::forget(&mut farmer, key);
                    farmer
                };
                prop_assert_eq!(undone(&before), undone(&after));
                // Once more changes nothing.
                let again = set(&bytes, &[(key.to_owned(), value)]);
                prop_assert_eq!(again.map(|(bytes, _)| bytes), Ok(bytes));
            }
        }
    }
}
