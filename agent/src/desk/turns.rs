//! Who asks over a stream of his own waits his turn: a flood of requests gets a part of one core and no more.
//!
//! ```text
//!   request ─┐
//!   request ─┼─► one at a time, in the order they came ─► answered in t ─► a rest of 5 t ─► the next
//!   request ─┘
//! ```
//!
//! Invariant: of any longer time, answering takes a sixth at most, however fast or slow the machine is; the other
//! five are for those who buy. Broadcasts are paced by the grid and do not come here.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::sleep;

/// How much longer the rest is than the work.
const RESTS: u32 = 5;
/// A shorter rest is owed until it is worth a timer.
const WORTH_A_TIMER: Duration = Duration::from_millis(2);
/// What one piece of work counts at most: the machine may have done something else meanwhile.
const MOST: Duration = Duration::from_millis(20);

/// The turns, and the rest that is owed.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    owed: Mutex<Duration>,
}

impl Turns {
    /// Does the work when its turn has come.
    pub(crate) async fn take<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut owed = self.owed.lock().await;
        if *owed >= WORTH_A_TIMER {
            sleep(*owed).await;
            *owed = Duration::ZERO;
        }
        let began = Instant::now();
        let done = work();
        *owed += rest_after(began.elapsed());
        done
    }
}

fn rest_after(worked: Duration) -> Duration {
    worked.min(MOST) * RESTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_longer_than_the_work_and_bounded() {
        assert_eq!(rest_after(Duration::from_millis(1)), Duration::from_millis(5));
        assert_eq!(rest_after(Duration::from_secs(9)), Duration::from_millis(100));
    }

    #[tokio::test]
    async fn what_is_owed_is_rested_once_before_the_next_turn() {
        let turns = Turns::default();
        let long = MOST * (RESTS + 1);
        *turns.owed.lock().await = long;
        let before = Instant::now();
        turns.take(|| ()).await;
        assert!(before.elapsed() >= long);
        let owed = *turns.owed.lock().await;
        assert!(owed < long, "it is rested once");
        // The control: what is not worth a timer stays owed, and is rested later.
        let short = Duration::from_micros(1);
        *turns.owed.lock().await = short;
        turns.take(|| ()).await;
        assert!(*turns.owed.lock().await >= short);
    }
}
