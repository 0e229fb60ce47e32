//! The ledger's time: what a source says, but never earlier than what was
//! said before, over restarts too (the journal's newest entry is the floor).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use escrow::RailTime;

/// Where the time comes from, unix milliseconds.
pub type TimeSource = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The machine's wall clock.
pub fn wall_clock() -> TimeSource {
    Arc::new(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}

/// A clock that never runs back.
pub struct Clock {
    source: TimeSource,
    newest_ms: AtomicU64,
}

impl Clock {
    /// Starts no earlier than `floor_ms`.
    pub fn new(source: TimeSource, floor_ms: u64) -> Clock {
        Clock {
            source,
            newest_ms: AtomicU64::new(floor_ms),
        }
    }

    /// The time now.
    pub fn now(&self) -> RailTime {
        // SQLite and the rules count in 63 bits; a source past them is cut there.
        let says = (self.source)().min(i64::MAX as u64);
        RailTime(self.newest_ms.fetch_max(says, Ordering::SeqCst).max(says))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_jumps_back_does_not_take_the_ledger_along() {
        let at = Arc::new(AtomicU64::new(500));
        let source = at.clone();
        let clock = Clock::new(Arc::new(move || source.load(Ordering::SeqCst)), 100);
        assert_eq!(clock.now(), RailTime(500));
        at.store(20, Ordering::SeqCst);
        assert_eq!(clock.now(), RailTime(500));
        at.store(501, Ordering::SeqCst);
        assert_eq!(clock.now(), RailTime(501));
        assert_eq!(Clock::new(Arc::new(|| 3), 100).now(), RailTime(100));
    }
}
