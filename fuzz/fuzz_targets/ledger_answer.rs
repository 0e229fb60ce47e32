//! What comes back from the ledger, or from whoever stands between.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::ledger::answer(bytes));
