//! `steading ledger serve`, killed again and again under load: what it acknowledged is in its books once, and nothing is
//! there that nobody asked for.
//!
//! Each client keeps a log of what was acknowledged. After each kill the books are compared with the logs, by a function
//! that a book with a missing or a doubled entry does not pass.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ed25519_dalek::SigningKey;
use escrow::{Account, Amount, RailError, RailKey, RailTime, Terms, Voucher};
use ledger::wire::{Answer, Ask};
use ledger::{LedgerRail, RailAddress, keys, signing};

const CLIENTS: u8 = 6;
const FUNDED: u128 = 1_000;
const PAID: u128 = 200;

/// Ten kills, or a hundred.
fn rounds() -> u32 {
    if std::env::var_os("STEADING_LONG").is_some() {
        100
    } else {
        10
    }
}

fn start(dir: &Path) -> (Child, RailAddress) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_steading"))
        .args(["ledger", "serve", "--listen", "127.0.0.1:0", "--dir"])
        .arg(dir)
        .env("STEADING_HOME", dir.join("home"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .parse()
        .unwrap_or_else(|error| panic!("{line:?}: {error}"));
    (child, address)
}

fn key(kind: u8, client: u8) -> SigningKey {
    SigningKey::from_bytes(&[kind, client].repeat(16).try_into().unwrap())
}

fn account(address: &RailAddress, kind: u8, client: u8) -> Account {
    Account::on_ledger(&address.key(), key(kind, client).verifying_key().as_bytes())
}

/// A whole sale, as the ledger sees it.
fn sale(address: &RailAddress, operator: &SigningKey, client: u8, number: u32) -> Vec<Ask> {
    let (payer, voucher_key, give_back) = (key(1, client), key(3, client), key(4, client));
    let public = |key: &SigningKey| RailKey::ed25519(key.verifying_key().as_bytes());
    let mut id = [client; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let terms = Terms {
        asset: ledger::ASSET.parse().unwrap(),
        payer: account(address, 1, client),
        payee: account(address, 2, client),
        voucher_key: public(&voucher_key),
        give_back_key: public(&give_back),
        sale: id,
        accept_window_ms: 3_600_000,
        notice_ms: 3_600_000,
    };
    let lease = terms.lease(&address.name());
    // The same in every process: an instruction that is repeated is the same one.
    let expiry = RailTime(4_000_000_000_000);
    let lock = |total: u128| Ask::Lock {
        terms: terms.clone(),
        total: Amount(total),
        expiry,
        signature: signing::sign(&payer, &signing::lock(&lease, Amount(total), expiry)),
    };
    let redeem = |sum: u128| Ask::Redeem {
        terms: terms.clone(),
        voucher: Voucher {
            lease,
            cumulative: Amount(sum),
            not_before: RailTime(0),
            signature: signing::sign(&voucher_key, &signing::voucher(&lease, Amount(sum), RailTime(0)))
                .to_vec(),
        },
    };
    let fund = signing::fund(&address.name(), &terms.payer, Amount(FUNDED), &id);
    vec![
        Ask::Fund {
            to: terms.payer.clone(),
            amount: Amount(FUNDED),
            id,
            signature: signing::sign(operator, &fund),
        },
        lock(300),
        redeem(100),
        lock(400),
        redeem(PAID),
        Ask::GiveBack {
            terms: terms.clone(),
            paid: Amount(PAID),
            signature: signing::sign(&give_back, &signing::give_back(&lease, Amount(PAID))),
        },
    ]
}

/// What one client did: acknowledged, and the one that it does not know of.
#[derive(Default, Clone)]
struct Log {
    acknowledged: Vec<Ask>,
    doubtful: Option<Ask>,
    sales: u32,
    left: Vec<Ask>,
}

/// Sells and buys until the ledger is gone, or the sales up to `until` are over.
async fn work(rail: LedgerRail, operator: SigningKey, client: u8, mut log: Log, until: u32) -> Log {
    loop {
        if log.left.is_empty() {
            if log.sales >= until {
                return log;
            }
            log.left = sale(rail.address(), &operator, client, log.sales);
            log.left.reverse();
            log.sales += 1;
        }
        let ask = log.left.last().unwrap().clone();
        log.doubtful = Some(ask.clone());
        match rail.ask(ask.clone()).await {
            Ok(reply) => match reply.answer {
                Answer::Lease { .. } | Answer::Balance { .. } => {
                    log.acknowledged.push(ask);
                    log.left.pop();
                    log.doubtful = None;
                }
                other => panic!("{ask:?}: {other:?}"),
            },
            Err(RailError::Unknown(_)) => return log,
            Err(other) => panic!("{ask:?}: {other}"),
        }
    }
}

type Books = BTreeMap<String, u32>;

/// Every instruction in the file, and how often it was booked.
fn books(dir: &Path) -> Books {
    let file = rusqlite::Connection::open(dir.join("ledger.sqlite")).unwrap();
    let mut query = file
        .prepare("SELECT instruction FROM entry ORDER BY sequence")
        .unwrap();
    let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut books = Books::new();
    for row in rows {
        *books.entry(row.unwrap()).or_default() += 1;
    }
    books
}

/// Acknowledged is booked once; what is booked was asked for.
fn compare(books: &Books, logs: &[Log]) -> Result<(), String> {
    let text = |ask: &Ask| serde_json::to_string(ask).unwrap();
    let mut asked = 0;
    for ask in logs.iter().flat_map(|log| &log.acknowledged) {
        match books.get(&text(ask)) {
            Some(1) => asked += 1,
            found => return Err(format!("acknowledged and booked {found:?} times: {ask:?}")),
        }
    }
    for ask in logs.iter().filter_map(|log| log.doubtful.as_ref()) {
        match books.get(&text(ask)) {
            None => {}
            Some(1) => asked += 1,
            Some(times) => return Err(format!("booked {times} times: {ask:?}")),
        }
    }
    if books.len() != asked {
        return Err(format!(
            "{} instructions are booked, {asked} were asked for",
            books.len()
        ));
    }
    Ok(())
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_it_keeps_what_it_acknowledged_and_books_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut logs = vec![Log::default(); usize::from(CLIENTS)];
    for round in 0..=rounds() {
        let last = round == rounds();
        let (mut child, address) = start(dir);
        let operator = keys::read(dir, keys::OPERATOR_KEY).unwrap();
        let rail = LedgerRail::new(address.clone()).unwrap();
        let tasks: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let log = logs[usize::from(client)].clone();
                let until = if last { log.sales } else { u32::MAX };
                tokio::spawn(work(rail.clone(), operator.clone(), client, log, until))
            })
            .collect();
        if !last {
            // Some entries, then in the middle of whatever is being written.
            let goal = rail.ask(Ask::Now).await.unwrap().journal.sequence + 1 + random() % 60;
            while rail.ask(Ask::Now).await.unwrap().journal.sequence < goal {
                tokio::task::yield_now().await;
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for (log, task) in logs.iter_mut().zip(tasks) {
            *log = task.await.unwrap();
        }
        if last {
            for client in 0..CLIENTS {
                let sales = u128::from(logs[usize::from(client)].sales);
                let payee = rail.balance_of(&account(&address, 2, client)).await.unwrap();
                assert_eq!(payee.free.0, sales * PAID, "client {client}");
                let payer = rail.balance_of(&account(&address, 1, client)).await.unwrap();
                assert_eq!((payer.free.0, payer.locked.0), (sales * (FUNDED - PAID), 0));
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        compare(&books(dir), &logs).unwrap_or_else(|why| panic!("after kill {round}: {why}"));
    }
    let booked = books(dir);
    let acknowledged: usize = logs.iter().map(|log| log.acknowledged.len()).sum();
    println!(
        "{} kills, {acknowledged} instructions acknowledged, {} booked",
        rounds(),
        booked.len()
    );
    assert_eq!(booked.len(), acknowledged);
    assert!(acknowledged > 10 * usize::try_from(rounds()).unwrap());

    // The controls: a book that lost one, that has one twice, and one that has what nobody asked for.
    let (first, _) = booked.first_key_value().unwrap();
    let mut lost = booked.clone();
    lost.remove(first);
    compare(&lost, &logs).unwrap_err();
    let mut twice = booked.clone();
    twice.insert(first.clone(), 2);
    compare(&twice, &logs).unwrap_err();
    let mut more = booked.clone();
    more.insert("{}".to_owned(), 1);
    compare(&more, &logs).unwrap_err();
}
