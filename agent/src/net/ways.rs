//! Which card leads to the grid, where several have a router.
//!
//! ```text
//!                      ┌─ of each card: a connection to the grid's relay (SO_BINDTODEVICE)
//!  several cards have ─┤
//!  a router            └─► some reach it, others do not ─► default routes of the others are put behind
//!                          all do, or none does         ─► as it was: the card with the lowest index wins
//! ```
//!
//! A router that answers and leads nowhere (a camera's, a phone's, an old one without its line) would hold the default
//! route for ever. NetworkManager puts a way without connectivity behind in the same manner. IPv6 routes are the kernel's
//! own, and left to it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::{TcpSocket, lookup_host};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Link, NetWatch};

/// A way that leads nowhere may lead somewhere later, and the other way round.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Leases of several cards come one after the other.
const SETTLE: Duration = Duration::from_millis(300);
/// Who does not answer by then is not reached.
const PATIENCE: Duration = Duration::from_secs(3);

/// Cards whose routes stand behind the others'.
pub(super) type Aside = BTreeSet<u32>;

/// The say in which cards' routes stand behind.
#[derive(Debug)]
pub struct Ways(pub(super) watch::Sender<Aside>);

impl Ways {
    /// Prefers cards that reach `port` of `host`, for as long as the network is watched.
    pub async fn prefer(self, mut network: NetWatch, host: String, port: u16) {
        loop {
            let cards = with_router(&network.borrow_and_update().links);
            let aside = match cards.len() {
                0 | 1 => Aside::new(),
                _ => aside(&reach(&cards, &host, port).await),
            };
            self.0.send_if_modified(|known| {
                let changed = *known != aside;
                if changed {
                    tracing::info!(cards = ?aside, "ways that do not lead to the grid");
                }
                *known = aside;
                changed
            });
            tokio::select! {
                changed = network.changed() => match changed {
                    Ok(()) => sleep(SETTLE).await,
                    Err(_) => return,
                },
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// Cards that could lead anywhere: number and name.
fn with_router(links: &[Link]) -> Vec<(u32, String)> {
    let leads = |link: &&Link| link.carrier && link.lease.as_ref().is_some_and(|lease| lease.has_router());
    let links = links.iter().filter(leads);
    links.map(|link| (link.index, link.name.clone())).collect()
}

/// Of each card, whether it reaches the host.
async fn reach(cards: &[(u32, String)], host: &str, port: u16) -> Vec<(u32, bool)> {
    let found = timeout(PATIENCE, lookup_host((host, port))).await;
    let mut addresses = found.ok().and_then(Result::ok).into_iter().flatten();
    let Some(to) = addresses.find(SocketAddr::is_ipv4) else {
        return Vec::new();
    };
    let tried = cards.iter().map(|(index, name)| async move {
        let connected = timeout(PATIENCE, connect(name, to)).await;
        (*index, matches!(connected, Ok(Ok(()))))
    });
    join_all(tried).await
}

async fn connect(card: &str, to: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(card.as_bytes()))?;
    socket.connect(to).await.map(drop)
}

/// Who does not reach it, where another does.
fn aside(tried: &[(u32, bool)]) -> Aside {
    let behind = |reaches: bool| tried.iter().filter(move |(_, reached)| *reached == reaches);
    match behind(true).next() {
        Some(_) => behind(false).map(|(index, _)| *index).collect(),
        None => Aside::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_put_behind_only_where_another_leads_there() {
        assert_eq!(aside(&[(2, false), (3, true), (4, false)]), Aside::from([2, 4]));
        assert_eq!(aside(&[(2, true), (3, true)]), Aside::new());
        assert_eq!(aside(&[(2, false), (3, false)]), Aside::new());
        assert_eq!(aside(&[]), Aside::new());
    }
}
