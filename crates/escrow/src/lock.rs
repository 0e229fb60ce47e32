//! A lock as a pure machine: any rail that keeps records applies this function and books what it returns.
//!
//! ```text
//! None ─lock─► Locked ─redeem, before accept_by─► Active ─┐
//!                │                                   │    │ give back (paid as redeemed)
//!                │ refund, from accept_by on         │    │
//!                ▼                                   ▼    ▼
//!              Closed ◄── refund, from min(close, expiry) + notice on
//! ```
//!
//! Invariants: funded and paid never shrink; paid never exceeds funded; closed is for ever; an act that finds its end
//! already reached changes nothing and is no error, so every act may be repeated.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::amount::{Amount, RailTime};
use crate::terms::Terms;

/// Where a lock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockState {
    /// There is none.
    None,
    /// Funded, nothing redeemed yet.
    Locked,
    /// A voucher was redeemed.
    Active,
    /// Over: what was not paid went back to the payer.
    Closed,
}

/// A lock as a rail shows it. All amounts are in all, none is a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockView {
    /// Where it stands.
    pub state: LockState,
    /// Locked by the payer, in all.
    pub funded: Amount,
    /// Redeemed by vouchers, in all.
    pub paid: Amount,
    /// The first voucher must be redeemed before this.
    pub accept_by: RailTime,
    /// When the lock ends by itself (then the notice starts).
    pub expiry: RailTime,
    /// When the payer asked to close.
    pub close_asked: Option<RailTime>,
}

/// The two durations of a lock, from its terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// From the lock to the latest first voucher.
    pub accept_window_ms: u64,
    /// From close or expiry to the refund.
    pub notice_ms: u64,
}

impl From<&Terms> for Windows {
    fn from(terms: &Terms) -> Windows {
        Windows {
            accept_window_ms: terms.accept_window_ms,
            notice_ms: terms.notice_ms,
        }
    }
}

/// An extension that adds no money and less time than this changes nothing: it would cost its payer nothing, and a rail
/// that keeps records a record each.
pub const LEAST_STEP_MS: u64 = 60_000;

/// What is done to a lock. Signatures were checked by the rail before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The payer funds, tops up, extends: at least this much and this long afterwards, to less than [`LEAST_STEP_MS`].
    Lock {
        /// Funded in all.
        total: Amount,
        /// When it ends by itself.
        expiry: RailTime,
    },
    /// Somebody shows a voucher.
    Redeem {
        /// Owed in all.
        cumulative: Amount,
        /// Void before.
        not_before: RailTime,
    },
    /// The payer closes.
    Close,
    /// Anyone returns the rest after the deadline.
    Refund,
    /// The node returns the rest at once.
    GiveBack {
        /// What was redeemed, as the node believes.
        paid: Amount,
    },
}

/// What an act moves; all zero where it changed nothing that is money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Postings {
    /// From the payer into the lock.
    pub hold: Amount,
    /// From the lock to the payee.
    pub pay: Amount,
    /// From the lock back to the payer.
    pub release: Amount,
}

/// Why a rail says no. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such lock.
    NoLock,
    /// The lock is closed, for ever.
    Closed,
    /// The payer asked to close: nothing is added any more.
    Closing,
    /// A lock of nothing.
    NothingToLock,
    /// The expiry is not in the future.
    ExpiryPast,
    /// The first voucher came too late.
    AcceptPast(RailTime),
    /// Void until then.
    NotYet(RailTime),
    /// Void for good: it begins after the payer closed or the lock expired.
    Revoked,
    /// The voucher says more than is locked.
    Underfunded {
        /// What the voucher says.
        asked: Amount,
        /// What is locked.
        funded: Amount,
    },
    /// No refund before then.
    RefundFrom(RailTime),
    /// The node says another sum was paid than was.
    PaidDiffers {
        /// What the node said.
        said: Amount,
        /// What was redeemed.
        paid: Amount,
    },
    /// A signature is wrong or by another key.
    Signature,
    /// The payer's account does not hold as much.
    Balance {
        /// What the act needs.
        needed: Amount,
        /// What is free.
        free: Amount,
    },
    /// Something only this rail knows, in words.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoLock => write!(formatter, "there is no such lock"),
            Refusal::Closed => write!(formatter, "the lock is closed"),
            Refusal::Closing => write!(formatter, "the payer asked to close the lock"),
            Refusal::NothingToLock => write!(formatter, "nothing to lock"),
            Refusal::ExpiryPast => write!(formatter, "the lock would expire in the past"),
            Refusal::AcceptPast(at) => write!(formatter, "the first voucher was due before {at}"),
            Refusal::NotYet(at) => write!(formatter, "the voucher is void until {at}"),
            Refusal::Revoked => write!(formatter, "the voucher begins after the lock was closed"),
            Refusal::Underfunded { asked, funded } => {
                write!(formatter, "the voucher says {asked}, {funded} is locked")
            }
            Refusal::RefundFrom(at) => write!(formatter, "no refund before {at}"),
            Refusal::PaidDiffers { said, paid } => write!(formatter, "{paid} was paid, not {said}"),
            Refusal::Signature => write!(formatter, "the signature is wrong"),
            Refusal::Balance { needed, free } => {
                write!(formatter, "the account holds {free}, {needed} is needed")
            }
            Refusal::Other(words) => formatter.write_str(words),
        }
    }
}

impl LockView {
    /// A lock that does not exist.
    pub const NONE: LockView = LockView {
        state: LockState::None,
        funded: Amount::ZERO,
        paid: Amount::ZERO,
        accept_by: RailTime(0),
        expiry: RailTime(0),
        close_asked: None,
    };

    /// What lies in the lock now.
    pub fn held(&self) -> Amount {
        match self.state {
            LockState::None | LockState::Closed => Amount::ZERO,
            LockState::Locked | LockState::Active => self.funded.saturating_sub(self.paid),
        }
    }

    /// When vouchers end: the close, or the expiry.
    pub fn ends(&self) -> RailTime {
        self.close_asked
            .map_or(self.expiry, |close| close.min(self.expiry))
    }

    /// From when on anyone may refund; none where there is nothing to refund.
    pub fn refund_from(&self, windows: Windows) -> Option<RailTime> {
        match self.state {
            LockState::Locked => Some(self.accept_by),
            LockState::Active => Some(self.ends().plus_ms(windows.notice_ms)),
            LockState::None | LockState::Closed => None,
        }
    }
}

/// Applies one act at the rail's time `now`: the new view and what to book, or why not.
pub fn apply(
    view: &LockView,
    windows: Windows,
    act: Act,
    now: RailTime,
) -> Result<(LockView, Postings), Refusal> {
    match act {
        Act::Lock { total, expiry } => lock(view, windows, total, expiry, now),
        Act::Redeem {
            cumulative,
            not_before,
        } => redeem(view, cumulative, not_before, now),
        Act::Close => close(view, now),
        Act::Refund => refund(view, windows, now),
        Act::GiveBack { paid } => give_back(view, paid),
    }
}

type Applied = Result<(LockView, Postings), Refusal>;

fn unchanged(view: &LockView) -> Applied {
    Ok((*view, Postings::default()))
}

fn lock(view: &LockView, windows: Windows, total: Amount, expiry: RailTime, now: RailTime) -> Applied {
    match view.state {
        LockState::None if total.is_zero() => Err(Refusal::NothingToLock),
        LockState::None if expiry <= now => Err(Refusal::ExpiryPast),
        LockState::None => {
            let accept_by = now.plus_ms(windows.accept_window_ms);
            let new = LockView {
                state: LockState::Locked,
                funded: total,
                paid: Amount::ZERO,
                accept_by,
                expiry,
                close_asked: None,
            };
            Ok((
                new,
                Postings {
                    hold: total,
                    ..Postings::default()
                },
            ))
        }
        LockState::Closed => Err(Refusal::Closed),
        LockState::Locked | LockState::Active
            if total <= view.funded && expiry.ms_since(view.expiry) < LEAST_STEP_MS =>
        {
            unchanged(view)
        }
        LockState::Locked | LockState::Active if view.close_asked.is_some() => Err(Refusal::Closing),
        LockState::Locked if now >= view.accept_by => Err(Refusal::AcceptPast(view.accept_by)),
        LockState::Locked | LockState::Active if now >= view.expiry => Err(Refusal::ExpiryPast),
        LockState::Locked | LockState::Active => {
            let new = LockView {
                funded: view.funded.max(total),
                expiry: view.expiry.max(expiry),
                ..*view
            };
            Ok((
                new,
                Postings {
                    hold: new.funded.saturating_sub(view.funded),
                    ..Postings::default()
                },
            ))
        }
    }
}

fn redeem(view: &LockView, cumulative: Amount, not_before: RailTime, now: RailTime) -> Applied {
    match view.state {
        LockState::None => return Err(Refusal::NoLock),
        LockState::Locked | LockState::Active | LockState::Closed if cumulative <= view.paid => {
            return unchanged(view);
        }
        LockState::Closed => return Err(Refusal::Closed),
        LockState::Locked if now >= view.accept_by => return Err(Refusal::AcceptPast(view.accept_by)),
        LockState::Locked | LockState::Active => {}
    }
    if not_before > view.ends() {
        return Err(Refusal::Revoked);
    }
    if not_before > now {
        return Err(Refusal::NotYet(not_before));
    }
    if cumulative > view.funded {
        return Err(Refusal::Underfunded {
            asked: cumulative,
            funded: view.funded,
        });
    }
    let new = LockView {
        state: LockState::Active,
        paid: cumulative,
        ..*view
    };
    Ok((
        new,
        Postings {
            pay: cumulative.saturating_sub(view.paid),
            ..Postings::default()
        },
    ))
}

fn close(view: &LockView, now: RailTime) -> Applied {
    match view.state {
        LockState::None => Err(Refusal::NoLock),
        LockState::Closed => unchanged(view),
        LockState::Locked | LockState::Active => Ok((
            LockView {
                close_asked: view.close_asked.or(Some(now)),
                ..*view
            },
            Postings::default(),
        )),
    }
}

fn refund(view: &LockView, windows: Windows, now: RailTime) -> Applied {
    match (view.state, view.refund_from(windows)) {
        (LockState::None, _) => Err(Refusal::NoLock),
        (LockState::Locked | LockState::Active, Some(from)) if now < from => Err(Refusal::RefundFrom(from)),
        (LockState::Locked | LockState::Active, _) => Ok(closed(view)),
        (LockState::Closed, _) => unchanged(view),
    }
}

fn give_back(view: &LockView, paid: Amount) -> Applied {
    match view.state {
        LockState::None => Err(Refusal::NoLock),
        LockState::Locked | LockState::Active | LockState::Closed if paid != view.paid => {
            Err(Refusal::PaidDiffers {
                said: paid,
                paid: view.paid,
            })
        }
        LockState::Closed => unchanged(view),
        LockState::Locked | LockState::Active => Ok(closed(view)),
    }
}

fn closed(view: &LockView) -> (LockView, Postings) {
    (
        LockView {
            state: LockState::Closed,
            ..*view
        },
        Postings {
            release: view.held(),
            ..Postings::default()
        },
    )
}
