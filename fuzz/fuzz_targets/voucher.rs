//! A voucher as it travels.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::market::voucher(bytes));
