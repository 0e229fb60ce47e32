//! A signed message of any kind.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::market::envelope(bytes));
