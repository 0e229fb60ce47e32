//! From power-on to `farmer.toml`: looks for the boot medium until it is there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use farmer::Reading;
use host::module::Uevents;
use inventory::boot;
use provision::network::address::Prefix;
use tokio::task::spawn_blocking;

use super::ready::Ready;
use super::verdict::Part;
use crate::console::{Board, Failure};
use crate::medium::{self, Choice, Medium};

/// The kernel's announcement is waited for; a look is taken so often all the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Media of other images alone are nothing to tell before: the bus of the right one may be slower.
const OTHERS_ALONE: Duration = Duration::from_secs(20);

/// How long another stick of the same image is looked for after the first was found: buses differ by so much.
const TWIN_WITHIN: Duration = Duration::from_secs(30);

/// A loader may be wrong about having come from a CD. Where the medium is not found for so long, the other kind is looked at.
const OTHERS_AFTER: Duration = Duration::from_secs(6);

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
        Ok((booted, seen)) => {
            show(board, ready, &booted.reading);
            if booted.medium.disk.is_some() {
                let (board, ready, booted) = (board.clone(), ready.clone(), booted.clone());
                spawn_blocking(move || look_for_twin(&board, &ready, &booted, seen));
            }
            booted
        }
        // The thread ended without a medium: only a panic does that. Without the file
        // there is nothing to sell; the node stays up and says so.
        Err(_) => std::future::pending().await,
    }
}

/// Also returns what could hold a medium when the look was taken.
fn look_until_found(board: &Board, ready: &Ready) -> (Booted, BTreeSet<OsString>) {
    // Listening begins before the first look, so that nothing falls between.
    let events = Uevents::open();
    let begun = Instant::now();
    let mut from = None;
    loop {
        let here = where_to_look(medium::is_cd_booted(), begun.elapsed(), from);
        from = Some(here);
        let seen = block_devices();
        match look(here) {
            Ok(Choice::One(said)) => {
                board.update(|status| status.failures.retain(|failure| failure.part != "medium"));
                let booted = Booted {
                    medium: said.medium,
                    reading: said.reading,
                };
                return (booted, seen);
            }
            Ok(Choice::Others(names)) if names.is_empty() => {
                let why = "the stick it was started from was not found".to_owned();
                ready.set(|ready| ready.farmer_file = Part::Absent(why));
            }
            Ok(Choice::Others(names)) => {
                let why = "the stick it was started from is not here".to_owned();
                ready.set(|ready| ready.farmer_file = Part::Absent(why));
                if begun.elapsed() > OTHERS_ALONE {
                    let names = names.join(" and ");
                    let why = format!("{names} is of another image than the one that runs");
                    failed(board, &why, "put the stick back that it was started from");
                }
            }
            Ok(Choice::Several(names)) => differ(board, ready, &names),
            Err(why) => {
                ready.set(|ready| ready.farmer_file = Part::Absent("the stick cannot be read".into()));
                failed(
                    board,
                    &why,
                    "pull the stick out and put it back, or write it anew",
                );
            }
        }
        wait(&events);
    }
}

/// A stick of the same image that is found later and says something else: nobody knows which is meant, so nothing is sold
/// until one is pulled out. Whoever is left must say what was read, or the node is started again.
fn look_for_twin(board: &Board, ready: &Ready, booted: &Booted, mut known: BTreeSet<OsString>) {
    let events = Uevents::open();
    let begun = Instant::now();
    let mut differs = false;
    while differs || begun.elapsed() < TWIN_WITHIN {
        // A look costs a mount: nobody takes one for a printer.
        let now = block_devices();
        if now == known {
            wait(&events);
            continue;
        }
        known = now;
        match look(From::Disks) {
            Ok(Choice::Several(names)) => {
                differs = true;
                differ(board, ready, &names);
            }
            Ok(Choice::One(left)) if differs && left.reading == booted.reading => {
                differs = false;
                board.update(|status| status.failures.retain(|failure| failure.part != "medium"));
                show(board, ready, &booted.reading);
            }
            Ok(Choice::One(_)) if differs => {
                let why = "the stick that is left is not the one that was read";
                failed(board, why, "press R to start the machine again");
            }
            _ => {}
        }
    }
}

/// The kernel's names of what can hold a medium; none where they cannot be read.
fn block_devices() -> BTreeSet<OsString> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten();
    entries.flatten().map(|entry| entry.file_name()).collect()
}

fn differ(board: &Board, ready: &Ready, names: &[String]) {
    let names = names.join(" and ");
    let why = format!("{names} are sticks of this image with different farmer.toml");
    ready.set(|ready| ready.farmer_file = Part::Bad(format!("two sticks: {names}")));
    failed(board, &why, "pull out those that are not meant");
}

/// Until what can hold a medium comes or goes, or for a while: a look costs a mount, and nobody takes one for a printer.
fn wait(events: &std::io::Result<Uevents>) {
    let end = Instant::now() + LOOK_EVERY;
    let left = || end.saturating_duration_since(Instant::now());
    let Ok(events) = events else {
        std::thread::sleep(LOOK_EVERY);
        return;
    };
    while !left().is_zero() && events.wait(left()).is_ok_and(|waits| waits) {
        match events.receive() {
            Ok(Some(event)) if event.get("SUBSYSTEM").is_none_or(|of| of != "block") => {}
            // What came with it is seen by the same look; of what was lost nobody knows what it was.
            _ => return events.drain(),
        }
    }
}

/// Where a look is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Disks,
    Cds,
}

/// Where the loader says that it came from first. Old discs in drives for CDs cost seconds: nobody looks at the other kind
/// before this one had its time, and then in turn.
fn where_to_look(is_cd_booted: bool, waited: Duration, was: Option<From>) -> From {
    let first = if is_cd_booted { From::Cds } else { From::Disks };
    match was {
        Some(From::Cds) if waited > OTHERS_AFTER => From::Disks,
        Some(From::Disks) if waited > OTHERS_AFTER => From::Cds,
        _ => first,
    }
}

/// What was handed over in memory goes before every disk.
fn look(from: From) -> Result<Choice, String> {
    if let Some(medium) = medium::in_memory() {
        let said = medium.read().map_err(|error| crate::words::chain(&error))?;
        return Ok(Choice::One(Box::new(said)));
    }
    let disks = match from {
        From::Cds => medium::cd_drives(),
        From::Disks => inventory::disk_names(Path::new("/")),
    };
    let (mut media, mut broken) = (Vec::new(), None);
    for medium in medium::find(&disks) {
        match medium.read() {
            Ok(said) => media.push(said),
            Err(error) => broken = Some(crate::words::chain(&error)),
        }
    }
    match (medium::choose(media, medium::booted_image().as_deref()), broken) {
        (Choice::Others(_), Some(why)) => Err(why),
        (choice, _) => Ok(choice),
    }
}

fn failed(board: &Board, why: &str, cure: &str) {
    let failure = Failure {
        part: "medium".into(),
        why: why.to_owned(),
        cure: Some(cure.to_owned()),
    };
    let is_known = board.status().failures.contains(&failure);
    board.update(|status| {
        status.failures.retain(|failure| failure.part != "medium");
        status.failures.push(failure);
    });
    if !is_known {
        board.event(format!("medium: {why}: {cure}"));
    }
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
    use super::*;

    #[test]
    fn drives_for_cds_are_looked_at_when_the_loader_says_so_or_no_disk_is_the_medium() {
        let (early, late) = (Duration::from_secs(1), OTHERS_AFTER * 2);
        for (is_cd_booted, first, other) in [(true, From::Cds, From::Disks), (false, From::Disks, From::Cds)]
        {
            assert_eq!(where_to_look(is_cd_booted, early, None), first);
            assert_eq!(where_to_look(is_cd_booted, early, Some(first)), first);
            assert_eq!(where_to_look(is_cd_booted, late, Some(first)), other);
            assert_eq!(where_to_look(is_cd_booted, late, Some(other)), first, "in turn");
        }
    }

    #[test]
    fn an_address_is_shortened_in_each_part() {
        let long = format!("steading:{}:{}", "3f1c".repeat(8), "9ab0".repeat(18));
        assert_eq!(super::shorten(&long), "steading:3f1c…1c:9ab0…b0");
        assert_eq!(super::shorten("eip155:1:é"), "eip155:1:é");
    }
}
