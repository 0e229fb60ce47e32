//! What came of the machine's work, until the journal has it.
//!
//! ```text
//!   Done ─► happen ─► kept: its effects follow
//!              └──── the journal refuses it ─► owed ─► the next tick gives it again, in the same order
//! ```
//!
//! Invariant: what the machine did is done once and said once, so its outcome is not lost with one refused write; a
//! sale that ends and has nothing under way on the machine is taken down again.

use market::message::SaleState;
use market::sale::{Effect, Event};
use tokio::sync::oneshot::error::TryRecvError;

use super::keeper::Task;

impl Task {
    /// Keeps an event that nobody says again, for the next tick.
    pub(super) fn owe(&mut self, event: &Event) {
        let said_once = matches!(
            event,
            Event::Restarted { .. }
                | Event::Built
                | Event::OpenedSmaller
                | Event::BuildFailed { .. }
                | Event::TornDown(_)
                | Event::Resized(_)
                | Event::Restored(_)
        );
        if said_once {
            self.owed.push(event.clone());
        }
    }

    /// Gives again what the journal refused, and asks for the end that nobody brings any more.
    pub(super) async fn catch_up(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        let was_owed = !owed.is_empty();
        for event in owed {
            let _ = self.happen(event).await; // refused again, it is owed again
        }
        if was_owed {
            self.count_disk();
        }
        let sale = &self.record.sale;
        let ends = sale.state == SaleState::Ending && sale.torn_down.is_none();
        if ends && self.owed.is_empty() && !self.is_machine_at_work() {
            self.perform(Effect::TearDown).await;
        }
    }

    /// Whether work on the machine is under way; its outcome is an order before it counts as ended.
    fn is_machine_at_work(&mut self) -> bool {
        let last = self.last_on_machine.as_mut().map(|last| last.try_recv());
        let at_work = last == Some(Err(TryRecvError::Empty));
        if !at_work {
            self.last_on_machine = None; // one that has ended is not waited for again
        }
        at_work
    }
}
