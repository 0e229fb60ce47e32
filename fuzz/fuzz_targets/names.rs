//! Accounts, rails, amounts, keys, quantities: all that is read from text.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::market::names(bytes));
