//! The two frames that open a tunnel.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::market::tunnel_opening(bytes));
