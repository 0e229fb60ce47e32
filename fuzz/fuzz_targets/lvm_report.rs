//! What LVM prints of the groups on a disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::machine::lvm_report(bytes));
