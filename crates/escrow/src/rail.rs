//! The two traits of a rail: what a node needs, and what the user's client adds.
//!
//! Invariant: every call can be repeated, since amounts are absolute. [`RailError::Unknown`] means "look with
//! [`Rail::view`], then repeat", never "it did not happen": nothing is stopped because a rail is out of reach.

use async_trait::async_trait;

use crate::account::{Account, Asset, RailName};
use crate::amount::{Amount, RailTime};
use crate::lock::{LockView, Refusal};
use crate::terms::{LeaseId, Terms};
use crate::voucher::Voucher;

/// How sure a view must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sure {
    /// The newest the rail knows; it may still be undone.
    Seen,
    /// Nothing can undo it: what a node builds on.
    Final,
}

/// Why a rail did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RailError {
    /// The rail said no, and nothing changed.
    #[error("the rail refuses: {0}")]
    Refused(Refusal),
    /// No trustworthy answer came: it may or may not have happened. Look, then repeat.
    #[error("the rail gave no answer that can be trusted: {0}")]
    Unknown(String),
    /// The key that this call must sign with is not here.
    #[error("the key for this is not here")]
    NoKey,
    /// What was asked makes no sense on this rail; repeating does not help.
    #[error("not a valid request to the rail: {0}")]
    Invalid(String),
}

/// What a node needs of a rail. It holds no secret.
#[async_trait]
pub trait Rail: Send + Sync {
    /// Which rail this is.
    fn name(&self) -> RailName;

    /// Digits after the point of this asset; none where the rail does not know the asset.
    fn decimals(&self, asset: &Asset) -> Option<u8>;

    /// The lock's id: the hash of rail and terms.
    fn lease(&self, terms: &Terms) -> LeaseId;

    /// Offline: that the voucher is for this lease and signed by its voucher key. Neither time nor funds are looked at.
    fn check(&self, terms: &Terms, voucher: &Voucher) -> Result<(), RailError>;

    /// What the give-back key signs, so that [`Rail::give_back`] closes the lock with `paid` paid in all.
    fn give_back_bytes(&self, terms: &Terms, paid: Amount) -> Vec<u8>;

    /// The rail's clock.
    async fn now(&self) -> Result<RailTime, RailError>;

    /// What is free in an account.
    async fn balance(&self, account: &Account, asset: &Asset) -> Result<Amount, RailError>;

    /// The lock as it stands; [`crate::LockState::None`] where there is none.
    async fn view(&self, terms: &Terms, sure: Sure) -> Result<LockView, RailError>;

    /// Pays the payee what the voucher says in all; an older or equal one changes nothing and is no error.
    async fn redeem(&self, terms: &Terms, voucher: &Voucher) -> Result<LockView, RailError>;

    /// Returns the rest to the payer: anyone may, after the deadline. A closed lock is no error.
    async fn refund(&self, terms: &Terms) -> Result<LockView, RailError>;

    /// Closes the lock and returns the rest at once. Refused unless `paid` is what vouchers have already redeemed.
    async fn give_back(&self, terms: &Terms, paid: Amount, signature: &[u8]) -> Result<LockView, RailError>;
}

/// What the user's client adds: it holds the payer's key, and the voucher keys it was given.
#[async_trait]
pub trait Wallet: Rail {
    /// The payer's account.
    fn account(&self) -> Account;

    /// Locks, tops up and extends: after it at least `total` is funded and the expiry is at least `expiry`; a step that
    /// adds no money and less than a minute may be left out.
    async fn lock(&self, terms: &Terms, total: Amount, expiry: RailTime) -> Result<LockView, RailError>;

    /// Signs a voucher; [`RailError::NoKey`] where the voucher key is elsewhere.
    fn voucher(&self, terms: &Terms, cumulative: Amount, not_before: RailTime) -> Result<Voucher, RailError>;

    /// Asks the rail to close: the notice starts, later vouchers are void.
    async fn close(&self, terms: &Terms) -> Result<LockView, RailError>;
}
