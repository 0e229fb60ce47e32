//! A machine whose battery died, and one on which somebody typed the wrong year.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::cases::{Ended, Place, measured, said, sells};

/// The battery died.
pub fn in_1970(place: &Place) -> Result<Ended> {
    at(place, "1970-01-01T00:00:00")
}

/// Somebody typed a wrong year.
pub fn in_2069(place: &Place) -> Result<Ended> {
    at(place, "2069-06-01T12:00:00")
}

/// The time comes from the ledger, which has answered before it sells: until then the console gives no time of day.
fn at(place: &Place, clock: &str) -> Result<Ended> {
    let mut machine = place.with_disk()?;
    machine.clock = Some(clock.into());
    let begun = Instant::now();
    let mut running = machine.start()?;
    let took = sells(&mut running, begun)?;
    let set = said(&mut running, "clock set: ")?.text;
    let year = clock.split('-').next().unwrap_or_default();
    ensure!(
        set.contains(year) && set.contains("ledger"),
        "it was {year}, and the console says {set:?}"
    );
    said(&mut running, "clock    right (ledger)")?;
    measured("sells after", took)
}
