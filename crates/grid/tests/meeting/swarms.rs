//! Swarms that join at once: who is an orphan, and for how long?
//!
//! The engine's membership sometimes leaves an endpoint that sends but is in nobody's view. This
//! counts how often a broadcast right after joining is missed, and how long until all hear one.
//! Long, so it runs only when asked for: `cargo test -p grid --test meeting swarms -- --ignored --nocapture`
//! (`SWARMS=100 MEMBERS=50` in the environment change its size).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use grid::{
    Broadcasts, Grid, JoinConfig, PeerId, Verdict, fresh_secret,
    serve::{Serve, ServeConfig},
};

const SOON: Duration = Duration::from_secs(30);

fn size(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// How many heard `message` within the bound, and when the last of them did.
async fn heard_by(ears: &mut [Broadcasts], message: &[u8], within: Duration) -> (usize, Duration) {
    let start = Instant::now();
    let all = ears.iter_mut().map(|ear| async move {
        let heard = tokio::time::timeout(within, async {
            while let Some(heard) = ear.next().await {
                if heard.bytes == message {
                    return;
                }
            }
        });
        heard.await.is_ok().then(|| start.elapsed())
    });
    let times: Vec<_> = futures_util::future::join_all(all)
        .await
        .into_iter()
        .flatten()
        .collect();
    (times.len(), times.iter().max().copied().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes; see the top of the file"]
async fn every_member_of_a_swarm_hears() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .try_init();
    let (swarms, members) = (size("SWARMS", 20), size("MEMBERS", 10));
    let mut missed = 0;
    for swarm in 0..swarms {
        let serve = Serve::start(ServeConfig::new("swarm", [1; 32], [2; 32]))
            .await
            .unwrap();
        let pass = |_: &[u8], _: PeerId| Verdict::Accept;
        let join = || {
            Grid::join(
                JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap()),
                Arc::new(pass),
            )
        };
        let start = Instant::now();
        let grids = futures_util::future::try_join_all((0..members).map(|_| join()))
            .await
            .unwrap();
        for grid in &grids {
            grid.joined(SOON).await.unwrap();
        }
        let joined = start.elapsed();
        let mut ears: Vec<_> = grids.iter().map(Grid::broadcasts).collect();
        let asker = join().await.unwrap();
        asker.joined(SOON).await.unwrap();
        asker.broadcast("first".into()).await.unwrap();
        let (first, after) = heard_by(&mut ears, b"first", Duration::from_secs(5)).await;
        missed += members - first;
        println!(
            "swarm {swarm}: joined {joined:?}; first heard by {first} of {members}, the last after {after:?}"
        );
        if first < members {
            let start = Instant::now();
            for round in 0.. {
                let message = format!("round {round}");
                asker.broadcast(message.clone().into()).await.unwrap();
                let (heard, _) = heard_by(&mut ears, message.as_bytes(), Duration::from_secs(2)).await;
                if heard == members {
                    println!("  healed after {:?}", start.elapsed());
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(120), "not healed");
            }
        }
        asker.close().await;
        futures_util::future::join_all(grids.iter().map(Grid::close)).await;
        serve.shutdown().await;
    }
    println!("{missed} of {} missed the first broadcast", swarms * members);
}
