//! The journal over real files.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    (folder, path)
}

fn row(id: u8) -> SaleRow {
    SaleRow {
        sale: SaleId::from([id; 32]),
        signed: vec![0, 1, id],
        state: "building".into(),
        spec: "{}".into(),
        host_key: Some([id; 32]),
        epoch: 3,
    }
}

#[test]
fn what_was_answered_is_there_after_a_cut() {
    let (folder, path) = place();
    let journal = Journal::create(&path).unwrap();
    journal.write_blocking(|entry| entry.put_sale(&row(7))).unwrap();
    // The cut: the files as they lie on the disk at this moment, with the log not brought in.
    let cut = folder.path().join("cut.sqlite");
    fs::copy(&path, &cut).unwrap();
    fs::copy(
        path.with_extension("sqlite-wal"),
        cut.with_extension("sqlite-wal"),
    )
    .unwrap();
    let after = Journal::open(&cut).unwrap();
    let found = after
        .write_blocking(|entry| entry.sale(&SaleId::from([7; 32])))
        .unwrap();
    assert_eq!(found, Some(row(7)));
}

#[test]
fn a_transaction_is_whole_or_not_at_all() {
    let (_folder, path) = place();
    let journal = Journal::create(&path).unwrap();
    let result: Result<(), _> = journal.write_blocking(|entry| {
        entry.put_sale(&row(1))?;
        entry.put_row("sales", b"one", b"state")?;
        Err(JournalError::Row("on purpose".into()))
    });
    assert!(result.is_err());
    let seen = journal
        .write_blocking(|e| Ok((e.sales()?, e.rows("sales")?)))
        .unwrap();
    assert_eq!(seen, (vec![], vec![]));
}

#[test]
fn absent_older_newer_and_corrupt_are_four_answers() {
    let (_folder, path) = place();
    assert!(matches!(Journal::open(&path), Err(JournalError::Absent(_))));
    fs::write(&path, b"").unwrap();
    assert!(
        matches!(Journal::open(&path), Err(JournalError::Absent(_))),
        "a cut while it was made"
    );
    Journal::create(&path).unwrap().close();
    assert_eq!(inspect(&path).unwrap(), Found::Current);
    assert!(matches!(Journal::create(&path), Err(JournalError::Exists(_))));
    for (version, found) in [
        (99, Found::Newer(99)),
        (-1, Found::Older(-1)),
        (0, Found::Older(0)),
    ] {
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        drop(connection);
        assert_eq!(inspect(&path).unwrap(), found);
    }
    fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(matches!(inspect(&path).unwrap(), Found::Corrupt(_)));
}

#[test]
fn a_damaged_page_is_found_at_opening() {
    let (_folder, path) = place();
    let journal = Journal::create(&path).unwrap();
    for id in 0..200 {
        journal
            .write_blocking(move |entry| entry.put_sale(&row(id)))
            .unwrap();
    }
    let copy = path.with_file_name("copy.sqlite");
    journal.copy_to(&copy).unwrap();
    assert_eq!(inspect(&copy).unwrap(), Found::Current);
    let mut bytes = fs::read(&copy).unwrap();
    let at = bytes.len() - 4096;
    bytes[at..at + 2048].fill(0xff);
    fs::write(&copy, bytes).unwrap();
    assert!(matches!(inspect(&copy).unwrap(), Found::Corrupt(_)));
}

#[test]
fn another_program_s_database_is_not_taken() {
    let (_folder, path) = place();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE t (a); PRAGMA user_version = 1")
        .unwrap();
    assert!(matches!(inspect(&path).unwrap(), Found::Corrupt(_)));
}

#[test]
fn a_second_writer_is_refused() {
    let (_folder, path) = place();
    let journal = Journal::create(&path).unwrap();
    journal.write_blocking(|entry| entry.count("boots")).unwrap();
    let second = Journal::open(&path);
    assert!(matches!(second, Err(JournalError::Sql(_))), "{second:?}");
}

#[test]
fn steps_are_kept_with_their_causes() {
    let (_folder, path) = place();
    let sale = SaleId::from([9; 32]);
    let journal = Journal::create(&path).unwrap();
    journal
        .write_blocking(move |entry| {
            entry.record_step(&sale, "volume", &StepState::Intended)?;
            entry.record_step(&sale, "volume", &StepState::Applied)?;
            entry.record_step(&sale, "mount", &StepState::UndoFailed { cause: "busy".into() })
        })
        .unwrap();
    journal.clone().close();
    assert!(matches!(
        journal.write_blocking(|_| Ok(())),
        Err(JournalError::Gone)
    ));
    let journal = Journal::open(&path).unwrap();
    let (steps, sales) = journal
        .write_blocking(move |e| Ok((e.steps(&sale)?, e.sales_with_steps()?)))
        .unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!(
        steps[0],
        StepRecord {
            step: "mount".into(),
            state: StepState::UndoFailed { cause: "busy".into() }
        }
    );
    assert_eq!(steps[1].state, StepState::Applied);
    assert_eq!(sales, [sale]);
    journal
        .write_blocking(move |entry| entry.remove_sale(&sale))
        .unwrap();
    assert!(
        journal
            .write_blocking(move |entry| entry.steps(&sale))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn events_are_bounded() {
    let (_folder, path) = place();
    let journal = Journal::create(&path).unwrap();
    let count = journal
        .write_blocking(|entry| {
            for at_ms in 0..10_050 {
                entry.add_event(&Event {
                    at_ms,
                    sale: None,
                    text: "x".repeat(9000),
                })?;
            }
            let events = entry.events(u32::MAX)?;
            assert_eq!(events.first().map(|e| e.at_ms), Some(50));
            assert_eq!(events[0].text.len(), 500);
            Ok(events.len())
        })
        .unwrap();
    assert_eq!(count, 10_000);
}

#[derive(Debug, Clone)]
enum Act {
    Take(u8),
    GiveBack(u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A number never has two owners, an owner keeps its number, and a full range is refused.
    #[test]
    fn a_number_has_one_owner(acts in proptest::collection::vec(
        prop_oneof![3 => (0_u8..8).prop_map(Act::Take), 1 => (0_u8..8).prop_map(Act::GiveBack)], 1..40)
    ) {
        let (_folder, path) = place();
        let journal = Journal::create(&path).unwrap();
        let mut owners = std::collections::BTreeMap::new();
        for act in acts {
            match act {
                Act::GiveBack(owner) => {
                    journal.write_blocking(move |e| e.taken("port").give_back(&[owner])).unwrap();
                    owners.remove(&owner);
                }
                Act::Take(owner) => {
                    let taken = journal.write_blocking(move |e| e.taken("port").take(&[owner], 10..=14));
                    match taken {
                        Ok(number) => {
                            prop_assert!((10..=14).contains(&number));
                            prop_assert!(owners.iter().all(|(o, n)| *o == owner || *n != number));
                            if let Some(before) = owners.insert(owner, number) {
                                prop_assert_eq!(before, number);
                            }
                        }
                        Err(JournalError::Taken(TakenError::NoneFree(_))) => {
                            prop_assert!(owners.len() == 5 && !owners.contains_key(&owner));
                        }
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
            }
        }
    }
}
