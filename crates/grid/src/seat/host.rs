//! The bootstrap peer's side: reads one ask, applies [`Seats`], calls who sits, and keeps the stream of who was granted.
//!
//! Invariant: until a seat is granted and kept, a connection takes a place of the acceptor's like any other; what is
//! kept is bounded by [`Seats`] and costs one connection without traffic.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::rule::{Claim, Granted, Seats, Step, Stream};
use super::wire::{Ask, MOST_FRAME, Word};
use crate::frame;

/// How long who sits may take to answer a call: less than a node that was switched off and on again waits, more than an
/// emulated machine with all its work.
const CALL: Duration = Duration::from_secs(4);
/// How long an ask may take to come, and a word to leave.
const FRAME: Duration = Duration::from_secs(5);
/// Calls and words that wait for one stream.
const MOST_WAITING: usize = 4;
/// Machines that take the seat one after the other while one asks: beyond, it asks anew.
const MOST_STEPS: usize = 4;

/// All seats of a grid.
pub(crate) struct Host {
    grid: [u8; 32],
    own: [u8; 32],
    started: Instant,
    rule: Mutex<Seats>,
    /// The streams that sit.
    lines: Mutex<HashMap<Stream, mpsc::Sender<Line>>>,
    next: AtomicU64,
}

/// What a stream that sits is told.
enum Line {
    /// To answer.
    Call(oneshot::Sender<()>),
    /// That another sat before it, for so long.
    Refuse(Duration),
    /// To end.
    Close,
}

/// Something was not as it should be: the connection ends.
struct Ends;

impl Host {
    /// None taken, and so many remembered at most.
    pub(crate) fn new(grid: [u8; 32], own: [u8; 32], most: usize) -> Self {
        Self {
            grid,
            own,
            started: Instant::now(),
            rule: Mutex::new(Seats::new(most)),
            lines: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// One connection, until it ends; `place` is given up when the seat is granted.
    pub(crate) async fn serve<P>(&self, connection: Connection, place: P) {
        let _ = self.serve_one(&connection, place).await;
        connection.close(0u32.into(), b"");
    }

    async fn serve_one<P>(&self, connection: &Connection, place: P) -> Result<(), Ends> {
        let opened = timeout(FRAME, connection.accept_bi()).await;
        let (mut send, mut recv) = opened.map_err(|_| Ends)?.map_err(|_| Ends)?;
        let bytes = frame::read(&mut recv, MOST_FRAME, FRAME, FRAME).await;
        let bytes = bytes.map_err(|_| Ends)?;
        let peer = connection.remote_id();
        let ask = Ask::open(&bytes, &self.grid, &self.own, peer.as_bytes()).ok_or(Ends)?;
        let held = i64::try_from(ask.held.as_millis()).unwrap_or(i64::MAX);
        let claim = Claim {
            instance: ask.instance,
            since_ms: self.now_ms().saturating_sub(held),
        };
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        let (line, lines) = mpsc::channel(MOST_WAITING);
        self.lines().insert(stream, line);
        let sits = Sits {
            host: self,
            node: ask.node,
            stream,
        };
        match self.decide(&sits, claim).await? {
            Ok(kept) => {
                say(&mut send, Word::Granted { kept }).await?;
                if !kept {
                    return finish(send).await;
                }
                drop(place);
                keep(connection, send, recv, lines).await
            }
            Err(since) => {
                say(&mut send, Word::Refused { since }).await?;
                finish(send).await
            }
        }
    }

    /// Whether it sits and is remembered, or for how long another has.
    async fn decide(&self, sits: &Sits<'_>, claim: Claim) -> Result<Result<bool, Duration>, Ends> {
        let mut step = self.rule().ask(sits.node, claim, sits.stream);
        for _ in 0..MOST_STEPS {
            match step {
                Step::Granted(Granted::Free) => return Ok(Ok(true)),
                Step::Granted(Granted::Unkept) => return Ok(Ok(false)),
                Step::Granted(Granted::InPlaceOf(other)) => {
                    self.tell(other, Line::Close);
                    return Ok(Ok(true));
                }
                Step::Granted(Granted::Before(other)) => {
                    tracing::warn!("two machines have one node's key: who sat before keeps the seat");
                    self.tell(other, Line::Refuse(self.since(claim.since_ms)));
                    return Ok(Ok(true));
                }
                Step::Refused { since_ms } => return Ok(Err(self.since(since_ms))),
                Step::Call(other) => {
                    let answered = self.call(other).await;
                    let mut rule = self.rule();
                    step = rule.judge(sits.node, claim, sits.stream, other, answered);
                }
            }
        }
        Err(Ends)
    }

    /// Whether who sits there answers in time.
    async fn call(&self, stream: Stream) -> bool {
        let (reply, answered) = oneshot::channel();
        self.tell(stream, Line::Call(reply));
        // Where its stream has ended, so has what would answer.
        matches!(timeout(CALL, answered).await, Ok(Ok(())))
    }

    fn tell(&self, stream: Stream, line: Line) {
        let known = self.lines().get(&stream).cloned();
        // A stream that takes nothing more is as good as gone.
        let _ = known.map(|known| known.try_send(line));
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn since(&self, since_ms: i64) -> Duration {
        let ms = self.now_ms().saturating_sub(since_ms);
        Duration::from_millis(ms.try_into().unwrap_or(0))
    }

    fn rule(&self) -> MutexGuard<'_, Seats> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Stream, mpsc::Sender<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that asks or sits; when it is dropped, it does not any more.
struct Sits<'a> {
    host: &'a Host,
    node: [u8; 32],
    stream: Stream,
}

impl Drop for Sits<'_> {
    fn drop(&mut self) {
        self.host.rule().left(self.node, self.stream);
        self.host.lines().remove(&self.stream);
    }
}

/// Calls and answers, until either end is done.
async fn keep(
    connection: &Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    mut lines: mpsc::Receiver<Line>,
) -> Result<(), Ends> {
    let waiting: Mutex<Vec<([u8; 8], oneshot::Sender<()>)>> = Mutex::default();
    let waits = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let answers = async {
        loop {
            let bytes = frame::read(&mut recv, MOST_FRAME, Duration::MAX, FRAME).await;
            let Some(Word::Here(nonce)) = bytes.ok().and_then(|bytes| Word::from_bytes(&bytes)) else {
                return Err(Ends);
            };
            let known = waits().iter().position(|(known, _)| *known == nonce);
            let (_, reply) = waits().swap_remove(known.ok_or(Ends)?);
            let _ = reply.send(()); // who asked may have gone
        }
    };
    let calls = async {
        while let Some(line) = lines.recv().await {
            match line {
                Line::Call(reply) => {
                    let mut nonce = [0; 8];
                    getrandom::fill(&mut nonce).map_err(|_| Ends)?;
                    {
                        let mut waits = waits();
                        waits.retain(|(_, reply)| !reply.is_closed());
                        waits.push((nonce, reply));
                    }
                    say(&mut send, Word::Call(nonce)).await?;
                }
                Line::Refuse(since) => {
                    say(&mut send, Word::Refused { since }).await?;
                    break;
                }
                Line::Close => break,
            }
        }
        finish(send).await
    };
    tokio::select! {
        ended = answers => ended,
        ended = calls => ended,
        _ = connection.closed() => Ok(()),
    }
}

async fn say(send: &mut SendStream, word: Word) -> Result<(), Ends> {
    let written = frame::write(send, &word.to_bytes(), MOST_FRAME, FRAME).await;
    written.map_err(|_| Ends)
}

/// Nothing more comes; waits, within a bound, until all of it has arrived.
async fn finish(mut send: SendStream) -> Result<(), Ends> {
    send.finish().map_err(|_| Ends)?;
    let _ = timeout(FRAME, send.stopped()).await;
    Ok(())
}
