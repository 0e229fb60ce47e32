//! The screen, word for word: what a farmer reads in each plight.

// A test that panics has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use agent::console::{Disk, Failure, Now, Selling, Space, Status, render};

const NOW: Now = Now {
    uptime_seconds: 200,
    resident_bytes: Some(20_342_374),
};

fn healthy() -> Status {
    Status {
        version: "0.1.0".into(),
        node: Some("7e2a…091c".into()),
        selling: Selling::Yes,
        grid: "joined \"demo\", 4 neighbours".into(),
        clock: "right (ledger)".into(),
        clock_is_right: true,
        wallet: "steading:3f1c…:9ab0…c1".into(),
        farmer_file: "read, 5e2d91".into(),
        machine: "q35 · 2 cores · 2 GiB · UEFI, Secure Boot on · no TPM".into(),
        network: vec!["52:54:00:12:34:56  10.0.2.15/24  fec0::5054:ff:fe12:3456/64".into()],
        disks: Some(vec![
            Disk {
                name: "vda".into(),
                size: "10 GiB".into(),
                state: "claimed, 8.2 GiB free".into(),
                ..Disk::default()
            },
            Disk {
                name: "vdc".into(),
                size: "1 GiB".into(),
                state: "not touched: too small (4 GiB is the least)".into(),
                ..Disk::default()
            },
        ]),
        spaces: vec![
            Space {
                sale: [1; 32],
                name: "calm-otter".into(),
                size: "0.5 cpu   512 MiB  2 GiB".into(),
                state: "active, paid until 14:05 UTC".into(),
            },
            Space {
                sale: [2; 32],
                name: "quiet-quail".into(),
                size: "0.25 cpu  256 MiB  12 GiB".into(),
                state: "locked, waits for its key".into(),
            },
        ],
        earned: Some("12.40 today · 87.10 in all".into()),
        ..Status::default()
    }
}

fn assert_screen(name: &str, status: &Status, golden: &str) {
    let lines = render(status, NOW);
    for line in &lines {
        assert!(line.chars().count() <= 80, "{name}: too wide: {line}");
        assert!(!line.contains(char::is_control), "{name}: {line:?}");
    }
    let screen = lines.join("\n") + "\n";
    assert_eq!(screen, golden, "{name} is now:\n{screen}");
}

#[test]
fn selling() {
    let status = Status {
        traffic: Some("41.2 GiB of 500 GiB in 2026-11".into()),
        ..healthy()
    };
    assert_screen("selling", &status, include_str!("screens/selling.txt"));
}

#[test]
fn what_a_line_does_not_hold_goes_on_in_the_next_one() {
    let status = Status {
        machine: "Standard PC (Q35 + ICH9, 2009) · 2 cores · 1.5 GiB · UEFI, Secure Boot on · no TPM".into(),
        ..healthy()
    };
    let lines = render(&status, NOW);
    let at = lines
        .iter()
        .position(|line| line.starts_with(" machine"))
        .expect("the machine");
    let right = [
        " machine   Standard PC (Q35 + ICH9, 2009) · 2 cores · 1.5 GiB ·",
        "           UEFI, Secure Boot on · no TPM",
    ];
    assert_eq!(lines[at..at + 2], right);
}

#[test]
fn no_wallet() {
    let status = Status {
        selling: Selling::No("no wallet".into()),
        wallet: "none".into(),
        wallet_cure: Some("farmer.toml line 11: your address goes here: wallet = \"steading:…\"".into()),
        spaces: vec![],
        earned: None,
        ..healthy()
    };
    assert_screen("no wallet", &status, include_str!("screens/no_wallet.txt"));
}

#[test]
fn a_bad_line() {
    let reading = agent::farmer::read(b"walet = \"x\"\nprice = \"0,40\"\n");
    let status = Status {
        selling: Selling::No("farmer.toml line 1".into()),
        wallet: "none".into(),
        farmer_file: format!("2 faults, {}", reading.mark),
        farmer_faults: reading.faults.iter().map(ToString::to_string).collect(),
        spaces: vec![],
        earned: None,
        ..healthy()
    };
    assert_screen("a bad line", &status, include_str!("screens/bad_line.txt"));
}

#[test]
fn no_disk() {
    let status = Status {
        selling: Selling::No("no disk".into()),
        disks: Some(vec![]),
        spaces: vec![],
        earned: None,
        ..healthy()
    };
    assert_screen("no disk", &status, include_str!("screens/no_disk.txt"));
}

#[test]
fn disks_not_touched() {
    let mut status = Status {
        selling: Selling::No("no disk is free to use: see \"disks\"".into()),
        spaces: vec![],
        earned: None,
        failures: vec![Failure {
            part: "journal".into(),
            why: "written by a newer version (schema 7, this image knows 3)".into(),
            cure: Some("start the newer image again, or erase the disk to give up its sales".into()),
        }],
        ..healthy()
    };
    status.disks = Some(vec![Disk {
        name: "sda".into(),
        size: "20 GiB".into(),
        state: "not touched: ext4 \"backup\"".into(),
        holds: "ext4 \"backup\"".into(),
        line: Some("naa.50014ee2b1234567, 20 GiB, ext4 backup 0d7c1d1e-64c5-4a1b-9d6e-7f1b6a1f2a3b".into()),
        ..Disk::default()
    }]);
    assert_screen(
        "disks not touched",
        &status,
        include_str!("screens/disks_not_touched.txt"),
    );
}

#[test]
fn starting_with_nothing_known() {
    let status = Status {
        version: "0.1.0".into(),
        ..Status::default()
    };
    assert_screen("starting", &status, include_str!("screens/starting.txt"));
}
