//! The file system of a stick that is changed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::client::flash_stick(bytes));
