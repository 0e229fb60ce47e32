//! The embedded default rail: a double-entry ledger behind HTTP, and its client side.
//!
//! ```text
//!  client::LedgerWallet ──┐            one POST, JSON            ┌─ door    parse, check terms and signatures
//!  client::LedgerRail   ──┴─ nonce ─►  server (axum)  ─────────► ├─ store::writer   one thread, group commit
//!                         ◄─ time, head, answer, signed ──────── └─ store::book     escrow::lock::apply, postings
//! ```
//!
//! Invariants: every answer is signed by the ledger's key over the request's
//! hash, and the request holds a fresh nonce, so nobody on the way can change
//! or replay one; an operation is booked once; debits equal credits; the
//! journal is append-only and hash-chained, and a file that does not add up is
//! not served. It knows no node and no space.
//!
//! What it is worth: the operator is trusted. These are IOUs.

pub mod address;
pub mod client;
pub mod clock;
pub mod door;
pub mod hex;
pub mod keys;
mod listen;
pub mod server;
pub mod signing;
pub mod store;
pub mod wire;

pub use address::RailAddress;
pub use client::{LedgerRail, LedgerWallet};

/// The name of the ledger's one asset: play money.
pub const ASSET: &str = "play";
