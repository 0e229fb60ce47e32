//! A sale in the journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::sale_record(bytes));
