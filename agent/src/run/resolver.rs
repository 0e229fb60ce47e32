//! Which of the network's name servers answers: the gateways of spaces lead to one, and it has to be one that lives.
//!
//! ```text
//!   the leases' name servers ─► each is asked who serves the root ─► those that answered, in their order, then the rest
//! ```
//!
//! Invariant: a server that answers is never put behind one that does not; with none that answers the order stays as
//! the network said it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use provision::firewall::Uplink;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// The port of name servers (RFC 1035, 4.2).
const PORT: u16 = 53;
/// How long an answer may take; a resolver on a slow line needs most of a second for a name that it does not know.
const PATIENCE: Duration = Duration::from_secs(2);
/// Each is asked so often before it counts as silent: a lost datagram is not a dead server.
const TRIES: usize = 2;
/// How often they are asked.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(20);

/// A question for the name servers of the root: every resolver has the answer. Id, recursion desired, one question;
/// the root's empty name, type NS, class IN.
fn question(id: [u8; 2]) -> [u8; 17] {
    [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]
}

/// Whether this is the answer to the question with this id; what it says does not matter.
fn is_answer(id: [u8; 2], bytes: &[u8]) -> bool {
    bytes.len() >= 12 && bytes[..2] == id && bytes[2] & 0x80 != 0
}

/// Whether the server answers.
async fn answers(server: SocketAddr, patience: Duration) -> bool {
    let ask = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
        socket.connect(server).await.ok()?;
        for number in 0..TRIES {
            let id = [0x53, u8::try_from(number).unwrap_or(0)];
            socket.send(&question(id)).await.ok()?;
            let mut bytes = [0; 512];
            // An answer to an earlier try may come late; anything else is no answer.
            if let Ok(Ok(length)) = timeout(patience, socket.recv(&mut bytes)).await
                && is_answer([0x53, bytes[1]], &bytes[..length])
            {
                return Some(());
            }
        }
        None
    };
    ask.await.is_some()
}

/// The servers with those that answer in front.
async fn living_first(servers: Vec<IpAddr>, port: u16, patience: Duration) -> Vec<IpAddr> {
    // One is kept without a question: there is no other to take.
    if servers.len() < 2 {
        return servers;
    }
    let mut asked = Vec::new();
    for server in &servers {
        asked.push(crate::task::spawn(answers((*server, port).into(), patience)));
    }
    let (mut living, mut silent) = (Vec::new(), Vec::new());
    for (server, task) in servers.into_iter().zip(asked) {
        match task.await {
            Ok(true) => living.push(server),
            Ok(false) | Err(_) => silent.push(server),
        }
    }
    living.extend(silent);
    living
}

/// The name servers of all uplinks, those that answer in front.
pub(super) async fn order(uplinks: &[Uplink]) -> Vec<IpAddr> {
    let all = uplinks.iter().flat_map(|uplink| uplink.resolvers.iter().copied());
    living_first(all.collect(), PORT, PATIENCE).await
}

/// The uplinks with their name servers in this order; what is not in it comes last. The plan takes the first of the
/// first uplink, so the order over all of them stands there.
pub(super) fn place(mut uplinks: Vec<Uplink>, order: &[IpAddr]) -> Vec<Uplink> {
    let mut all: Vec<IpAddr> = uplinks
        .iter_mut()
        .flat_map(|uplink| std::mem::take(&mut uplink.resolvers))
        .collect();
    all.sort_by_key(|server| {
        order
            .iter()
            .position(|known| known == server)
            .unwrap_or(usize::MAX)
    });
    if let Some(first) = uplinks.first_mut() {
        first.resolvers = all;
    }
    uplinks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_of_rfc_1035() {
        assert_eq!(question([7, 9])[..6], [7, 9, 1, 0, 0, 1]);
        assert!(is_answer([7, 9], &[7, 9, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]));
        assert!(!is_answer([7, 9], &question([7, 9])), "an echo is no answer");
        assert!(!is_answer([7, 9], &[7, 9, 0x81]));
    }

    #[test]
    fn the_order_is_over_all_uplinks() {
        let server = |last| IpAddr::from([192, 0, 2, last]);
        let uplink = |name: &str, resolvers: &[u8]| Uplink {
            interface: name.to_owned().try_into().unwrap(),
            prefixes: Vec::new(),
            resolvers: resolvers.iter().map(|last| server(*last)).collect(),
        };
        let uplinks = vec![uplink("eth0", &[1, 2]), uplink("eth1", &[3])];
        let placed = place(uplinks.clone(), &[server(3), server(1)]);
        assert_eq!(placed[0].resolvers, [server(3), server(1), server(2)]);
        assert!(placed[1].resolvers.is_empty());
        assert_eq!(
            place(uplinks, &[])[0].resolvers,
            [server(1), server(2), server(3)]
        );
    }

    #[tokio::test]
    async fn the_next_is_taken_when_the_first_is_silent() {
        // All at one port, as name servers are: each has an address of its own on the loopback.
        let living = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        let port = living.local_addr().unwrap().port();
        let silent = UdpSocket::bind(("127.0.0.2", port)).await.unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = living.recv_from(&mut bytes).await {
                bytes[2] |= 0x80;
                let _ = living.send_to(&bytes[..length], from).await;
            }
        });
        let server = |last| IpAddr::from([127, 0, 0, last]);
        // Two seconds for each try: a busy machine is no silent server.
        let patience = Duration::from_secs(2);
        // 127.0.0.4 has no such port at all.
        let asked = vec![server(2), server(4), server(3)];
        assert_eq!(
            living_first(asked, port, patience).await,
            [server(3), server(2), server(4)]
        );
        // None answers: as the network said it.
        let patience = Duration::from_millis(100);
        let asked = vec![server(4), server(2)];
        assert_eq!(living_first(asked.clone(), port, patience).await, asked);
        drop(silent);
    }
}
