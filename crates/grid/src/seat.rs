//! A node's seat: of all machines that have one node's key, one may act for the node.
//!
//! ```text
//!   node (an endpoint of its own, with a fresh key)                     bootstrap peer
//!    dials, while the node's key is on a disk that is not open yet ─────► waits 5 s for an ask
//!    ask: node, instance, how long it has had the seat, signed ─────────► free, or its own: granted
//!    ◄───────────────────────────────────────────────────────── granted   taken: calls the holder ──► "here" → refused
//!    ◄──────────────────────── call ── … ── here ───────────────────────►                         └─► silent → granted
//!
//!   Asking ──granted──► Held ◄──again──► Away (the bootstrap is gone: it goes on)
//!      └──refused──┐      │ refused: one that sat before has come back
//!                  ▼      ▼
//!                Refused, for good
//! ```
//!
//! Invariants: nothing of the node's key is on the network before the seat is granted: it is asked for by another
//! endpoint, so a copy that is refused has taken nothing from the one it is a copy of, neither at the relay, which hands
//! what is meant for a key to whoever came last, nor among neighbours. Who was refused never asks again, else it would
//! take the seat while the other is switched off for a minute. The rule is [`rule`], the bytes are [`wire`].

mod host;
mod rule;
pub(crate) mod wire;

use std::{sync::Arc, time::Duration};

use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{Connection, IdleTimeout, QuicTransportConfig, RecvStream, SendStream},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{GridTicket, JoinConfig, JoinError, SEAT_ALPN, dial, frame, join};
pub(crate) use host::Host;
use wire::{Ask, MOST_FRAME, Word};

/// How long the bootstrap may take to answer: it may have to call another machine first.
const ANSWER: Duration = Duration::from_secs(12);
/// A connection over which nothing came for so long is gone; it is kept from that by a packet every [`ALIVE`].
const GONE: Duration = Duration::from_secs(10);
const ALIVE: Duration = Duration::from_secs(3);
/// The longest pause between two tries of one that has the seat.
const REST: Duration = Duration::from_secs(30);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Who asks for which seat.
#[derive(Debug, Clone)]
pub struct SeatConfig {
    /// The grid, where to listen, how patient to be; the secret is not used.
    pub join: JoinConfig,
    /// What tells this machine's run from any other's that has the same key: new at every power-on.
    pub instance: [u8; 16],
}

/// For whom.
#[derive(Debug, Clone)]
struct Sitter {
    node: SecretKey,
    /// For how long it had the seat at a time of this process.
    held: Option<(Duration, Instant)>,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeatState {
    /// Not granted yet; why not, once there is something to say.
    Asking(Option<String>),
    /// Granted, and the bootstrap knows it.
    Held,
    /// Granted before; the bootstrap does not answer now.
    Away,
    /// Another machine acts for this node.
    Refused(Refused),
}

/// Another machine acts for this node: it answered, or it was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node's key is in use by another machine, for {} now", words(*.since))]
pub struct Refused {
    /// For how long the other has had the seat.
    pub since: Duration,
}

/// A duration as a person reads it.
fn words(since: Duration) -> String {
    match since.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A seat that is asked for and kept in the background. Dropping it leaves it.
#[derive(Debug)]
pub struct Seat {
    state: watch::Receiver<SeatState>,
    sitter: watch::Sender<Option<Sitter>>,
    poke: Arc<Notify>,
    endpoint: Endpoint,
    _task: JoinSet<()>,
}

impl Seat {
    /// Dials who is asked, and goes on until it is said for which node: returns at once.
    ///
    /// # Errors
    /// When no endpoint can be made.
    pub async fn dial(config: SeatConfig) -> Result<Seat, JoinError> {
        let relay = join::relay_url(&config.join.ticket)?;
        let bootstrap = join::bootstrap_address(&config.join.ticket, &relay);
        let own = JoinConfig {
            secret: crate::fresh_secret().map_err(|_| JoinError::Random)?,
            ..config.join.clone()
        };
        let endpoint = join::bind(&own, &relay).await?;
        let (tell, state) = watch::channel(SeatState::Asking(None));
        let (sitter, told) = watch::channel(None);
        let poke = Arc::new(Notify::new());
        let asker = Asker {
            endpoint: endpoint.clone(),
            bootstrap,
            ticket: config.join.ticket.clone(),
            instance: config.instance,
            told,
            held: None,
            tell,
            poke: poke.clone(),
            timing: config.join.timing,
            silent_since: Instant::now(),
        };
        let mut task = JoinSet::new();
        task.spawn(asker.run());
        Ok(Seat {
            state,
            sitter,
            poke,
            endpoint,
            _task: task,
        })
    }

    /// Asks for the seat of the node with this secret. `held`: how long this instance has had it already, if it had it.
    pub fn ask(&self, secret: &[u8; 32], held: Option<Duration>) {
        let node = SecretKey::from_bytes(secret);
        let held = held.map(|held| (held, Instant::now()));
        self.sitter.send_replace(Some(Sitter { node, held }));
        self.poke.notify_one();
    }

    /// How it stands, now and whenever that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SeatState> {
        self.state.clone()
    }

    /// Waits until it is granted; for as long as nobody answers.
    ///
    /// # Errors
    /// When another machine has it.
    pub async fn granted(&self) -> Result<(), Refused> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, SeatState::Asking(_)));
        // The guard that `wait_for` gives must not live on: it blocks the task that tells.
        let known = known.await.map(|known| known.clone());
        match known {
            Ok(SeatState::Refused(refused)) => Err(refused),
            Ok(_) => Ok(()),
            Err(_) => std::future::pending().await, // its task ends with the answer "refused" alone
        }
    }

    /// Waits until another machine has it; for ever, usually.
    pub async fn refused(&self) -> Refused {
        let mut state = self.state.clone();
        let refused = state.wait_for(|state| matches!(state, SeatState::Refused(_)));
        let refused = refused.await.map(|refused| refused.clone());
        match refused {
            Ok(SeatState::Refused(refused)) => refused,
            _ => std::future::pending().await,
        }
    }

    /// Says that a route or an address came or went.
    pub async fn network_changed(&self) {
        self.endpoint.network_change().await;
        self.poke.notify_one();
    }
}

impl Drop for Seat {
    /// The seat is free at once where its machine has the time to say so.
    fn drop(&mut self) {
        let endpoint = self.endpoint.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { timeout(GOODBYE, endpoint.close()).await });
        }
    }
}

/// The task that asks.
struct Asker {
    endpoint: Endpoint,
    bootstrap: EndpointAddr,
    ticket: GridTicket,
    instance: [u8; 16],
    /// For whom, once that is known.
    told: watch::Receiver<Option<Sitter>>,
    /// For how long it had the seat at a time of this process.
    held: Option<(Duration, Instant)>,
    tell: watch::Sender<SeatState>,
    poke: Arc<Notify>,
    timing: crate::Timing,
    /// When the bootstrap last answered a dial; the start, where it never did.
    silent_since: Instant,
}

/// How one connection went.
enum Outcome {
    /// It was granted, and the connection has ended since.
    Ended {
        kept: bool,
    },
    Refused(Refused),
    Failed,
    /// It ended before anything was asked.
    Unused,
}

impl Asker {
    async fn run(mut self) {
        let mut pause = self.timing.first_retry;
        loop {
            let outcome = self.once().await;
            self.remember_held();
            match outcome {
                Outcome::Refused(refused) => {
                    self.tell.send_replace(SeatState::Refused(refused));
                    return;
                }
                Outcome::Ended { kept } => {
                    pause = if kept { self.timing.first_retry } else { REST };
                    if kept {
                        self.tell.send_replace(SeatState::Away);
                    }
                }
                Outcome::Failed if self.held.is_some() => {
                    self.tell.send_replace(SeatState::Away);
                }
                Outcome::Failed if self.silent_since.elapsed() >= self.timing.patience => {
                    let (host, port) = (self.ticket.host(), self.ticket.relay_port());
                    let why = format!(
                        "the grid's first peer at {host}:{port} does not answer: is `steading grid serve` running \
                         there, and is this the grid's present ticket?"
                    );
                    self.tell.send_replace(SeatState::Asking(Some(why)));
                }
                Outcome::Failed => {}
                Outcome::Unused => pause = self.timing.first_retry,
            }
            let _ = timeout(pause, self.poke.notified()).await;
            let most = if self.held.is_some() {
                REST
            } else {
                self.timing.rejoin
            };
            pause = (pause * 2).min(most);
        }
    }

    /// Whoever had it before this process goes on from then.
    fn remember_held(&mut self) {
        let told = self.told.borrow().as_ref().and_then(|sitter| sitter.held);
        self.held = self.held.or(told);
    }

    /// One connection: asks as soon as it is said for whom, and where it is granted keeps it.
    async fn once(&mut self) -> Outcome {
        let idle = IdleTimeout::try_from(GONE).ok();
        let transport = QuicTransportConfig::builder()
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams(0u32.into())
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(idle)
            .keep_alive_interval(ALIVE)
            .build();
        let within = self.timing.bootstrap;
        let to = self.bootstrap.clone();
        let dialled = dial::dial(&self.endpoint, to, SEAT_ALPN, transport, within).await;
        let (connection, mut send, mut recv) = match dialled {
            Ok(opened) => opened,
            Err(why) => {
                tracing::debug!(%why, "no seat yet");
                return Outcome::Failed;
            }
        };
        self.silent_since = Instant::now();
        self.tell.send_if_modified(|state| {
            let was_silent = matches!(state, SeatState::Asking(Some(_)));
            if was_silent {
                *state = SeatState::Asking(None);
            }
            was_silent
        });
        let sitter = tokio::select! {
            told = self.told.wait_for(Option::is_some) => told.ok().and_then(|told| told.clone()),
            _ = connection.closed() => None,
        };
        let Some(sitter) = sitter else {
            return Outcome::Unused;
        };
        self.remember_held();
        let ask = Ask {
            node: *sitter.node.public().as_bytes(),
            instance: self.instance,
            held: self.held.map_or(Duration::ZERO, |(held, at)| held + at.elapsed()),
        };
        let bytes = ask.sign(
            &sitter.node,
            &self.ticket.grid_id(),
            self.bootstrap.id.as_bytes(),
            self.endpoint.id().as_bytes(),
        );
        if frame::write(&mut send, &bytes, MOST_FRAME, ANSWER).await.is_err() {
            return Outcome::Failed;
        }
        let kept = match read(&mut recv, ANSWER).await {
            Some(Word::Granted { kept }) => kept,
            Some(Word::Refused { since }) => return Outcome::Refused(Refused { since }),
            _ => return Outcome::Failed,
        };
        self.held.get_or_insert((Duration::ZERO, Instant::now()));
        self.tell.send_replace(SeatState::Held);
        match keep(&connection, &mut send, &mut recv).await {
            Some(refused) => Outcome::Refused(refused),
            None => Outcome::Ended { kept },
        }
    }
}

/// Answers calls until the connection ends; what it was refused for, if it was.
async fn keep(connection: &Connection, send: &mut SendStream, recv: &mut RecvStream) -> Option<Refused> {
    let calls = async {
        loop {
            match read(recv, Duration::MAX).await? {
                Word::Call(nonce) => {
                    let here = Word::Here(nonce).to_bytes();
                    frame::write(send, &here, MOST_FRAME, ANSWER).await.ok()?;
                }
                Word::Refused { since } => return Some(Refused { since }),
                Word::Granted { .. } | Word::Here(_) => return None,
            }
        }
    };
    // What was said before the end is read before the end.
    tokio::select! {
        biased;
        said = calls => said,
        _ = connection.closed() => None,
    }
}

async fn read(recv: &mut RecvStream, idle: Duration) -> Option<Word> {
    let bytes = frame::read(recv, MOST_FRAME, idle, ANSWER).await.ok()?;
    Word::from_bytes(&bytes)
}
