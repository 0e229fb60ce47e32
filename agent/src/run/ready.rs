//! The one place where the node's readiness is kept and judged.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::verdict::Readiness;
use crate::console::{Board, Selling};

/// Patience runs out by itself: the verdict is looked at so often without a change.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who finds something out says it here.
#[derive(Clone)]
pub struct Ready {
    readiness: std::sync::Arc<watch::Sender<Readiness>>,
    selling: watch::Receiver<bool>,
}

impl Ready {
    /// Starts the judge, which writes the verdict on the board.
    #[must_use]
    pub fn start(board: Board) -> Self {
        let (readiness, mut changed) = watch::channel(Readiness::default());
        let (tell, selling) = watch::channel(false);
        // Patience is counted from the agent's start: one that comes back has as much to do as at power-on.
        let begun = Instant::now();
        tokio::spawn(async move {
            let mut clock = interval(LOOK_EVERY);
            let mut known = Selling::Starting;
            loop {
                let seconds = begun.elapsed().as_secs();
                let verdict = changed.borrow_and_update().verdict(seconds);
                if verdict != known {
                    tell.send_replace(verdict == Selling::Yes);
                    board.update(|status| status.selling = verdict.clone());
                    match &verdict {
                        Selling::Yes => board.event("selling"),
                        Selling::No(why) => board.event(format!("not selling: {why}")),
                        Selling::Starting => {}
                    }
                    known = verdict;
                }
                tokio::select! {
                    change = changed.changed() => if change.is_err() { return },
                    _ = clock.tick() => {}
                }
            }
        });
        Self {
            readiness: std::sync::Arc::new(readiness),
            selling,
        }
    }

    /// Says what was found out.
    pub fn set(&self, change: impl FnOnce(&mut Readiness)) {
        self.readiness.send_if_modified(|readiness| {
            let before = readiness.clone();
            change(readiness);
            *readiness != before
        });
    }

    /// Whether the node sells: for the desk.
    #[must_use]
    pub fn selling(&self) -> watch::Receiver<bool> {
        self.selling.clone()
    }
}
