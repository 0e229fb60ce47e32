//! Who was served and did not pay: no new sale for whoever did it too often.
//!
//! ```text
//!  over ─┬─ no first voucher, or one voucher and then none ─► counted to its payer for a day ─► three: no more sales
//!        └─ anything else ─► nothing
//! ```
//!
//! A space runs from its lock to the first voucher, and each period before that period's voucher: without a count, the
//! same money, which comes back each time, would hold a machine for ever. Counted by the account that pays, which alone
//! costs something to have. The journal keeps sales that are over, so a restart forgets none of it; who paid for more than
//! one period has paid for what he was trusted with.
//!
//! Invariant: bounded by the sales that are kept.

use std::collections::BTreeMap;

use escrow::{Account, RailTime};
use market::id::SaleId;
use market::sale::{Sale, Why};

/// So often a payer's space may end unpaid within [`REMEMBERED_MS`].
pub(super) const MOST: usize = 3;
/// A day of the rail's clock.
const REMEMBERED_MS: u64 = 86_400_000;

/// The sales that ended unpaid.
#[derive(Debug, Default)]
pub(super) struct Unpaid {
    sales: BTreeMap<SaleId, (Account, RailTime)>,
}

impl Unpaid {
    /// Takes a sale that is over; the same one again changes nothing.
    pub(super) fn add(&mut self, sale: &Sale, payer: &Account) {
        if was_served_for_nothing(sale) {
            self.sales.insert(sale.deal.id, (payer.clone(), sale.since));
        }
    }

    /// Nothing of the sale is known any more.
    pub(super) fn forget(&mut self, sale: SaleId) {
        self.sales.remove(&sale);
    }

    /// Whether this payer has to wait: as [`MOST`] says.
    pub(super) fn is_too_many(&self, payer: &Account, now: RailTime) -> bool {
        let since = RailTime(now.0.saturating_sub(REMEMBERED_MS));
        let his = self
            .sales
            .values()
            .filter(|(who, when)| who == payer && *when > since);
        his.count() >= MOST
    }
}

/// A space that ran and was not paid: from the start, or as soon as its user was trusted with a second period.
fn was_served_for_nothing(sale: &Sale) -> bool {
    match sale.why {
        Some(Why::NotAccepted) => true,
        Some(Why::NotPaid) => sale.periods_paid() <= 1,
        _ => false,
    }
}
