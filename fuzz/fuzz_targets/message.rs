//! The payload of each kind, signed after the fact.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::market::message(bytes));
