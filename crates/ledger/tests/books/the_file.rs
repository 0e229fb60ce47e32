//! The file: append-only, audited at every start, one process at a time, kills included.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::setting::{HOUR_MS, PAYER, START_MS, Setting, VOUCHER, account, fund, key, terms};
use escrow::{Amount, RailError, RailTime, Wallet};
use ledger::server::{Ledger, ServeError};
use ledger::store::{OpenError, audit::AuditError, pace::Pace};
use ledger::{LedgerRail, LedgerWallet, RailAddress, wire::Ask};
use rusqlite::Connection;

async fn booked() -> Setting {
    let mut setting = Setting::new().await;
    setting.fund(PAYER, 1_000, 1).await;
    let (wallet, terms) = (setting.wallet(), setting.terms(1));
    wallet
        .lock(&terms, Amount(300), RailTime(START_MS + HOUR_MS))
        .await
        .unwrap();
    let voucher = wallet.voucher(&terms, Amount(100), RailTime(0)).unwrap();
    escrow::Rail::redeem(&wallet, &terms, &voucher).await.unwrap();
    setting.stop().await;
    setting
}

fn change(setting: &Setting, sql: &str) -> rusqlite::Result<()> {
    Connection::open(setting.dir.path().join("ledger.sqlite"))?.execute_batch(sql)
}

fn audit_of(setting: &Setting) -> AuditError {
    match Ledger::open(setting.dir.path(), None, Pace::default()).map(|_| ()) {
        Err(ServeError::Open(error)) => match *error {
            OpenError::Audit { source, .. } => source,
            other => panic!("refused for another reason: {other}"),
        },
        other => panic!("served: {other:?}"),
    }
}

const UNLOCKED: &str = "DROP TRIGGER entry_is_never_changed; DROP TRIGGER entry_is_never_removed; ";

#[tokio::test]
async fn the_tables_themselves_refuse_what_must_not_be() {
    let setting = booked().await;
    for (sql, word) in [
        ("UPDATE entry SET amount = 1 WHERE sequence = 1", "append-only"),
        ("DELETE FROM entry WHERE sequence = 3", "append-only"),
        (
            "UPDATE account SET balance = -1 WHERE name LIKE 'steading:%'",
            "CHECK",
        ),
        ("UPDATE lease SET paid = funded + 1", "CHECK"),
        ("UPDATE lease SET state = 'open'", "CHECK"),
        (
            "INSERT INTO entry SELECT sequence + 1, time, operation, instruction, debit, credit, amount, hash, zeroblob(32) FROM entry WHERE sequence = 3",
            "UNIQUE",
        ),
        ("UPDATE account SET balance = 'much'", "cannot store TEXT"),
    ] {
        let error = change(&setting, sql).unwrap_err().to_string();
        assert!(error.contains(word), "{sql}: {error}");
    }
    Ledger::open(setting.dir.path(), None, Pace::default())
        .map(|_| ())
        .unwrap();
}

#[tokio::test]
async fn an_entry_changed_by_hand_is_found() {
    for (sql, at) in [
        ("UPDATE entry SET amount = amount + 1 WHERE sequence = 2", 2),
        ("UPDATE entry SET credit = credit || 'x' WHERE sequence = 1", 1),
        ("UPDATE entry SET instruction = '{}' WHERE sequence = 3", 3),
        ("DELETE FROM entry WHERE sequence = 2", 3),
        ("UPDATE entry SET time = 1 WHERE sequence = 3", 3),
    ] {
        let setting = booked().await;
        change(&setting, &format!("{UNLOCKED}{sql}")).unwrap();
        match audit_of(&setting) {
            AuditError::Chain { sequence, .. } => assert_eq!(sequence, at, "{sql}"),
            other => panic!("{sql}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_balance_or_a_lock_changed_by_hand_is_found() {
    let setting = booked().await;
    change(
        &setting,
        "UPDATE account SET balance = balance + 1 WHERE name LIKE 'steading:%'",
    )
    .unwrap();
    assert!(matches!(audit_of(&setting), AuditError::Balance { .. }));
    for sql in [
        "UPDATE lease SET funded = funded + 1",
        "UPDATE lease SET paid = paid - 1",
        "UPDATE lease SET state = 'closed'",
    ] {
        let setting = booked().await;
        change(&setting, sql).unwrap();
        assert!(matches!(audit_of(&setting), AuditError::Lease { .. }), "{sql}");
    }
    // An entry cut off at the end leaves a whole chain, but not whole sums.
    let setting = booked().await;
    change(
        &setting,
        &format!("{UNLOCKED}DELETE FROM entry WHERE sequence = 3"),
    )
    .unwrap();
    assert!(matches!(audit_of(&setting), AuditError::Balance { .. }));
}

#[tokio::test]
async fn a_folder_is_served_once_and_by_its_own_key() {
    let setting = Setting::new().await;
    let second = Ledger::open(setting.dir.path(), None, Pace::default()).map(|_| ());
    assert!(matches!(second, Err(ServeError::Busy(_))), "{second:?}");
    let setting = booked().await;
    std::fs::remove_file(setting.dir.path().join("ledger.key")).unwrap();
    let other_key = Ledger::open(setting.dir.path(), None, Pace::default()).map(|_| ());
    assert!(
        matches!(&other_key, Err(ServeError::Open(error)) if matches!(**error, OpenError::Name { .. })),
        "{other_key:?}"
    );
    let setting = booked().await;
    change(&setting, "UPDATE ledger SET version = 4").unwrap();
    let newer = Ledger::open(setting.dir.path(), None, Pace::default()).map(|_| ());
    assert!(
        matches!(&newer, Err(ServeError::Open(error)) if matches!(**error, OpenError::Version { found: 4, .. })),
        "{newer:?}"
    );
}

/// A file of an older version opens, keeps what it holds, and is one of this afterwards.
#[tokio::test]
async fn a_file_of_an_older_version_is_taken_over() {
    const TO_2: &str = "DROP TABLE redeemed; UPDATE ledger SET version = 2;";
    const TO_1: &str =
        "DROP TABLE begun; DROP INDEX lease_open; CREATE INDEX lease_by_payer ON lease (payer);
         UPDATE ledger SET version = 1;";
    for back in [TO_2.to_owned(), format!("{TO_2}{TO_1}")] {
        is_taken_over(&back).await;
    }
}

async fn is_taken_over(back: &str) {
    let mut setting = booked().await;
    change(&setting, back).unwrap();
    for _ in 0..2 {
        setting.start().await;
        let balance = setting.rail().balance_of(&setting.account(PAYER)).await.unwrap();
        assert_eq!((balance.free.0, balance.locked.0), (700, 200));
        setting.stop().await;
    }
    let file = Connection::open(setting.dir.path().join("ledger.sqlite")).unwrap();
    let count = "SELECT count(*) FROM sqlite_schema WHERE name IN ('lease_open', 'begun', 'redeemed', 'redeemed_free', 'lease_by_payer')";
    let known: (i64, i64) = file
        .query_row(&format!("SELECT version, ({count}) FROM ledger"), [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(known, (3, 4));
}

/// The name of the variable that turns this program into a ledger.
const CHILD: &str = "STEADING_TEST_LEDGER";

#[test]
#[ignore = "the ledger that the next test starts as a process of its own and kills"]
fn child_process_that_serves() {
    let dir = std::env::var(CHILD).expect("started by the next test");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = ledger::server::Config {
            dir: dir.into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            time: None,
            bounds: ledger::server::Bounds {
                // as fast as it can, for as long as it lives
                pace: Pace {
                    steps_an_hour: u32::MAX,
                    ..Pace::default()
                },
                ..ledger::server::Bounds::default()
            },
        };
        let serving = ledger::server::serve(config).await.unwrap();
        println!("\nserving {}", serving.address());
        std::future::pending::<()>().await;
    });
}

fn start_child(dir: &std::path::Path) -> (Child, RailAddress) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "the_file::child_process_that_serves",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .map(|line| line.unwrap())
        .find_map(|line| Some(line.strip_prefix("serving ")?.parse().unwrap()))
        .unwrap();
    (child, address)
}

/// Clients lock in growing totals while the ledger is killed under them; what
/// was acknowledged is there afterwards, and nothing is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_keeps_every_promise() {
    const CLIENTS: u8 = 8;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0u128; CLIENTS as usize];
    for round in 0..5u128 {
        let (mut child, address) = start_child(dir.path());
        let rail = LedgerRail::new(address.clone()).unwrap();
        fund(dir.path(), &rail, &account(&address, PAYER), 1_000_000, 1).await;
        let now_ms = rail.ask(Ask::Now).await.unwrap().time.0;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|sale| {
                let wallet = LedgerWallet::new(rail.clone(), key(PAYER)).with_voucher_key(key(VOUCHER));
                let terms = terms(&address, sale);
                let from = acknowledged[usize::from(sale)];
                tokio::spawn(async move {
                    let (mut known, mut asked) = (from, from);
                    loop {
                        asked += 1;
                        let expiry = RailTime(now_ms + HOUR_MS);
                        match wallet.lock(&terms, Amount(asked), expiry).await {
                            Ok(view) => known = view.funded.0,
                            Err(RailError::Unknown(_)) => return (known, asked),
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        // Let some entries be written, a different count each round, then kill.
        let goal = rail.ask(Ask::Now).await.unwrap().journal.sequence + 20 + 7 * round as u64;
        while rail.ask(Ask::Now).await.unwrap().journal.sequence < goal {
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut asked = Vec::new();
        for (client, known) in clients.into_iter().zip(&mut acknowledged) {
            let (kept, last_asked) = client.await.unwrap();
            *known = kept;
            asked.push(last_asked);
        }
        let (mut child, address) = start_child(dir.path());
        let rail = LedgerRail::new(address.clone()).unwrap();
        for sale in 0..CLIENTS {
            let terms = terms(&address, sale);
            let view = escrow::Rail::view(&rail, &terms, escrow::Sure::Final)
                .await
                .unwrap();
            let known = &mut acknowledged[usize::from(sale)];
            assert!(view.funded.0 >= *known, "a promise was lost");
            assert!(
                view.funded.0 <= asked[usize::from(sale)],
                "booked what was never asked"
            );
            *known = view.funded.0;
        }
        let balance = rail.balance_of(&account(&address, PAYER)).await.unwrap();
        assert_eq!(balance.locked.0, acknowledged.iter().sum::<u128>());
        assert_eq!(balance.free.0 + balance.locked.0, 1_000_000);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
