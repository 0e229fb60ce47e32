//! A space, a step and node.json on a claimed disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::space_record(bytes));
