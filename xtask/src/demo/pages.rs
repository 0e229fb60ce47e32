//! What the demo prints of a sale: the time of each step, and the balances before and after.

use std::time::SystemTime;

use anyhow::Result;
use serde_json::Value;
use stage::Answer;

use super::{Balances, Moment, since};
use crate::show::heading;

/// Gaps that a person asks about: words, from which step, to which.
const GAPS: [(&str, &str, &str); 6] = [
    ("power on to PID 1", "power_on", "pid1"),
    ("PID 1 to joined", "pid1", "joined"),
    ("request to first offer", "request", "first_offer"),
    ("lock to ready", "funded", "ready"),
    ("ready to logged in", "ready", "logged_in"),
    ("cancel to receipt", "cancelled", "receipt"),
];

/// The end: what happened, and where the money is.
pub(super) fn last(moments: &[Moment], before: Balances, after: Balances) {
    heading("What happened");
    figures(moments, ("before", before), ("after", after));
}

/// The same as far as it has come, before a person is left alone in the space.
pub(super) fn so_far(moments: &[Moment], before: Balances, now: Balances) {
    figures(moments, ("before", before), ("now", now));
}

fn figures(moments: &[Moment], before: (&str, Balances), after: (&str, Balances)) {
    let at = |name: &str| {
        moments
            .iter()
            .find(|moment| moment.name == name)
            .map(|moment| moment.at_ms)
    };
    for (words, from, to) in GAPS {
        if let (Some(from), Some(to)) = (at(from), at(to)) {
            eprintln!(" {words:<24}{:>7.1} s", to.saturating_sub(from) as f64 / 1000.0);
        }
    }
    eprintln!("\n {:<10}{:>14}{:>14}", "", before.0, after.0);
    for (who, before, after) in [
        ("user", before.1.user, after.1.user),
        ("farmer", before.1.farmer, after.1.farmer),
        ("escrow", before.1.escrow, after.1.escrow),
    ] {
        eprintln!(" {who:<10}{:>14}{:>14}", money(before), money(after));
    }
    eprintln!();
}

/// The steps that an answer of the client has times for.
pub(super) fn steps(
    power_on: SystemTime,
    answer: &Answer,
    names: &[(&'static str, &str)],
) -> Result<Vec<Moment>> {
    let moment = |(name, pointer): &(&'static str, &str)| {
        let at_ms = since(power_on, answer, pointer)?;
        Ok(Moment { name, at_ms })
    };
    names.iter().map(moment).collect()
}

/// What the client says when it checks the receipt.
pub(super) fn receipt(verified: &Value) {
    let text = |key: &str| verified[key].as_str().unwrap_or_default().to_owned();
    eprintln!(
        " checked by `steading verify`: a valid {}, signed by node {}",
        text("kind"),
        text("signer")
    );
}

/// Smallest units as a person reads them: play money has six decimals.
fn money(units: u128) -> String {
    let (whole, rest) = (units / 1_000_000, units % 1_000_000);
    if rest % 10_000 == 0 {
        format!("{whole}.{:02}", rest / 10_000)
    } else {
        format!("{whole}.{rest:06}")
    }
}
