//! What a key or a voucher changed, if it was not only said again; and the taking of vouchers.
//!
//! A stream that served a sale keeps its place before others. To say again what was said costs nothing, so it serves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use escrow::{Amount, Voucher};
use market::message::{RefusalCode, VoucherMessage};
use market::sale::Event;

use super::keeper::{MOST_WAITING, No, Reply, Task, no};

/// Whether an order was more than said again: a key that was wanted, a voucher over more than was paid or promised.
#[derive(Debug, Clone, Default)]
pub struct Changed(Arc<AtomicBool>);

impl Changed {
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// It was.
    pub fn has(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Task {
    pub(super) async fn vouchers(&mut self, message: VoucherMessage, changed: &Changed, reply: Reply) {
        let read = message.vouchers.iter().map(|bytes| self.read_voucher(bytes));
        let vouchers = match read.collect() {
            Ok(vouchers) => vouchers,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        self.redeem_wanted = false;
        let before = self.promised();
        if let Err(refusal) = self.happen(Event::Vouchers(vouchers)).await {
            return drop(reply.send(Err(refusal)));
        }
        if self.promised() > before {
            changed.now();
        }
        if self.redeem_wanted && self.rail_busy && self.waiting.voucher.len() < MOST_WAITING {
            self.waiting.voucher.push(reply);
        } else {
            let _ = reply.send(self.status([0; 16]));
        }
    }

    /// What was paid, or will be by what is in hand.
    fn promised(&self) -> Amount {
        let sale = &self.record.sale;
        let promised = sale.vouchers.iter().map(|voucher| voucher.cumulative);
        promised.fold(sale.lock.paid, Amount::max)
    }

    /// A voucher whose signature is this sale's.
    pub(super) fn read_voucher(&self, bytes: &[u8]) -> Result<Voucher, No> {
        let bad = |why: String| no(RefusalCode::Voucher, why);
        let voucher = Voucher::from_bytes(bytes).map_err(|error| bad(error.to_string()))?;
        let checked = self.shared.rail.check(&self.terms, &voucher);
        checked.map_err(|error| bad(error.to_string()))?;
        Ok(voucher)
    }
}
