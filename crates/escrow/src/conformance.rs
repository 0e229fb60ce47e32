//! The suite that every rail must pass.
//!
//! A rail's tests implement [`Bench`] (a rail whose clock can be moved, wallets with money, keys) and call [`run`].
//! Nothing here knows a rail. Each case takes a fresh payer, payee and sale, moves the clock where a deadline matters,
//! and checks views and balances; a case that fails says which and why.

mod cases;

use std::sync::Arc;

use async_trait::async_trait;

use crate::account::{Account, Asset};
use crate::amount::{Amount, RailTime};
use crate::lock::{LockState, LockView, Refusal};
use crate::rail::{Rail, RailError, Sure, Wallet};
use crate::terms::{RailKey, Terms};
use crate::voucher::Voucher;

/// A rail under test, with everything the suite needs around it.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The rail as a node sees it.
    fn rail(&self) -> Arc<dyn Rail>;
    /// Money that the rail knows.
    fn asset(&self) -> Asset;
    /// A new payer with this much money; its wallet also signs with the voucher key of [`Bench::voucher_key`].
    async fn payer(&self, money: Amount) -> Arc<dyn Wallet>;
    /// A new account to be paid.
    async fn payee(&self) -> Account;
    /// The voucher key that all wallets of this bench hold.
    fn voucher_key(&self) -> RailKey;
    /// The node's give-back key.
    fn give_back_key(&self) -> RailKey;
    /// Signs with the give-back key.
    fn sign_give_back(&self, bytes: &[u8]) -> Vec<u8>;
    /// Moves the rail's clock forward.
    async fn advance(&self, ms: u64);
}

/// A case that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{case}: {why}")]
pub struct Failure {
    /// Which.
    pub case: &'static str,
    /// What was seen.
    pub why: String,
}

const ACCEPT_WINDOW_MS: u64 = 10_000;
const NOTICE_MS: u64 = 20_000;
const EXPIRY_MS: u64 = 60_000;
const MONEY: Amount = Amount(1_000);
const TOTAL: Amount = Amount(300);

type Outcome = Result<(), String>;

/// Runs every case; the names of those that held, in order.
pub async fn run(bench: &dyn Bench) -> Result<Vec<&'static str>, Failure> {
    let mut held = Vec::new();
    macro_rules! case {
        ($name:ident) => {
            let outcome = match Scene::new(bench, held.len() as u8).await {
                Ok(scene) => cases::$name(&scene).await,
                Err(why) => Err(why),
            };
            outcome.map_err(|why| Failure {
                case: stringify!($name),
                why,
            })?;
            held.push(stringify!($name));
        };
    }
    case!(what_is_not_locked_is_none);
    case!(a_lock_holds_the_money_and_can_be_repeated);
    case!(a_lock_without_money_is_refused);
    case!(a_lock_is_topped_up_and_extended);
    case!(a_first_voucher_makes_it_active_and_pays);
    case!(vouchers_are_cumulative_and_can_be_repeated);
    case!(a_voucher_beyond_the_funds_is_refused);
    case!(a_later_voucher_is_void_until_its_time);
    case!(closing_revokes_later_vouchers);
    case!(a_voucher_with_one_bit_changed_is_refused);
    case!(a_voucher_for_another_sale_is_refused);
    case!(after_accept_by_only_a_refund_works);
    case!(a_refund_before_its_time_is_refused);
    case!(after_close_and_notice_the_rest_returns);
    case!(after_expiry_and_notice_the_rest_returns);
    case!(the_node_gives_back_at_once);
    case!(a_give_back_must_say_what_was_paid);
    case!(a_give_back_by_another_key_is_refused);
    case!(a_closed_lock_stays_closed);
    case!(the_lease_commits_to_every_term);
    Ok(held)
}

/// One payer, one payee, one sale.
struct Scene<'b> {
    bench: &'b dyn Bench,
    rail: Arc<dyn Rail>,
    wallet: Arc<dyn Wallet>,
    terms: Terms,
}

impl<'b> Scene<'b> {
    async fn new(bench: &'b dyn Bench, number: u8) -> Result<Scene<'b>, String> {
        let wallet = bench.payer(MONEY).await;
        let terms = Terms {
            asset: bench.asset(),
            payer: wallet.account(),
            payee: bench.payee().await,
            voucher_key: bench.voucher_key(),
            give_back_key: bench.give_back_key(),
            sale: [number; 32],
            accept_window_ms: ACCEPT_WINDOW_MS,
            notice_ms: NOTICE_MS,
        };
        let scene = Scene {
            bench,
            rail: bench.rail(),
            wallet,
            terms,
        };
        scene.balances(MONEY, Amount::ZERO).await?;
        Ok(scene)
    }

    async fn now(&self) -> Result<RailTime, String> {
        self.rail.now().await.map_err(say)
    }

    async fn lock(&self) -> Result<LockView, String> {
        let expiry = self.now().await?.plus_ms(EXPIRY_MS);
        self.wallet.lock(&self.terms, TOTAL, expiry).await.map_err(say)
    }

    fn voucher(&self, cumulative: u128, not_before: RailTime) -> Result<Voucher, String> {
        self.wallet
            .voucher(&self.terms, Amount(cumulative), not_before)
            .map_err(say)
    }

    async fn redeem(&self, cumulative: u128) -> Result<LockView, String> {
        let voucher = self.voucher(cumulative, RailTime(0))?;
        self.rail.check(&self.terms, &voucher).map_err(say)?;
        self.rail.redeem(&self.terms, &voucher).await.map_err(say)
    }

    async fn give_back(&self, paid: u128) -> Result<LockView, RailError> {
        let signature = self
            .bench
            .sign_give_back(&self.rail.give_back_bytes(&self.terms, Amount(paid)));
        self.rail.give_back(&self.terms, Amount(paid), &signature).await
    }

    async fn view(&self) -> Result<LockView, String> {
        let (seen, last) = (
            self.rail.view(&self.terms, Sure::Seen).await,
            self.rail.view(&self.terms, Sure::Final).await,
        );
        let (seen, last) = (seen.map_err(say)?, last.map_err(say)?);
        if seen.paid < last.paid || seen.funded < last.funded {
            return Err(format!("final {last:?} is ahead of seen {seen:?}"));
        }
        Ok(seen)
    }

    /// What payer and payee hold outside of locks.
    async fn balances(&self, payer: Amount, payee: Amount) -> Outcome {
        for (who, account, expected) in [
            ("payer", &self.terms.payer, payer),
            ("payee", &self.terms.payee, payee),
        ] {
            let found = self.rail.balance(account, &self.terms.asset).await.map_err(say)?;
            if found != expected {
                return Err(format!("the {who} holds {found}, {expected} is right"));
            }
        }
        Ok(())
    }
}

fn say(error: RailError) -> String {
    error.to_string()
}

fn left(paid: u128) -> Amount {
    Amount(MONEY.0 - TOTAL.0 + (TOTAL.0 - paid))
}

const HELD: Amount = Amount(MONEY.0 - TOTAL.0);

fn expect(view: LockView, state: LockState, funded: u128, paid: u128) -> Outcome {
    let as_expected = view.state == state && view.funded == Amount(funded) && view.paid == Amount(paid);
    if as_expected {
        Ok(())
    } else {
        Err(format!(
            "{view:?} is not {state:?} with {funded} funded and {paid} paid"
        ))
    }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RailError>, right: impl Fn(&Refusal) -> bool) -> Outcome {
    match outcome {
        Err(RailError::Refused(refusal)) if right(&refusal) => Ok(()),
        other => Err(format!("not refused as it should be: {other:?}")),
    }
}
