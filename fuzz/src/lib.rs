//! What each fuzz target does with its bytes: one function a decoder, a room a file.
//!
//! Invariant: a target calls the very function that the program calls on the bytes of a stranger or of a disk. Besides
//! "it does not panic" each states what must hold of whatever was read: mostly that it is written and read as the same
//! again. The functions exist under `--cfg fuzzing` alone, for they go through doors that are closed otherwise.
//!
//! ```text
//!   fuzz_targets/NAME.rs ─► this crate ─► cfg(fuzzing) door of a room ─► its decoder
//!   corpus/NAME/*         seeds, in git: tests/corpus.rs makes them
//! ```
//!
//! Not here: router advertisements and names, which the kernel and the uplink's resolver read, not we; HTTP, QUIC and
//! the gossip engine's own frames, which are libraries'.
#![cfg(fuzzing)]
#![allow(clippy::unwrap_used, clippy::panic)] // a target that panics has found something

pub mod client;
pub mod grid;
pub mod ledger;
pub mod machine;
pub mod market;
pub mod node;

/// A text, where it is one.
fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Whatever JSON is read as a `T` is written and read as the same again.
fn json<T>(bytes: &[u8]) -> bool
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = serde_json::from_slice::<T>(bytes) else {
        return false;
    };
    let again = serde_json::to_vec(&value).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), value);
    true
}

/// Whatever text is read as a `T` is shown and read as the same again.
fn shown<T>(text: &str)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>().ok();
        assert_eq!(again.as_ref(), Some(&value), "{text:?}");
    }
}
