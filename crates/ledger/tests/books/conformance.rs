//! The ledger passes the suite of every rail, over real HTTP, and again with the ledger stopped
//! and started before every single act.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::setting::{GIVE_BACK, Setting, VOUCHER, account, fund, key};
use async_trait::async_trait;
use ed25519_dalek::Signer;
use escrow::conformance::{Bench, run};
use escrow::{
    Account, Amount, Asset, LeaseId, LockView, Rail, RailError, RailKey, RailName, RailTime, Sure, Terms,
    Voucher, Wallet,
};
use ledger::{ASSET, LedgerRail, LedgerWallet};
use tokio::sync::Mutex;

/// The ledger as the suite sees it.
struct LedgerBench {
    place: Arc<Place>,
    people: AtomicU8,
}

/// A ledger that may be restarted before each call.
struct Place {
    setting: Mutex<Setting>,
    now_ms: Arc<AtomicU64>,
    address: ledger::RailAddress,
    restarts: bool,
    restarted: AtomicU64,
}

impl Place {
    /// A client of the ledger, of a fresh process of it where that is the test.
    async fn rail(&self) -> LedgerRail {
        let mut setting = self.setting.lock().await;
        if self.restarts {
            setting.restart().await;
            self.restarted.fetch_add(1, Ordering::SeqCst);
        }
        setting.rail()
    }
}

/// A wallet that finds the ledger anew before each call; its port is another after each restart.
struct Anew {
    place: Arc<Place>,
    account: Option<u8>,
    /// For what is asked offline: names and signatures.
    still: LedgerWallet,
}

impl Anew {
    fn new(place: Arc<Place>, account: Option<u8>) -> Anew {
        let still = wallet(LedgerRail::new(place.address.clone()).unwrap(), account);
        Anew {
            place,
            account,
            still,
        }
    }

    async fn now(&self) -> LedgerWallet {
        wallet(self.place.rail().await, self.account)
    }
}

fn wallet(rail: LedgerRail, account: Option<u8>) -> LedgerWallet {
    LedgerWallet::new(rail, key(account.unwrap_or(200))).with_voucher_key(key(VOUCHER))
}

#[async_trait]
impl Rail for Anew {
    fn name(&self) -> RailName {
        self.still.name()
    }

    fn decimals(&self, asset: &Asset) -> Option<u8> {
        self.still.decimals(asset)
    }

    fn lease(&self, terms: &Terms) -> LeaseId {
        self.still.lease(terms)
    }

    fn check(&self, terms: &Terms, voucher: &Voucher) -> Result<(), RailError> {
        self.still.check(terms, voucher)
    }

    fn give_back_bytes(&self, terms: &Terms, paid: Amount) -> Vec<u8> {
        self.still.give_back_bytes(terms, paid)
    }

    async fn now(&self) -> Result<RailTime, RailError> {
        Rail::now(&Anew::now(self).await).await
    }

    async fn balance(&self, account: &Account, asset: &Asset) -> Result<Amount, RailError> {
        Anew::now(self).await.balance(account, asset).await
    }

    async fn view(&self, terms: &Terms, sure: Sure) -> Result<LockView, RailError> {
        Anew::now(self).await.view(terms, sure).await
    }

    async fn redeem(&self, terms: &Terms, voucher: &Voucher) -> Result<LockView, RailError> {
        Anew::now(self).await.redeem(terms, voucher).await
    }

    async fn refund(&self, terms: &Terms) -> Result<LockView, RailError> {
        Anew::now(self).await.refund(terms).await
    }

    async fn give_back(&self, terms: &Terms, paid: Amount, signature: &[u8]) -> Result<LockView, RailError> {
        Anew::now(self).await.give_back(terms, paid, signature).await
    }
}

#[async_trait]
impl Wallet for Anew {
    fn account(&self) -> Account {
        self.still.account()
    }

    async fn lock(&self, terms: &Terms, total: Amount, expiry: RailTime) -> Result<LockView, RailError> {
        Anew::now(self).await.lock(terms, total, expiry).await
    }

    fn voucher(&self, terms: &Terms, cumulative: Amount, not_before: RailTime) -> Result<Voucher, RailError> {
        self.still.voucher(terms, cumulative, not_before)
    }

    async fn close(&self, terms: &Terms) -> Result<LockView, RailError> {
        Anew::now(self).await.close(terms).await
    }
}

#[async_trait]
impl Bench for LedgerBench {
    fn rail(&self) -> Arc<dyn Rail> {
        Arc::new(Anew::new(self.place.clone(), None))
    }

    fn asset(&self) -> Asset {
        ASSET.parse().unwrap()
    }

    async fn payer(&self, money: Amount) -> Arc<dyn Wallet> {
        let seed = self.people.fetch_add(1, Ordering::SeqCst);
        let wallet = Anew::new(self.place.clone(), Some(seed));
        if !money.is_zero() {
            let rail = self.place.rail().await;
            let setting = self.place.setting.lock().await;
            fund(setting.dir.path(), &rail, &wallet.account(), money.0, seed).await;
        }
        Arc::new(wallet)
    }

    async fn payee(&self) -> Account {
        account(&self.place.address, self.people.fetch_add(1, Ordering::SeqCst))
    }

    fn voucher_key(&self) -> RailKey {
        RailKey::ed25519(key(VOUCHER).verifying_key().as_bytes())
    }

    fn give_back_key(&self) -> RailKey {
        RailKey::ed25519(key(GIVE_BACK).verifying_key().as_bytes())
    }

    fn sign_give_back(&self, bytes: &[u8]) -> Vec<u8> {
        key(GIVE_BACK).sign(bytes).to_bytes().to_vec()
    }

    async fn advance(&self, ms: u64) {
        self.place.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

async fn bench(restarts: bool) -> LedgerBench {
    let setting = Setting::new().await;
    let place = Place {
        now_ms: setting.now_ms.clone(),
        address: setting.address(),
        setting: Mutex::new(setting),
        restarts,
        restarted: AtomicU64::new(0),
    };
    // Seeds below 10 are this folder's fixed parties.
    LedgerBench {
        place: Arc::new(place),
        people: AtomicU8::new(10),
    }
}

#[tokio::test]
async fn the_ledger_passes_the_suite_over_http() {
    let held = run(&bench(false).await)
        .await
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(held.len() >= 10, "{held:?}");
}

#[tokio::test]
async fn the_ledger_passes_the_suite_restarted_before_every_call() {
    let bench = bench(true).await;
    let held = run(&bench).await.unwrap_or_else(|failure| panic!("{failure}"));
    let restarted = bench.place.restarted.load(Ordering::SeqCst);
    assert!(
        restarted > held.len() as u64 * 2,
        "{restarted} restarts in {} cases",
        held.len()
    );
}
