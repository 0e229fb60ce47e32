//! One task that keeps this endpoint in the broadcast, and notices when it is not.
//!
//! ```text
//!              neighbour up                     relay came back, network changed,
//!   Joining ─────────────────► Joined ◄──┐      or nothing heard for long (orphan)
//!      │ 5 s                     │       └────────── rejoin ──────────┐
//!      ▼          last one down  ▼                                    │
//!    Alone(why) ◄────────────────┴───── rejoin, again and again ──────┘
//! ```
//!
//! The engine's membership never rejoins by itself, and sometimes leaves an endpoint that sends but
//! is in nobody's view. So each endpoint says a small beat to its neighbours; who has neighbours
//! and hears nothing from any of them for long is an orphan, and rejoins.
//!
//! On the wire a broadcast's first byte is its kind: 0 a beat (8 bytes follow), 1 a message (a byte
//! that counts its repetitions follows, then the message). In a swarm that is still forming, links
//! are swapped, and what is said in that moment can miss some: so a message is said again, twice,
//! and the gate lets it through once.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use iroh::{Endpoint, EndpointAddr, EndpointId, Watcher, endpoint::RelayStatus};
use iroh_gossip::{
    Gossip, TopicId,
    api::{Event, GossipReceiver, GossipSender, GossipTopic, Message},
};
use tokio::{
    sync::{Notify, broadcast, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    BroadcastCheck, BroadcastError, ENTER_ALPN, GridState, Heard, PeerId, Timing, Verdict, check::Gate, dial,
};

const BEAT: u8 = 0;
const MESSAGE: u8 = 1;
/// Kind and repetition.
const HEAD: usize = 2;
/// Repetitions that wait at most; beyond, messages are said once.
const MOST_REPEATS: usize = 64;
/// How many former neighbours are asked on a rejoin, beside the bootstrap.
const FORMER: usize = 3;

/// A broadcast of our own, and who waits to hear that it left.
pub(crate) type Own = (Bytes, oneshot::Sender<Result<(), BroadcastError>>);

/// What the task needs.
pub(crate) struct Membership {
    pub(crate) endpoint: Endpoint,
    pub(crate) gossip: Gossip,
    pub(crate) topic: TopicId,
    /// The bootstrap peer; none where this endpoint is it.
    pub(crate) bootstrap: Option<EndpointAddr>,
    /// Where the relay is, for people.
    pub(crate) relay: String,
    pub(crate) check: Arc<dyn BroadcastCheck>,
    pub(crate) gate: Gate,
    pub(crate) timing: Timing,
    pub(crate) own: mpsc::Receiver<Own>,
    pub(crate) poke: Arc<Notify>,
    pub(crate) heard: broadcast::Sender<Heard>,
    pub(crate) neighbours: watch::Sender<BTreeSet<PeerId>>,
    pub(crate) state: watch::Sender<GridState>,
    /// How often it has tried to be let in.
    pub(crate) rejoins: watch::Sender<u64>,
}

/// What changes while the task runs.
struct Now {
    sender: GossipSender,
    linked: BTreeSet<EndpointId>,
    former: Vec<EndpointId>,
    started: Instant,
    last_heard: Instant,
    next_try: Instant,
    pause: std::time::Duration,
    next_beat: Instant,
    /// Own broadcasts that are said again: when, the count, the message.
    repeats: Vec<(Instant, u8, Bytes)>,
    beats: u64,
    asked: bool,
    relay_up: bool,
    relay_error: Option<String>,
}

impl Membership {
    /// Runs until the engine or the grid's handle is gone.
    pub(crate) async fn run(mut self) {
        let Ok(topic) = self.subscribe().await else {
            return self.stopped();
        };
        let (sender, mut receiver) = topic.split();
        let mut relays = self.endpoint.home_relay_status().stream();
        let mut rejoins: JoinSet<()> = JoinSet::new();
        let mut now = Now::new(sender, &self.timing);
        loop {
            let wake = tokio::time::Instant::from_std(now.wake(&self.timing, rejoins.is_empty()));
            tokio::select! {
                event = receiver.next() => match event {
                    Some(Ok(Event::Lagged)) | Some(Err(_)) | None => {
                        let Some(fresh) = self.resubscribe(&mut now).await else { return self.stopped() };
                        receiver = fresh;
                    }
                    Some(Ok(event)) => self.event(&mut now, event),
                },
                own = self.own.recv() => match own {
                    Some((bytes, done)) => { let _ = done.send(self.broadcast(&mut now, bytes).await); }
                    None => return
                },
                status = relays.next() => match status {
                    Some(status) => if now.relay_came_back(&status) { now.try_soon(&self.timing) },
                    None => return self.stopped()
                },
                () = self.poke.notified() => now.try_soon(&self.timing),
                _ = rejoins.join_next(), if !rejoins.is_empty() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            self.act(&mut now, &mut rejoins).await;
            self.publish(&now);
        }
    }

    async fn subscribe(&self) -> Result<GossipTopic, iroh_gossip::api::ApiError> {
        self.gossip.subscribe(self.topic, Vec::new()).await
    }

    /// The engine drops a subscriber that lags; neighbours are told anew to the next one.
    async fn resubscribe(&self, now: &mut Now) -> Option<GossipReceiver> {
        let (sender, receiver) = self.subscribe().await.ok()?.split();
        tracing::warn!("the broadcast came faster than it was read: some messages were missed");
        now.sender = sender;
        now.linked.clear();
        Some(receiver)
    }

    /// The engine has ended: so it is when the grid is closed.
    fn stopped(&self) {
        let why = "this endpoint is closed".to_owned();
        self.state.send_replace(GridState::Alone { why });
        self.neighbours.send_replace(BTreeSet::new());
    }

    fn event(&mut self, now: &mut Now, event: Event) {
        match event {
            Event::NeighborUp(id) => {
                now.linked.insert(id);
                now.last_heard = Instant::now();
                now.pause = self.timing.first_retry;
                now.former.retain(|known| *known != id);
                now.former.push(id);
                let excess = now.former.len().saturating_sub(4 * FORMER);
                now.former.drain(..excess);
            }
            Event::NeighborDown(id) => {
                now.linked.remove(&id);
                self.gate.forget(&id.into());
                if now.linked.is_empty() {
                    now.next_try = Instant::now();
                }
            }
            Event::Received(message) => {
                now.last_heard = Instant::now();
                self.received(message);
            }
            Event::Lagged => {}
        }
    }

    fn received(&mut self, message: Message) {
        let from = PeerId::from(message.delivered_from);
        let Some(bytes) = unframed(message.content) else {
            return;
        };
        let now = Instant::now();
        if let Err(stopped) = self.gate.admit(&bytes, from, now) {
            tracing::debug!(%from, ?stopped, "a broadcast was dropped");
            return;
        }
        let verdict = self.check.check(&bytes, from);
        let is_accepted = verdict == Verdict::Accept;
        let judged = self.gate.judged(&bytes, from, is_accepted, now.elapsed(), now);
        match (verdict, judged) {
            // No receiver at the moment is no error: this endpoint may only ask.
            (Verdict::Accept, Ok(())) => drop(self.heard.send(Heard { bytes, from })),
            (Verdict::Accept, Err(stopped)) => tracing::debug!(%from, ?stopped, "a broadcast was dropped"),
            (Verdict::Reject(why), _) => tracing::debug!(%from, %why, "a broadcast was refused"),
        }
    }

    async fn broadcast(&mut self, now: &mut Now, bytes: Bytes) -> Result<(), BroadcastError> {
        if now.linked.is_empty() {
            return Err(BroadcastError::NotJoined(self.state.borrow().clone()));
        }
        let at = Instant::now();
        self.gate.remember(&bytes, at);
        for (pause, count) in self.timing.repeats.iter().zip(1u8..) {
            if now.repeats.len() < MOST_REPEATS {
                now.repeats.push((at + *pause, count, bytes.clone()));
            }
        }
        say(&now.sender, 0, &bytes).await
    }

    /// Beats and rejoins whose time has come.
    async fn act(&self, now: &mut Now, rejoins: &mut JoinSet<()>) {
        let at = Instant::now();
        for (_, count, bytes) in now.repeats.extract_if(.., |(due, ..)| *due <= at) {
            // A failure shows as the end of the event stream.
            let _ = say(&now.sender, count, &bytes).await;
        }
        if at >= now.next_beat {
            now.next_beat = at + self.timing.beat;
            now.beats += 1;
            if !now.linked.is_empty() {
                let mut beat = vec![BEAT];
                beat.extend_from_slice(&now.beats.to_be_bytes());
                // A failure shows as the end of the event stream.
                let _ = now.sender.broadcast_neighbors(beat.into()).await;
            }
        }
        let deaf = !now.linked.is_empty() && at >= now.last_heard + self.timing.deaf;
        let due = now.linked.is_empty() || deaf || now.asked;
        if due && at >= now.next_try && rejoins.is_empty() {
            if deaf {
                tracing::info!(
                    "nothing heard from any neighbour for {:?}: joining again",
                    self.timing.deaf
                );
                now.last_heard = at;
            }
            now.asked = false;
            now.next_try = at + now.pause;
            now.pause = (now.pause * 2).min(self.timing.rejoin);
            self.rejoins.send_modify(|count| *count += 1);
            rejoins.spawn(self.rejoin(now));
        }
    }

    /// Dials the bootstrap ourselves, with a short bound (the engine's own dial backs off), hands
    /// the connection to the engine and asks to be let in.
    fn rejoin(&self, now: &Now) -> impl Future<Output = ()> + Send + 'static {
        let (endpoint, gossip, sender) = (self.endpoint.clone(), self.gossip.clone(), now.sender.clone());
        let (bootstrap, within) = (self.bootstrap.clone(), self.timing.bootstrap);
        let mut peers: Vec<EndpointId> = now.former.iter().rev().take(FORMER).copied().collect();
        async move {
            if let Some(address) = bootstrap {
                let id = address.id;
                peers.retain(|peer| *peer != id);
                if let Some(connection) = dial::try_once(&endpoint, address, ENTER_ALPN, within).await
                    && gossip.handle_connection(connection).await.is_ok()
                {
                    peers.push(id);
                }
            }
            if !peers.is_empty() {
                let _ = sender.join_peers(peers).await;
            }
        }
    }

    fn publish(&self, now: &Now) {
        let linked: BTreeSet<PeerId> = now.linked.iter().map(|id| PeerId::from(*id)).collect();
        let state = self.describe(now);
        self.neighbours
            .send_if_modified(|old| std::mem::replace(old, linked.clone()) != linked);
        self.state
            .send_if_modified(|old| std::mem::replace(old, state.clone()) != state);
    }

    fn describe(&self, now: &Now) -> GridState {
        if !now.linked.is_empty() {
            return GridState::Joined {
                neighbours: now.linked.len(),
            };
        }
        let relay = &self.relay;
        let why = match (&now.relay_error, &self.bootstrap) {
            (_, None) => "nobody else has joined yet".to_owned(),
            (Some(error), _) => format!("the relay at {relay} cannot be used: {error}"),
            _ if now.started.elapsed() < self.timing.patience => return GridState::Joining,
            _ if !now.relay_up => format!(
                "the relay at {relay} does not answer: is `steading grid serve` running there, \
                 and is this the grid's present ticket?"
            ),
            _ => {
                "the relay answers, but the grid's first peer does not: is the ticket's peer the present one?"
                    .to_owned()
            }
        };
        GridState::Alone { why }
    }
}

/// The message of a broadcast; none where it is a beat, or nothing that this version knows.
pub(crate) fn unframed(mut content: Bytes) -> Option<Bytes> {
    (content.len() >= HEAD && content.split_to(HEAD)[0] == MESSAGE).then_some(content)
}

async fn say(sender: &GossipSender, count: u8, bytes: &[u8]) -> Result<(), BroadcastError> {
    let mut framed = Vec::with_capacity(HEAD + bytes.len());
    framed.extend_from_slice(&[MESSAGE, count]);
    framed.extend_from_slice(bytes);
    let said = sender.broadcast(framed.into()).await;
    said.map_err(|_| BroadcastError::Closed)
}

impl Now {
    fn new(sender: GossipSender, timing: &Timing) -> Self {
        let started = Instant::now();
        Self {
            sender,
            linked: BTreeSet::new(),
            former: Vec::new(),
            started,
            last_heard: started,
            next_try: started,
            pause: timing.first_retry,
            next_beat: started + timing.beat,
            repeats: Vec::new(),
            beats: 0,
            asked: false,
            relay_up: false,
            relay_error: None,
        }
    }

    /// When there is something to do even if nothing happens; `idle`: no rejoin is under way.
    fn wake(&self, timing: &Timing, idle: bool) -> Instant {
        let repeat = self.repeats.iter().map(|(due, ..)| *due).min();
        let mut wake = repeat.map_or(self.next_beat, |due| due.min(self.next_beat));
        if idle && (self.linked.is_empty() || self.asked) {
            wake = wake.min(self.next_try);
        } else if idle {
            wake = wake.min((self.last_heard + timing.deaf).max(self.next_try));
        }
        let patience = self.started + timing.patience;
        if patience > Instant::now() {
            wake.min(patience)
        } else {
            wake
        }
    }

    fn try_soon(&mut self, timing: &Timing) {
        self.asked = true;
        self.pause = timing.first_retry;
        self.next_try = Instant::now();
    }

    /// Takes note of the relay; true when it is there again after it was not: whoever serves it
    /// may have been restarted, and knows nobody.
    fn relay_came_back(&mut self, status: &[RelayStatus]) -> bool {
        let up = status.iter().any(RelayStatus::is_connected);
        let denied = status.iter().find_map(RelayStatus::auth_denied_reason);
        self.relay_error = denied.map(|reason| format!("it refuses this machine ({reason})"));
        !std::mem::replace(&mut self.relay_up, up) && up
    }
}
