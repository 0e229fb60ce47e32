//! A `farmer.toml` as editors and people leave it: what it was, where it is wrong, and what would be right, on the console.

use anyhow::{Result, ensure};

use super::SELLS_WITHIN;
use super::cases::{Ended, Place, said};

/// The lines before the wallet's.
const HEAD: &str = "# mine\nprice = \"0.40\"\n";

/// Saved by an editor of Windows: UTF-16, a mark at its beginning, another ending to its name; and one letter of the wallet
/// is wrong.
pub fn spoilt(place: &Place) -> Result<Ended> {
    let wallet = place
        .ground
        .text
        .lines()
        .find(|line| line.starts_with("wallet = "))
        .unwrap_or_default();
    let wrong = match wallet.trim_end_matches('"').chars().last() {
        Some('0') => '1',
        _ => '0',
    };
    let mut line = wallet.trim_end_matches('"').to_owned();
    line.pop();
    let text = format!("{HEAD}{line}{wrong}\"\n");
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(
        text.replace('\n', "\r\n")
            .encode_utf16()
            .flat_map(u16::to_le_bytes),
    );
    let stick = place.stick_with("farmer.toml.txt", &bytes)?;
    let mut running = place.machine_from(&stick).start()?;
    let read = running.wait_for("farmer.toml: read ", SELLS_WITHIN)?.text;
    ensure!(read.contains("farmer.toml.txt"), "which file it read: {read}");
    let fault = said(&mut running, "farmer.toml line 3, column ")?.text;
    ensure!(
        fault.contains("the address has a wrong digit"),
        "what is wrong: {fault}"
    );
    said(&mut running, "not selling: farmer.toml line 3")?;
    running.cut_power();

    let mut long = HEAD.as_bytes().to_vec();
    long.resize(10 << 20, b'#');
    let stick = place.stick_with("farmer.toml", &long)?;
    let mut running = place.machine_from(&stick).start()?;
    running.wait_for("larger than 64 KiB", SELLS_WITHIN)?;
    Ok(Ended::Passed(Some(fault.trim().to_owned())))
}
