//! The ticket of a grid.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::grid::ticket(bytes));
