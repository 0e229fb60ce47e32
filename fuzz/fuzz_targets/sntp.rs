//! An answer of any time server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::sntp(bytes));
