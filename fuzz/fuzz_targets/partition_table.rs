//! The partition table of any medium.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::partition_table(bytes));
