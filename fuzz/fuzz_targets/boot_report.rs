//! The way of a boot, line by line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::boot_report(bytes));
