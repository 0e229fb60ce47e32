//! The rail's time between its answers: the last signed time, and CLOCK_BOOTTIME since then.
//!
//! Invariant: it never runs backwards, and it is unknown until the rail has answered once: no deadline about money
//! passes because of a clock that was only believed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use escrow::{Rail, RailTime};
use market::sale::Now;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{sleep, timeout};

/// One that answers is asked so often.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// One that does not is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rail's clock as this node knows it. Clones are the same one.
#[derive(Clone, Default)]
pub struct RailClock {
    /// The rail's time at a time of this boot.
    known: Arc<Mutex<Option<(RailTime, u64)>>>,
}

impl RailClock {
    /// Follows a rail for ever in the background.
    pub fn follow(rail: Arc<dyn Rail>) -> RailClock {
        let clock = RailClock::default();
        let told = clock.clone();
        crate::task::spawn(async move {
            loop {
                match timeout(PATIENCE, rail.now()).await {
                    Ok(Ok(now)) => {
                        told.heard(now, boot_ms());
                        sleep(ASK_EVERY).await;
                    }
                    Ok(Err(_)) | Err(_) => sleep(AGAIN_AFTER).await,
                }
            }
        });
        clock
    }

    fn heard(&self, rail: RailTime, boot_ms: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = at(*known, boot_ms).map_or(rail, |now| now.max(rail));
        *known = Some((now, boot_ms));
    }

    /// The rail's time now, once it has answered.
    pub fn rail(&self) -> Option<RailTime> {
        at(
            *self.known.lock().unwrap_or_else(PoisonError::into_inner),
            boot_ms(),
        )
    }

    /// Both clocks; where the rail has not answered yet, no earlier than `least`.
    pub fn now(&self, least: RailTime) -> Now {
        Now {
            rail: self.rail().unwrap_or(least).max(least),
            boot_ms: boot_ms(),
        }
    }
}

fn at(known: Option<(RailTime, u64)>, boot_ms: u64) -> Option<RailTime> {
    known.map(|(rail, since)| rail.plus_ms(boot_ms.saturating_sub(since)))
}

/// Milliseconds since the kernel started, suspended time included.
pub fn boot_ms() -> u64 {
    let time: Duration = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Into::into);
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_runs_backwards() {
        let clock = RailClock::default();
        assert_eq!(clock.rail(), None);
        assert_eq!(clock.now(RailTime(7)).rail, RailTime(7));
        let boot = boot_ms();
        clock.heard(RailTime(1_000_000), boot);
        clock.heard(RailTime(900_000), boot);
        assert!(clock.rail() >= Some(RailTime(1_000_000)));
    }
}
