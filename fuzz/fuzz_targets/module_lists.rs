//! The kernel's lists of modules.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::module_lists(bytes));
