//! The one place where the node's readiness is kept and judged.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::verdict::Readiness;
use crate::console::{Board, Selling};
use crate::way::Way;

/// Patience runs out by itself: the verdict is looked at so often without a change.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who finds something out says it here.
#[derive(Clone)]
pub struct Ready {
    readiness: std::sync::Arc<watch::Sender<Readiness>>,
    selling: watch::Receiver<bool>,
    way: Way,
}

impl Ready {
    /// Starts the judge, which writes the verdict on the board.
    #[must_use]
    pub fn start(board: Board) -> Self {
        let (readiness, mut changed) = watch::channel(Readiness::default());
        let (tell, selling) = watch::channel(false);
        // Patience is counted from the agent's start: one that comes back has as much to do as at power-on.
        let begun = Instant::now();
        let way = board.way().clone();
        crate::task::spawn(async move {
            let mut clock = interval(LOOK_EVERY);
            let mut known = Selling::Starting;
            loop {
                let seconds = begun.elapsed().as_secs();
                let verdict = changed.borrow_and_update().verdict(seconds);
                if verdict != known {
                    tell.send_replace(verdict == Selling::Yes);
                    board.update(|status| status.selling = verdict.clone());
                    match &verdict {
                        Selling::Yes => {
                            board.event("selling");
                            if let Some(report) = board.way().finish() {
                                board.event(report.sentence());
                            }
                        }
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
            way,
        }
    }

    /// Says what was found out.
    pub fn set(&self, change: impl FnOnce(&mut Readiness)) {
        self.readiness.send_if_modified(|readiness| {
            let before = readiness.clone();
            change(readiness);
            // Before the judge hears of it: what makes the node sell is in the report.
            readiness.gone().for_each(|part| self.way.done(part));
            *readiness != before
        });
    }

    /// Whether the node sells: for the desk.
    #[must_use]
    pub fn selling(&self) -> watch::Receiver<bool> {
        self.selling.clone()
    }
}
