//! The stick's first folder, as any system leaves it, and a key set in what is read there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::farmer_folder(bytes));
