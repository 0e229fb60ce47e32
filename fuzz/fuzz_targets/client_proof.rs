//! What a space prints when it is proven.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::client::proof(bytes));
