//! Copies over real files, those that cannot keep up included.

use market::id::SaleId;
use proptest::prelude::*;
use rusqlite::types::Value;
use tempfile::TempDir;

use super::*;
use crate::journal::{Event, Journal, SaleRow};
use crate::step::StepState;

const TABLES: [&str; 6] = ["sales", "steps", "taken", "counters", "rows", "events"];

fn folder() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (lead, copy) = (
        folder.path().join("lead.sqlite"),
        folder.path().join("copy.sqlite"),
    );
    (folder, lead, copy)
}

/// Everything that a file holds, as it lies there with its log: as after a cut.
fn held(path: &Path) -> Vec<Vec<Value>> {
    let cut = tempfile::tempdir().unwrap();
    let to = cut.path().join("cut.sqlite");
    std::fs::copy(path, &to).unwrap();
    let log = path.with_extension("sqlite-wal");
    if log.exists() {
        std::fs::copy(log, to.with_extension("sqlite-wal")).unwrap();
    }
    let connection = Connection::open(&to).unwrap();
    let mut all = Vec::new();
    for table in TABLES {
        let mut statement = connection
            .prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
            .unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            all.push((0..columns).map(|at| row.get(at).unwrap()).collect());
        }
    }
    all
}

fn put(journal: &Journal, value: u8) {
    journal
        .write_blocking(move |entry| entry.put_row("room", b"key", &[value]))
        .unwrap();
}

#[test]
fn what_was_acknowledged_is_on_the_copy_and_without_following_it_is_not() {
    let (folder, lead, copy) = folder();
    let once = folder.path().join("once.sqlite");
    let journal = Journal::create(&lead).unwrap();
    put(&journal, 1);
    journal.follow(&copy).unwrap();
    journal.copy_to(&once).unwrap();
    put(&journal, 2);
    assert_eq!(held(&lead), held(&copy));
    assert_ne!(
        held(&lead),
        held(&once),
        "the control: a copy that does not follow"
    );
    let writes = |path: &Path| Journal::peek(path, |entry| entry.writes()).unwrap();
    journal.close();
    assert_eq!((writes(&lead), writes(&copy), writes(&once)), (2, 2, 1));
}

#[test]
fn a_copy_replaces_what_stood_there_with_its_log() {
    let (_folder, lead, copy) = folder();
    let before = Journal::create(&copy).unwrap();
    put(&before, 9);
    // Its process died: file and log stay.
    let log = copy.with_extension("sqlite-wal");
    let (file, tail) = (std::fs::read(&copy).unwrap(), std::fs::read(&log).unwrap());
    before.close();
    std::fs::write(&copy, file).unwrap();
    std::fs::write(&log, tail).unwrap();
    let journal = Journal::create(&lead).unwrap();
    put(&journal, 1);
    journal.follow(&copy).unwrap();
    put(&journal, 2);
    assert_eq!(held(&lead), held(&copy));
}

#[test]
fn what_failed_is_on_no_copy() {
    let (_folder, lead, copy) = folder();
    let journal = Journal::create(&lead).unwrap();
    journal.follow(&copy).unwrap();
    put(&journal, 1);
    let failed: Result<(), _> = journal.write_blocking(|entry| {
        entry.put_row("room", b"key", b"half")?;
        Err(JournalError::Row("on purpose".into()))
    });
    assert!(failed.is_err());
    put(&journal, 2);
    assert_eq!(held(&lead), held(&copy));
}

/// A transaction that wrote so many bytes.
fn change(value: u8, bytes: usize) -> Vec<Redo> {
    let mut connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE rows (room, key, value, PRIMARY KEY (room, key))")
        .unwrap();
    let transaction = connection.transaction().unwrap();
    let change = crate::journal::redo::Change::new(&transaction);
    let entry = crate::journal::Entry::new(&change);
    entry.put_row("room", &[value], &vec![value; bytes]).unwrap();
    change.into_redo()
}

#[test]
fn a_full_disk_of_a_copy_stops_neither_the_journal_nor_the_other_copy() {
    let (folder, lead, copy) = folder();
    let full = folder.path().join("full.sqlite");
    let journal = Journal::create(&lead).unwrap();
    journal.copy_to(&copy).unwrap();
    journal.copy_to(&full).unwrap();
    let small = open::open(&full).unwrap();
    let pages: i64 = small
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    small
        .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        .unwrap();
    let mut copies = Copies {
        followers: vec![
            Follower::over(&full, small).unwrap(),
            Follower::start(&copy).unwrap(),
        ],
        ..Copies::default()
    };
    copies.bring(change(1, 100_000));
    copies.bring(change(2, 100_000));
    assert_eq!(
        copies.standings(),
        [(copy.clone(), Standing::Follows), (full.clone(), Standing::Left)]
    );
    assert_eq!((rows(&copy), rows(&full)), (2, 0));
}

/// A copy whose disk is the test: it answers when it is told to.
struct SlowDisk {
    connection: Connection,
    queue: mpsc::Receiver<Work>,
}

impl SlowDisk {
    fn new(path: &Path) -> (SlowDisk, Follower, mpsc::Sender<()>) {
        let (work, queue) = mpsc::channel();
        let (open, closed) = mpsc::channel();
        let follower = Follower {
            path: path.to_owned(),
            work,
            closed,
            owed: VecDeque::new(),
            late: None,
        };
        let connection = open::open(path).unwrap();
        (SlowDisk { connection, queue }, follower, open)
    }

    fn answer(&mut self) {
        for work in self.queue.try_iter() {
            work.answer.send(apply(&mut self.connection, &work.redo)).unwrap();
        }
    }
}

/// Copies of an empty journal: this one.
fn slow(patience: Duration, rest: Duration) -> (TempDir, PathBuf, SlowDisk, Copies, mpsc::Sender<()>) {
    let (folder, _, copy) = folder();
    Journal::create(&copy).unwrap().close();
    let (disk, follower, open) = SlowDisk::new(&copy);
    let copies = Copies {
        followers: vec![follower],
        patience,
        rest,
        ..Copies::default()
    };
    (folder, copy, disk, copies, open)
}

fn rows(path: &Path) -> usize {
    let mut held = held(path);
    held.retain(|row| row[0] == Value::Text("room".into()));
    held.len()
}

#[test]
fn a_copy_that_was_slow_once_gets_all_it_lacks_and_follows_again() {
    let (_folder, copy, mut disk, mut copies, _open) = slow(Duration::from_millis(20), Duration::ZERO);
    let standing = |copies: &mut Copies| copies.standings()[0].1;
    assert_eq!(standing(&mut copies), Standing::Follows);
    copies.bring(change(1, 10));
    assert_eq!(standing(&mut copies), Standing::Behind);
    // Nobody waits for it now, and it is given what is written meanwhile.
    copies.patience = Duration::from_secs(3600);
    copies.bring(change(2, 10));
    assert_eq!((standing(&mut copies), rows(&copy)), (Standing::Behind, 0));
    disk.answer();
    assert_eq!((standing(&mut copies), rows(&copy)), (Standing::Follows, 2));
    // It is waited for again.
    let brought = std::thread::spawn(move || {
        copies.bring(change(3, 10));
        copies
    });
    let work = disk.queue.recv().unwrap();
    assert!(!brought.is_finished());
    work.answer.send(apply(&mut disk.connection, &work.redo)).unwrap();
    let mut copies = brought.join().unwrap();
    assert_eq!((standing(&mut copies), rows(&copy)), (Standing::Follows, 3));
}

#[test]
fn a_copy_that_is_slow_again_and_again_costs_its_time_once_in_a_while() {
    let (_folder, _, mut disk, mut copies, _open) =
        slow(Duration::from_millis(20), Duration::from_secs(3600));
    copies.bring(change(1, 10));
    disk.answer();
    // It has all, and is not waited for before its rest is over.
    copies.patience = Duration::from_secs(3600);
    copies.bring(change(2, 10));
    assert_eq!(copies.standings()[0].1, Standing::Behind);
}

#[test]
fn a_copy_that_never_answers_is_left_and_its_file_is_not_touched_before_it_is_closed() {
    let (_folder, copy, disk, mut copies, open) = slow(Duration::ZERO, Duration::ZERO);
    for _ in 0..=MOST_OWED {
        copies.bring(Vec::new());
    }
    assert_eq!(copies.standings(), [(copy.clone(), Standing::Silent)]);
    drop((disk, open));
    assert_eq!(copies.standings(), [(copy, Standing::Left)]);
}

#[derive(Debug, Clone)]
enum Act {
    Sale(u8, u64),
    RemoveSale(u8),
    Step(u8, bool),
    Take(u8),
    GiveBack(u8),
    Count,
    Row(u8, Vec<u8>),
    RemoveRow(u8),
    Event(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0_u8..4, any::<u32>()).prop_map(|(id, epoch)| Act::Sale(id, epoch.into())),
        (0_u8..4).prop_map(Act::RemoveSale),
        (0_u8..4, any::<bool>()).prop_map(|(id, done)| Act::Step(id, done)),
        (0_u8..4).prop_map(Act::Take),
        (0_u8..4).prop_map(Act::GiveBack),
        Just(Act::Count),
        (0_u8..4, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(key, value)| Act::Row(key, value)),
        (0_u8..4).prop_map(Act::RemoveRow),
        any::<u32>().prop_map(|at| Act::Event(at.into())),
    ]
}

fn perform(entry: &crate::journal::Entry<'_>, act: &Act) -> Result<(), JournalError> {
    let sale = |id: &u8| SaleId::from([*id; 32]);
    match act {
        Act::Sale(id, epoch) => entry.put_sale(&SaleRow {
            sale: sale(id),
            signed: vec![*id],
            state: "building".into(),
            spec: "{}".into(),
            host_key: None,
            epoch: *epoch,
        }),
        Act::RemoveSale(id) => entry.remove_sale(&sale(id)),
        Act::Step(id, true) => entry.record_step(&sale(id), "volume", &StepState::Applied),
        Act::Step(id, false) => entry.record_step(&sale(id), "volume", &StepState::Intended),
        Act::Take(id) => entry.taken("port").take(&[*id], 1..=9).map(drop),
        Act::GiveBack(id) => entry.taken("port").give_back(&[*id]),
        Act::Count => entry.count("boots").map(drop),
        Act::Row(key, value) => entry.put_row("room", &[*key], value),
        Act::RemoveRow(key) => entry.remove_row("room", &[*key]).map(drop),
        Act::Event(at_ms) => entry.add_event(&Event {
            at_ms: *at_ms,
            sale: None,
            text: "something".into(),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is written, in whatever transactions: the copy holds the same, row by row.
    #[test]
    fn a_copy_holds_what_the_journal_holds(
        transactions in proptest::collection::vec(proptest::collection::vec(act(), 1..5), 1..12),
        from in 0_usize..12,
    ) {
        let (_folder, lead, copy) = folder();
        let journal = Journal::create(&lead).unwrap();
        for (at, acts) in transactions.into_iter().enumerate() {
            if at == from.min(3) {
                journal.follow(&copy).unwrap();
            }
            journal
                .write_blocking(move |entry| acts.iter().try_for_each(|act| perform(entry, act)))
                .unwrap();
            if at >= from.min(3) {
                prop_assert_eq!(held(&lead), held(&copy));
            }
        }
    }
}
