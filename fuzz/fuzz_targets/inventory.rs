//! A machine's /sys and /proc.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::inventory(bytes));
