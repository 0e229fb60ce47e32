//! What neighbours broadcast, through frame and gate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::grid::broadcast(bytes));
