//! The journal's file itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::journal_file(bytes));
