//! The sealed unlock key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::market::seal(bytes));
