//! A tunnel from one member to another, and how fast it carries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use grid::Grid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// Both ends of one: who was dialled, and who dialled.
pub type Ends = (grid::TunnelStream, grid::TunnelStream);

/// One from a client into a node.
pub async fn tunnel(node: &Grid, client: &Grid) -> Ends {
    let to = node.address();
    let (far, near) = tokio::join!(
        async {
            let incoming = timeout(SOON, node.accept_tunnel()).await.unwrap().unwrap();
            incoming.accept(b"in").await.unwrap()
        },
        client.dial_tunnel(&to, b"go", SOON)
    );
    let (answer, near) = near.unwrap();
    assert_eq!(answer, Bytes::from_static(b"in"));
    (far, near)
}

/// Bytes a second to the node, and from it.
pub async fn there_and_back(
    far: &mut grid::TunnelStream,
    near: &mut grid::TunnelStream,
    bytes: usize,
) -> [f64; 2] {
    let there = one_way(near, far, bytes).await;
    [there, one_way(far, near, bytes).await]
}

async fn one_way(from: &mut grid::TunnelStream, to: &mut grid::TunnelStream, bytes: usize) -> f64 {
    let begun = Instant::now();
    let (block, mut read) = (vec![7; 64 << 10], vec![0; 64 << 10]);
    let all = async {
        tokio::join!(
            async {
                for _ in 0..bytes / block.len() {
                    from.write_all(&block).await.unwrap();
                }
            },
            async {
                let mut got = 0;
                while got < bytes {
                    got += to.read(&mut read).await.unwrap();
                }
            }
        )
    };
    timeout(SOON, all).await.unwrap();
    bytes as f64 / begun.elapsed().as_secs_f64()
}
