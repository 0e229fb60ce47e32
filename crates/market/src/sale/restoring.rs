//! How a space becomes what its snapshot is.
//!
//! ```text
//!   Ready, Active, Locked ── Restore ──► Locked, restoring ── RestoreSpace ──► Restored: Locked, the key opens it
//!                                          ▲    │ Failed, or the power went      └─ Untouched: as it was
//!                                          └────┘ the next Restore, or the next start
//! ```
//!
//! Invariants: a restore that is said again is not done again; no key is taken before it came through; the time of it is
//! not served, so it is not paid.

use super::amending::handed_over;
use super::machine::{Stepped, built, rejected, to};
use super::{Effect, Event, Now, PutBack, Rejection, Resizing, Restoring, Sale};
use crate::message::SaleState;

/// What waits until a restore has come through.
pub(super) fn refuses(sale: &Sale, event: &Event) -> Option<Rejection> {
    let waits = matches!(
        event,
        Event::FundedHint | Event::KeyOpened { .. } | Event::Amended(_)
    );
    (waits && sale.state == SaleState::Locked && sale.restoring.is_some()).then_some(Rejection::Restoring)
}

pub(super) fn restore(mut sale: Sale, nonce: [u8; 16], now: Now) -> Stepped {
    if sale.restored == Some(nonce) {
        return Ok((sale, Vec::new()));
    }
    match sale.state {
        SaleState::Ready | SaleState::Active | SaleState::Locked => {
            match sale.restoring {
                Some(Restoring {
                    failed: false,
                    nonce: known,
                }) if known == nonce => {
                    return Ok((sale, Vec::new()));
                }
                Some(Restoring { failed: false, .. }) => return Err(Rejection::Restoring),
                Some(Restoring { failed: true, .. }) | None => {}
            }
            if sale.snapshot_at.is_none() {
                return Err(rejected(&sale, "it has no snapshot"));
            }
            if sale.resizing.is_some() || sale.unlocking {
                return Err(rejected(
                    &sale,
                    "its size is being changed, or it is being opened",
                ));
            }
            sale.restoring = Some(Restoring { nonce, failed: false });
            sale.down = false;
            if sale.state != SaleState::Locked {
                sale = to(sale, SaleState::Locked, now);
            }
            Ok((sale, vec![Effect::RestoreSpace]))
        }
        SaleState::Offered
        | SaleState::Agreed
        | SaleState::Funded
        | SaleState::Keyed
        | SaleState::Building
        | SaleState::Ending
        | SaleState::Ended
        | SaleState::Quarantined
        | SaleState::Lapsed
        | SaleState::Refunded => Err(rejected(&sale, "there is nothing to restore")),
    }
}

pub(super) fn restored(mut sale: Sale, put_back: PutBack, now: Now) -> Stepped {
    let Some(restoring) = sale.restoring else {
        return Ok((sale, Vec::new()));
    };
    match put_back {
        PutBack::Done => {
            sale.restored = Some(restoring.nonce);
            sale.restoring = None;
        }
        PutBack::Failed => {
            sale.restoring = Some(Restoring {
                failed: true,
                ..restoring
            });
        }
        PutBack::Untouched { runs } => {
            sale.restoring = None;
            if runs && sale.state == SaleState::Locked {
                return built(sale, now);
            }
        }
    }
    Ok((sale, Vec::new()))
}

/// It was opened, and its volume did not grow with the key: the next key is for that.
pub(super) fn opened_smaller(sale: Sale, now: Now) -> Stepped {
    let sale = handed_over(sale);
    let still = sale.resizing.filter(|_| sale.wants_key());
    let (sale, effects) = built(sale, now)?;
    let resizing = still.or(sale.resizing);
    Ok((Sale { resizing, ..sale }, effects))
}

/// It was opened with the size that was agreed; a snapshot is taken or removed now that it runs.
pub(super) fn opened(sale: &mut Sale) -> Vec<Effect> {
    let for_a_snapshot = sale.resizing.filter(|resizing| resizing.snapshot.is_some());
    sale.resizing = for_a_snapshot.map(|resizing| Resizing {
        grows_from: None,
        handed: None,
        ..resizing
    });
    sale.resizing.map(|_| Effect::ResizeSpace).into_iter().collect()
}
