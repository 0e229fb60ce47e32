//! Reading: fields of a checked map, taken by key; what is left decides at the end.

use std::collections::BTreeMap;

use minicbor::Decoder;

use super::{CborError, check, head, walk};

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
    (text.len() <= most && text.chars().all(crate::is_plain)).then(|| text.to_owned())
}
