//! A ledger in a scratch folder, its clock in the test's hand, and two parties.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;
use escrow::{Account, Amount, Rail, RailKey, Terms};
use ledger::server::{Bounds, Config, Serving, serve};
use ledger::{ASSET, LedgerRail, LedgerWallet, RailAddress, keys};

/// The time at which every test begins, unix milliseconds.
pub const START_MS: u64 = 1_800_000_000_000;
pub const HOUR_MS: u64 = 3_600_000;

pub struct Setting {
    pub dir: tempfile::TempDir,
    pub now_ms: Arc<AtomicU64>,
    pub bounds: Bounds,
    serving: Option<Serving>,
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub const PAYER: u8 = 1;
pub const PAYEE: u8 = 2;
pub const VOUCHER: u8 = 3;
pub const GIVE_BACK: u8 = 4;

impl Setting {
    pub async fn new() -> Setting {
        Setting::with(Bounds::default()).await
    }

    pub async fn with(bounds: Bounds) -> Setting {
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let mut setting = Setting {
            dir: tempfile::tempdir().unwrap(),
            now_ms,
            bounds,
            serving: None,
        };
        setting.start().await;
        setting
    }

    pub async fn start(&mut self) {
        let now_ms = self.now_ms.clone();
        let config = Config {
            dir: self.dir.path().to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            time: Some(Arc::new(move || now_ms.load(Ordering::SeqCst))),
            bounds: self.bounds,
        };
        self.serving = Some(serve(config).await.unwrap());
    }

    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.shut_down().await;
        }
    }

    /// Another process' worth of ledger over the same file, on another port.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn address(&self) -> RailAddress {
        self.serving.as_ref().unwrap().address().clone()
    }

    pub fn rail(&self) -> LedgerRail {
        LedgerRail::new(self.address()).unwrap()
    }

    pub fn wallet(&self) -> LedgerWallet {
        LedgerWallet::new(self.rail(), key(PAYER)).with_voucher_key(key(VOUCHER))
    }

    pub fn account(&self, seed: u8) -> Account {
        account(&self.address(), seed)
    }

    pub fn terms(&self, sale: u8) -> Terms {
        terms(&self.address(), sale)
    }

    pub async fn fund(&self, seed: u8, amount: u128, id: u8) -> Amount {
        fund(self.dir.path(), &self.rail(), &self.account(seed), amount, id).await
    }

    pub fn pass_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

pub async fn fund(dir: &Path, rail: &LedgerRail, to: &Account, amount: u128, id: u8) -> Amount {
    let operator = keys::read(dir, keys::OPERATOR_KEY).unwrap();
    rail.fund(&operator, to, Amount(amount), [id; 32]).await.unwrap()
}

pub fn account(address: &RailAddress, seed: u8) -> Account {
    Account::on_ledger(&address.key(), key(seed).verifying_key().as_bytes())
}

pub fn terms(address: &RailAddress, sale: u8) -> Terms {
    Terms {
        asset: ASSET.parse().unwrap(),
        payer: account(address, PAYER),
        payee: account(address, PAYEE),
        voucher_key: RailKey::ed25519(key(VOUCHER).verifying_key().as_bytes()),
        give_back_key: RailKey::ed25519(key(GIVE_BACK).verifying_key().as_bytes()),
        sale: [sale; 32],
        accept_window_ms: HOUR_MS / 2,
        notice_ms: 24 * HOUR_MS,
    }
}

pub async fn free(rail: &LedgerRail, account: &Account) -> u128 {
    rail.balance(account, &ASSET.parse().unwrap()).await.unwrap().0
}
