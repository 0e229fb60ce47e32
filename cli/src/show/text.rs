//! Small texts: money, moments, shortened ids.

use escrow::{Amount, LEDGER_DECIMALS};
use market::quantity::UnixMillis;

/// Money as a person reads it: `0.40`.
pub fn money(amount: Amount) -> String {
    amount.to_decimal(LEDGER_DECIMALS)
}

/// An id shortened in the middle: `9c41…d07e`.
pub fn short(id: &str) -> String {
    let letters: Vec<char> = id.chars().collect();
    if letters.len() <= 9 {
        return id.to_owned();
    }
    let (head, tail) = (&letters[..4], &letters[letters.len() - 4..]);
    format!(
        "{}…{}",
        head.iter().collect::<String>(),
        tail.iter().collect::<String>()
    )
}

/// What others wrote, fit for a screen: no control or format character, such as one that turns the line around.
pub fn plain(text: &str) -> String {
    text.chars().filter(|letter| market::is_plain(*letter)).collect()
}

/// A moment in UTC: `17:02 UTC` where it is within a day of now, else with its date.
pub fn moment(unix_ms: u64) -> String {
    moment_at(unix_ms, crate::client::now_ms())
}

/// The same, with the time now as an argument.
pub fn moment_at(unix_ms: u64, now_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    if unix_ms.abs_diff(now_ms) < 86_400_000 {
        return format!("{hour:02}:{minute:02} UTC");
    }
    let (year, month, day) = UnixMillis(unix_ms).date();
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// So many of a thing: `1 node`, `2 nodes`.
pub fn count(number: usize, thing: &str) -> String {
    if number == 1 {
        format!("1 {thing}")
    } else {
        format!("{number} {thing}s")
    }
}

/// Seconds as a person reads them: `0.21 s`, `12.3 s`.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..=9_999 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_date_once_they_are_far() {
        let noon = 1_764_072_000_000; // 2025-11-25 12:00 UTC
        assert_eq!(moment_at(noon + 5 * 3_600_000, noon), "17:00 UTC");
        assert_eq!(moment_at(noon + 48 * 3_600_000, noon), "2025-11-27 12:00 UTC");
        assert_eq!(moment_at(0, noon), "1970-01-01 00:00 UTC");
    }

    #[test]
    fn ids_and_times_are_short() {
        assert_eq!(short(&"9c41".repeat(16)), "9c41…9c41");
        assert_eq!(short("calm"), "calm");
        assert_eq!(seconds(210), "0.21 s");
        assert_eq!(seconds(12_345), "12.3 s");
        assert_eq!(money(Amount(400_000)), "0.40");
    }
}
