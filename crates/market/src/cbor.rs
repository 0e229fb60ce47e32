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

use std::collections::BTreeMap;

use minicbor::{Decoder, Encoder};

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

fn walk(bytes: &[u8], at: usize, depth: usize, items: &mut usize) -> Result<usize, CborError> {
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

/// Collects the entries of one map and writes them in order.
#[derive(Default)]
pub struct MapWriter {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One encoded value, for lists.
pub struct Item(Vec<u8>);

fn encoded(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes)); // a Vec never refuses a write
    bytes
}

impl Item {
    /// A text.
    pub fn text(text: &str) -> Item {
        Item(encoded(|encoder| drop(encoder.str(text))))
    }

    /// A byte string.
    pub fn bytes(bytes: &[u8]) -> Item {
        Item(encoded(|encoder| drop(encoder.bytes(bytes))))
    }

    /// A map.
    pub fn map(map: MapWriter) -> Item {
        Item(map.finish())
    }
}

impl MapWriter {
    /// An empty map.
    pub fn new() -> MapWriter {
        MapWriter::default()
    }

    fn put(mut self, key: i64, value: Vec<u8>) -> MapWriter {
        self.entries
            .insert(encoded(|encoder| drop(encoder.i64(key))), value);
        self
    }

    /// An unsigned integer.
    pub fn uint(self, key: i64, value: u64) -> MapWriter {
        self.put(key, encoded(|encoder| drop(encoder.u64(value))))
    }

    /// An integer.
    pub fn int(self, key: i64, value: i64) -> MapWriter {
        self.put(key, encoded(|encoder| drop(encoder.i64(value))))
    }

    /// A truth value.
    pub fn boolean(self, key: i64, value: bool) -> MapWriter {
        self.put(key, encoded(|encoder| drop(encoder.bool(value))))
    }

    /// A text.
    pub fn text(self, key: i64, value: &str) -> MapWriter {
        self.put(key, Item::text(value).0)
    }

    /// A byte string.
    pub fn bytes(self, key: i64, value: &[u8]) -> MapWriter {
        self.put(key, Item::bytes(value).0)
    }

    /// An amount: shortest big-endian byte string.
    pub fn amount(self, key: i64, value: u128) -> MapWriter {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.bytes(key, &bytes[zeros..])
    }

    /// A map inside this one.
    pub fn map(self, key: i64, value: MapWriter) -> MapWriter {
        self.put(key, value.finish())
    }

    /// A list.
    pub fn list(self, key: i64, items: impl IntoIterator<Item = Item>) -> MapWriter {
        let items: Vec<Item> = items.into_iter().collect();
        let mut bytes = encoded(|encoder| drop(encoder.array(items.len() as u64)));
        items.iter().for_each(|item| bytes.extend_from_slice(&item.0));
        self.put(key, bytes)
    }

    /// Something that may be absent.
    pub fn when<T>(self, value: Option<T>, write: impl FnOnce(MapWriter, T) -> MapWriter) -> MapWriter {
        match value {
            Some(value) => write(self, value),
            None => self,
        }
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = encoded(|encoder| drop(encoder.map(self.entries.len() as u64)));
        for (key, value) in self.entries {
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&value);
        }
        bytes
    }
}

/// The entries of one checked map, to be taken by key.
pub struct Fields<'b> {
    entries: BTreeMap<i64, &'b [u8]>,
}

impl<'b> Fields<'b> {
    /// Checks the bytes whole, then splits the outermost map.
    pub fn read(bytes: &'b [u8]) -> Result<Fields<'b>, CborError> {
        check(bytes)?;
        Fields::split(bytes)
    }

    /// Splits a map inside bytes that were checked.
    pub fn split(bytes: &'b [u8]) -> Result<Fields<'b>, CborError> {
        let start = head(bytes, 0)?;
        if start.major != 5 {
            return Err(CborError::Form {
                at: 0,
                what: "no map",
            });
        }
        let mut entries = BTreeMap::new();
        let mut at = start.next;
        for _ in 0..start.argument {
            let key = head(bytes, at)?;
            let number = i64::try_from(key.argument).map_err(|_| CborError::Form {
                at,
                what: "a key that is too large",
            })?;
            let end = walk(bytes, key.next, 0, &mut 0)?;
            entries.insert(
                if key.major == 0 { number } else { -1 - number },
                &bytes[key.next..end],
            );
            at = end;
        }
        Ok(Fields { entries })
    }

    fn take(&mut self, key: i64) -> Result<&'b [u8], CborError> {
        self.entries.remove(&key).ok_or(CborError::Missing(key))
    }

    /// Whether a key is there still.
    pub fn has(&self, key: i64) -> bool {
        self.entries.contains_key(&key)
    }

    /// Whether nothing is left, negative keys included.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a reader finds under a key, or none where the key is absent.
    pub fn optional<T>(
        &mut self,
        key: i64,
        read: impl FnOnce(&mut Self, i64) -> Result<T, CborError>,
    ) -> Result<Option<T>, CborError> {
        if self.has(key) {
            read(self, key).map(Some)
        } else {
            Ok(None)
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self, key: i64) -> Result<u64, CborError> {
        let value = self.take(key)?;
        Decoder::new(value).u64().map_err(|_| CborError::Value {
            key,
            expected: "an unsigned integer",
        })
    }

    /// An integer.
    pub fn int(&mut self, key: i64) -> Result<i64, CborError> {
        let value = self.take(key)?;
        Decoder::new(value).i64().map_err(|_| CborError::Value {
            key,
            expected: "an integer",
        })
    }

    /// An unsigned integer of 32 bits.
    pub fn uint_32(&mut self, key: i64) -> Result<u32, CborError> {
        u32::try_from(self.uint(key)?).map_err(|_| CborError::Value {
            key,
            expected: "an integer below 2^32",
        })
    }

    /// A truth value.
    pub fn boolean(&mut self, key: i64) -> Result<bool, CborError> {
        let value = self.take(key)?;
        Decoder::new(value).bool().map_err(|_| CborError::Value {
            key,
            expected: "true or false",
        })
    }

    /// A text of at most so many bytes, without control characters.
    pub fn text(&mut self, key: i64, most: usize) -> Result<String, CborError> {
        let value = self.take(key)?;
        read_text(value, most).ok_or(CborError::Value {
            key,
            expected: "a text within its bound",
        })
    }

    /// A byte string of at most so many bytes.
    pub fn bytes(&mut self, key: i64, most: usize) -> Result<&'b [u8], CborError> {
        let value = self.take(key)?;
        let bytes = Decoder::new(value)
            .bytes()
            .ok()
            .filter(|bytes| bytes.len() <= most);
        bytes.ok_or(CborError::Value {
            key,
            expected: "a byte string within its bound",
        })
    }

    /// A byte string of exactly so many bytes.
    pub fn array<const N: usize>(&mut self, key: i64) -> Result<[u8; N], CborError> {
        self.bytes(key, N)?.try_into().map_err(|_| CborError::Value {
            key,
            expected: "a byte string of its length",
        })
    }

    /// An amount.
    pub fn amount(&mut self, key: i64) -> Result<u128, CborError> {
        let bytes = self.bytes(key, 16)?;
        if bytes.first() == Some(&0) {
            return Err(CborError::Value {
                key,
                expected: "an amount without leading zeros",
            });
        }
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    /// A map inside this one.
    pub fn map(&mut self, key: i64) -> Result<Fields<'b>, CborError> {
        Fields::split(self.take(key)?).map_err(|_| CborError::Value {
            key,
            expected: "a map",
        })
    }

    /// A list of at most so many items, each read by `read`.
    pub fn list<T>(
        &mut self,
        key: i64,
        most: usize,
        read: impl Fn(&'b [u8]) -> Result<T, CborError>,
    ) -> Result<Vec<T>, CborError> {
        let value = self.take(key)?;
        let start = head(value, 0)?;
        if start.major != 4 || start.argument > most as u64 {
            return Err(CborError::Value {
                key,
                expected: "a list within its bound",
            });
        }
        let (mut items, mut at) = (Vec::new(), start.next);
        for _ in 0..start.argument {
            let end = walk(value, at, 0, &mut 0)?;
            items.push(read(&value[at..end])?);
            at = end;
        }
        Ok(items)
    }

    /// A list of texts.
    pub fn texts(&mut self, key: i64, most: usize, most_bytes: usize) -> Result<Vec<String>, CborError> {
        self.list(key, most, |item| {
            read_text(item, most_bytes).ok_or(CborError::Value {
                key,
                expected: "texts within their bound",
            })
        })
    }

    /// A list of byte strings.
    pub fn byte_strings(
        &mut self,
        key: i64,
        most: usize,
        most_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, CborError> {
        self.list(key, most, |item| {
            let bytes = Decoder::new(item)
                .bytes()
                .ok()
                .filter(|bytes| bytes.len() <= most_bytes);
            bytes.map(<[u8]>::to_vec).ok_or(CborError::Value {
                key,
                expected: "byte strings within their bound",
            })
        })
    }

    /// Nothing unknown may be left; negative keys are ignored.
    pub fn finish(self) -> Result<(), CborError> {
        match self.entries.keys().find(|key| **key >= 0) {
            Some(key) => Err(CborError::Unknown(*key)),
            None => Ok(()),
        }
    }
}

fn read_text(item: &[u8], most: usize) -> Option<String> {
    let text = Decoder::new(item).str().ok()?;
    (text.len() <= most && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_one_encoding_is_read() {
        let refused: [&[u8]; 14] = [
            &[0x18, 0x17],                                           // 23 in two bytes
            &[0x19, 0x00, 0xff],                                     // 255 in three
            &[0x5f, 0xff],                                           // indefinite string
            &[0xbf, 0xff],                                           // indefinite map
            &[0xa2, 2, 0, 1, 0],                                     // not sorted
            &[0xa2, 1, 0, 1, 0],                                     // doubled
            &[0xa1, 0x61, 0x61, 0],                                  // text key
            &[0xc0, 0x60],                                           // tag
            &[0xf6],                                                 // null
            &[0xf9, 0x3c, 0x00],                                     // float
            &[0x61, 0xff],                                           // not UTF-8
            &[0x00, 0x00],                                           // trailing
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // longer than anything
            &[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x80],       // too deep
        ];
        for bytes in refused {
            assert!(check(bytes).is_err(), "{bytes:02x?}");
        }
        assert!(
            check(&[0xa2, 1, 0, 0x20, 0]).is_ok(),
            "negative keys come after the others"
        );
    }

    #[test]
    fn unknown_keys_are_refused_and_negative_ones_ignored() {
        let bytes = MapWriter::new().uint(1, 5).uint(2, 6).finish();
        let mut fields = Fields::read(&bytes).unwrap();
        assert_eq!(fields.uint(1), Ok(5));
        assert_eq!(fields.finish(), Err(CborError::Unknown(2)));
        let bytes = MapWriter::new().uint(1, 5).uint(-7, 6).finish();
        let mut fields = Fields::read(&bytes).unwrap();
        assert_eq!(fields.uint(1), Ok(5));
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn a_huge_count_allocates_nothing() {
        assert!(check(&[0x9b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        let many = [&[0x99, 0x08, 0x01][..], &[0; 2049]].concat();
        assert!(matches!(check(&many), Err(CborError::Bound(..))));
    }

    proptest! {
        #[test]
        fn amounts_read_back(value: u128) {
            let bytes = MapWriter::new().amount(3, value).finish();
            prop_assert_eq!(Fields::read(&bytes).unwrap().amount(3), Ok(value));
        }

        #[test]
        fn what_is_written_is_the_one_encoding(number: i64, text in "\\PC{0,30}", bytes: Vec<u8>) {
            let inner = MapWriter::new().int(9, number).text(-1, &text);
            let map = MapWriter::new().bytes(70000, &bytes).map(2, inner).list(0, [Item::text(&text), Item::bytes(&bytes)]);
            prop_assert_eq!(check(&map.finish()), Ok(()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(mut fields) = Fields::read(&bytes) {
                let _ = (fields.uint(0), fields.amount(1), fields.texts(2, 9, 9), fields.map(3).is_ok());
            }
        }
    }
}
