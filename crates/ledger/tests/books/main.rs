//! The ledger over real HTTP on a real file: its rules, its paces, its file, and who tries to get round them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

mod conformance;
mod entries;
mod on_the_way;
mod over_http;
mod setting;
mod strangers;
mod the_file;
