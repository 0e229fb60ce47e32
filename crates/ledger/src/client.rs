//! The client side: what a node ([`LedgerRail`]) and a user ([`LedgerWallet`]) hold.
//!
//! Invariant: an answer counts only if the ledger's key signed it over this
//! very request (which holds a fresh nonce). Everything else, from a refused
//! connection to a flipped bit, is [`RailError::Unknown`]: look, then repeat.
//! No redirect is followed, no proxy asked, no body read past its bound.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ed25519_dalek::SigningKey;
use escrow::{
    Account, Amount, Asset, LEDGER_DECIMALS, LeaseId, LockView, Rail, RailError, RailName, RailTime, Refusal,
    Sure, Terms, Voucher, Wallet,
};

use crate::address::RailAddress;
use crate::door::is_own_asset;
use crate::signing;
use crate::wire::{
    ANSWER_BYTES, Answer, Ask, LEASES, OpenLease, PATH, REQUEST_BYTES, Reply, Request, SIGNATURE_HEADER,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle so long is not used again: the ledger may be closing it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What an account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Free for use.
    pub free: Amount,
    /// In open locks that this account pays.
    pub locked: Amount,
}

/// A ledger as a node sees it; holds no secret.
#[derive(Clone, Debug)]
pub struct LedgerRail {
    address: RailAddress,
    http: reqwest::Client,
}

fn unknown(why: impl std::fmt::Display) -> RailError {
    RailError::Unknown(why.to_string())
}

/// The innermost cause is what a person can act on.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What the ledger answered to these very bytes; nothing where another signed it, or it is to another request.
pub fn read_answer(
    ledger: &[u8; 32],
    request: &[u8],
    body: &[u8],
    signature: &[u8],
) -> Result<Reply, RailError> {
    if !signing::verify(ledger, &signing::answer(request, body), signature) {
        return Err(unknown(
            "the answer is not signed by the ledger, or is to another request: something on the way changes answers",
        ));
    }
    serde_json::from_slice(body).map_err(|_| unknown("the ledger answers in another version"))
}

impl LedgerRail {
    /// A client of the ledger at `address`; nothing is sent yet.
    pub fn new(address: RailAddress) -> Result<LedgerRail, RailError> {
        // TLS is never spoken (the address says http), yet the shared HTTP
        // library wants a provider when it is built; this one touches no
        // global state and trusts no root.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RailError::Invalid(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(|error| RailError::Invalid(root_cause(&error)))?;
        Ok(LedgerRail { address, http })
    }

    /// Where it is.
    pub fn address(&self) -> &RailAddress {
        &self.address
    }

    /// Asks, and returns the answer only if it is the ledger's own to this.
    pub async fn ask(&self, ask: Ask) -> Result<Reply, RailError> {
        let mut nonce = [0u8; 32];
        getrandom::fill(&mut nonce).map_err(unknown)?;
        let request = serde_json::to_vec(&Request { nonce, ask })
            .map_err(|error| RailError::Invalid(error.to_string()))?;
        if request.len() > REQUEST_BYTES {
            return Err(RailError::Invalid("the request is too long".to_owned()));
        }
        let (body, signature) = self.post(&request).await?;
        read_answer(&self.address.key(), &request, &body, &signature)
    }

    async fn post(&self, request: &[u8]) -> Result<(Vec<u8>, [u8; 64]), RailError> {
        let url = self.address.url();
        let failed = |error: reqwest::Error| unknown(format!("{url}: {}", root_cause(&error)));
        let mut response = self
            .http
            .post(format!("{url}{PATH}"))
            .header("content-type", "application/json")
            .body(request.to_vec())
            .send()
            .await
            .map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(unknown(format!("{url}: HTTP status {}", response.status())));
        }
        let signature = response
            .headers()
            .get(SIGNATURE_HEADER)
            .and_then(|value| crate::hex::decode::<64>(value.to_str().ok()?))
            .ok_or_else(|| unknown(format!("{url}: the answer bears no signature")))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(unknown(format!("{url}: the answer is too long")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, signature))
    }

    async fn ask_lock(&self, ask: Ask) -> Result<LockView, RailError> {
        match self.ask(ask).await?.answer {
            Answer::Lease { view } => Ok(view),
            other => Err(not_an_answer(other)),
        }
    }

    /// What an account has, free and locked.
    pub async fn balance_of(&self, account: &Account) -> Result<Balance, RailError> {
        match self
            .ask(Ask::Balance {
                account: account.clone(),
            })
            .await?
            .answer
        {
            Answer::Balance { free, locked } => Ok(Balance { free, locked }),
            other => Err(not_an_answer(other)),
        }
    }

    /// All locks that an account pays and that are not closed: what a restored
    /// client begins with.
    pub async fn open_locks(&self, payer: &Account) -> Result<Vec<OpenLease>, RailError> {
        let mut all: Vec<OpenLease> = Vec::new();
        loop {
            let after = all.last().map(|lease| lease.terms.lease(&self.name()));
            let ask = Ask::Open {
                payer: payer.clone(),
                after,
            };
            let mut page = match self.ask(ask).await?.answer {
                Answer::Leases { leases } => leases,
                other => return Err(not_an_answer(other)),
            };
            let is_last = page.len() < LEASES;
            all.append(&mut page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Issues play money, once for each `id`; returns what is free afterwards.
    pub async fn fund(
        &self,
        operator: &SigningKey,
        to: &Account,
        amount: Amount,
        id: [u8; 32],
    ) -> Result<Amount, RailError> {
        let message = signing::fund(&self.name(), to, amount, &id);
        let signature = signing::sign(operator, &message);
        match self
            .ask(Ask::Fund {
                to: to.clone(),
                amount,
                id,
                signature,
            })
            .await?
            .answer
        {
            Answer::Balance { free, .. } => Ok(free),
            other => Err(not_an_answer(other)),
        }
    }

    fn check_asset(&self, asset: &Asset) -> Result<(), RailError> {
        if is_own_asset(asset) {
            return Ok(());
        }
        Err(RailError::Invalid(format!(
            "this ledger does not hold \"{asset}\""
        )))
    }
}

fn not_an_answer(answer: Answer) -> RailError {
    match answer {
        Answer::Refused { refusal } => RailError::Refused(refusal),
        Answer::Invalid { why } => RailError::Invalid(why),
        Answer::Failed { why } => RailError::Unknown(why),
        Answer::Ledger { .. } | Answer::Balance { .. } | Answer::Lease { .. } | Answer::Leases { .. } => {
            unknown("the ledger answered another question")
        }
    }
}

#[async_trait]
impl Rail for LedgerRail {
    fn name(&self) -> RailName {
        self.address.name()
    }

    fn decimals(&self, asset: &Asset) -> Option<u8> {
        is_own_asset(asset).then_some(LEDGER_DECIMALS)
    }

    fn lease(&self, terms: &Terms) -> LeaseId {
        terms.lease(&self.name())
    }

    fn check(&self, terms: &Terms, voucher: &Voucher) -> Result<(), RailError> {
        let lease = self.lease(terms);
        if voucher.lease != lease {
            return Err(RailError::Invalid("the voucher is for another lock".to_owned()));
        }
        let key = terms
            .voucher_key
            .as_ed25519()
            .ok_or_else(|| RailError::Invalid("the voucher key is not an ed25519 key".to_owned()))?;
        let message = signing::voucher(&lease, voucher.cumulative, voucher.not_before);
        if signing::verify(&key, &message, &voucher.signature) {
            Ok(())
        } else {
            Err(RailError::Refused(Refusal::Signature))
        }
    }

    fn give_back_bytes(&self, terms: &Terms, paid: Amount) -> Vec<u8> {
        signing::give_back(&self.lease(terms), paid)
    }

    async fn now(&self) -> Result<RailTime, RailError> {
        Ok(self.ask(Ask::Now).await?.time)
    }

    async fn balance(&self, account: &Account, asset: &Asset) -> Result<Amount, RailError> {
        self.check_asset(asset)?;
        Ok(self.balance_of(account).await?.free)
    }

    /// What the ledger has written is final, so both kinds of sure are one.
    async fn view(&self, terms: &Terms, _sure: Sure) -> Result<LockView, RailError> {
        self.ask_lock(Ask::View { terms: terms.clone() }).await
    }

    async fn redeem(&self, terms: &Terms, voucher: &Voucher) -> Result<LockView, RailError> {
        self.check(terms, voucher)?;
        self.ask_lock(Ask::Redeem {
            terms: terms.clone(),
            voucher: voucher.clone(),
        })
        .await
    }

    async fn refund(&self, terms: &Terms) -> Result<LockView, RailError> {
        self.ask_lock(Ask::Refund { terms: terms.clone() }).await
    }

    async fn give_back(&self, terms: &Terms, paid: Amount, signature: &[u8]) -> Result<LockView, RailError> {
        let signature = signature
            .try_into()
            .map_err(|_| RailError::Invalid("a signature has 64 bytes".to_owned()))?;
        self.ask_lock(Ask::GiveBack {
            terms: terms.clone(),
            paid,
            signature,
        })
        .await
    }
}

/// A ledger as the payer's client sees it: with the account's key, and with
/// the voucher keys it was given.
pub struct LedgerWallet {
    rail: LedgerRail,
    account: SigningKey,
    vouchers: Vec<SigningKey>,
}

impl std::fmt::Debug for LedgerWallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerWallet")
            .field("rail", &self.rail)
            .finish_non_exhaustive()
    }
}

impl LedgerWallet {
    /// The wallet of `account` on that ledger.
    pub fn new(rail: LedgerRail, account: SigningKey) -> LedgerWallet {
        LedgerWallet {
            rail,
            account,
            vouchers: Vec::new(),
        }
    }

    /// Adds a sale's voucher key.
    pub fn with_voucher_key(mut self, key: SigningKey) -> LedgerWallet {
        self.vouchers.push(key);
        self
    }

    /// The ledger below.
    pub fn rail(&self) -> &LedgerRail {
        &self.rail
    }

    fn is_payer(&self, terms: &Terms) -> Result<(), RailError> {
        if terms.payer == self.account() {
            Ok(())
        } else {
            Err(RailError::NoKey)
        }
    }
}

#[async_trait]
impl Rail for LedgerWallet {
    fn name(&self) -> RailName {
        self.rail.name()
    }

    fn decimals(&self, asset: &Asset) -> Option<u8> {
        self.rail.decimals(asset)
    }

    fn lease(&self, terms: &Terms) -> LeaseId {
        self.rail.lease(terms)
    }

    fn check(&self, terms: &Terms, voucher: &Voucher) -> Result<(), RailError> {
        self.rail.check(terms, voucher)
    }

    fn give_back_bytes(&self, terms: &Terms, paid: Amount) -> Vec<u8> {
        self.rail.give_back_bytes(terms, paid)
    }

    async fn now(&self) -> Result<RailTime, RailError> {
        self.rail.now().await
    }

    async fn balance(&self, account: &Account, asset: &Asset) -> Result<Amount, RailError> {
        self.rail.balance(account, asset).await
    }

    async fn view(&self, terms: &Terms, sure: Sure) -> Result<LockView, RailError> {
        self.rail.view(terms, sure).await
    }

    async fn redeem(&self, terms: &Terms, voucher: &Voucher) -> Result<LockView, RailError> {
        self.rail.redeem(terms, voucher).await
    }

    async fn refund(&self, terms: &Terms) -> Result<LockView, RailError> {
        self.rail.refund(terms).await
    }

    async fn give_back(&self, terms: &Terms, paid: Amount, signature: &[u8]) -> Result<LockView, RailError> {
        self.rail.give_back(terms, paid, signature).await
    }
}

#[async_trait]
impl Wallet for LedgerWallet {
    fn account(&self) -> Account {
        Account::on_ledger(&self.rail.address.key(), self.account.verifying_key().as_bytes())
    }

    async fn lock(&self, terms: &Terms, total: Amount, expiry: RailTime) -> Result<LockView, RailError> {
        self.is_payer(terms)?;
        let message = signing::lock(&self.lease(terms), total, expiry);
        let signature = signing::sign(&self.account, &message);
        self.rail
            .ask_lock(Ask::Lock {
                terms: terms.clone(),
                total,
                expiry,
                signature,
            })
            .await
    }

    fn voucher(&self, terms: &Terms, cumulative: Amount, not_before: RailTime) -> Result<Voucher, RailError> {
        let key = self
            .vouchers
            .iter()
            .find(|key| terms.voucher_key.as_bytes() == key.verifying_key().as_bytes())
            .ok_or(RailError::NoKey)?;
        let lease = self.lease(terms);
        let message = signing::voucher(&lease, cumulative, not_before);
        let signature = signing::sign(key, &message).to_vec();
        Ok(Voucher {
            lease,
            cumulative,
            not_before,
            signature,
        })
    }

    async fn close(&self, terms: &Terms) -> Result<LockView, RailError> {
        self.is_payer(terms)?;
        let signature = signing::sign(&self.account, &signing::close(&self.lease(terms)));
        self.rail
            .ask_lock(Ask::Close {
                terms: terms.clone(),
                signature,
            })
            .await
    }
}
