//! The farmer's file, by any editor.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::farmer_toml(bytes));
