//! Keeps the clock right: whoever answers first, time server or ledger.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::sleep;

use super::ready::Ready;
use super::verdict::Part;
use crate::clock;
use crate::console::Board;
use crate::net::NetWatch;

/// A clock that runs is looked at so often.
const CHECK_EVERY: Duration = Duration::from_secs(3600);

/// Says what time it is, and who says so.
pub(super) fn heard(board: &Board, ready: &Ready, who: &str, unix_ms: u64) {
    match clock::set(unix_ms) {
        Ok(off) => {
            if off > Duration::from_secs(60) {
                board.event(format!("clock set: it was off by {} s ({who})", off.as_secs()));
            }
            board.update(|status| {
                status.clock = format!("right ({who})");
                status.clock_is_right = true;
            });
            ready.set(|ready| ready.clock = Part::Good);
        }
        Err(error) => {
            let why = crate::words::chain(&error);
            board.update(|status| status.clock = why.clone());
            ready.set(|ready| ready.clock = Part::Absent("the clock cannot be set".into()));
        }
    }
}

/// Asks the time servers of `farmer.toml` and of the network, for ever.
pub(super) async fn by_servers(board: Board, ready: Ready, network: NetWatch, own: Vec<String>) {
    loop {
        let (server, time) = clock::find(|| async {
            let mut servers = resolved(&own).await;
            servers.extend(network.borrow().time_servers());
            servers
        })
        .await;
        heard(&board, &ready, &server.to_string(), time);
        sleep(CHECK_EVERY).await;
    }
}

async fn resolved(names: &[String]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for name in names {
        if let Ok(address) = name.parse() {
            found.push(address);
        } else if let Ok(addresses) = tokio::net::lookup_host((name.as_str(), 123)).await {
            found.extend(addresses.map(|address| address.ip()));
        }
    }
    found
}
