//! Streams that carry no more than so many bits a second, several of them together.
//!
//! ```text
//!   tunnel ─┐ read, write                        bucket: paid until when
//!   tunnel ─┼─► all of its buckets have rested? ─► bytes pass, and push each bucket's time on by what they take
//!   tunnel ─┘   no: it waits until they have
//! ```
//!
//! Invariant: over any time a bucket lets pass no more than its rate allows for that time, what may come at once, and one
//! buffer of each stream.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use market::quantity::BitsPerSecond;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What may come at once after a rest: a login is not slowed, whatever the rate.
const AT_ONCE: u64 = 64 << 10;
/// What a bucket that has just been made has rested: longer than any rate needs for [`AT_ONCE`].
const RESTED: Duration = Duration::from_secs(3600);

/// One rate that streams share.
#[derive(Debug)]
pub struct Bucket {
    /// Bits a second; 0 for as many as come.
    rate: AtomicU64,
    paid_until: Mutex<Instant>,
}

impl Default for Bucket {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            rate: AtomicU64::new(0),
            paid_until: Mutex::new(now.checked_sub(RESTED).unwrap_or(now)),
        }
    }
}

impl Bucket {
    /// From now on this rate; none: as many as come.
    pub fn set(&self, rate: Option<BitsPerSecond>) {
        let bits = rate.map_or(0, |rate| rate.0.max(1));
        self.rate.store(bits, Ordering::Relaxed);
    }

    /// How long so many bytes take; none where nothing is bounded.
    fn time_of(&self, bytes: u64) -> Option<Duration> {
        let rate = u128::from(self.rate.load(Ordering::Relaxed));
        let nanos = (u128::from(bytes) * 8_000_000_000).checked_div(rate)?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// How long nothing may pass.
    fn wait(&self, now: Instant) -> Duration {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return Duration::ZERO;
        }
        let paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        paid_until.saturating_duration_since(now)
    }

    /// So many bytes have passed.
    fn take(&self, bytes: u64, now: Instant) {
        let (Some(takes), Some(at_once)) = (self.time_of(bytes), self.time_of(AT_ONCE)) else {
            return;
        };
        let earliest = now.checked_sub(at_once).unwrap_or(now);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paid_until = (*paid_until).max(earliest) + takes;
    }

    /// Whether it is as one that was just made.
    pub fn is_rested(&self, now: Instant) -> bool {
        let paid_until = *self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let at_once = self.time_of(AT_ONCE).unwrap_or_default();
        now.saturating_duration_since(paid_until) >= at_once
    }
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Gate {
    buckets: Vec<Arc<Bucket>>,
    sleeps: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    /// Ready when something may pass.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleeps) = &mut self.sleeps {
                ready!(sleeps.as_mut().poll(context));
                self.sleeps = None;
            }
            let now = Instant::now();
            let wait = self.buckets.iter().map(|bucket| bucket.wait(now)).max();
            match wait {
                Some(wait) if !wait.is_zero() => self.sleeps = Some(Box::pin(sleep(wait))),
                _ => return Poll::Ready(()),
            }
        }
    }

    fn took(&self, bytes: usize) {
        let now = Instant::now();
        for bucket in &self.buckets {
            bucket.take(bytes as u64, now);
        }
    }
}

/// A stream that keeps to its buckets.
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    read: Gate,
    write: Gate,
}

impl<S> Paced<S> {
    /// What is read of `inner` keeps to the first, what is written to it keeps to the second.
    pub fn new(inner: S, read: Vec<Arc<Bucket>>, write: Vec<Arc<Bucket>>) -> Self {
        let gate = |buckets| Gate {
            buckets,
            sleeps: None,
        };
        Self {
            inner,
            read: gate(read),
            write: gate(write),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.read.poll_open(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        this.read.took(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.write.poll_open(context));
        let written = ready!(Pin::new(&mut this.inner).poll_write(context, bytes))?;
        this.write.took(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn what_passes_is_the_rate_and_a_login() {
        let bucket = Bucket::default();
        bucket.set(Some(BitsPerSecond(8_000_000)));
        let begun = Instant::now();
        let (mut now, mut passed) = (begun, 0);
        while now < begun + Duration::from_secs(10) {
            let wait = bucket.wait(now);
            if wait.is_zero() {
                bucket.take(8192, now);
                passed += 8192;
            } else {
                now += wait;
            }
        }
        let most = 10_000_000 + AT_ONCE + 8192;
        assert!(passed <= most && passed > 9_990_000, "{passed} of {most}");
        assert!(!bucket.is_rested(now) && bucket.is_rested(now + Duration::from_secs(1)));
        bucket.set(None);
        assert_eq!(bucket.wait(now), Duration::ZERO, "the control");
    }

    /// How long two streams together take for 400 KiB.
    async fn two_at(rate: Option<BitsPerSecond>) -> Duration {
        let bucket = Arc::new(Bucket::default());
        bucket.set(rate);
        let begun = Instant::now();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let (ours, mut theirs) = tokio::io::duplex(64 << 10);
            let mut paced = Paced::new(ours, vec![bucket.clone()], Vec::new());
            tokio::spawn(async move { theirs.write_all(&vec![7; 200 << 10]).await });
            streams.push(tokio::spawn(async move {
                let mut read = Vec::new();
                paced.read_to_end(&mut read).await.map(|_| read.len())
            }));
        }
        for stream in streams {
            assert_eq!(stream.await.unwrap().unwrap(), 200 << 10);
        }
        begun.elapsed()
    }

    #[tokio::test]
    async fn two_streams_share_a_rate() {
        let slow = two_at(Some(BitsPerSecond(2_000_000))).await;
        // 400 KiB without the first 64, and a buffer of each.
        assert!(slow > Duration::from_millis(1000), "{slow:?}");
        assert!(two_at(None).await < slow / 2, "the control");
    }

    #[tokio::test]
    async fn what_is_written_keeps_to_its_own_rate() {
        let bucket = Arc::new(Bucket::default());
        bucket.set(Some(BitsPerSecond(2_000_000)));
        let (ours, mut theirs) = tokio::io::duplex(8 << 10);
        let mut paced = Paced::new(ours, Vec::new(), vec![bucket]);
        let reads = tokio::spawn(async move {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).await.map(|_| read.len())
        });
        let begun = Instant::now();
        paced.write_all(&vec![7; 256 << 10]).await.unwrap();
        drop(paced);
        assert_eq!(reads.await.unwrap().unwrap(), 256 << 10);
        assert!(
            begun.elapsed() > Duration::from_millis(700),
            "{:?}",
            begun.elapsed()
        );
    }
}
