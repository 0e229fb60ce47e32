//! Another size: what it costs, and the change that both sign.

use std::sync::atomic::Ordering;

use escrow::{Amount, Rail, Sure, Voucher};
use market::envelope;
use market::message::{Amend, Amended, DeclineCode, Gives, Quote, Reason, RefusalCode, Resize};
use market::quantity::{Bytes, UnixMillis};

use super::Inner;

impl Inner {
    /// Twice the size costs twice as much; more than 4 GiB of memory there is not.
    pub(super) async fn quote(&self, frame: &[u8]) -> Vec<u8> {
        let terms = self.sale().body().terms();
        let paid = self.rail.view(&terms, Sure::Final).await.unwrap().paid;
        let asked = envelope::open::<Resize>(frame, Some(self.grid_id))
            .unwrap()
            .message;
        let offer = self.offer.lock().unwrap().clone().unwrap().message;
        let now = self.resized.lock().unwrap().unwrap_or(offer.gives);
        let gives = Gives {
            cpu: asked.cpu.unwrap_or(now.cpu),
            memory: asked.memory.unwrap_or(now.memory),
            disk: asked.disk.unwrap_or(now.disk),
            snapshot: match asked.snapshot {
                None => now.snapshot,
                Some(false) => Bytes::ZERO,
                Some(true) => now.disk,
            },
            ..now
        };
        let most = u128::from(4_u64 << 30);
        let memory = u128::from(gives.memory.0);
        let lacks = (memory > most).then(|| Reason::numbers(DeclineCode::Memory, memory, most));
        self.sign(Quote {
            sale: asked.sale,
            nonce: asked.nonce,
            gives,
            price: Amount(
                offer.price.0 * memory / u128::from(offer.gives.memory.0)
                    * u128::from(gives.on_disk().0 / gives.disk.0),
            ),
            begun: self.prices().paid(paid, 10_000).max(1),
            lacks: lacks.into_iter().collect(),
        })
    }

    /// As a node does: each number once, by one change; the same one again gets the same answer.
    pub(super) async fn amend(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let amend = envelope::open::<Amend>(frame, Some(self.grid_id)).unwrap();
        let number = usize::try_from(amend.message.number).unwrap();
        let is_new = number == self.knobs.changes.lock().unwrap().len() + 1;
        if let Some(bytes) = amend.message.voucher.as_ref().filter(|_| is_new) {
            let terms = self.sale().body().terms();
            let voucher = Voucher::from_bytes(bytes).unwrap();
            self.rail.check(&terms, &voucher).unwrap();
            self.rail.redeem(&terms, &voucher).await.unwrap();
            self.knobs.sums.lock().unwrap().push(voucher.cumulative.0);
            self.knobs.vouchers.fetch_add(1, Ordering::SeqCst);
        }
        let mut changes = self.knobs.changes.lock().unwrap();
        if is_new {
            changes.push(frame.to_vec());
        }
        if changes.get(number - 1).map(Vec::as_slice) != Some(frame) {
            return Some(self.refuse(frame, RefusalCode::Mismatch, "not the next change"));
        }
        drop(changes);
        let gives = amend.message.gives;
        let mut resized = self.resized.lock().unwrap();
        *resized = gives.or(*resized);
        if let Some(gives) = gives {
            let mut snapshot = self.snapshot.lock().unwrap();
            let count = UnixMillis(1_764_000_000_000 + u64::from(amend.message.number));
            *snapshot = (gives.snapshot > Bytes::ZERO).then(|| snapshot.unwrap_or(count));
        }
        drop(resized);
        let answer = self.sign(Amended { amend });
        let lost = self.knobs.lost.swap(false, Ordering::SeqCst);
        (!lost).then_some(answer)
    }
}
