//! What tunnels into spaces may carry. They end on a space's loopback and pass no cable, so no wall counts them: here each
//! sale has its rate over all its tunnels, all together have what the farmer gives of his line, and each user has what is
//! left when the month's traffic is used up, each way.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use market::id::{SaleId, UserId};
use market::quantity::BitsPerSecond;

use crate::firewall::{Caps, TRICKLE};
use crate::network::{Bucket, Paced};

/// The lines of all tunnels.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    caps: Caps,
    all: Line,
    sales: HashMap<SaleId, Line>,
    users: HashMap<UserId, Line>,
}

/// Out of spaces, and into them.
#[derive(Clone, Debug, Default)]
struct Line([Arc<Bucket>; 2]);

impl Line {
    fn set(&self, rate: Option<BitsPerSecond>) {
        for bucket in &self.0 {
            bucket.set(rate);
        }
    }

    /// Whether nobody has it and a new one would be the same.
    fn is_idle(&self, now: Instant) -> bool {
        let is_idle = |bucket: &Arc<Bucket>| Arc::strong_count(bucket) == 1 && bucket.is_rested(now);
        self.0.iter().all(is_idle)
    }
}

/// The line of `whose`, at this rate; those that nobody needs any more go.
fn line_of<K: Hash + Eq>(lines: &mut HashMap<K, Line>, whose: K, rate: Option<BitsPerSecond>) -> Line {
    let now = Instant::now();
    lines.retain(|_, line| !line.is_idle(now));
    let line = lines.entry(whose).or_default();
    line.set(rate);
    line.clone()
}

impl State {
    fn of_a_user(&self) -> Option<BitsPerSecond> {
        self.caps.slowed.then_some(TRICKLE)
    }
}

impl Lines {
    /// What the farmer allows from now on.
    pub(super) fn set_caps(&self, caps: Caps) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.caps = caps;
        state.all.set(caps.rate);
        for line in state.users.values() {
            line.set(state.of_a_user());
        }
    }

    /// The stream into a space, at the rates of its sale, its user and all.
    pub(super) fn pace<S>(&self, stream: S, sale: SaleId, user: UserId, rate: BitsPerSecond) -> Paced<S> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_a_user = state.of_a_user();
        let lines = [
            line_of(&mut state.sales, sale, Some(rate)),
            line_of(&mut state.users, user, of_a_user),
            state.all.clone(),
        ];
        let [out, into] = [0, 1].map(|way| lines.iter().map(|line| Arc::clone(&line.0[way])).collect());
        Paced::new(stream, out, into)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SLOW: BitsPerSecond = BitsPerSecond(2_000_000);
    const FAST: BitsPerSecond = BitsPerSecond(10_000_000_000);

    /// How long 256 KiB take out of a space, of which 64 may come at once.
    async fn takes(lines: &Lines, sale: u8, user: u8, rate: BitsPerSecond) -> Duration {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let mut stream = lines.pace(ours, SaleId([sale; 32]), UserId([user; 32]), rate);
        tokio::spawn(async move { theirs.write_all(&vec![7; 256 << 10]).await });
        let begun = Instant::now();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 256 << 10);
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_tunnel_has_the_rate_that_was_sold() {
        let lines = Lines::default();
        let slow = takes(&lines, 1, 1, SLOW).await;
        assert!(slow > Duration::from_millis(700), "{slow:?}");
        assert!(takes(&lines, 2, 2, FAST).await < slow / 2, "another's");
    }

    #[tokio::test]
    async fn all_tunnels_have_what_the_farmer_gives() {
        let lines = Lines::default();
        let caps = |rate| Caps { rate, slowed: false };
        lines.set_caps(caps(Some(SLOW)));
        let slow = takes(&lines, 1, 1, FAST).await;
        assert!(slow > Duration::from_millis(700), "{slow:?}");
        lines.set_caps(caps(None));
        assert!(takes(&lines, 1, 1, FAST).await < slow / 2, "the control");
    }

    #[tokio::test]
    async fn a_used_up_month_leaves_a_trickle() {
        let lines = Lines::default();
        let caps = |slowed| Caps { rate: None, slowed };
        lines.set_caps(caps(true));
        let limit = Duration::from_secs(2);
        let all = tokio::time::timeout(limit, takes(&lines, 1, 1, FAST)).await;
        assert!(all.is_err(), "256 KiB in {all:?}");
        // Those that are open too.
        lines.set_caps(caps(false));
        assert!(takes(&lines, 1, 1, FAST).await < limit, "the control");
    }

    #[test]
    fn lines_that_nobody_needs_go() {
        let lines = Lines::default();
        for sale in 0..100 {
            drop(lines.pace((), SaleId([sale; 32]), UserId([sale; 32]), SLOW));
        }
        let state = lines.0.lock().unwrap();
        assert!(state.sales.len() == 1 && state.users.len() == 1, "the last alone");
    }
}
