//! A node that puts a snapshot back.

use std::sync::atomic::Ordering;

use market::envelope;
use market::message::{Restore, SaleState};

use super::Inner;

impl Inner {
    /// Locked, as a node leaves a space whose snapshot it has put back; the same one again changes nothing.
    pub(super) fn restore(&self, frame: &[u8]) -> Vec<u8> {
        let asked = envelope::open::<Restore>(frame, Some(self.grid_id)).unwrap();
        assert_eq!(Some(asked.message.taken), *self.snapshot.lock().unwrap());
        let mut restores = self.knobs.restores.lock().unwrap();
        if restores.last() != Some(&asked.message.nonce) {
            *self.knobs.state.lock().unwrap() = match self.knobs.stays_at_it.load(Ordering::SeqCst) {
                true => SaleState::Building,
                false => SaleState::Locked,
            };
        }
        restores.push(asked.message.nonce);
        drop(restores);
        self.status([0; 16])
    }
}
