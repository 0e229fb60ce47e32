//! What a node reads of its network, its stick and its disks.

use std::io::Cursor;
use std::net::Ipv4Addr;

use ::market::sale::Sale;
use farmer::listing::{Listed, read_folder};
use provision::claim::Consent;
use provision::journal;
use provision::space::{SpaceRecord, SpaceSpec};
use provision::step::StepState;

use crate::{json, shown, text};

/// farmer.toml.
pub fn farmer_toml(bytes: &[u8]) {
    let reading = farmer::read(bytes);
    let lines = bytes.len() + 1;
    assert!(reading.wallet_line.is_none_or(|line| (1..=lines).contains(&line)));
    for fault in &reading.faults {
        assert!(!fault.to_string().is_empty());
    }
    assert_eq!(farmer::read(bytes), reading);
}

/// A lease that is believed names hosts, and its times are in order.
pub fn dhcp(bytes: &[u8]) {
    let Some(lease) = agent::net::fuzzing::dhcp(bytes) else {
        return;
    };
    let host =
        |address: Ipv4Addr| !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    assert!(host(lease.address) && host(lease.server) && lease.length <= 32);
    assert!(lease.resolvers.iter().all(|resolver| host(*resolver)));
}

/// A time is believed only from who saw the question.
pub fn sntp(bytes: &[u8]) {
    if agent::clock::fuzz_answer(bytes).is_some() {
        assert_eq!(bytes.get(24..32), Some(&b"nonce---"[..]));
    }
}

/// What comes in over a serial line: no key more than bytes, and an act only behind its key and its whole word.
pub fn console_keys(bytes: &[u8]) {
    use agent::console::fuzzing::{Dialog, Outcome, Parser};
    use agent::console::{Disk, Space, Status};
    let status = Status {
        disks: Some(vec![Disk {
            name: "vdb".into(),
            holds: "ext4".into(),
            line: Some("/dev/vdb, 8 GiB, ext4".into()),
            ..Disk::default()
        }]),
        spaces: vec![Space {
            name: "calm-otter".into(),
            ..Space::default()
        }],
        ..Status::default()
    };
    let (mut parser, mut dialog) = (Parser::default(), Dialog::default());
    for (at, byte) in bytes.iter().enumerate() {
        let Some(key) = parser.feed(*byte) else { continue };
        if let Outcome::Act(act) = dialog.press(key, &status, 10, 5) {
            let word = act.word().len();
            assert!(at > word, "{act:?} after {at} bytes");
            assert!(matches!(byte, b'\r' | b'\n'), "{act:?}");
        }
        assert!(dialog.prompt().is_none_or(|(_, typed)| typed.len() <= 64));
    }
    parser.pause();
    assert!(!parser.is_within());
}

/// A partition table: bounded.
pub fn partition_table(bytes: &[u8]) {
    let found = farmer::table::read(&mut Cursor::new(bytes), 512);
    assert!(found.is_ok_and(|partitions| partitions.len() <= 256) || bytes.len() < 1024 + (256 << 10));
    // What is sealed for a longer disk is sound there.
    let mut longer = bytes.to_vec();
    longer.resize(longer.len().next_multiple_of(512) + (1 << 16), 0);
    let sectors = longer.len() as u64 / 512;
    let mut longer = Cursor::new(longer);
    if farmer::table::fit(&mut longer, sectors).is_ok() {
        assert!(farmer::table::read(&mut longer, 512).is_ok());
    }
}

/// The stick's first folder and the files in it, and then a key set: names, a zero, a text; two of each at most.
pub fn farmer_folder(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let files =
        [(next(), next()), (next(), next())].map(|(name, text)| (String::from_utf8_lossy(name), text));
    let listing = files.each_ref().map(|(name, text)| Listed {
        name: name.to_string(),
        is_file: text.first() != Some(&b'/'),
    });
    let open = |name: &str, most: usize| {
        let found = files
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, text)| *text);
        found
            .map(|text| text.iter().copied().take(most).collect::<Vec<u8>>())
            .ok_or("no such file")
    };
    let Ok(reading) = read_folder(&listing, open) else {
        return;
    };
    assert!(reading.name.is_some() || reading.farmer == farmer::Farmer::default());
    assert!(reading.notes.iter().all(|note| !note.contains('\n')));
    let value = String::from_utf8_lossy(files[1].1).into_owned();
    for key in ["name", "wallet", "features", "erase"] {
        if let Ok((bytes, after)) = farmer::edit::set(files[0].1, &[(key.to_owned(), value.clone())]) {
            assert!(after.faults.is_empty());
            assert_eq!(farmer::read(&bytes), after);
        }
    }
}

/// image.json.
pub fn image_json(bytes: &[u8]) {
    let _ = serde_json::from_slice::<agent::facts::Image>(bytes);
}

/// A row of a sale: what is read can be told and goes on.
pub fn sale_record(bytes: &[u8]) {
    if let Ok(sale) = serde_json::from_slice::<Sale>(bytes) {
        let now = ::market::sale::Now {
            rail: sale.since,
            boot_ms: sale.looked_boot_ms,
        };
        let _ = (sale.receipt(), sale.paid_until(now), sale.words());
        for event in [
            ::market::sale::Event::Tick,
            ::market::sale::Event::Restarted { space_runs: false },
            ::market::sale::Event::FundedHint,
        ] {
            let _ = ::market::sale::step(&sale, event, now);
        }
    }
    json::<Sale>(bytes);
    json::<SpaceSpec>(bytes);
}

/// What a claimed disk says of spaces, steps and the node.
pub fn space_record(bytes: &[u8]) {
    json::<SpaceRecord>(bytes);
    json::<StepState>(bytes);
    let _ = provision::state::fuzz_node_json(bytes);
}

/// The journal's file: absent, older, newer, corrupt or current, and reading it as one harms nobody.
pub fn journal_file(bytes: &[u8]) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("journal.sqlite");
    std::fs::write(&path, bytes).unwrap();
    let _ = journal::inspect(&path);
}

/// A consent.
pub fn disk_consent(bytes: &[u8]) {
    shown::<Consent>(text(bytes));
}
