//! Keeps the clock right: whoever answers first, time server or ledger.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use market::quantity::UnixMillis;
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
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match clock::set(unix_ms) {
        Ok(off) => {
            if off > Duration::from_secs(60) {
                board.event(was_wrong(before, off, who));
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

/// `before`: what the machine said, since 1970.
fn was_wrong(before: Duration, off: Duration, who: &str) -> String {
    let (year, month, day) = UnixMillis(u64::try_from(before.as_millis()).unwrap_or(u64::MAX)).date();
    match off.as_secs() / 86_400 {
        0 => format!("clock set: it was off by {} s ({who})", off.as_secs()),
        _ => format!(
            "clock set: it said {year:04}-{month:02}-{day:02} ({who}); if it says so at each start, its battery is empty"
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_another_day_is_told_with_what_it_said() {
        let said = |before, off| was_wrong(Duration::from_secs(before), Duration::from_secs(off), "ledger");
        assert_eq!(said(10, 90), "clock set: it was off by 90 s (ledger)");
        let of_1970 = said(10, 1_795_000_000);
        assert!(
            of_1970.starts_with("clock set: it said 1970-01-01 (ledger);"),
            "{of_1970}"
        );
        assert!(said(3_155_759_990, 86_400).contains("it said 2069-12-31 "));
    }
}
