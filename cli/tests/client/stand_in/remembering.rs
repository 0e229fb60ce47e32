//! What both signed, given back.

use market::envelope;
use market::id::Digest;
use market::message::{Amend, Amended, Recalled, RecalledSale};
use market::prices::Prices;

use super::Inner;

impl Inner {
    /// As both signed them last.
    pub(super) fn prices(&self) -> Prices {
        let changes = self.knobs.changes.lock().unwrap();
        let newest = changes.last().map(|frame| {
            let amend = envelope::open::<Amend>(frame, Some(self.grid_id)).unwrap();
            amend.message.prices
        });
        newest.unwrap_or_else(|| Prices::of(self.sale().body().price))
    }

    pub(super) fn recall(&self, frame: &[u8]) -> Vec<u8> {
        let amended = self.knobs.changes.lock().unwrap().last().map(|frame| {
            let amend = envelope::open::<Amend>(frame, Some(self.grid_id)).unwrap();
            self.sign(Amended { amend })
        });
        let sale = RecalledSale {
            request: self.request.lock().unwrap().clone(),
            offer: self.offer.lock().unwrap().clone().unwrap().bytes,
            sale: self.sale.lock().unwrap().clone().unwrap().bytes,
            grant: None,
            amended,
            receipt: None,
        };
        self.sign(Recalled {
            recall: Digest::of(frame),
            sales: vec![sale],
            more: false,
        })
    }
}
