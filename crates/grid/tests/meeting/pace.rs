//! Bounded windows do not slow an honest tunnel. `./x test` runs this with nothing beside it, for it compares how long
//! things take.

use std::{sync::Arc, time::Duration};

use crate::carry::{there_and_back, tunnel};
use grid::{
    Grid, JoinConfig, PeerId, Verdict, Windows, fresh_secret,
    serve::{Serve, ServeConfig},
};

const MEBIBYTE: usize = 1 << 20;

async fn member(serve: &Serve, windows: Option<Windows>) -> Grid {
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    config.limits.windows = windows;
    let everything = Arc::new(|_: &[u8], _: PeerId| Verdict::Accept);
    let grid = Grid::join(config, everything).await.unwrap();
    grid.joined(Duration::from_secs(30)).await.unwrap();
    grid
}

/// One tunnel over loopback, beside one without bounds: rounds in turn, the best of each, for other work is beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_no_slower_for_it() {
    let serve = Serve::start(ServeConfig::new("pace", [1; 32], [2; 32])).await;
    let serve = serve.unwrap();
    let mut best = [[0.0_f64; 2]; 2];
    let mut open = Vec::new();
    for windows in [None, Some(Windows::default())] {
        let (node, client) = tokio::join!(member(&serve, windows.clone()), member(&serve, windows));
        let ends = tunnel(&node, &client).await;
        open.push((ends, node, client));
    }
    for _ in 0..4 {
        for (((far, near), ..), best) in open.iter_mut().zip(&mut best) {
            let rates = there_and_back(far, near, 8 * MEBIBYTE).await;
            for (best, rate) in best.iter_mut().zip(rates) {
                *best = best.max(rate);
            }
        }
    }
    let [without, with] = best.map(|rates| rates.map(|rate| rate / MEBIBYTE as f64));
    println!("MiB/s to and from the node: {with:.1?}, without bounds {without:.1?}");
    for (with, without) in with.into_iter().zip(without) {
        assert!(with > without / 2.0, "{with} of {without}");
    }
}
