//! The door: what a request means, and whether it may go on.
//!
//! Bounded bytes come in; terms are checked against this ledger, signatures
//! against the keys that the terms name. What passes is a question or an
//! [`Operation`]; nothing behind the door looks at a signature again.

use ed25519_dalek::VerifyingKey;
use escrow::lock::{Act, Windows};
use escrow::{Account, Asset, LeaseId, RailName, Refusal, Terms};
use sha2::{Digest, Sha256};

use crate::store::book::{Action, LockAction, Operation};
use crate::wire::{Answer, Ask, Request};
use crate::{ASSET, signing};

/// What a request is, once it passed.
#[derive(Debug)]
pub enum Passed {
    /// Something to read.
    Question(Question),
    /// Something to book.
    Operation(Box<Operation>),
}

/// Something to read.
#[derive(Debug)]
pub enum Question {
    /// The ledger's asset and time.
    Now,
    /// What an account holds.
    Balance(Account),
    /// How a lock stands.
    View(LeaseId),
    /// Open locks of a payer, ids after that one.
    Open(Account, Option<LeaseId>),
}

/// Who this ledger is, as far as the door needs to know.
#[derive(Clone, Debug)]
pub struct Door {
    /// The rail's name.
    pub name: RailName,
    /// Who may issue play money.
    pub operator: VerifyingKey,
}

fn invalid(why: impl Into<String>) -> Answer {
    Answer::Invalid { why: why.into() }
}

impl Door {
    /// Reads a request's body and checks all of it that needs no table.
    pub fn pass(&self, body: &[u8]) -> Result<Passed, Answer> {
        let request: Request = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("not a request of this ledger's: {error}")))?;
        match &request.ask {
            Ask::Now => Ok(Passed::Question(Question::Now)),
            Ask::Balance { account } => {
                self.check_account(account)?;
                Ok(Passed::Question(Question::Balance(account.clone())))
            }
            Ask::View { terms } => {
                self.check_terms(terms)?;
                Ok(Passed::Question(Question::View(terms.lease(&self.name))))
            }
            Ask::Open { payer, after } => {
                self.check_account(payer)?;
                Ok(Passed::Question(Question::Open(payer.clone(), *after)))
            }
            Ask::Fund {
                to,
                amount,
                id,
                signature,
            } => {
                self.check_account(to)?;
                let message = signing::fund(&self.name, to, *amount, id);
                check_signature(self.operator.as_bytes(), &message, signature)?;
                let action = Action::Fund {
                    to: to.to_string(),
                    amount: *amount,
                };
                operation(&request.ask, &message, action)
            }
            Ask::Lock { .. }
            | Ask::Redeem { .. }
            | Ask::Close { .. }
            | Ask::Refund { .. }
            | Ask::GiveBack { .. } => self.pass_act(&request.ask),
        }
    }

    fn pass_act(&self, ask: &Ask) -> Result<Passed, Answer> {
        match ask {
            Ask::Lock {
                terms,
                total,
                expiry,
                signature,
            } => {
                let message = signing::lock(&terms.lease(&self.name), *total, *expiry);
                let act = Act::Lock {
                    total: *total,
                    expiry: *expiry,
                };
                self.act(ask, terms, &message, Some((Signer::Payer, signature)), act)
            }
            Ask::Redeem { terms, voucher } => {
                let lease = terms.lease(&self.name);
                if voucher.lease != lease {
                    return Err(invalid("the voucher is for another lock"));
                }
                let message = signing::voucher(&lease, voucher.cumulative, voucher.not_before);
                let act = Act::Redeem {
                    cumulative: voucher.cumulative,
                    not_before: voucher.not_before,
                };
                let signed = Some((Signer::Voucher, voucher.signature.as_slice()));
                self.act(ask, terms, &message, signed, act)
            }
            Ask::Close { terms, signature } => {
                let message = signing::close(&terms.lease(&self.name));
                self.act(ask, terms, &message, Some((Signer::Payer, signature)), Act::Close)
            }
            Ask::Refund { terms } => {
                let message = signing::refund(&terms.lease(&self.name));
                self.act(ask, terms, &message, None, Act::Refund)
            }
            Ask::GiveBack {
                terms,
                paid,
                signature,
            } => {
                let message = signing::give_back(&terms.lease(&self.name), *paid);
                let signed = Some((Signer::GiveBack, signature.as_slice()));
                self.act(ask, terms, &message, signed, Act::GiveBack { paid: *paid })
            }
            Ask::Now | Ask::Balance { .. } | Ask::View { .. } | Ask::Open { .. } | Ask::Fund { .. } => {
                Err(invalid("not an act on a lock"))
            }
        }
    }

    fn act(
        &self,
        ask: &Ask,
        terms: &Terms,
        message: &[u8],
        signed: Option<(Signer, &[u8])>,
        act: Act,
    ) -> Result<Passed, Answer> {
        let keys = self.check_terms(terms)?;
        if let Some((signer, signature)) = signed {
            let key = match signer {
                Signer::Payer => keys.payer,
                Signer::Voucher => keys.voucher,
                Signer::GiveBack => keys.give_back,
            };
            check_signature(&key, message, signature)?;
        }
        let action = LockAction {
            lease: terms.lease(&self.name),
            terms: to_json(terms)?,
            payer: terms.payer.to_string(),
            payee: terms.payee.to_string(),
            windows: Windows::from(terms),
            act,
        };
        operation(ask, message, Action::Lock(action))
    }

    fn check_account(&self, account: &Account) -> Result<[u8; 32], Answer> {
        if !account.is_on(&self.name) {
            return Err(invalid(format!("the account {account} is not on this ledger")));
        }
        account
            .ledger_account_key()
            .ok_or_else(|| invalid(format!("the account {account} has no key")))
    }

    fn check_terms(&self, terms: &Terms) -> Result<Keys, Answer> {
        if !is_own_asset(&terms.asset) {
            let why = format!("this ledger holds \"{ASSET}\", not \"{}\"", terms.asset);
            return Err(invalid(why));
        }
        self.check_account(&terms.payee)?;
        let ed25519 = |key: Option<[u8; 32]>, what: &str| {
            key.ok_or_else(|| invalid(format!("the {what} key is not an ed25519 key")))
        };
        Ok(Keys {
            payer: self.check_account(&terms.payer)?,
            voucher: ed25519(terms.voucher_key.as_ed25519(), "voucher")?,
            give_back: ed25519(terms.give_back_key.as_ed25519(), "give-back")?,
        })
    }
}

/// Whether an asset is the one that a ledger holds.
pub fn is_own_asset(asset: &Asset) -> bool {
    asset.as_str() == ASSET
}

#[derive(Clone, Copy)]
enum Signer {
    Payer,
    Voucher,
    GiveBack,
}

struct Keys {
    payer: [u8; 32],
    voucher: [u8; 32],
    give_back: [u8; 32],
}

fn check_signature(key: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), Answer> {
    if signing::verify(key, message, signature) {
        Ok(())
    } else {
        Err(Answer::Refused {
            refusal: Refusal::Signature,
        })
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Answer> {
    serde_json::to_string(value).map_err(|error| Answer::Failed {
        why: error.to_string(),
    })
}

/// The operation's hash is over what was signed and not over the signature or
/// the nonce: the same instruction, sent again, is the same operation.
fn operation(ask: &Ask, message: &[u8], action: Action) -> Result<Passed, Answer> {
    let mut hasher = Sha256::new();
    hasher.update(b"steading/ledger/operation/1\0");
    hasher.update(message);
    Ok(Passed::Operation(Box::new(Operation {
        hash: hasher.finalize().into(),
        instruction: to_json(ask)?,
        action,
    })))
}
