//! The month's traffic: counted, kept, shown, and what follows when the farmer's limit is reached.
//!
//! Within it nothing happens. Over it nothing new is sold and the spaces that run are slowed until a login still comes
//! through and mass traffic does not: nobody loses his data because others downloaded too much.

use std::path::Path;
use std::time::Duration;

use market::quantity::UnixMillis;
use provision::firewall::Caps;
use provision::journal::{Journal, JournalError};
use provision::space::Provisioner;
use tokio::time::interval;

use super::ready::Ready;
use super::verdict::Part;
use crate::console::Board;
use crate::farmer::Farmer;
use crate::month::{Calendar, Month};
use crate::net::NetWatch;

/// The counters are looked at so often; what a power cut takes away of a month is no more than this.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The journal is written when so much is new: an idle node writes nothing.
const WORTH_WRITING: u64 = 1 << 20;
/// The agent's room and row in the journal.
const ROOM: &str = "traffic";
const ROW: &[u8] = b"month";

/// What the count stands on.
pub(super) struct Parts {
    pub board: Board,
    pub ready: Ready,
    pub journal: Journal,
    pub provisioner: Provisioner,
    pub network: NetWatch,
    pub boot: [u8; 16],
}

/// Counts for ever.
pub(super) async fn count(parts: Parts, farmer: Farmer) {
    let mut month = match read(&parts.journal).await {
        Ok(month) => month,
        Err(error) => {
            let why = crate::words::chain(&error);
            parts
                .board
                .event(format!("the month's traffic cannot be read: {why}"));
            Month::default()
        }
    };
    let (mut written, mut slowed) = (month.clone(), None);
    let mut clock = interval(LOOK_EVERY);
    loop {
        clock.tick().await;
        month.take(calendar(&parts.board), parts.boot, &counters(&parts.network));
        if month.bytes.abs_diff(written.bytes) >= WORTH_WRITING || month.calendar != written.calendar {
            match write(&parts.journal, month.clone()).await {
                Ok(()) => written = month.clone(),
                Err(error) => tracing::warn!(
                    error = crate::words::chain(&error),
                    "the month's traffic is not kept"
                ),
            }
        }
        let over = month.is_over(farmer.traffic);
        parts.board.update(|status| {
            status.traffic = Some(month.words(farmer.traffic));
            status.figures.traffic_bytes = Some(month.bytes);
            status.figures.traffic_limit_bytes = farmer.traffic.map(|limit| limit.0);
        });
        let reason = month.reason();
        parts.ready.set(|ready| {
            ready.traffic = if over { Part::Bad(reason) } else { Part::Good };
        });
        if slowed != Some(over) {
            let caps = Caps {
                rate: farmer.rate,
                slowed: over,
            };
            match parts.provisioner.set_caps(caps).await {
                Ok(()) => {
                    if over {
                        parts
                            .board
                            .event("this month's traffic is used up: spaces are slowed");
                    } else if slowed == Some(true) {
                        parts.board.event("a new month: spaces have their rate again");
                    }
                    slowed = Some(over);
                }
                // Tried again at the next look.
                Err(error) => super::part_failed(
                    &parts.board,
                    "firewall",
                    &crate::words::chain(&error),
                    "it is tried again; if it stays, report this line",
                ),
            }
        }
    }
}

/// The month now, once the clock is right.
fn calendar(board: &Board) -> Option<Calendar> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = u64::try_from(since.ok()?.as_millis()).ok()?;
    board
        .status()
        .clock_is_right
        .then_some(Calendar::of(UnixMillis(ms)))
}

/// Bytes in and out by uplink, as the kernel counts them since power-on.
fn counters(network: &NetWatch) -> Vec<(String, u64)> {
    let names: Vec<String> = network
        .borrow()
        .links
        .iter()
        .map(|link| link.name.clone())
        .collect();
    let read = |name: &str, file: &str| -> Option<u64> {
        let path = Path::new("/sys/class/net")
            .join(name)
            .join("statistics")
            .join(file);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let both = |name: String| {
        let bytes = read(&name, "rx_bytes")?.saturating_add(read(&name, "tx_bytes")?);
        Some((name, bytes))
    };
    names.into_iter().filter_map(both).collect()
}

async fn read(journal: &Journal) -> Result<Month, JournalError> {
    let row = journal.write(|entry| entry.row(ROOM, ROW)).await?;
    match row {
        None => Ok(Month::default()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| JournalError::Row(error.to_string())),
    }
}

async fn write(journal: &Journal, month: Month) -> Result<(), JournalError> {
    let bytes = serde_json::to_vec(&month).map_err(|error| JournalError::Row(error.to_string()))?;
    journal.write(move |entry| entry.put_row(ROOM, ROW, &bytes)).await
}
