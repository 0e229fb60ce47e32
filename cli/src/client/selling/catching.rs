//! A record that is older than what both signed: from a backup, or of a machine that ended before the answer came.
//!
//! ```text
//! restored, or refused, or not the size that was sold ─► recall of this one sale ─► amended, number higher? ─► taken
//! ```
//! Invariant: a change is taken only with both signatures, for this sale, and only if it is newer than the one here.

use escrow::Rail;
use market::envelope::Signed;
use market::id::SaleId;
use market::message::{Amended, Recall};
use market::quantity::UnixMillis;

use super::{ANSWER_WITHIN, Walk};
use crate::client::recall::{RECALL_MS, open, page};
use crate::client::talk::TalkError;
use crate::exit::{Failure, Outcome};

impl Walk<'_> {
    /// What came from a backup is compared with the node before anything is signed on it.
    pub(super) async fn catch_up_after_restore(&mut self) -> Outcome {
        if self.record.from_backup {
            self.catch_up().await?;
        }
        Ok(())
    }

    /// Asks the node for the newest change that both signed. Whether this machine did not have it.
    pub async fn catch_up(&mut self) -> Outcome<bool> {
        let now = self.wallet.now().await;
        let now = now.map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let recall = Recall {
            endpoint: self.talk.endpoint(),
            expires: UnixMillis::from(now).plus_ms(RECALL_MS),
            after: before(self.files.id),
        };
        let page = match page(&mut self.talk, recall, ANSWER_WITHIN).await {
            Ok(page) => page,
            Err(error @ TalkError::Refused(..)) => {
                tracing::warn!(%error, "the node does not say what both signed last");
                return Ok(false);
            }
            Err(error) => return Err(error.failure("the node does not say what both signed last")),
        };
        let (grid, node, id) = (self.body.grid, self.body.node, self.files.id);
        let opened = page.sales.iter().filter_map(|sale| open(sale, grid, node).ok());
        let Some(found) = opened.into_iter().find(|opened| opened.sale.message.id() == id) else {
            return Ok(false);
        };
        self.record.from_backup = false;
        let known = self.record.amendments;
        let number = |amended: &Signed<Amended>| amended.message.amend.message.number;
        match found.amended.filter(|amended| number(amended) > known) {
            Some(amended) => {
                // What was seen from inside was another size.
                self.seen_now = false;
                self.take_change(&amended)?;
                Ok(true)
            }
            None => self.keep().map(|()| false),
        }
    }
}

/// The greatest id that is smaller: what comes after it begins with this one.
fn before(SaleId(mut id): SaleId) -> Option<SaleId> {
    for byte in id.iter_mut().rev() {
        let borrows = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !borrows {
            return Some(SaleId(id));
        }
    }
    None // it was the first of all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_behind_the_id_before_begins_with_the_sale() {
        let mut id = [0; 32];
        assert_eq!(before(SaleId(id)), None);
        id[31] = 1;
        assert_eq!(before(SaleId(id)), Some(SaleId([0; 32])));
        (id[30], id[31]) = (7, 0);
        let found = before(SaleId(id)).unwrap();
        assert_eq!((found.0[30], found.0[31]), (6, 255));
        assert!(found < SaleId(id));
    }
}
