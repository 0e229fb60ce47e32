//! The one encoding: deterministic CBOR (RFC 8949 section 4.2.1), maps with integer keys, nothing else.
//!
//! Purpose: [`MapWriter`] writes it, [`Fields`] reads it. Reading is two passes: [`check`] walks the bytes and refuses
//! all that is not the one encoding of its value, within bounds; then fields are taken by key.
//!
//! Invariants: what is written passes `check`; lengths are shortest, maps sorted without doubles, keys are integers;
//! no tags, floats, null, undefined, indefinite lengths; depth, item count and total size are bounded before anything
//! is allocated. An unknown key of 0 or more is refused, a negative one is ignored. An absent value is an absent key.
//!
//! An amount is a byte string: big endian, without leading zeros, at most 16 bytes; zero is the empty string.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::Fields;
pub use write::{Item, MapWriter};

/// Deepest nesting that is read.
pub const MOST_DEPTH: usize = 6;
/// Most items (values and keys) in one message.
pub const MOST_ITEMS: usize = 2048;

/// Why bytes are not a message's encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// They end too early.
    #[error("the bytes end at {0}, inside a value")]
    Cut(usize),
    /// More follows.
    #[error("bytes follow after the end at {0}")]
    Trailing(usize),
    /// Not the shortest or sorted form, or a kind of value that is not used here.
    #[error("not deterministic CBOR at byte {at}: {what}")]
    Form {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Nested too deep, or too many items.
    #[error("more than {0} at byte {1}")]
    Bound(&'static str, usize),
    /// A required key is absent.
    #[error("key {0} is missing")]
    Missing(i64),
    /// A key that this version does not know.
    #[error("key {0} is not known in this version")]
    Unknown(i64),
    /// The value of a key is not what it must be.
    #[error("key {key} is not {expected}")]
    Value {
        /// The key; -1 for an item of a list.
        key: i64,
        /// What it must be.
        expected: &'static str,
    },
}

/// A head: major type and argument, read strictly.
pub(crate) struct Head {
    pub major: u8,
    pub argument: u64,
    pub next: usize,
}

/// Reads the head at `at`; the argument in its shortest form, no indefinite lengths.
pub(crate) fn head(bytes: &[u8], at: usize) -> Result<Head, CborError> {
    let first = *bytes.get(at).ok_or(CborError::Cut(at))?;
    let (major, info) = (first >> 5, first & 31);
    let take = |count: usize| -> Result<u64, CborError> {
        let tail = bytes.get(at + 1..at + 1 + count).ok_or(CborError::Cut(at))?;
        Ok(tail.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (argument, least, extra) = match info {
        0..=23 => (u64::from(info), 0, 0),
        24 => (take(1)?, 24, 1),
        25 => (take(2)?, 1 << 8, 2),
        26 => (take(4)?, 1 << 16, 4),
        27 => (take(8)?, 1 << 32, 8),
        _ => {
            return Err(CborError::Form {
                at,
                what: "an indefinite or reserved length",
            });
        }
    };
    if argument < least {
        return Err(CborError::Form {
            at,
            what: "a number not in its shortest form",
        });
    }
    Ok(Head {
        major,
        argument,
        next: at + 1 + extra,
    })
}

/// The string of `length` bytes at `at`, and where it ends.
pub(crate) fn string(bytes: &[u8], at: usize, length: u64) -> Result<(&[u8], usize), CborError> {
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| at.checked_add(length))
        .ok_or(CborError::Cut(at))?;
    bytes
        .get(at..end)
        .map(|string| (string, end))
        .ok_or(CborError::Cut(at))
}

/// Refuses everything that is not exactly one value in the one encoding.
pub fn check(bytes: &[u8]) -> Result<(), CborError> {
    let mut items = 0;
    let end = walk(bytes, 0, 0, &mut items)?;
    if end == bytes.len() {
        Ok(())
    } else {
        Err(CborError::Trailing(end))
    }
}

pub(crate) fn walk(bytes: &[u8], at: usize, depth: usize, items: &mut usize) -> Result<usize, CborError> {
    *items += 1;
    if *items > MOST_ITEMS {
        return Err(CborError::Bound("2048 items", at));
    }
    if depth > MOST_DEPTH {
        return Err(CborError::Bound("6 levels", at));
    }
    let Head {
        major,
        argument,
        next,
    } = head(bytes, at)?;
    match major {
        0 | 1 => Ok(next),
        2 => string(bytes, next, argument).map(|(_, end)| end),
        3 => {
            let (text, end) = string(bytes, next, argument)?;
            std::str::from_utf8(text).map_err(|_| CborError::Form {
                at,
                what: "a text that is not UTF-8",
            })?;
            Ok(end)
        }
        4 => (0..argument).try_fold(next, |at, _| walk(bytes, at, depth + 1, items)),
        5 => walk_map(bytes, next, argument, depth, items),
        7 if argument == 20 || argument == 21 => Ok(next),
        _ => Err(CborError::Form {
            at,
            what: "a tag, float, null or other value that is not used",
        }),
    }
}

fn walk_map(
    bytes: &[u8],
    start: usize,
    count: u64,
    depth: usize,
    items: &mut usize,
) -> Result<usize, CborError> {
    let mut at = start;
    let mut last: Option<&[u8]> = None;
    for _ in 0..count {
        let key = head(bytes, at)?;
        if key.major > 1 {
            return Err(CborError::Form {
                at,
                what: "a key that is not an integer",
            });
        }
        let key_bytes = &bytes[at..key.next];
        if last.is_some_and(|last| last >= key_bytes) {
            return Err(CborError::Form {
                at,
                what: "keys that are doubled or not sorted",
            });
        }
        last = Some(key_bytes);
        *items += 1;
        at = walk(bytes, key.next, depth + 1, items)?;
    }
    Ok(at)
}
