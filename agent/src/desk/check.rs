//! What a broadcast must be before it is passed on or answered: a request, signed, of this grid, fresh.
//!
//! Pure and quick: it runs on the task that reads the network. Size, rate and replay were judged before it, by the grid.

use std::sync::Arc;

use grid::{BroadcastCheck, PeerId, Verdict};
use market::envelope::{Signed, open};
use market::id::GridId;
use market::message::CapacityRequest;
use market::quantity::UnixMillis;

/// A request that ends later than this is not kept in mind so long.
pub(super) const MOST_AHEAD_MS: u64 = 10 * 60 * 1000;
/// Clocks differ.
const SLACK_MS: u64 = 5_000;

/// The check for [`grid::Grid::join`]. `now`: the time, once it is known; until then freshness is not judged.
pub fn check(
    grid: GridId,
    now: impl Fn() -> Option<UnixMillis> + Send + Sync + 'static,
) -> Arc<dyn BroadcastCheck> {
    Arc::new(move |bytes: &[u8], _: PeerId| match judge(bytes, grid, now()) {
        Ok(_) => Verdict::Accept,
        Err(why) => Verdict::Reject(why),
    })
}

/// Opens a request and judges its freshness.
pub(super) fn judge(
    bytes: &[u8],
    grid: GridId,
    now: Option<UnixMillis>,
) -> Result<Signed<CapacityRequest>, String> {
    let request = open::<CapacityRequest>(bytes, Some(grid)).map_err(|error| crate::words::chain(&error))?;
    match now {
        Some(now) if request.message.expires.plus_ms(SLACK_MS) <= now => Err("expired".to_owned()),
        Some(now) if request.message.expires.ms_since(now) > MOST_AHEAD_MS + SLACK_MS => {
            Err("expires in the far future".to_owned())
        }
        Some(_) | None => Ok(request),
    }
}
