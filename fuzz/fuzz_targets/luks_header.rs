//! The header of a volume on a disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::luks_header(bytes));
