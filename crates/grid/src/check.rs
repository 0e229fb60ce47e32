//! The gate that every broadcast passes before anybody hears of it.
//!
//! ```text
//!   bytes from a neighbour ─► size ─► rate of that neighbour ─► seen before? ─► the check ─► heard
//! ```
//!
//! The cheap questions come first; only the last one knows what a message means, and it is handed
//! in. Invariant: what is handed on has at most [`MAX_BROADCAST_BYTES`](crate::MAX_BROADCAST_BYTES),
//! was not handed on before within the window, and was accepted by the check.

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
    /// Messages a second from one neighbour, for long.
    pub(crate) rate: f64,
    /// Messages at once from one neighbour.
    pub(crate) burst: f64,
    /// How long a message is remembered.
    pub(crate) window: Duration,
    /// How many are remembered at most; beyond, the oldest is forgotten.
    pub(crate) remembered: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            rate: 50.0,
            burst: 200.0,
            window: Duration::from_secs(600),
            remembered: 8192,
        }
    }
}

struct Bucket {
    left: f64,
    at: Instant,
}

/// Size, rate and replay. Time is an argument.
pub(crate) struct Gate {
    limits: GateLimits,
    buckets: HashMap<PeerId, Bucket>,
    seen: HashSet<[u8; 32]>,
    order: VecDeque<(Instant, [u8; 32])>,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            buckets: HashMap::new(),
            seen: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Lets a message through once.
    pub(crate) fn pass(&mut self, bytes: &[u8], from: PeerId, now: Instant) -> Result<(), Stopped> {
        if bytes.is_empty() || bytes.len() > MAX_BROADCAST_BYTES {
            return Err(Stopped::Size);
        }
        if !self.take_token(from, now) {
            return Err(Stopped::Rate);
        }
        if !self.remember(bytes, now) {
            return Err(Stopped::Replay);
        }
        Ok(())
    }

    /// Remembers a message; false if it was known (our own broadcasts are remembered too).
    pub(crate) fn remember(&mut self, bytes: &[u8], now: Instant) -> bool {
        while let Some((at, hash)) = self.order.front().copied() {
            let old = now.saturating_duration_since(at) > self.limits.window;
            if !old && self.order.len() < self.limits.remembered {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&hash);
        }
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if !self.seen.insert(hash) {
            return false;
        }
        self.order.push_back((now, hash));
        true
    }

    /// A neighbour that left keeps no bucket.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.buckets.remove(peer);
    }

    fn take_token(&mut self, from: PeerId, now: Instant) -> bool {
        let GateLimits { rate, burst, .. } = self.limits;
        let bucket = self
            .buckets
            .entry(from)
            .or_insert(Bucket { left: burst, at: now });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + elapsed * rate).min(burst);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId([1; 32]);
    const B: PeerId = PeerId([2; 32]);

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
            assert!(gate.seen.len() <= 4 && gate.order.len() <= 4);
        }
        assert_eq!(gate.pass(&[99], A, now), Err(Stopped::Replay));
        assert_eq!(gate.pass(&[0], A, now), Ok(()));
    }
}
