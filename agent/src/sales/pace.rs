//! How fast a sale's unlocks may follow each other when they fail.
//!
//! Each takes the storage's one thread for a good part of a second, and nobody pays for one that fails: without a pause
//! a user with bytes that are no key would make all others wait.

use market::message::RefusalCode;

use super::keeper::{No, no};

/// The longest pause.
const MOST_MS: u64 = 60_000;

/// The pause after those that failed: 1 s, then twice as long each time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    failed: u32,
    until_ms: u64,
}

impl Pace {
    /// One failed.
    pub(super) fn failed(&mut self, now_ms: u64) {
        let pause_ms = 1000_u64.checked_shl(self.failed).unwrap_or(MOST_MS).min(MOST_MS);
        self.failed = self.failed.saturating_add(1).min(16);
        self.until_ms = now_ms.saturating_add(pause_ms);
    }

    /// Whether the next may begin.
    pub(super) fn may_begin(&self, now_ms: u64) -> Result<(), No> {
        match self.until_ms.saturating_sub(now_ms) {
            0 => Ok(()),
            left_ms => {
                let words = format!(
                    "the last key did not open it: again in {} s",
                    left_ms.div_ceil(1000)
                );
                Err(no(RefusalCode::Busy, words))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        let mut pace = Pace::default();
        assert!(pace.may_begin(0).is_ok());
        let mut now_ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            pace.failed(now_ms);
            assert!(pace.may_begin(now_ms + pause_ms - 1).is_err());
            now_ms += pause_ms;
            assert!(pace.may_begin(now_ms).is_ok());
        }
        let refused = {
            pace.failed(0);
            pace.may_begin(500).unwrap_err()
        };
        assert_eq!(refused.code, RefusalCode::Busy);
        assert!(refused.words.ends_with("again in 60 s"), "{}", refused.words);
    }
}
