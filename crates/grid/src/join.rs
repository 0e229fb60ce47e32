//! How to join a grid: what is configured, how the engine is bound, and which tasks run.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture};
use iroh::{
    Endpoint, EndpointAddr, NetReportConfig, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey, Watcher,
    dns::DnsResolver,
    endpoint::{BindOpts, Builder, presets},
    tls::CaTlsConfig,
};
use iroh_gossip::{Gossip, TopicId, proto::HyparviewConfig};
use iroh_relay::RelayQuicConfig;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Mutex, Notify, broadcast, mpsc, watch},
    task::JoinSet,
};

use crate::{
    BROADCAST_ALPN, BroadcastCheck, DIRECT_ALPN, ENTER_ALPN, Grid, GridState, GridTicket, PeerId, SEAT_ALPN,
    Shares, TUNNEL_ALPN,
    accept::{Acceptor, Links},
    check::{Gate, GateLimits},
    membership::Membership,
    node::Inner,
    resolve::{Hosts, RELAY_NAME, Whereabouts},
    seat,
    windows::{Incomings, Outgoing, Windows},
};

/// Broadcasts that wait for a slow reader; beyond, it misses the oldest.
const HEARD_QUEUE: usize = 256;
/// Streams that wait to be taken; beyond, a peer is told that we are busy.
const STREAM_QUEUE: usize = 64;
/// Of the openings of tunnels that are read at a time, those of one peer.
const OPENINGS_A_PEER: usize = 16;

/// Everything about one endpoint in one grid.
#[derive(Debug, Clone)]
pub struct JoinConfig {
    /// The grid, as this machine reaches it.
    pub ticket: GridTicket,
    /// The endpoint's secret key: a node's is its node key, a client's a fresh one
    /// ([`fresh_secret`]) for each process.
    pub secret: [u8; 32],
    /// Where to listen.
    pub listen: Listen,
    /// Addresses at which others reach this endpoint's own port, beside those it finds itself.
    pub also_at: Vec<IpAddr>,
    /// How patient it is.
    pub timing: Timing,
    /// How much it lets in.
    pub limits: Limits,
}

impl JoinConfig {
    /// The usual: ports of the system's choice, on loopback alone if the ticket's host is there.
    pub fn new(ticket: GridTicket, secret: [u8; 32]) -> Self {
        Self {
            ticket,
            secret,
            listen: Listen::default(),
            also_at: Vec::new(),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// Where an endpoint listens for others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Listen {
    /// On loopback if the ticket's host is a loopback address, else everywhere.
    #[default]
    Auto,
    /// On all addresses, IPv4 and IPv6, at this port (0: any).
    Everywhere {
        /// The UDP port.
        port: u16,
    },
    /// On these addresses only.
    At(Vec<SocketAddr>),
}

/// How patient an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// The first pause between two tries to join; it doubles up to `rejoin`.
    pub first_retry: Duration,
    /// The longest pause between two tries to join.
    pub rejoin: Duration,
    /// How long one dial of the bootstrap may take.
    pub bootstrap: Duration,
    /// After which time without relay or neighbour the state says why.
    pub patience: Duration,
    /// How often neighbours are told that we live.
    pub beat: Duration,
    /// After which times a broadcast of our own is said again.
    pub repeats: Vec<Duration>,
    /// After which time of hearing nobody it joins again.
    pub deaf: Duration,
    /// How long a direct stream waits for a frame to begin.
    pub idle: Duration,
    /// How long one frame may take.
    pub frame: Duration,
    /// How long a tunnel survives a silent network.
    pub tunnel_idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_millis(300),
            rejoin: Duration::from_secs(5),
            bootstrap: Duration::from_secs(3),
            patience: Duration::from_secs(5),
            beat: Duration::from_secs(15),
            repeats: vec![Duration::from_millis(400), Duration::from_millis(1600)],
            deaf: Duration::from_secs(50),
            idle: Duration::from_secs(60),
            frame: Duration::from_secs(20),
            tunnel_idle: Duration::from_secs(120),
        }
    }
}

/// How much an endpoint lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Accepted connections at once.
    pub connections: usize,
    /// Of these, of one peer.
    pub connections_per_peer: usize,
    /// Whether, where all are taken, one of who has most gives way to who comes; else who comes is refused.
    pub gives_way: bool,
    /// Streams at once on one of them: the next may begin when one has ended.
    pub streams_per_connection: u32,
    /// How much of this machine's memory one of them may fill; none: as much as the transport lets it, which is too much.
    pub windows: Option<Windows>,
    /// Seats that a bootstrap peer remembers, each a connection without traffic, beside the others.
    pub seats: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_peer: 40,
            gives_way: true,
            streams_per_connection: 1,
            windows: Some(Windows::default()),
            seats: 4096,
        }
    }
}

/// Why this endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The ticket's relay cannot be written as a URL.
    #[error("the relay at port {port} has no valid address: {why}")]
    Relay {
        /// The relay's port.
        port: u16,
        /// What is wrong with it.
        why: String,
    },
    /// A socket could not be bound.
    #[error("could not listen for other endpoints ({listen:?}): {why}")]
    Bind {
        /// Where it should have listened.
        listen: Listen,
        /// What the system said.
        why: String,
    },
    /// No key for a passing endpoint.
    #[error("the kernel has no random bytes")]
    Random,
    /// The broadcast could not be started.
    #[error("the grid's engine stopped while it was started")]
    Engine,
}

/// A fresh endpoint key, for a client's process.
pub fn fresh_secret() -> Result<[u8; 32], getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(secret)
}

/// Who this endpoint is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A node or a client.
    Member,
    /// The bootstrap itself: takes no streams, and nobody is its bootstrap.
    Bootstrap,
}

impl Role {
    /// How many neighbours it keeps. The bootstrap keeps many: with few, everyone who comes makes it
    /// drop another, and a forming swarm never comes to rest.
    fn neighbours(self) -> usize {
        match self {
            Self::Member => 6,
            Self::Bootstrap => 32,
        }
    }
}

/// Binds, starts the tasks, returns without waiting for anybody.
pub(crate) fn join(
    config: JoinConfig,
    check: Arc<dyn BroadcastCheck>,
    role: Role,
) -> BoxFuture<'static, Result<Grid, JoinError>> {
    Box::pin(begin(config, check, role))
}

async fn begin(config: JoinConfig, check: Arc<dyn BroadcastCheck>, role: Role) -> Result<Grid, JoinError> {
    let ticket = &config.ticket;
    let relay = relay_url(ticket)?;
    let bootstrap = bootstrap_address(ticket, &relay);
    let endpoint = bind(&config, &relay).await?;
    advertise(&endpoint, &config.also_at).await;
    let views = HyparviewConfig {
        active_view_capacity: role.neighbours(),
        ..HyparviewConfig::default()
    };
    let gossip = Gossip::builder()
        .alpn(BROADCAST_ALPN)
        .membership_config(views)
        .spawn(endpoint.clone());
    // The engine would believe whatever a member says of where others are: a relay of its own choice too.
    if let Ok(lookups) = endpoint.address_lookup() {
        lookups.clear();
        let known = (role == Role::Member).then(|| bootstrap.clone());
        lookups.add(Whereabouts::new(relay.clone(), known));
    }

    let (direct_in, direct) = mpsc::channel(STREAM_QUEUE);
    let (tunnels_in, tunnels) = mpsc::channel(STREAM_QUEUE);
    let (own, own_out) = mpsc::channel(16);
    let (heard, _) = broadcast::channel(HEARD_QUEUE);
    let (state_in, state) = watch::channel(GridState::Joining);
    let (neighbours_in, neighbours) = watch::channel(BTreeSet::<PeerId>::new());
    let (rejoins_in, rejoins) = watch::channel(0);
    let poke = Arc::new(Notify::new());

    let alpns = match role {
        Role::Member => vec![
            BROADCAST_ALPN.to_vec(),
            ENTER_ALPN.to_vec(),
            DIRECT_ALPN.to_vec(),
            TUNNEL_ALPN.to_vec(),
        ],
        Role::Bootstrap => vec![BROADCAST_ALPN.to_vec(), ENTER_ALPN.to_vec(), SEAT_ALPN.to_vec()],
    };
    endpoint.set_alpns(alpns.clone());
    let incomings = Incomings::new(&endpoint, &alpns, &config);

    let mut tasks = JoinSet::new();
    let acceptor = Acceptor {
        endpoint: endpoint.clone(),
        gossip: gossip.clone(),
        incomings,
        limits: config.limits.clone(),
        timing: config.timing.clone(),
        direct: direct_in,
        tunnels: tunnels_in,
        openings: Shares::new(STREAM_QUEUE, OPENINGS_A_PEER),
        links: Links::new(neighbours.clone()),
        seats: seat::Host::new(ticket.grid, *endpoint.id().as_bytes(), config.limits.seats),
    };
    tasks.spawn(acceptor.run());
    let membership = Membership {
        endpoint: endpoint.clone(),
        gossip: gossip.clone(),
        topic: topic(&ticket.grid),
        bootstrap: (role == Role::Member).then_some(bootstrap),
        relay: format!("{}:{}", ticket.host, ticket.relay_port),
        check,
        gate: Gate::new(GateLimits::default()),
        timing: config.timing.clone(),
        own: own_out,
        poke: poke.clone(),
        heard: heard.clone(),
        neighbours: neighbours_in,
        state: state_in,
        rejoins: rejoins_in,
    };
    tasks.spawn(membership.run());
    if let Some(outside) = ticket.host_ip().filter(|ip| !ip.is_loopback()) {
        tasks.spawn(seen_through_host(endpoint.clone(), outside));
    }
    let inner = Inner {
        endpoint,
        gossip,
        relay,
        outgoing: Outgoing::new(&config),
        timing: config.timing.clone(),
        direct: Mutex::new(direct),
        tunnels: Mutex::new(tunnels),
        own,
        heard,
        state,
        neighbours,
        rejoins,
        poke,
        _tasks: tasks,
    };
    Ok(Grid::new(inner))
}

/// The relay's URL: the same text for everybody in the grid.
pub(crate) fn relay_url(ticket: &GridTicket) -> Result<RelayUrl, JoinError> {
    let port = ticket.relay_port;
    let parsed = format!("http://{RELAY_NAME}:{port}").parse();
    parsed.map_err(|error| JoinError::Relay {
        port,
        why: format!("{error}"),
    })
}

pub(crate) fn bootstrap_address(ticket: &GridTicket, relay: &RelayUrl) -> EndpointAddr {
    let address = EndpointAddr::new(ticket.peer).with_relay_url(relay.clone());
    match ticket.host_ip() {
        Some(ip) => address.with_ip_addr(SocketAddr::new(ip, ticket.udp_port)),
        None => address,
    }
}

/// The broadcast's topic is the grid's.
fn topic(grid: &[u8; 32]) -> TopicId {
    let mut hash = Sha256::new();
    hash.update(b"steading/broadcast/1\0");
    hash.update(grid);
    let topic: [u8; 32] = hash.finalize().into();
    TopicId::from_bytes(topic)
}

pub(crate) async fn bind(config: &JoinConfig, relay: &RelayUrl) -> Result<Endpoint, JoinError> {
    let ticket = &config.ticket;
    let discovery = ticket.discovery.as_ref();
    let relay = RelayConfig::new(
        relay.clone(),
        discovery.map(|found| RelayQuicConfig::new(found.port)),
    );
    // The https probe is how a relay is found at all; the portal check would knock at port 80.
    let mut report = NetReportConfig::default();
    report.captive_portal_check = false;
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&config.secret))
        .transport_config(Outgoing::new(config).broadcast)
        .relay_mode(RelayMode::Custom(RelayMap::from_iter([relay])))
        .dns_resolver(DnsResolver::custom(Hosts::new(&ticket.host, ticket.host_ip())))
        .net_report_config(report);
    if let Some(discovery) = discovery {
        let certificate = CertificateDer::from(discovery.certificate.clone());
        builder = builder.ca_tls_config(CaTlsConfig::custom_roots([certificate]));
    }
    let failed = |why: String| JoinError::Bind {
        listen: config.listen.clone(),
        why,
    };
    let builder = listen(builder, config).map_err(failed)?;
    builder.bind().await.map_err(|error| failed(format!("{error:#}")))
}

fn listen(builder: Builder, config: &JoinConfig) -> Result<Builder, String> {
    let loopback = config.ticket.host_ip().filter(IpAddr::is_loopback);
    let addresses = match (&config.listen, loopback) {
        (Listen::Auto, Some(ip)) => vec![SocketAddr::new(ip, 0)],
        (Listen::Auto, None) => everywhere(0),
        (Listen::Everywhere { port }, _) => everywhere(*port),
        (Listen::At(addresses), _) => addresses.clone(),
    };
    let mut builder = builder.clear_ip_transports();
    for address in addresses {
        // A machine without IPv6 is no error.
        let needed = !(address.is_ipv6() && address.ip().is_unspecified());
        let prefix = if address.ip().is_loopback() { 8 } else { 0 };
        let options = BindOpts::default()
            .set_is_required(needed)
            .set_prefix_len(prefix)
            .set_is_default_route(true);
        builder = builder
            .bind_addr_with_opts(address, options)
            .map_err(|error| error.to_string())?;
    }
    Ok(builder)
}

fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ]
}

async fn advertise(endpoint: &Endpoint, also_at: &[IpAddr]) {
    for ip in also_at {
        for bound in endpoint
            .bound_sockets()
            .iter()
            .filter(|bound| bound.is_ipv4() == ip.is_ipv4())
        {
            endpoint
                .add_external_addr(SocketAddr::new(*ip, bound.port()))
                .await;
        }
    }
}

/// An endpoint behind a user network on the relay's own machine (a QEMU guest) is told by address
/// discovery that it is seen at that machine's loopback. Others behind such a network reach that
/// machine as this one does, at the ticket's host: so it is reachable there, at the same port.
async fn seen_through_host(endpoint: Endpoint, host: IpAddr) {
    let mut addresses = endpoint.watch_addr().stream();
    let mut told: Option<SocketAddr> = None;
    while let Some(own) = addresses.next().await {
        let seen = own
            .ip_addrs()
            .find(|address| address.ip().is_loopback() && address.is_ipv4() == host.is_ipv4());
        let Some(outside) = seen.map(|address| SocketAddr::new(host, address.port())) else {
            continue;
        };
        if told != Some(outside) {
            if let Some(old) = told.replace(outside) {
                endpoint.remove_external_addr(&old).await;
            }
            endpoint.add_external_addr(outside).await;
        }
    }
}
