//! An answer of any DHCP server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::dhcp(bytes));
