//! The client's record of a sale.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::client::record(bytes));
