//! What breaks, and heals by itself.

use std::time::{Duration, Instant};

use grid::{GridState, JoinConfig, Timing, fresh_secret, serve::Serve};

use crate::{SOON, accept_all, joined, quick, serve_config, within};

/// The same grid again: same secret, same ports.
async fn again(serve: Serve) -> Serve {
    let ticket = serve.ticket().to_string();
    let part = |key: &str| {
        ticket
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix(key).map(|port| port.parse().unwrap()))
    };
    let mut config = serve_config(1);
    config.relay_port = serve.ticket().relay_port();
    config.peer_port = part("udp=").unwrap();
    config.discovery_port = part("qad=");
    serve.shutdown().await;
    let again = within("the ports are free again", async {
        loop {
            match Serve::start(config.clone()).await {
                Ok(serve) => break serve,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!(
        again.ticket().to_string(),
        ticket,
        "a restarted grid has the same ticket"
    );
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_grid_is_joined_again() {
    crate::logs();
    let serve = Serve::start(serve_config(1)).await.unwrap();
    let node = joined(&serve).await;
    let mut state = node.state();
    let start = Instant::now();
    let serve = again(serve).await;
    // The served peer knows nobody after its restart: that somebody is linked to it proves the rejoin.
    let mut served = serve.grid().state();
    within(
        "somebody is with the new one",
        served.wait_for(GridState::is_joined),
    )
    .await
    .unwrap();
    within("the node knows", state.wait_for(GridState::is_joined))
        .await
        .unwrap();
    println!("joined again after {:?}", start.elapsed());
    let mut heard = node.broadcasts();
    let client = joined(&serve).await;
    client.broadcast("is anybody there".into()).await.unwrap();
    within("the broadcast", heard.next()).await.unwrap();
}

/// An endpoint that hears nothing from the neighbours it believes to have joins again. Here the
/// neighbours keep silent (their beat is slow), so a short patience must make it rejoin, and a
/// rejoin must do no harm.
#[tokio::test(flavor = "multi_thread")]
async fn who_hears_nobody_joins_again_and_still_hears() {
    crate::logs();
    let serve = Serve::start(serve_config(1)).await.unwrap();
    let other = joined(&serve).await;
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    config.timing = Timing {
        deaf: Duration::from_millis(150),
        ..quick()
    };
    let deaf = grid::Grid::join(config, accept_all()).await.unwrap();
    deaf.joined(SOON).await.unwrap();
    let mut rejoins = deaf.rejoins();
    within("three rejoins", rejoins.wait_for(|count| *count >= 3))
        .await
        .unwrap();
    let mut heard = deaf.broadcasts();
    other.broadcast("hello".into()).await.unwrap();
    assert_eq!(within("hello", heard.next()).await.unwrap().bytes, "hello");
}
