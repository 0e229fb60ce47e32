//! What a grid needs of its own: a bootstrap peer and a relay, in one process.
//!
//! ```text
//!   Serve ── relay      tcp  plain http: carries sealed packets between endpoints; so many connections, and of one address
//!         ├─ discovery  udp  "you are seen at …" (QUIC, a certificate pinned in the ticket)
//!         └─ peer       udp  the first neighbour of everybody
//! ```
//!
//! It is no authority: it sees who talks to whom, not what; an open sale goes on without it where
//! a direct path exists. Restarted with the same secret and ports, its ticket stays good.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use iroh::SecretKey;
use iroh_relay::server::{QuicConfig, RelayConfig, Server, ServerConfig, SpawnError};
use places::Places;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    Grid, GridTicket, JoinConfig, JoinError, Limits, Listen, PeerId, TicketError, Timing, Verdict,
    certificate,
    join::{self, Role},
    relay::{self, Guests},
    ticket::{self, Discovery},
};

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// What people call the grid.
    pub name: String,
    /// The grid's id: its founder's public key.
    pub grid: [u8; 32],
    /// The bootstrap peer's secret key; it decides the ticket's peer and certificate.
    pub secret: [u8; 32],
    /// The address to listen on; all three ports are there.
    pub bind: IpAddr,
    /// The relay's TCP port; 0: any.
    pub relay_port: u16,
    /// The bootstrap peer's UDP port; 0: any.
    pub peer_port: u16,
    /// The UDP port of address discovery, 0: any; none: without it, guests behind a user network
    /// are reached through the relay alone.
    pub discovery_port: Option<u16>,
    /// The host that the ticket names; none: the address it listens on.
    pub host: Option<String>,
    /// How patient it is.
    pub timing: Timing,
    /// How much it lets in.
    pub limits: Limits,
    /// How many connections strangers may hold of the relay.
    pub relay: places::Bounds,
}

impl ServeConfig {
    /// On loopback, at ports of the system's choice.
    pub fn new(name: &str, grid: [u8; 32], secret: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            grid,
            secret,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            relay_port: 0,
            peer_port: 0,
            discovery_port: Some(0),
            host: None,
            timing: Timing::default(),
            limits: Limits::default(),
            relay: places::Bounds::default(),
        }
    }
}

/// Why a grid cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The name or the host cannot stand in a ticket.
    #[error("no ticket can be made")]
    Ticket(#[from] TicketError),
    /// It listens everywhere and nobody said how readers reach it.
    #[error("listening on {0} says nothing about where readers reach it: name the host")]
    NoHost(IpAddr),
    /// No certificate for address discovery.
    #[error("no certificate for address discovery: {0}")]
    Certificate(String),
    /// A port is taken, most often.
    #[error("the relay could not be started on {bind}: {why}")]
    Relay {
        /// The address it should listen on.
        bind: IpAddr,
        /// What the system said.
        why: String,
    },
    /// The bootstrap peer could not be started.
    #[error("the bootstrap peer could not be started")]
    Peer(#[from] JoinError),
}

/// A relay and a bootstrap peer that run until this is shut down or dropped.
pub struct Serve {
    ticket: GridTicket,
    grid: Grid,
    relay: Server,
    /// Accepts for it; stops when it is dropped.
    door: JoinSet<()>,
}

impl Serve {
    /// Starts both; returns when they listen.
    pub async fn start(config: ServeConfig) -> Result<Self, ServeError> {
        ticket::check_name(&config.name)?;
        let host = match &config.host {
            Some(host) => host.clone(),
            None if config.bind.is_unspecified() => return Err(ServeError::NoHost(config.bind)),
            None if config.bind.is_ipv6() => format!("[{}]", config.bind),
            None => config.bind.to_string(),
        };
        let (relay, discovery, door) = start_relay(&config).await?;
        let (door, relay_port) = door;
        let udp_port = free_port(config.bind, config.peer_port)
            .map_err(|error| not_started(&config, &error.to_string()))?;
        let ticket = GridTicket {
            name: config.name,
            grid: config.grid,
            peer: SecretKey::from_bytes(&config.secret).public(),
            host: "127.0.0.1".into(),
            relay_port,
            udp_port,
            discovery,
        };
        let own = JoinConfig {
            ticket: if config.bind.is_unspecified() {
                ticket.clone()
            } else {
                ticket.with_host(&bracketed(config.bind))?
            },
            secret: config.secret,
            listen: Listen::At(vec![SocketAddr::new(config.bind, udp_port)]),
            also_at: Vec::new(),
            timing: config.timing,
            limits: config.limits,
        };
        // It passes messages on and acts on none: size, rate and replay are all it asks.
        let pass = |_: &[u8], _: PeerId| Verdict::Accept;
        let grid = join::join(own, Arc::new(pass), Role::Bootstrap).await?;
        Ok(Self {
            ticket: ticket.with_host(&host)?,
            grid,
            relay,
            door,
        })
    }

    /// The line that others join with.
    pub fn ticket(&self) -> &GridTicket {
        &self.ticket
    }

    /// The bootstrap peer.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Stops both; who is joined goes on without.
    pub async fn shutdown(mut self) {
        self.grid.close().await;
        self.door.shutdown().await;
        if let Err(error) = self.relay.shutdown().await {
            tracing::debug!(%error, "the relay had ended before");
        }
    }
}

fn not_started(config: &ServeConfig, why: &str) -> ServeError {
    ServeError::Relay {
        bind: config.bind,
        why: why.to_owned(),
    }
}

type Relay = (Server, Option<Discovery>, (JoinSet<()>, u16));

/// The relay, with address discovery, and who accepts for it at which port.
fn start_relay(config: &ServeConfig) -> BoxFuture<'_, Result<Relay, ServeError>> {
    Box::pin(listen(config))
}

async fn listen(config: &ServeConfig) -> Result<Relay, ServeError> {
    let failed = |error: std::io::Error| not_started(config, &error.to_string());
    let listener = TcpListener::bind((config.bind, config.relay_port))
        .await
        .map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let guests = Guests::default();
    let mut server = ServerConfig::default();
    // A door of its own it cannot do without: it is on loopback, and whoever comes by it is no guest.
    let mut relay = RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
    relay.access = Arc::new(guests.clone());
    server.relay = Some(relay);
    let mut certificate = None;
    if let Some(port) = config.discovery_port {
        let made = certificate::from_secret(&config.secret)
            .map_err(|error| ServeError::Certificate(error.to_string()))?;
        let mut quic = QuicConfig::new((config.bind, port));
        quic.server_config = Some(made.server);
        server.quic = Some(quic);
        certificate = Some(made.der);
    }
    let failed = |error: SpawnError| not_started(config, &format!("{error:#}"));
    let relay = Server::spawn(server).await.map_err(failed)?;
    let service = relay.relay_service().cloned();
    let service = service.ok_or_else(|| not_started(config, "it serves nothing"))?;
    let mut door = JoinSet::new();
    door.spawn(relay::run(listener, service, Places::new(config.relay), guests));
    let discovery = certificate.zip(relay.quic_addr());
    let discovery = discovery.map(|(certificate, at)| Discovery {
        port: at.port(),
        certificate,
    });
    Ok((relay, discovery, (door, port)))
}

/// The port that the peer will take: the ticket is needed to make it, and names the port.
fn free_port(bind: IpAddr, wanted: u16) -> std::io::Result<u16> {
    Ok(UdpSocket::bind((bind, wanted))?.local_addr()?.port())
}

fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv6() {
        format!("[{ip}]")
    } else {
        ip.to_string()
    }
}
