//! The gate that every broadcast passes before anybody hears of it.
//!
//! ```text
//!   bytes from a neighbour ─► size ─► seen before? ─► time for checks left? ─► the check ─► rate ─► heard
//!                                                     (of that neighbour)          (of that neighbour)
//! ```
//!
//! The cheap questions come first; only the check knows what a message means, and it is handed in. The engine passes
//! messages on before anybody checks them, so the neighbour that brings a forged one is mostly honest: what the check
//! refuses costs him the time that it took, and nothing of his rate. Invariant: what is handed on has at most
//! [`MAX_BROADCAST_BYTES`](crate::MAX_BROADCAST_BYTES), was not handed on before within the window, and was accepted by
//! the check; checking takes a bounded part of the time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::{MAX_BROADCAST_BYTES, PeerId};

/// What a check says about a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on.
    Accept,
    /// Drop it, and why (goes to the log alone).
    Reject(String),
}

/// What the owner of this endpoint thinks of a broadcast: signature, version, freshness.
///
/// It is called once for each different message, on the task that reads the network: it must be
/// quick and must not block.
pub trait BroadcastCheck: Send + Sync + 'static {
    /// Judges the bytes; `from` is the neighbour that passed them on, not their author.
    fn check(&self, bytes: &[u8], from: PeerId) -> Verdict;
}

impl<F> BroadcastCheck for F
where
    F: Fn(&[u8], PeerId) -> Verdict + Send + Sync + 'static,
{
    fn check(&self, bytes: &[u8], from: PeerId) -> Verdict {
        self(bytes, from)
    }
}

/// Why the gate stopped a message before the check saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Size,
    Rate,
    Replay,
}

/// Bounds of the gate.
#[derive(Debug, Clone)]
pub(crate) struct GateLimits {
    /// Accepted messages a second from one neighbour, for long.
    pub(crate) rate: f64,
    /// Accepted messages at once from one neighbour.
    pub(crate) burst: f64,
    /// The part of the time that checking what one neighbour brings may take, for long.
    pub(crate) checks: f64,
    /// Seconds of checking at once.
    pub(crate) checks_burst: f64,
    /// How long a message is remembered.
    pub(crate) window: Duration,
    /// How many are remembered at most; beyond, the oldest is forgotten.
    pub(crate) remembered: usize,
    /// How many of those that the check refused, so that none is checked again when it is said again.
    pub(crate) refused: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            rate: 50.0,
            burst: 200.0,
            checks: 0.15,
            checks_burst: 1.0,
            window: Duration::from_secs(600),
            remembered: 8192,
            refused: 1024,
        }
    }
}

/// What flows in by time, up to a bound.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(burst: f64, now: Instant) -> Self {
        Self { left: burst, at: now }
    }

    fn fill(&mut self, rate: f64, burst: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + elapsed * rate).min(burst);
        self.at = now;
    }
}

/// The two budgets of one neighbour.
struct Budget {
    messages: Bucket,
    checking: Bucket,
}

/// Hashes of messages, the newest so many.
#[derive(Default)]
struct Memory {
    hashes: HashSet<[u8; 32]>,
    order: VecDeque<(Instant, [u8; 32])>,
}

impl Memory {
    /// False if it is known.
    fn remember(&mut self, hash: [u8; 32], most: usize, window: Duration, now: Instant) -> bool {
        self.forget(most, window, now);
        let is_new = self.hashes.insert(hash);
        if is_new {
            self.order.push_back((now, hash));
        }
        is_new
    }

    fn knows(&mut self, hash: &[u8; 32], window: Duration, now: Instant) -> bool {
        self.forget(usize::MAX, window, now);
        self.hashes.contains(hash)
    }

    /// What is too old, and the oldest where there are so many.
    fn forget(&mut self, most: usize, window: Duration, now: Instant) {
        while let Some((at, oldest)) = self.order.front().copied() {
            if now.saturating_duration_since(at) <= window && self.order.len() < most {
                break;
            }
            self.order.pop_front();
            self.hashes.remove(&oldest);
        }
    }
}

/// Size, replay, time and rate. Time is an argument.
pub(crate) struct Gate {
    limits: GateLimits,
    budgets: HashMap<PeerId, Budget>,
    seen: Memory,
    refused: Memory,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            budgets: HashMap::new(),
            seen: Memory::default(),
            refused: Memory::default(),
        }
    }

    /// Whether the message is worth a check.
    pub(crate) fn admit(&mut self, bytes: &[u8], from: PeerId, now: Instant) -> Result<(), Stopped> {
        if bytes.is_empty() || bytes.len() > MAX_BROADCAST_BYTES {
            return Err(Stopped::Size);
        }
        let (hash, window) = (hash(bytes), self.limits.window);
        if self.seen.knows(&hash, window, now) || self.refused.knows(&hash, window, now) {
            return Err(Stopped::Replay);
        }
        if self.budget(from, now).checking.left <= 0.0 {
            return Err(Stopped::Rate);
        }
        Ok(())
    }

    /// What the check said, and how long it took: whether the message is handed on.
    pub(crate) fn judged(
        &mut self,
        bytes: &[u8],
        from: PeerId,
        is_accepted: bool,
        took: Duration,
        now: Instant,
    ) -> Result<(), Stopped> {
        let budget = self.budget(from, now);
        budget.checking.left -= took.as_secs_f64();
        if !is_accepted {
            let GateLimits { refused, window, .. } = self.limits;
            self.refused.remember(hash(bytes), refused, window, now);
            return Ok(());
        }
        if budget.messages.left < 1.0 {
            return Err(Stopped::Rate);
        }
        budget.messages.left -= 1.0;
        if self.remember(bytes, now) {
            Ok(())
        } else {
            Err(Stopped::Replay)
        }
    }

    /// Remembers a message; false if it was known (our own broadcasts are remembered too).
    pub(crate) fn remember(&mut self, bytes: &[u8], now: Instant) -> bool {
        let GateLimits {
            remembered, window, ..
        } = self.limits;
        self.seen.remember(hash(bytes), remembered, window, now)
    }

    /// A neighbour that left keeps no budget.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.budgets.remove(peer);
    }

    fn budget(&mut self, from: PeerId, now: Instant) -> &mut Budget {
        let limits = &self.limits;
        let budget = self.budgets.entry(from).or_insert_with(|| Budget {
            messages: Bucket::full(limits.burst, now),
            checking: Bucket::full(limits.checks_burst, now),
        });
        budget.messages.fill(limits.rate, limits.burst, now);
        budget.checking.fill(limits.checks, limits.checks_burst, now);
        budget
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId([1; 32]);
    const B: PeerId = PeerId([2; 32]);
    /// What a signature costs on a small machine.
    const A_CHECK: Duration = Duration::from_micros(100);

    impl Gate {
        /// Through all of it, with a check that accepts.
        fn pass(&mut self, bytes: &[u8], from: PeerId, now: Instant) -> Result<(), Stopped> {
            self.admit(bytes, from, now)?;
            self.judged(bytes, from, true, A_CHECK, now)
        }
    }

    /// Ten seconds in which a neighbour passes on a thousand forged messages a second, and ten a second that are not:
    /// how many of these come through.
    fn honest_ones_beside_a_thousand_forged(forged_are_accepted: bool) -> usize {
        let (mut gate, start) = (Gate::new(GateLimits::default()), Instant::now());
        let mut honest = 0;
        for number in 0..10_000u32 {
            let now = start + Duration::from_millis(number.into());
            let forged = [b"forged".as_slice(), &number.to_be_bytes()].concat();
            if gate.admit(&forged, A, now).is_ok() {
                let _ = gate.judged(&forged, A, forged_are_accepted, A_CHECK, now);
            }
            if number % 100 == 99 {
                honest += usize::from(gate.pass(&number.to_be_bytes(), A, now).is_ok());
            }
        }
        honest
    }

    #[test]
    fn what_the_check_refuses_costs_an_honest_neighbour_nothing_of_his_rate() {
        assert_eq!(honest_ones_beside_a_thousand_forged(false), 100);
        let starved = honest_ones_beside_a_thousand_forged(true);
        assert!(
            starved < 50,
            "the control: where they count alike, {starved} of 100"
        );
    }

    #[test]
    fn checking_takes_a_part_of_the_time_and_no_more() {
        let (mut gate, start) = (Gate::new(GateLimits::default()), Instant::now());
        let slow = Duration::from_millis(5);
        let mut checked = 0u32;
        for number in 0..20_000u32 {
            let now = start + Duration::from_millis((number / 2).into());
            let bytes = number.to_be_bytes();
            if gate.admit(&bytes, A, now).is_ok() {
                checked += 1;
                let _ = gate.judged(&bytes, A, false, slow, now);
            }
        }
        let worked = slow * checked;
        assert!(
            worked < Duration::from_millis(2_600),
            "{worked:?} of 10 s, one at once"
        );
        assert_eq!(gate.pass(b"another", B, start), Ok(()), "another neighbour's");
    }

    #[test]
    fn what_was_refused_is_not_checked_again() {
        let (mut gate, now) = (Gate::new(GateLimits::default()), Instant::now());
        assert_eq!(gate.admit(b"bad", A, now), Ok(()));
        assert_eq!(gate.judged(b"bad", A, false, A_CHECK, now), Ok(()));
        assert_eq!(gate.admit(b"bad", B, now), Err(Stopped::Replay));
        assert_eq!(gate.admit(b"good", B, now), Ok(()));
    }

    #[test]
    fn size_comes_first() {
        let mut gate = Gate::new(GateLimits::default());
        let now = Instant::now();
        assert_eq!(gate.pass(&[], A, now), Err(Stopped::Size));
        assert_eq!(
            gate.pass(&vec![0; MAX_BROADCAST_BYTES + 1], A, now),
            Err(Stopped::Size)
        );
        assert_eq!(gate.pass(&vec![0; MAX_BROADCAST_BYTES], A, now), Ok(()));
    }

    #[test]
    fn a_message_passes_once_whoever_brings_it() {
        let limits = GateLimits {
            window: Duration::from_secs(10),
            ..GateLimits::default()
        };
        let mut gate = Gate::new(limits);
        let now = Instant::now();
        assert_eq!(gate.pass(b"one", A, now), Ok(()));
        assert_eq!(gate.pass(b"one", B, now), Err(Stopped::Replay));
        assert_eq!(gate.pass(b"one", A, now + Duration::from_secs(11)), Ok(()));
    }

    #[test]
    fn a_flood_of_one_neighbour_is_its_own() {
        let limits = GateLimits {
            rate: 1.0,
            burst: 3.0,
            ..GateLimits::default()
        };
        let mut gate = Gate::new(limits);
        let now = Instant::now();
        let passed = (0..10u8).filter(|n| gate.pass(&[*n], A, now).is_ok()).count();
        assert_eq!(passed, 3);
        assert_eq!(gate.pass(b"other", B, now), Ok(()));
        assert_eq!(gate.pass(b"later", A, now + Duration::from_secs(1)), Ok(()));
        assert_eq!(
            gate.pass(b"later still", A, now + Duration::from_secs(1)),
            Err(Stopped::Rate)
        );
    }

    #[test]
    fn memory_is_bounded() {
        let limits = GateLimits {
            remembered: 4,
            rate: 1e9,
            burst: 1e9,
            ..GateLimits::default()
        };
        let mut gate = Gate::new(limits);
        let now = Instant::now();
        for n in 0..100u8 {
            assert_eq!(gate.pass(&[n], A, now), Ok(()));
            assert!(gate.seen.hashes.len() <= 4 && gate.seen.order.len() <= 4);
        }
        assert_eq!(gate.pass(&[99], A, now), Err(Stopped::Replay));
        assert_eq!(gate.pass(&[0], A, now), Ok(()));
    }
}
