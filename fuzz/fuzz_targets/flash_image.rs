//! An image that is to be flashed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::client::flash_image(bytes));
