//! What comes in over a serial line, and the dialog that it has.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::console_keys(bytes));
