//! `steading` as people run it: the real program against a real ledger and grid, and nodes that are honest, lie, or fall
//! silent.
//!
//! One program: each file of its own would link client and node once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

mod carry;
mod flash;
mod interrupted;
mod ledger_killed;
mod liar;
mod node;
mod person;
mod recall;
mod sales;
mod setting;
mod snapshots;
mod spaces;
mod stand_in;
#[path = "../../../agent/tests/sales/street/mod.rs"]
#[allow(dead_code)] // the agent's own tests use more of it
mod street;
mod verbs;
