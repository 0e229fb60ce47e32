//! What anybody posts to the ledger.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::ledger::request(bytes));
