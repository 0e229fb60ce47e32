//! An endpoint's address in a request, an offer, a status.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::grid::address(bytes));
