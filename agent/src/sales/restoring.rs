//! A space that is made what its snapshot is.
//!
//! ```text
//!  Restore ─► journal ─► status: building          beside the keeper: closed, put back, Locked
//!                          └─ again the same, or the agent starts: gone on with; the key is refused until it came through
//! ```
//!
//! From the end of one to the beginning of the next there is a pause: it closes, copies and opens a volume, and its user
//! pays for none of that.

use market::message::{RefusalCode, Restore};
use market::quantity::UnixMillis;
use market::sale::{Event, PutBack};

use super::clock::boot_ms;
use super::keeper::{No, Task, no};
use super::spaces::NotRestored;

/// Why a snapshot is not put back now.
const JUST_DONE: &str = "a snapshot of it was put back a moment ago";

/// From the end of a restore of a space to the beginning of the next, ms.
pub const RESTORE_EVERY_MS: u64 = 60_000;

impl Task {
    /// Begins it, or goes on with it.
    pub(super) async fn restore(&mut self, asked: &Restore) -> Result<Vec<u8>, No> {
        let sale = &self.record.sale;
        let taken = sale.snapshot_at.map(UnixMillis::from);
        if sale.restored != Some(asked.nonce) && taken.is_some_and(|taken| taken != asked.taken) {
            return Err(no(
                RefusalCode::Mismatch,
                "the snapshot is another one: ask how it stands",
            ));
        }
        if sale.restored != Some(asked.nonce) {
            self.restores.may_begin(boot_ms(), JUST_DONE)?;
        }
        self.happen(Event::Restore { nonce: asked.nonce }).await?;
        self.show();
        self.status([0; 16])
    }

    /// The machine is done with it, or not.
    pub(super) async fn put_back(&mut self, result: Result<(), NotRestored>) {
        self.restores.again(boot_ms());
        let name = &self.record.spec.name;
        let (event, words) = match result {
            Ok(()) => (
                PutBack::Done,
                format!("{name} is as its snapshot was, and waits for its user's key"),
            ),
            Err(NotRestored { why, is_untouched }) => {
                let words = format!("{name}: its snapshot was not put back: {why}");
                self.not_restored = Some(why);
                let runs = self.shared.spaces.runs(self.record.id());
                let untouched = PutBack::Untouched { runs };
                (if is_untouched { untouched } else { PutBack::Failed }, words)
            }
        };
        self.shared.board.event(words);
        let _ = self.happen(Event::Restored(event)).await;
    }

    /// Whether the machine is at it.
    pub(super) fn is_being_restored(&self) -> bool {
        let restoring = self.record.sale.restoring;
        restoring.is_some_and(|restoring| !restoring.failed) && !self.record.sale.state.is_final()
    }

    /// What there is to say of it.
    pub(super) fn restoring_words(&self) -> Option<String> {
        if self.is_being_restored() {
            return Some("its snapshot is being put back".to_owned());
        }
        let why = self.not_restored.as_ref()?;
        Some(format!("not restored: {why}"))
    }
}
