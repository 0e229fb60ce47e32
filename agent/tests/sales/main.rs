//! Sales as a node makes them, over a real ledger and a real grid: the good way, and what strangers, copies, crowds and
//! failures do to them.
//!
//! One program: each file of its own would link the whole agent once more. `flood` compares times, so `./x test` runs it
//! with nothing beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

mod crowd;
mod faults;
mod flood;
mod hostile;
mod quarantine;
mod resize;
mod sale;
mod street;
mod twin;
