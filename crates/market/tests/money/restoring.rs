//! A user who wants his snapshot back.

use market::sale::{Event, PutBack};

use crate::world::World;

impl World {
    /// The user wants the snapshot back; or, said again, the same as before.
    pub fn restore(&mut self, again: bool) {
        self.restores = self.restores.wrapping_add(u8::from(!again));
        self.happen(Event::Restore {
            nonce: [self.restores; 16],
        });
    }

    /// The machine comes to the end of a restore.
    pub fn put_back(&mut self, good: bool) {
        if std::mem::take(&mut self.restoring) {
            let put_back = if good { PutBack::Done } else { PutBack::Failed };
            self.happen(Event::Restored(put_back));
        }
    }
}
