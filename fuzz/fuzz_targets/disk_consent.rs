//! A line of consent.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::disk_consent(bytes));
