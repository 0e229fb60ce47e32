//! From power-on to `farmer.toml`: looks for the boot medium until it is there.

use std::path::Path;
use std::time::Duration;

use farmer::Reading;
use host::module::Uevents;
use inventory::boot;
use provision::network::address::Prefix;
use tokio::task::spawn_blocking;

use super::ready::Ready;
use super::verdict::Part;
use crate::console::{Board, Failure};
use crate::medium::{self, Medium};

/// The kernel's announcement is waited for; a look is taken so often all the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the medium says.
#[derive(Debug, Clone)]
pub(super) struct Booted {
    pub medium: Medium,
    pub reading: Reading,
}

/// Waits for the medium and reads it. Broken media are looked at again: a stick may
/// have been pulled out and put back.
pub(super) async fn find(board: &Board, ready: &Ready) -> Booted {
    board.way().begin(boot::Part::Medium);
    let found = spawn_blocking({
        let (board, ready) = (board.clone(), ready.clone());
        move || look_until_found(&board, &ready)
    });
    match found.await {
        Ok(booted) => {
            show(board, ready, &booted.reading);
            booted
        }
        // The thread ended without a medium: only a panic does that. Without the file
        // there is nothing to sell; the node stays up and says so.
        Err(_) => std::future::pending().await,
    }
}

fn look_until_found(board: &Board, ready: &Ready) -> Booted {
    // Listening begins before the first look, so that nothing falls between.
    let events = Uevents::open();
    loop {
        match look() {
            Ok(Some(booted)) => {
                board.update(|status| status.failures.retain(|failure| failure.part != "medium"));
                return booted;
            }
            Ok(None) => {
                let why = "the stick it was started from was not found".to_owned();
                ready.set(|ready| ready.farmer_file = Part::Absent(why));
            }
            Err(why) => {
                ready.set(|ready| ready.farmer_file = Part::Absent("the stick cannot be read".into()));
                failed(board, &why);
            }
        }
        match &events {
            Ok(events) => {
                let _ = events.wait(LOOK_EVERY);
                events.drain();
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn look() -> Result<Option<Booted>, String> {
    let Some(medium) = medium::in_memory().or_else(on_a_disk) else {
        return Ok(None);
    };
    let reading = medium
        .farmer_file()
        .map_err(|error| crate::words::chain(&error))?;
    Ok(Some(Booted { medium, reading }))
}

fn on_a_disk() -> Option<Medium> {
    let disks: Vec<String> = inventory::read(Path::new("/"))
        .disks
        .unwrap_or_default()
        .into_iter()
        .map(|disk| disk.name)
        .collect();
    medium::find(&disks).into_iter().next()
}

fn failed(board: &Board, why: &str) {
    board.update(|status| {
        status.failures.retain(|failure| failure.part != "medium");
        status.failures.push(Failure {
            part: "medium".into(),
            why: why.to_owned(),
            cure: Some("pull the stick out and put it back, or write it anew".into()),
        });
    });
}

/// Puts what was read, and what is wrong with it, on the board.
fn show(board: &Board, ready: &Ready, reading: &Reading) {
    let farmer = &reading.farmer;
    let file = match (&reading.name, reading.faults.len()) {
        (None, _) => "none on the stick".to_owned(),
        (Some(_), 0) => format!("read, {}", reading.mark),
        (Some(_), 1) => format!("1 fault, {}", reading.mark),
        (Some(_), faults) => format!("{faults} faults, {}", reading.mark),
    };
    ready.set(|ready| {
        ready.farmer_file = match reading.faults.first() {
            Some(fault) => Part::Bad(format!("farmer.toml line {}", fault.line)),
            None => Part::Good,
        };
        ready.wallet = match &farmer.wallet {
            Some(_) => Part::Good,
            None => Part::Bad("no wallet".into()),
        };
        ready.price = match &farmer.price {
            Some(_) => Part::Good,
            None => Part::Bad("no price".into()),
        };
        if farmer.grid.is_none() {
            ready.grid = Part::Bad("no grid in farmer.toml".into());
        }
        if farmer.ledger.is_none() {
            ready.ledger = Part::Bad("no ledger in farmer.toml".into());
        }
    });
    let mut faults: Vec<String> = reading.faults.iter().map(ToString::to_string).collect();
    faults.extend(reading.notes.iter().cloned());
    if faults.is_empty() && farmer.price.is_none() && farmer.wallet.is_some() {
        faults.push("has no price: add a line such as price = \"0.40\"".into());
    }
    board.update(|status| {
        status.farmer_file = file;
        status.farmer_faults = faults;
        match &farmer.wallet {
            Some(wallet) => status.wallet = shorten(wallet.as_str()),
            None => {
                status.wallet = "none".into();
                status.wallet_cure = match reading.wallet_line {
                    Some(line) => Some(format!(
                        "farmer.toml line {line}: your address goes here: wallet = \"steading:…\""
                    )),
                    // A fault is what to mend first; it may be the wallet's own line.
                    None if !reading.faults.is_empty() => None,
                    None => Some("add this line to farmer.toml: wallet = \"steading:…\"".into()),
                };
            }
        }
    });
    if let Some(name) = &reading.name {
        board.event(format!("farmer.toml: read {name}, {}", reading.mark));
    }
    for note in &reading.notes {
        board.event(format!("farmer.toml {note}"));
    }
    for fault in &reading.faults {
        board.event(format!("farmer.toml {fault}"));
    }
}

/// A network that the farmer opens, as the walls want it.
pub(super) fn prefix(network: &farmer::Network) -> Prefix {
    Prefix {
        address: network.address.into(),
        length: network.length,
    }
}

/// `steading:3f1c…:9ab0…c1`: each part shortened in the middle.
fn shorten(account: &str) -> String {
    let parts: Vec<String> = account
        .split(':')
        .map(|part| match part.len() {
            0..=12 => part.to_owned(),
            length if part.is_ascii() => format!("{}…{}", &part[..4], &part[length - 2..]),
            _ => part.to_owned(),
        })
        .collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_shortened_in_each_part() {
        let long = format!("steading:{}:{}", "3f1c".repeat(8), "9ab0".repeat(18));
        assert_eq!(super::shorten(&long), "steading:3f1c…1c:9ab0…b0");
        assert_eq!(super::shorten("eip155:1:é"), "eip155:1:é");
    }
}
