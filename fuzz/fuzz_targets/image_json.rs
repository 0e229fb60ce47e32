//! What the image says of itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::image_json(bytes));
