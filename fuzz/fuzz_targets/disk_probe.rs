//! A disk that holds anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::disk_probe(bytes));
