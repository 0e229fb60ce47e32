//! Nobody but whom the ticket names is contacted: a packet capture says so.
//!
//! In a network namespace with loopback and one more interface that has a default route and a
//! global address, a grid is served and joined, and messages go to and fro. Whatever leaves by the
//! other interface is read from its far end. A packet of our own at the end proves that the capture
//! sees, and that everything before it was seen.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};

use grid::{
    Grid, JoinConfig, Listen, PeerId, Verdict, fresh_secret,
    serve::{Serve, ServeConfig},
};
use socket2::{Domain, Protocol, Socket, Type};

const INSIDE: &str = "GRID_TEST_INSIDE_NAMESPACE";
const SOON: Duration = Duration::from_secs(30);
/// Where the proof of sight goes.
const CONTROL: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 7), 9);

#[test]
fn nobody_else_is_contacted() {
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .arg("-rn")
            .arg(own)
            .args(["--exact", "quiet::nobody_else_is_contacted", "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "inside the namespace: {status}");
        return;
    }
    for line in [
        "link set lo up",
        "link add out type veth peer name far",
        "addr add 192.0.2.9/24 dev out",
        "addr add 2001:db8::9/64 dev out nodad",
        "link set out up",
        "link set far up",
        "neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev out nud permanent",
        "neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev out nud permanent",
        "route add default via 192.0.2.1",
        "-6 route add default via 2001:db8::1",
    ] {
        let done = Command::new("ip").args(line.split(' ')).status().unwrap();
        assert!(done.success(), "ip {line}");
    }
    let left = capture();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(meet());
    let control = UdpSocket::bind("0.0.0.0:0").unwrap();
    control.send_to(b"seen", CONTROL).unwrap();
    let mut foreign = Vec::new();
    loop {
        let to = left
            .recv_timeout(SOON)
            .expect("the capture does not see our own packet");
        if to == IpAddr::from(CONTROL.0) {
            break;
        }
        // Multicast is the kernel's neighbour discovery: nobody in particular.
        if !to.is_multicast() {
            foreign.push(to);
        }
    }
    assert!(foreign.is_empty(), "packets left for {foreign:?}");
}

/// All that the grid does, once: serve, join (listening everywhere, as in a guest), say, dial, leave.
async fn meet() {
    let serve = Serve::start(ServeConfig::new("quiet", [1; 32], [2; 32]))
        .await
        .unwrap();
    let pass = |_: &[u8], _: PeerId| Verdict::Accept;
    let mut config = JoinConfig::new(serve.ticket().clone(), fresh_secret().unwrap());
    let client = Grid::join(config.clone(), Arc::new(pass)).await.unwrap();
    config.listen = Listen::Everywhere { port: 0 };
    config.secret = fresh_secret().unwrap();
    let node = Grid::join(config, Arc::new(pass)).await.unwrap();
    for grid in [&node, &client] {
        grid.joined(SOON).await.unwrap();
        grid.network_changed().await;
    }
    let mut heard = node.broadcasts();
    client.broadcast("anybody?".into()).await.unwrap();
    tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
    let mut out = client.dial(&node.address(), SOON).await.unwrap();
    out.send(b"hello").await.unwrap();
    let (_, mut stream) = tokio::time::timeout(SOON, node.accept()).await.unwrap().unwrap();
    assert_eq!(stream.receive().await.unwrap(), "hello".as_bytes());
    let measured = node.online(SOON).await;
    assert!(measured, "the relay was found and measured, names were asked");
    client.close().await;
    node.close().await;
    serve.shutdown().await;
}

/// The destinations of all IP packets that do not go over loopback, in their order.
fn capture() -> mpsc::Receiver<IpAddr> {
    let all = i32::from(0x0003u16.to_be());
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all))).unwrap();
    let (seen, destinations) = mpsc::channel();
    std::thread::spawn(move || {
        let mut frame = [0; 65536];
        while let Ok(length) = socket.read(&mut frame) {
            let Some(to) = destination(&frame[..length]) else {
                continue;
            };
            if seen.send(to).is_err() {
                return;
            }
        }
    });
    destinations
}

/// An Ethernet frame's IP destination; none for loopback's (no hardware addresses) and for ARP.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let at = |from: usize, length: usize| frame.get(from..from + length);
    if at(0, 12)? == [0; 12] {
        return None;
    }
    match at(12, 2)? {
        [0x08, 0x00] => <[u8; 4]>::try_from(at(30, 4)?)
            .ok()
            .map(|ip| Ipv4Addr::from(ip).into()),
        [0x86, 0xdd] => <[u8; 16]>::try_from(at(38, 16)?)
            .ok()
            .map(|ip| Ipv6Addr::from(ip).into()),
        _ => None,
    }
}
