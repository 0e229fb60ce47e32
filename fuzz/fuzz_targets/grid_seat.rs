//! What is said about a node's seat.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::grid::seat(bytes));
