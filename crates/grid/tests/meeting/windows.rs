//! How much memory of an endpoint others can fill.

use std::time::Duration;

use grid::{
    DIRECT_ALPN, EndpointAddress, Grid, JoinConfig, TUNNEL_ALPN, Windows, fresh_secret, serve::Serve,
};
use iroh::{
    Endpoint,
    endpoint::{Connection, QuicTransportConfig, RecvStream, SendStream, VarInt},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    sync::mpsc,
    time::timeout,
};

use crate::carry::{there_and_back, tunnel};
use crate::{SOON, accept_all, bare, quick, serve, straight, within};

/// After which nothing more is taken: where something is, it comes at the speed of loopback.
const AT_REST: Duration = Duration::from_secs(2);
const MEBIBYTE: usize = 1 << 20;

async fn member(serve: &Serve, windows: Option<Windows>) -> Grid {
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    config.timing = quick();
    config.limits.windows = windows;
    let grid = Grid::join(config, accept_all()).await.unwrap();
    grid.joined(SOON).await.unwrap();
    grid
}

/// Takes as much as it is given, and keeps no more than 64 KiB unacknowledged: what it has written, the other end has.
async fn stranger(to: &EndpointAddress, alpn: &[u8]) -> (Endpoint, Connection) {
    let transport = QuicTransportConfig::builder()
        .send_window(64 << 10)
        .stream_receive_window(VarInt::from_u32(64 << 20))
        .build();
    let endpoint = bare(transport).await;
    let connection = within("a raw connection", endpoint.connect(straight(to), alpn));
    let connection = connection.await.unwrap();
    (endpoint, connection)
}

/// Fills all the streams that it is given, which nobody reads, until nothing more is taken or it is `enough`.
async fn fills(to: &EndpointAddress, alpn: &[u8], enough: usize) -> usize {
    let (_endpoint, connection) = stranger(to, alpn).await;
    let (count, mut counted) = mpsc::unbounded_channel();
    let fill = |mut send: SendStream, count: mpsc::UnboundedSender<usize>| async move {
        // An opening, and a frame of the greatest length that never ends, where frames are read.
        let mut said = vec![0xff; 16 << 10];
        said[..4].copy_from_slice(&[0, 0, 16, 0]);
        while let Ok(bytes) = send.write(&said).await {
            let _ = count.send(bytes);
        }
    };
    let (both_ways, one_way) = (connection.clone(), connection.clone());
    let count_one_way = count.clone();
    let openers = [
        tokio::spawn(async move {
            let mut kept: Vec<RecvStream> = Vec::new();
            while let Ok((send, recv)) = both_ways.open_bi().await {
                tokio::spawn(fill(send, count.clone()));
                kept.push(recv);
            }
        }),
        tokio::spawn(async move {
            while let Ok(send) = one_way.open_uni().await {
                tokio::spawn(fill(send, count_one_way.clone()));
            }
        }),
    ];
    let mut all = 0;
    while all < enough
        && let Ok(Some(bytes)) = timeout(AT_REST, counted.recv()).await
    {
        all += bytes;
    }
    for opener in openers {
        opener.abort();
    }
    all
}

/// Neither on streams that the node reads by frames, nor on others, and not as what it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_fills_less_than_a_mebibyte_of_a_node() {
    let serve = serve().await;
    let (node, open) = tokio::join!(member(&serve, Some(Windows::default())), member(&serve, None));
    for alpn in [DIRECT_ALPN, TUNNEL_ALPN] {
        let filled = fills(&node.address(), alpn, 16 * MEBIBYTE).await;
        println!("{}: {filled} bytes", String::from_utf8_lossy(alpn));
        assert!(filled < MEBIBYTE, "{filled}");
    }
    let filled = fills(&open.address(), DIRECT_ALPN, 16 * MEBIBYTE).await;
    assert!(
        filled >= 16 * MEBIBYTE,
        "the control: the transport's own windows, {filled}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_datagram_is_kept() {
    let serve = serve().await;
    let (node, open) = tokio::join!(member(&serve, Some(Windows::default())), member(&serve, None));
    let (_endpoint, connection) = stranger(&node.address(), DIRECT_ALPN).await;
    assert_eq!(connection.max_datagram_size(), None);
    let (_endpoint, connection) = stranger(&open.address(), DIRECT_ALPN).await;
    assert!(connection.max_datagram_size().is_some(), "the control");
}

/// A tunnel is let in, and then its user's machine is gone without a word. How much its node keeps for it.
fn kept_for_who_is_gone(node: Grid, runtime: &Runtime) -> impl Future<Output = usize> {
    // The user's own runtime: it ends with all in it, as a machine does without power.
    let away = Runtime::new().unwrap();
    let to = node.address();
    let _within = runtime.enter();
    async move {
        let user = away.spawn(async move {
            let (endpoint, connection) = stranger(&to, TUNNEL_ALPN).await;
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            send.write_all(&[0, 0, 0, 2, b'g', b'o']).await.unwrap();
            recv.read_exact(&mut [0; 5]).await.unwrap();
            std::mem::forget((send, recv, connection, endpoint));
        });
        let incoming = within("the tunnel", node.accept_tunnel()).await.unwrap();
        let mut stream = incoming.accept(b"").await.unwrap();
        within("it is let in", user).await.unwrap();
        away.shutdown_background();
        let mut kept = 0;
        while let Ok(Ok(bytes)) = timeout(AT_REST, stream.write(&[0xff; 16 << 10])).await {
            kept += bytes;
        }
        kept
    }
}

#[test]
fn what_nobody_acknowledges_is_bounded_for_wide_and_for_narrow_tunnels() {
    let runtime = Runtime::new().unwrap();
    let (serve, wide, narrow, open) = runtime.block_on(async {
        let serve = serve().await;
        let none_wide = Windows {
            most_wide: 0,
            ..Windows::default()
        };
        let wide = member(&serve, Some(Windows::default())).await;
        let narrow = member(&serve, Some(none_wide)).await;
        let open = member(&serve, None).await;
        (serve, wide, narrow, open)
    });
    let kept = |node| runtime.block_on(kept_for_who_is_gone(node, &runtime));
    let (wide, narrow, open) = (kept(wide), kept(narrow), kept(open));
    println!("wide {wide}, narrow {narrow}, without bounds {open}");
    let windows = Windows::default();
    // What left before the user was gone is beside it.
    assert!(narrow < 3 * windows.narrow as usize, "{narrow}");
    assert!(wide > narrow && wide < 2 * windows.wide as usize, "{wide}");
    assert!(open > 4 * windows.wide as usize, "the control: {open}");
    runtime.block_on(async { serve.shutdown().await });
}

/// One wide place, and two that came before either was let in: the second is let go, and comes again without being told.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_beyond_the_wide_ones_are_narrow_and_work() {
    let serve = serve().await;
    let one = Windows {
        most_wide: 1,
        ..Windows::default()
    };
    let node = member(&serve, Some(one)).await;
    let client = member(&serve, Some(Windows::default())).await;
    let to = node.address();
    let dial = || client.dial_tunnel(&to, b"go", SOON);
    let let_in = async || within("a tunnel", node.accept_tunnel()).await.unwrap();
    let (first, second, far) = tokio::join!(dial(), dial(), async {
        let (one, other) = (let_in().await, let_in().await);
        let wide = one.accept(b"in").await.unwrap();
        other.accept(b"in").await.expect_err("its place is taken");
        [wide, let_in().await.accept(b"in").await.unwrap()]
    });
    let mut open = vec![tunnel(&node, &client).await];
    // Which of the two came first is open.
    let (mut near, mut far) = ([first.unwrap().1, second.unwrap().1], far);
    for (number, far) in far.iter_mut().enumerate() {
        far.write_all(&[number as u8]).await.unwrap();
    }
    let mut said = [0];
    near[0].read_exact(&mut said).await.unwrap();
    near[1].read_exact(&mut [0]).await.unwrap();
    if said == [1] {
        far.reverse();
    }
    open.extend(far.into_iter().zip(near));
    for (far, near) in &mut open {
        there_and_back(far, near, 4 * MEBIBYTE).await;
    }
}
