//! How fast a sale may do again what costs others and is paid by nobody.
//!
//! | what | first pause | at most | forgotten |
//! |---|---|---|---|
//! | a key that did not open the space: a good part of a second of the storage's one thread | 1 s | a minute | once one opens it |
//! | what the rail did not take back, perhaps for ever, and each ending sale asks | 3 s | a minute | once it takes it |
//! | a snapshot put back: a volume closed, copied, opened | as the node says | the same | |

use market::message::RefusalCode;

use super::keeper::{No, no};

/// Why a key is not tried now.
pub(super) const NO_KEY: &str = "the last key did not open it";

/// A pause after each time: the first, then twice as long each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    first_ms: u64,
    most_ms: u64,
    times: u32,
    until_ms: u64,
}

impl Pace {
    /// Of keys that open nothing.
    pub(super) const UNLOCKS: Pace = Pace::new(1_000, 60_000);
    /// Of what is given back and not taken.
    pub(super) const GIVE_BACKS: Pace = Pace::new(3_000, 60_000);

    /// Nothing was done yet; pauses in milliseconds.
    pub(super) const fn new(first_ms: u64, most_ms: u64) -> Pace {
        Pace {
            first_ms,
            most_ms,
            times: 0,
            until_ms: 0,
        }
    }

    /// It was done once more.
    pub(super) fn again(&mut self, now_ms: u64) {
        let longer = self.first_ms.saturating_mul(1 << self.times);
        self.times = self.times.saturating_add(1).min(32);
        self.until_ms = now_ms.saturating_add(longer.min(self.most_ms));
    }

    /// Whether it was never done since it was forgotten.
    pub(super) fn is_new(&self) -> bool {
        self.times == 0
    }

    /// All is well: the next pause is the first.
    pub(super) fn forget(&mut self) {
        *self = Pace::new(self.first_ms, self.most_ms);
    }

    /// When the next may begin, in boot time.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Whether the next may begin; else why not, and when.
    pub(super) fn may_begin(&self, now_ms: u64, why: &str) -> Result<(), No> {
        match self.rests_s(now_ms) {
            None => Ok(()),
            Some(rests_s) => Err(no(RefusalCode::Busy, format!("{why}: again in {rests_s} s"))),
        }
    }

    /// In how many seconds the next may begin; none: now.
    fn rests_s(&self, now_ms: u64) -> Option<u64> {
        let left_ms = self.until_ms.saturating_sub(now_ms);
        (left_ms > 0).then(|| left_ms.div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_is_forgotten() {
        let mut pace = Pace::UNLOCKS;
        assert_eq!((pace.rests_s(0), pace.is_new()), (None, true));
        let mut now_ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            pace.again(now_ms);
            assert_eq!(pace.rests_s(now_ms + pause_ms - 1), Some(1));
            now_ms += pause_ms;
            assert_eq!(pace.rests_s(now_ms), None);
        }
        (0..100).for_each(|_| pace.again(0));
        assert_eq!((pace.rests_s(500), pace.until_ms()), (Some(60), 60_000));
        let refused = pace.may_begin(500, NO_KEY).unwrap_err();
        assert_eq!(refused.code, RefusalCode::Busy);
        assert_eq!(refused.words, "the last key did not open it: again in 60 s");
        pace.forget();
        assert!(pace.is_new());
        pace.again(0);
        assert_eq!(pace.until_ms(), 1_000);
    }

    #[test]
    fn a_pause_of_one_length_stays_that_long() {
        let mut pace = Pace::new(60_000, 60_000);
        for now_ms in [0, 100_000] {
            pace.again(now_ms);
            assert_eq!(pace.until_ms(), now_ms + 60_000);
        }
    }
}
