//! Real endpoints on loopback: a served grid, members that join it, and what they say.

// Helpers of tests may stop loudly, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broadcast;
mod carry;
mod crowd;
mod direct;
mod pace;
mod quiet;
mod relay;
mod restart;
mod seat;
mod stranger;
mod swarms;
mod tunnel;
mod windows;

use std::{sync::Arc, time::Duration};

use grid::{
    BroadcastCheck, EndpointAddress, Grid, JoinConfig, PeerId, Timing, Verdict, fresh_secret,
    serve::{Serve, ServeConfig},
};
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{QuicTransportConfig, presets},
};

/// The bound of every wait: an event that has not come by then does not come.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Short beats and retries.
pub(crate) fn quick() -> Timing {
    Timing {
        first_retry: Duration::from_millis(100),
        rejoin: Duration::from_millis(400),
        bootstrap: Duration::from_secs(1),
        patience: Duration::from_millis(500),
        ..Timing::default()
    }
}

pub(crate) fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}

pub(crate) fn serve_config(secret: u8) -> ServeConfig {
    let mut config = ServeConfig::new("test", [77; 32], [secret; 32]);
    config.timing = quick();
    config
}

pub(crate) async fn serve() -> Serve {
    logs();
    Serve::start(serve_config(1)).await.unwrap()
}

pub(crate) fn accept_all() -> Arc<dyn BroadcastCheck> {
    Arc::new(|_: &[u8], _: PeerId| Verdict::Accept)
}

pub(crate) async fn member(serve: &Serve) -> Grid {
    member_with(serve, accept_all()).await
}

pub(crate) async fn member_with(serve: &Serve, check: Arc<dyn BroadcastCheck>) -> Grid {
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    config.timing = quick();
    Grid::join(config, check).await.unwrap()
}

pub(crate) async fn joined(serve: &Serve) -> Grid {
    let grid = member(serve).await;
    grid.joined(SOON).await.unwrap();
    grid
}

/// Waits for what must come.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait)
        .await
        .unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// An endpoint of a stranger, who speaks the transport and not our rules.
pub(crate) async fn bare(transport: QuicTransportConfig) -> Endpoint {
    let endpoint = Endpoint::builder(presets::Minimal)
        .transport_config(transport)
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0");
    endpoint.unwrap().bind().await.unwrap()
}

/// Where it finds a member: straight, without a relay.
pub(crate) fn straight(to: &EndpointAddress) -> EndpointAddr {
    let id = iroh::EndpointId::from_bytes(to.id().as_bytes()).unwrap();
    let found = to.direct().iter();
    found.fold(EndpointAddr::new(id), |address, direct| {
        address.with_ip_addr(*direct)
    })
}
