//! Fixed byte arrays as lower-case hex in JSON.

use data_encoding::HEXLOWER;

/// `bytes` in lower-case hex.
pub fn encode(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Exactly `N` bytes of lower-case hex, or nothing.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

macro_rules! hex_module {
    ($name:ident, $length:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $name {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            /// Writes the hex.
            pub fn serialize<S: Serializer>(bytes: &[u8; $length], to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&super::encode(bytes))
            }

            /// Reads the hex, of exactly this length.
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; $length], D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                super::decode(&text).ok_or_else(|| {
                    D::Error::custom(concat!(
                        stringify!($length),
                        " bytes of lower-case hex are needed here"
                    ))
                })
            }
        }
    };
}

hex_module!(array, 32, "32 bytes: keys, hashes, nonces.");
hex_module!(signature, 64, "64 bytes: signatures.");
