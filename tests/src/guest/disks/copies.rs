//! A disk on which the journal follows no more: told, copied to now and then, and behind the others if it has to lead.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::names;
use provision::journal::{Journal, Standing};

use super::{power_off, power_on};

/// The state volume of the second disk is full for a moment.
pub(super) fn failed() -> Result<()> {
    let state = power_on(&[])?.state?;
    let [_, other] = state.groups() else {
        bail!("{:?}", state.groups())
    };
    let other = other.clone();
    let (folder, journal) = (names::state_mount(&other), state.journal());
    let journal = journal.map_err(|error| anyhow::anyhow!("{error}"))?.clone();
    let put = |value: u8| {
        journal.write_blocking(move |entry| entry.put_row("trial", b"copy", &vec![value; 1 << 20]))
    };
    let standing = || -> Result<Standing> {
        let copies = state.copies()?;
        let found = copies.into_iter().find(|(group, _)| *group == other);
        Ok(found.context("it never followed")?.1)
    };
    let generation = || -> Result<u64> {
        let text = std::fs::read_to_string(folder.join("node.json"))?;
        let number = text.split("generation").nth(1).context("no generation")?;
        let digits: String = number
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        Ok(digits.parse()?)
    };
    let there = || -> Result<Option<u8>> {
        let row = Journal::peek(&folder.join("journal.sqlite"), |entry| {
            entry.row("trial", b"copy")
        })?;
        Ok(row.and_then(|row| row.first().copied()))
    };
    put(1)?;
    ensure!(standing()? == Standing::Follows, "{:?}", standing()?);
    let follows = generation()?;

    let filler = folder.join("filler");
    let mut file = File::create(&filler)?;
    while file.write_all(&[0x5a; 1 << 16]).is_ok() {}
    drop(file);
    for value in 2..=9 {
        put(value)?;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while standing()? == Standing::Silent {
        ensure!(Instant::now() < deadline, "its file is never closed");
        std::thread::yield_now();
    }
    ensure!(standing()? == Standing::Left, "{:?}", standing()?);
    std::fs::remove_file(&filler)?;
    ensure!(there()? < Some(9), "the control: it has all that was written");
    state.replicate()?;
    ensure!(there()? == Some(9), "it was not copied: {:?}", there()?);
    ensure!(generation()? < follows, "it ranks as one that follows");
    put(10)?;
    power_off(state)?;

    // The next power-on begins anew.
    let state = power_on(&[])?.state?;
    let copies = state.copies()?;
    ensure!(copies == [(other, Standing::Follows)], "{copies:?}");
    let journal = state.journal().map_err(|error| anyhow::anyhow!("{error}"))?;
    let row = journal.write_blocking(|entry| entry.row("trial", b"copy"))?;
    ensure!(
        row.is_some_and(|row| row[0] == 10),
        "the leader's journal is not what it wrote"
    );
    journal.write_blocking(|entry| entry.remove_row("trial", b"copy").map(drop))?;
    power_off(state)
}
