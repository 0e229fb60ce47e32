//! One card's DHCP client: asks for ever, with growing pauses, and keeps what it got.
//!
//! ```text
//!  no cable ◄──────────────┐
//!     │ cable              │ cable pulled (the lease is kept, and asked for again)
//!     ▼                    │
//!  asking ──offer, ack──► bound ──T1──► renewing ──T2──► rebinding
//!     ▲                    ▲  │             │ack            │ack
//!     │                    └──┼─────────────┴───────────────┤
//!     └──────────── nak, expired: address removed ◄─────────┘
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::apply::{self, Card};
use super::dhcp::{Answer, Ask, Lease, decode, encode};

/// The first pause between two questions; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a switch port that opens late is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// How long a better offer is waited for when the first leads nowhere.
const BETTER_OFFER: Duration = Duration::from_secs(1);
/// Pause after a failure of our own (a socket, a route).
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// A lease that was kept over a pulled cable is asked for so often before a new one is.
const REBOOT_TRIES: u32 = 2;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// What a client reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub index: u32,
    pub lease: Option<Lease>,
    pub asked: u32,
}

/// A card's client.
pub(super) struct Client {
    pub card: Card,
    pub carrier: watch::Receiver<bool>,
    pub reports: mpsc::Sender<Report>,
}

/// How a conversation ended.
enum End {
    Lease(Lease),
    Refused,
    Silent,
}

impl Client {
    /// Serves the card until the task is ended.
    pub(super) async fn serve(mut self) {
        let mut kept: Option<Lease> = None;
        loop {
            if self.carrier.wait_for(|carrier| *carrier).await.is_err() {
                return;
            }
            match self.session(&mut kept).await {
                Ok(()) => {}
                Err(error) => {
                    let why = crate::words::chain(&error);
                    tracing::warn!(card = self.card.name, why, "no address: DHCP is tried again");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// From a cable to the end of a lease or of the cable.
    async fn session(&mut self, kept: &mut Option<Lease>) -> Result<(), ClientError> {
        let socket = open(&self.card.name)?;
        let lease = match kept.take() {
            Some(old) => match self.ask_again(&socket, &old).await? {
                End::Lease(lease) => lease,
                End::Refused | End::Silent => {
                    apply::remove(&self.card, &old).await?;
                    self.report(None, 0).await;
                    self.find(&socket).await?
                }
            },
            None => self.find(&socket).await?,
        };
        apply::lease(&self.card, &lease).await?;
        self.report(Some(&lease), 0).await;
        *kept = self.hold(&socket, lease).await?;
        if kept.is_none() {
            self.report(None, 0).await;
        }
        Ok(())
    }

    /// Asks until somebody gives an address.
    async fn find(&mut self, socket: &UdpSocket) -> Result<Lease, ClientError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        for asked in 1_u32.. {
            let seconds = began.elapsed().as_secs().min(u64::from(u16::MAX)) as u16;
            let patience = jittered(pause)?;
            if let Some(offer) = self.offer(socket, seconds, patience).await? {
                let ask = Ask::Select {
                    address: offer.address,
                    server: offer.server,
                };
                if let End::Lease(lease) = self.request(socket, ask, seconds, patience).await? {
                    return Ok(lease);
                }
            }
            self.report(None, asked).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(ClientError::Random)
    }

    /// The first offer with a router; where there is none, the first.
    async fn offer(
        &self,
        socket: &UdpSocket,
        seconds: u16,
        patience: Duration,
    ) -> Result<Option<Lease>, ClientError> {
        let transaction = self
            .send(socket, Ask::Discover, seconds, Ipv4Addr::BROADCAST)
            .await?;
        let mut until = Instant::now() + patience;
        let mut poor: Option<Lease> = None;
        while let Some(answer) = self.receive(socket, transaction, until).await? {
            if let Answer::Offer(offer) = answer {
                if offer.has_router() {
                    return Ok(Some(offer));
                }
                if poor.is_none() {
                    poor = Some(offer);
                    until = Instant::now() + BETTER_OFFER;
                }
            }
        }
        Ok(poor)
    }

    /// Asks for an address that was held before the cable was pulled.
    async fn ask_again(&self, socket: &UdpSocket, old: &Lease) -> Result<End, ClientError> {
        let ask = Ask::Reboot { address: old.address };
        for _ in 0..REBOOT_TRIES {
            match self.request(socket, ask, 0, FIRST_PAUSE * 2).await? {
                End::Silent => {}
                end => return Ok(end),
            }
        }
        Ok(End::Silent)
    }

    /// One request and its answer.
    async fn request(
        &self,
        socket: &UdpSocket,
        ask: Ask,
        seconds: u16,
        patience: Duration,
    ) -> Result<End, ClientError> {
        self.request_from(socket, ask, seconds, patience, Ipv4Addr::BROADCAST)
            .await
    }

    async fn request_from(
        &self,
        socket: &UdpSocket,
        ask: Ask,
        seconds: u16,
        patience: Duration,
        server: Ipv4Addr,
    ) -> Result<End, ClientError> {
        let transaction = self.send(socket, ask, seconds, server).await?;
        let until = Instant::now() + patience;
        while let Some(answer) = self.receive(socket, transaction, until).await? {
            match answer {
                Answer::Ack(lease) => return Ok(End::Lease(lease)),
                Answer::Nak => return Ok(End::Refused),
                Answer::Offer(_) => {}
            }
        }
        Ok(End::Silent)
    }

    /// Keeps a lease alive. Gives it back when the cable is pulled, nothing when it is over.
    async fn hold(&mut self, socket: &UdpSocket, lease: Lease) -> Result<Option<Lease>, ClientError> {
        let mut lease = lease;
        'held: loop {
            let since = Instant::now();
            let at = |seconds: u32| since + Duration::from_secs(u64::from(seconds));
            if lease.seconds == u32::MAX {
                let _ = self.carrier.wait_for(|carrier| !*carrier).await;
                return Ok(Some(lease));
            }
            let mut next = at(lease.renew_seconds);
            loop {
                tokio::select! {
                    gone = self.carrier.wait_for(|carrier| !*carrier) => {
                        drop(gone);
                        return Ok(Some(lease));
                    }
                    () = tokio::time::sleep_until(next) => {}
                }
                let now = Instant::now();
                if now >= at(lease.seconds) {
                    break;
                }
                let server = if now < at(lease.rebind_seconds) {
                    lease.server
                } else {
                    Ipv4Addr::BROADCAST
                };
                let ask = Ask::Renew {
                    address: lease.address,
                };
                // An address that the kernel lost makes sending fail: that is silence too.
                match self.request_from(socket, ask, 0, FIRST_PAUSE * 4, server).await {
                    Ok(End::Lease(new)) => {
                        if new.address != lease.address {
                            apply::remove(&self.card, &lease).await?;
                        }
                        apply::lease(&self.card, &new).await?;
                        lease = new;
                        self.report(Some(&lease), 0).await;
                        continue 'held;
                    }
                    Ok(End::Refused) => break,
                    Ok(End::Silent) | Err(ClientError::Socket { .. }) => {}
                    Err(error) => return Err(error),
                }
                // Half of what is left, as RFC 2131 section 4.4.5 says, but not less than a minute.
                let edge = if now < at(lease.rebind_seconds) {
                    at(lease.rebind_seconds)
                } else {
                    at(lease.seconds)
                };
                let half = edge.saturating_duration_since(Instant::now()) / 2;
                next = (Instant::now() + half.max(Duration::from_secs(60))).min(edge);
            }
            apply::remove(&self.card, &lease).await?;
            return Ok(None);
        }
    }

    async fn send(
        &self,
        socket: &UdpSocket,
        ask: Ask,
        seconds: u16,
        to: Ipv4Addr,
    ) -> Result<u32, ClientError> {
        let transaction = getrandom::u32().map_err(|_| ClientError::Random)?;
        let bytes = encode(ask, transaction, self.card.mac, seconds);
        let sent = match ask {
            Ask::Renew { .. } => socket
                .send_to(&bytes, SocketAddrV4::new(to, SERVER_PORT))
                .await
                .map(drop),
            // The kernel would lend a card without an address that of another card.
            Ask::Discover | Ask::Select { .. } | Ask::Reboot { .. } => {
                host::packet::broadcast_udp(&self.card.name, CLIENT_PORT, SERVER_PORT, &bytes)
            }
        };
        sent.map_err(|source| ClientError::Socket { source })?;
        Ok(transaction)
    }

    /// The next answer to this transaction before `until`.
    async fn receive(
        &self,
        socket: &UdpSocket,
        transaction: u32,
        until: Instant,
    ) -> Result<Option<Answer>, ClientError> {
        let mut bytes = [0_u8; 1500];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, socket.recv_from(&mut bytes)).await {
                Err(_) => return Ok(None),
                Ok(Err(source)) => return Err(ClientError::Socket { source }),
                Ok(Ok((length, _))) => {
                    let heard = bytes.get(..length).unwrap_or_default();
                    if let Some(answer) = decode(heard, transaction, self.card.mac) {
                        return Ok(Some(answer));
                    }
                }
            }
        }
    }

    async fn report(&self, lease: Option<&Lease>, asked: u32) {
        let report = Report {
            index: self.card.index,
            lease: lease.cloned(),
            asked,
        };
        // Nobody listens any more only when the node ends.
        let _ = self.reports.send(report).await;
    }
}

/// Why a client stumbled; it begins again after a pause.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the socket for DHCP")]
    Socket {
        #[source]
        source: io::Error,
    },
    #[error("the kernel has no random numbers")]
    Random,
    #[error(transparent)]
    Apply(#[from] apply::ApplyError),
}

/// A socket that speaks on one card, with or without an address there.
fn open(card: &str) -> Result<UdpSocket, ClientError> {
    let make = || -> io::Result<UdpSocket> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(card.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
        UdpSocket::from_std(socket.into())
    };
    make().map_err(|source| ClientError::Socket { source })
}

/// A quarter more or less, so that machines which start together do not ask together.
fn jittered(pause: Duration) -> Result<Duration, ClientError> {
    let random = getrandom::u32().map_err(|_| ClientError::Random)?;
    Ok(pause * 3 / 4 + pause / 2 * (random % 1024) / 1024)
}
