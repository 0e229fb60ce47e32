//! What the helper that starts a space says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::space_answer(bytes));
