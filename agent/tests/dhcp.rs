//! The uplinks on the real kernel: a cable, and at its other end
//! a small DHCP server that can be told to behave badly.
//!
//! The test starts itself again in a network namespace of its own (`unshare`, which
//! needs no root where unprivileged user namespaces are allowed).

// A test that panics has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use agent::net::{NetState, NetWatch, start_with};
use dhcproto::v4::{
    Decodable, Decoder, DhcpOption, Encodable, Encoder, Message, MessageType, Opcode, OptionCode,
};
use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkFlags;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, new_connection};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const INSIDE: &str = "STEADING_TEST_IN_NAMESPACE";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Runs `work` in a namespace of its own, in a process of its own.
fn in_namespace(name: &str, work: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_none() {
        let this = std::env::current_exe().expect("this program");
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(this)
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("unshare runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            timeout(Duration::from_secs(60), work)
                .await
                .expect("within a minute");
        });
}

async fn cable() -> Handle {
    // Both ends stand in one namespace: a packet from an address of our own is no martian here.
    std::fs::write("/proc/sys/net/ipv4/conf/all/accept_local", "1").expect("a setting of the namespace");
    let (connection, handle, _) = new_connection().expect("netlink");
    tokio::spawn(connection);
    let pair = LinkVeth::new("up0", "far0").build();
    handle.link().add(pair).execute().await.expect("a cable");
    let far = index(&handle, "far0").await;
    handle
        .address()
        .add(far, SERVER.into(), 24)
        .execute()
        .await
        .expect("the server's address");
    handle
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut found = handle.link().get().match_name(name).execute();
    found
        .try_next()
        .await
        .expect("an answer")
        .expect("the link")
        .header
        .index
}

/// A new namespace's loopback is down until somebody raises it.
async fn loopback_is_up() {
    let (connection, handle, _) = new_connection().expect("netlink");
    tokio::spawn(connection);
    loop {
        let mut found = handle.link().get().match_name("lo").execute();
        let lo = found.try_next().await.expect("an answer").expect("the link");
        if lo.header.flags.contains(LinkFlags::Up) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn set_up(handle: &Handle, name: &str, up: bool) {
    let change = LinkUnspec::new_with_index(index(handle, name).await);
    let change = if up { change.up() } else { change.down() };
    handle
        .link()
        .set(change.build())
        .execute()
        .await
        .expect("changed");
}

/// What the server does with the n-th discover (counted from 1).
type Manner = fn(u32) -> bool;

async fn serve(address: Ipv4Addr, lease_seconds: u32, answers: Manner) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None).expect("a socket");
    socket.set_broadcast(true).expect("broadcast");
    socket.set_reuse_address(true).expect("shared");
    socket.bind_device(Some(b"far0")).expect("bound");
    socket
        .bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67).into())
        .expect("port 67");
    let socket = UdpSocket::from_std(socket.into()).expect("async");
    let mut bytes = [0; 1500];
    let mut discovers = 0;
    loop {
        let (length, _) = socket.recv_from(&mut bytes).await.expect("a question");
        let mut message = Message::decode(&mut Decoder::new(&bytes[..length])).expect("a DHCP message");
        let kind = match message.opts().msg_type() {
            Some(MessageType::Discover) => {
                discovers += 1;
                if !answers(discovers) {
                    continue;
                }
                MessageType::Offer
            }
            Some(MessageType::Request) => {
                let wanted = match message.opts().get(OptionCode::RequestedIpAddress) {
                    Some(DhcpOption::RequestedIpAddress(wanted)) => *wanted,
                    _ => message.ciaddr(),
                };
                if wanted == address {
                    MessageType::Ack
                } else {
                    MessageType::Nak
                }
            }
            _ => continue,
        };
        message.set_opcode(Opcode::BootReply).set_yiaddr(address);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(SERVER));
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::Router(vec![SERVER]));
        options.insert(DhcpOption::DomainNameServer(vec![SERVER]));
        options.insert(DhcpOption::NtpServers(vec![SERVER]));
        options.insert(DhcpOption::AddressLeaseTime(lease_seconds));
        options.insert(DhcpOption::Renewal(lease_seconds / 2));
        options.insert(DhcpOption::Rebinding(lease_seconds / 2));
        let mut answer = Vec::new();
        message.encode(&mut Encoder::new(&mut answer)).expect("encoded");
        let broadcast = message.flags().broadcast();
        let to = if broadcast {
            Ipv4Addr::BROADCAST
        } else {
            message.ciaddr()
        };
        let to = SocketAddrV4::new(to, 68);
        socket.send_to(&answer, to).await.expect("sent");
    }
}

async fn until(watch: &mut NetWatch, what: &str, mut right: impl FnMut(&NetState) -> bool) -> NetState {
    let waited = timeout(Duration::from_secs(40), watch.wait_for(|state| right(state)))
        .await
        .ok()
        .map(|state| state.expect("the network is watched").clone());
    match waited {
        Some(state) => state,
        None => panic!("never: {what}; at last {:?}", watch.borrow()),
    }
}

fn has(state: &NetState, address: Ipv4Addr) -> bool {
    state
        .links
        .iter()
        .any(|link| link.addresses.contains(&(IpAddr::V4(address), 24)))
}

fn uplinks_of_test(name: &str) -> bool {
    name == "up0"
}

#[test]
fn a_slow_port_a_pulled_cable_and_another_network() {
    in_namespace("a_slow_port_a_pulled_cable_and_another_network", async {
        let handle = cable().await;
        let (mut watch, _ways) = start_with(uplinks_of_test).expect("started");
        // The far end is down: no cable yet, and that is a state, not a failure.
        let state = until(&mut watch, "the card is seen", |state| state.links.len() == 1).await;
        assert!(!state.links[0].carrier);
        assert!(
            state.links[0].to_string().contains("no cable"),
            "{}",
            state.links[0]
        );
        set_up(&handle, "far0", true).await;
        // The first two questions are lost, as behind a slow switch port.
        let first = Ipv4Addr::new(10, 9, 0, 15);
        let server = tokio::spawn(serve(first, 3600, |discover| discover > 2));
        let state = until(&mut watch, "an address", |state| {
            has(state, first) && state.is_usable() && !state.resolvers().is_empty()
        })
        .await;
        assert_eq!(state.links[0].gateways, vec![IpAddr::V4(SERVER)]);
        assert_eq!(state.resolvers(), vec![IpAddr::V4(SERVER)]);
        assert_eq!(state.time_servers(), vec![IpAddr::V4(SERVER)]);
        // Cable out, cable in: the same address without a new search.
        set_up(&handle, "far0", false).await;
        until(&mut watch, "the cable is gone", |state| !state.is_usable()).await;
        set_up(&handle, "far0", true).await;
        until(&mut watch, "the cable is back", |state| {
            has(state, first) && state.is_usable()
        })
        .await;
        // Another network behind the same cable says no to the old address.
        set_up(&handle, "far0", false).await;
        until(&mut watch, "the cable is gone again", |state| !state.is_usable()).await;
        server.abort();
        let _ = server.await;
        let second = Ipv4Addr::new(10, 9, 0, 77);
        tokio::spawn(serve(second, 3600, |_| true));
        set_up(&handle, "far0", true).await;
        let state = until(&mut watch, "the other address", |state| {
            has(state, second) && state.is_usable()
        })
        .await;
        assert!(!has(&state, first), "the old address is gone: {state:?}");
    });
}

#[test]
fn a_card_that_comes_late_and_goes() {
    in_namespace("a_card_that_comes_late_and_goes", async {
        let (mut watch, _ways) = start_with(uplinks_of_test).expect("started");
        loopback_is_up().await; // its first look around does that
        assert!(watch.borrow().links.is_empty());
        let handle = cable().await;
        set_up(&handle, "far0", true).await;
        let address = Ipv4Addr::new(10, 9, 0, 20);
        tokio::spawn(serve(address, 3600, |_| true));
        until(&mut watch, "an address", |state| has(state, address)).await;
        let far = index(&handle, "far0").await;
        handle
            .link()
            .del(far)
            .execute()
            .await
            .expect("pulled out of its slot");
        until(&mut watch, "no card", |state| state.links.is_empty()).await;
    });
}
