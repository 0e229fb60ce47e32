//! The client's settings, seed and backup.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::client::files(bytes));
