//! The frames of a stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::grid::frames(bytes));
