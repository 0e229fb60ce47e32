//! The suite, run against the smallest rail there can be: a map of records, `lock::apply`, and ed25519.
//!
//! It shows that the suite can be passed by the pure machine alone, and that a rail which breaks a rule fails it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use escrow::conformance::{Bench, run};
use escrow::lock::{Act, Windows, apply};
use escrow::{
    Account, Amount, Asset, LeaseId, LockView, Rail, RailError, RailKey, RailName, RailTime, Refusal, Sure,
    Terms, Voucher, Wallet,
};

const LEDGER_KEY: [u8; 32] = [1; 32];

#[derive(Default)]
struct Books {
    now_ms: u64,
    free: HashMap<Account, u128>,
    locks: HashMap<LeaseId, LockView>,
    /// A fault to be found by the suite: vouchers are paid whatever their signature.
    signatures_ignored: bool,
}

#[derive(Clone)]
struct Memory {
    books: Arc<Mutex<Books>>,
    voucher_key: Arc<SigningKey>,
    account: Account,
}

fn voucher_bytes(lease: LeaseId, cumulative: Amount, not_before: RailTime) -> Vec<u8> {
    [
        &lease.0[..],
        &cumulative.0.to_be_bytes(),
        &not_before.0.to_be_bytes(),
    ]
    .concat()
}

fn verify(key: &RailKey, bytes: &[u8], signature: &[u8]) -> Result<(), RailError> {
    let wrong = || RailError::Refused(Refusal::Signature);
    let key = VerifyingKey::from_bytes(&key.as_ed25519().ok_or_else(wrong)?).map_err(|_| wrong())?;
    let signature = Signature::from_slice(signature).map_err(|_| wrong())?;
    key.verify_strict(bytes, &signature).map_err(|_| wrong())
}

impl Memory {
    fn act(&self, terms: &Terms, act: Act) -> Result<LockView, RailError> {
        let mut books = self.books.lock().unwrap();
        let lease = self.lease(terms);
        let view = books.locks.get(&lease).copied().unwrap_or(LockView::NONE);
        let now = RailTime(books.now_ms);
        let (new, postings) = apply(&view, Windows::from(terms), act, now).map_err(RailError::Refused)?;
        let payer = books.free.entry(terms.payer.clone()).or_default();
        let free = Amount(*payer);
        let Some(rest) = free.checked_sub(postings.hold) else {
            return Err(RailError::Refused(Refusal::Balance {
                needed: postings.hold,
                free,
            }));
        };
        *payer = rest.0 + postings.release.0;
        *books.free.entry(terms.payee.clone()).or_default() += postings.pay.0;
        books.locks.insert(lease, new);
        Ok(new)
    }
}

#[async_trait]
impl Rail for Memory {
    fn name(&self) -> RailName {
        RailName::ledger(&LEDGER_KEY)
    }

    fn decimals(&self, _asset: &Asset) -> Option<u8> {
        Some(escrow::LEDGER_DECIMALS)
    }

    fn lease(&self, terms: &Terms) -> LeaseId {
        terms.lease(&self.name())
    }

    fn check(&self, terms: &Terms, voucher: &Voucher) -> Result<(), RailError> {
        if self.books.lock().unwrap().signatures_ignored {
            return Ok(());
        }
        let bytes = voucher_bytes(self.lease(terms), voucher.cumulative, voucher.not_before);
        verify(&terms.voucher_key, &bytes, &voucher.signature)
    }

    fn give_back_bytes(&self, terms: &Terms, paid: Amount) -> Vec<u8> {
        [&b"give back"[..], &self.lease(terms).0, &paid.0.to_be_bytes()].concat()
    }

    async fn now(&self) -> Result<RailTime, RailError> {
        Ok(RailTime(self.books.lock().unwrap().now_ms))
    }

    async fn balance(&self, account: &Account, _asset: &Asset) -> Result<Amount, RailError> {
        Ok(Amount(
            self.books.lock().unwrap().free.get(account).copied().unwrap_or(0),
        ))
    }

    async fn view(&self, terms: &Terms, _sure: Sure) -> Result<LockView, RailError> {
        let lease = self.lease(terms);
        Ok(self
            .books
            .lock()
            .unwrap()
            .locks
            .get(&lease)
            .copied()
            .unwrap_or(LockView::NONE))
    }

    async fn redeem(&self, terms: &Terms, voucher: &Voucher) -> Result<LockView, RailError> {
        self.check(terms, voucher)?;
        self.act(
            terms,
            Act::Redeem {
                cumulative: voucher.cumulative,
                not_before: voucher.not_before,
            },
        )
    }

    async fn refund(&self, terms: &Terms) -> Result<LockView, RailError> {
        self.act(terms, Act::Refund)
    }

    async fn give_back(&self, terms: &Terms, paid: Amount, signature: &[u8]) -> Result<LockView, RailError> {
        verify(
            &terms.give_back_key,
            &self.give_back_bytes(terms, paid),
            signature,
        )?;
        self.act(terms, Act::GiveBack { paid })
    }
}

#[async_trait]
impl Wallet for Memory {
    fn account(&self) -> Account {
        self.account.clone()
    }

    async fn lock(&self, terms: &Terms, total: Amount, expiry: RailTime) -> Result<LockView, RailError> {
        self.act(terms, Act::Lock { total, expiry })
    }

    fn voucher(&self, terms: &Terms, cumulative: Amount, not_before: RailTime) -> Result<Voucher, RailError> {
        let lease = self.lease(terms);
        let signature = self
            .voucher_key
            .sign(&voucher_bytes(lease, cumulative, not_before))
            .to_bytes()
            .to_vec();
        Ok(Voucher {
            lease,
            cumulative,
            not_before,
            signature,
        })
    }

    async fn close(&self, terms: &Terms) -> Result<LockView, RailError> {
        self.act(terms, Act::Close)
    }
}

struct MemoryBench {
    rail: Memory,
    give_back_key: SigningKey,
    accounts: Mutex<u8>,
}

impl MemoryBench {
    fn new(signatures_ignored: bool) -> MemoryBench {
        let books = Books {
            now_ms: 1_700_000_000_000,
            signatures_ignored,
            ..Books::default()
        };
        let rail = Memory {
            books: Arc::new(Mutex::new(books)),
            voucher_key: Arc::new(SigningKey::from_bytes(&[2; 32])),
            account: Account::on_ledger(&LEDGER_KEY, &[0; 32]),
        };
        MemoryBench {
            rail,
            give_back_key: SigningKey::from_bytes(&[3; 32]),
            accounts: Mutex::new(10),
        }
    }

    fn new_account(&self) -> Account {
        let mut accounts = self.accounts.lock().unwrap();
        *accounts += 1;
        Account::on_ledger(&LEDGER_KEY, &[*accounts; 32])
    }
}

#[async_trait]
impl Bench for MemoryBench {
    fn rail(&self) -> Arc<dyn Rail> {
        Arc::new(self.rail.clone())
    }

    fn asset(&self) -> Asset {
        "play".parse().unwrap()
    }

    async fn payer(&self, money: Amount) -> Arc<dyn Wallet> {
        let account = self.new_account();
        self.rail
            .books
            .lock()
            .unwrap()
            .free
            .insert(account.clone(), money.0);
        Arc::new(Memory {
            account,
            ..self.rail.clone()
        })
    }

    async fn payee(&self) -> Account {
        self.new_account()
    }

    fn voucher_key(&self) -> RailKey {
        RailKey::ed25519(&self.rail.voucher_key.verifying_key().to_bytes())
    }

    fn give_back_key(&self) -> RailKey {
        RailKey::ed25519(&self.give_back_key.verifying_key().to_bytes())
    }

    fn sign_give_back(&self, bytes: &[u8]) -> Vec<u8> {
        self.give_back_key.sign(bytes).to_bytes().to_vec()
    }

    async fn advance(&self, ms: u64) {
        self.rail.books.lock().unwrap().now_ms += ms;
    }
}

#[tokio::test]
async fn the_pure_machine_passes() {
    let held = run(&MemoryBench::new(false)).await.unwrap();
    assert_eq!(held.len(), 20);
}

#[tokio::test]
async fn a_rail_that_ignores_signatures_is_found_out() {
    let failure = run(&MemoryBench::new(true)).await.unwrap_err();
    assert_eq!(failure.case, "a_voucher_with_one_bit_changed_is_refused");
}
