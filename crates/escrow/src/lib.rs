//! How the money of a sale is held: the words every rail shares, and the two traits behind which a rail stands.
//!
//! Purpose: a node and a client know `Rail` and `Wallet` and nothing of ledgers or chains. Everything here is pure:
//! no clock (time is an argument), no network, no keys but public ones.
//!
//! Invariant: all amounts are absolute (funded in all, paid in all), so every call may be repeated.
//!
//! ```text
//! None ─lock─► Locked ─first voucher redeemed before accept_by─► Active ─► Closed
//!                └─ after accept_by, anyone: refund ─► Closed      └─ after min(close, expiry) + notice, anyone: refund
//!  either ─ node gives back ─► Closed
//! ```
//!
//! [`lock::apply`] is that drawing as a function; [`conformance`] is the suite every rail passes.

pub mod account;
pub mod amount;
pub mod conformance;
pub mod lock;
pub mod rail;
pub mod terms;
pub mod voucher;

pub use account::{Account, AccountError, Asset, RailName};
pub use amount::{Amount, AmountError, LEDGER_DECIMALS, RailTime};
pub use lock::{LockState, LockView, Refusal};
pub use rail::{Rail, RailError, Sure, Wallet};
pub use terms::{LeaseId, RailKey, Terms};
pub use voucher::{Voucher, VoucherError};
