//! The network as console, name resolution and the grid see it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::ready::Ready;
use super::verdict::Part;
use crate::console::Board;
use crate::net::{NetState, NetWatch};

/// Where the C library looks for name servers (glibc, resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// More are not looked at (`MAXNS`).
const MOST_RESOLVERS: usize = 3;

/// Follows the network for ever.
pub(super) async fn follow(board: Board, ready: Ready, mut network: NetWatch) {
    let mut known_resolvers: Option<Vec<IpAddr>> = None;
    loop {
        let state = network.borrow_and_update().clone();
        board.update(|status| {
            status.network = state.links.iter().map(ToString::to_string).collect();
        });
        ready.set(|ready| ready.network = judge(&state));
        let resolvers = state.resolvers();
        if known_resolvers.as_ref() != Some(&resolvers) {
            if let Err(error) = fs::write(Path::new(RESOLV_CONF), resolv_conf(&resolvers)) {
                tracing::warn!(%error, "writing {RESOLV_CONF}");
            }
            known_resolvers = Some(resolvers);
        }
        if network.changed().await.is_err() {
            return;
        }
    }
}

fn judge(state: &NetState) -> Part {
    if state.is_usable() {
        return Part::Good;
    }
    Part::Absent(
        if state.links.is_empty() {
            "no network card with a driver"
        } else if state.links.iter().all(|link| !link.carrier) {
            "no network cable"
        } else if state.links.iter().all(|link| link.lease.is_none()) {
            "no address from the network"
        } else {
            "no router on the network"
        }
        .into(),
    )
}

fn resolv_conf(resolvers: &[IpAddr]) -> String {
    resolvers
        .iter()
        .take(MOST_RESOLVERS)
        .map(|resolver| format!("nameserver {resolver}\n"))
        .collect()
}
