//! What a SATA disk says of its health.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::disk_smart(bytes));
