//! What the kernel writes of the chunks that a snapshot keeps.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::snapshot_store(bytes));
