//! Writing: maps collect their entries and come out sorted.

use std::collections::BTreeMap;

use minicbor::Encoder;

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
