//! Who holds the ledger's connections, or its patience, harms himself alone. Each bound has its control: the same with
//! the bound far away.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::setting::{HOUR_MS, PAYEE, PAYER, START_MS, Setting, key};
use escrow::{Amount, Rail, RailError, RailTime, Terms, Wallet};
use ledger::LedgerWallet;
use ledger::server::Bounds;
use ledger::store::{LOCKED, OPEN, read_locked, read_open};
use rusqlite::{Connection, params};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(300);
const FAR: Duration = Duration::from_secs(3600);
/// What must come has come by then.
const SOON: Duration = Duration::from_secs(20);
/// What must not come is waited for so long: some times [`SHORT`].
const A_WHILE: Duration = Duration::from_millis(1500);

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

async fn connect(setting: &Setting, from: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let to = setting.address().authority().parse().unwrap();
    socket.connect(to).await.unwrap()
}

fn head(length: usize) -> String {
    format!("POST /v1 HTTP/1.1\r\nhost: ledger\r\ncontent-length: {length}\r\n\r\n")
}

/// What the ledger says before it closes; none if it says and does nothing.
async fn said(stream: &mut TcpStream, within: Duration) -> Option<String> {
    let mut all = Vec::new();
    // A reset is a close too.
    timeout(within, stream.read_to_end(&mut all))
        .await
        .ok()?
        .unwrap_or_default();
    Some(String::from_utf8_lossy(&all).into_owned())
}

/// Whether somebody there gets an answer.
async fn is_answered(setting: &Setting, from: IpAddr) -> bool {
    let body = format!(
        "{{\"nonce\":\"{}\",\"ask\":{{\"kind\":\"now\"}}}}",
        "00".repeat(32)
    );
    let mut stream = connect(setting, from).await;
    let request = format!("{}{body}", head(body.len())).replace("host:", "connection: close\r\nhost:");
    stream.write_all(request.as_bytes()).await.is_ok()
        && said(&mut stream, SOON).await.unwrap().starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    for (head, ends) in [(SHORT, true), (FAR, false)] {
        let setting = Setting::with(Bounds {
            head,
            ..Bounds::default()
        })
        .await;
        let (mut half, mut silent) = (connect(&setting, HERE).await, connect(&setting, HERE).await);
        half.write_all(b"POST /v1 HTTP/1.1\r\nhost:").await.unwrap();
        let within = if ends { SOON } else { A_WHILE };
        let (of_half, of_silent) = tokio::join!(said(&mut half, within), said(&mut silent, within));
        assert_eq!((of_half.is_some(), of_silent.is_some()), (ends, ends), "{head:?}");
        assert!(is_answered(&setting, HERE).await);
    }
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    for (body, ends) in [(SHORT, true), (FAR, false)] {
        let setting = Setting::with(Bounds {
            body,
            ..Bounds::default()
        })
        .await;
        let mut slow = connect(&setting, HERE).await;
        slow.write_all(head(100).as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        let within = if ends { SOON } else { A_WHILE };
        let read = timeout(within, slow.read_exact(&mut begun)).await;
        assert_eq!(read.is_ok(), ends, "{body:?}");
        if ends {
            assert_eq!(&begun, b"HTTP/1.1 408");
        }
        assert!(is_answered(&setting, HERE).await);
    }
}

#[tokio::test]
async fn one_address_leaves_connections_to_another() {
    for (connections_an_address, leaves) in [(4, true), (usize::MAX, false)] {
        let setting = Setting::with(Bounds {
            connections: 8,
            connections_an_address,
            ..Bounds::default()
        })
        .await;
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(connect(&setting, HERE).await);
        }
        let mut last = held.pop().unwrap();
        let is_closed = said(&mut last, if leaves { SOON } else { A_WHILE })
            .await
            .is_some();
        assert_eq!(is_closed, leaves, "the eighth of one address");
        held.push(last);
        assert_eq!(is_answered(&setting, ELSEWHERE).await, leaves, "another address");
        drop(held);
        let free_again = async {
            while !is_answered(&setting, HERE).await {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, free_again).await.expect("a place is given back");
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_a_while_only() {
    for (connection, ends) in [(SHORT, true), (FAR, false)] {
        let setting = Setting::with(Bounds {
            connection,
            goodbye: SHORT,
            ..Bounds::default()
        })
        .await;
        let mut slow = connect(&setting, HERE).await;
        slow.write_all(head(100).as_bytes()).await.unwrap();
        let within = if ends { SOON } else { A_WHILE };
        assert_eq!(said(&mut slow, within).await.is_some(), ends, "{connection:?}");
    }
}

/// A payer who extends his lock by a millisecond a thousand times leaves no record; by a minute, or with money, he does.
#[tokio::test]
async fn an_extension_that_costs_nothing_leaves_nothing() {
    let setting = Setting::new().await;
    let (wallet, terms) = (setting.wallet(), setting.terms(1));
    setting.fund(PAYER, 500, 1).await;
    let expiry = RailTime(START_MS + HOUR_MS);
    let records = async || {
        let now = setting.rail().ask(ledger::wire::Ask::Now).await.unwrap();
        now.journal.sequence
    };
    wallet.lock(&terms, Amount(100), expiry).await.unwrap();
    let before = records().await;
    for ms in 1..100 {
        let view = wallet
            .lock(&terms, Amount(100), expiry.plus_ms(ms * 600))
            .await
            .unwrap();
        assert_eq!(view.expiry, expiry);
    }
    assert_eq!(records().await, before);
    let later = expiry.plus_ms(escrow::lock::LEAST_STEP_MS);
    let view = wallet.lock(&terms, Amount(100), later).await.unwrap();
    assert_eq!(
        (view.expiry, records().await),
        (later, before + 1),
        "the control: a step"
    );
    let with_money = later.plus_ms(1);
    let view = wallet.lock(&terms, Amount(101), with_money).await.unwrap();
    assert_eq!(
        (view.expiry, records().await),
        (with_money, before + 2),
        "the control: money"
    );
}

/// The bounds on locks are of one payer; they are set near by what the file says, for reaching them takes hours.
#[tokio::test]
async fn a_payer_past_its_locks_is_refused_and_another_is_served() {
    let setting = Setting::new().await;
    setting.fund(PAYER, 1_000, 1).await;
    setting.fund(PAYEE, 1_000, 2).await;
    let file = Connection::open(setting.dir.path().join("ledger.sqlite")).unwrap();
    let lock = async |payer: u8, sale: u8, total: u128| {
        let wallet = LedgerWallet::new(setting.rail(), key(payer));
        let terms = Terms {
            payer: setting.account(payer),
            ..setting.terms(sale)
        };
        let expiry = RailTime(setting.rail().now().await.unwrap().0 + 9 * HOUR_MS);
        wallet
            .lock(&terms, Amount(total), expiry)
            .await
            .map(|view| view.funded.0)
    };
    let is_refused = |answer: Result<u128, RailError>, word: &str| match answer {
        Err(RailError::Refused(refusal)) => assert!(refusal.to_string().contains(word), "{refusal}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(lock(PAYER, 1, 10).await.unwrap(), 10);
    file.execute("UPDATE begun SET locks = 599", ()).unwrap();
    assert_eq!(lock(PAYER, 2, 10).await.unwrap(), 10, "the last one of this hour");
    is_refused(lock(PAYER, 3, 10).await, "in this hour");
    is_refused(lock(PAYER, 2, 20).await, "in this hour");
    assert_eq!(
        lock(PAYER, 2, 10).await.unwrap(),
        10,
        "what changes nothing is not counted"
    );
    assert_eq!(lock(PAYEE, 4, 10).await.unwrap(), 10, "another payer");
    setting.pass_ms(HOUR_MS);
    assert_eq!(lock(PAYER, 3, 10).await.unwrap(), 10, "an hour later");
    assert_eq!(
        lock(PAYER, 3, 20).await.unwrap(),
        20,
        "more into one that is there"
    );

    let add = |state: &str, number: u32| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
             INSERT INTO lease SELECT unhex(printf('%064x', i)), '{}', ?1, 'x', ?2, 1, 0, 1, 1, NULL FROM n";
        let payer = setting.account(PAYER).to_string();
        file.execute(sql, (payer, state, number)).unwrap();
    };
    add("closed", 4093);
    assert_eq!(
        lock(PAYER, 5, 10).await.unwrap(),
        10,
        "what is closed does not count"
    );
    file.execute("UPDATE lease SET state = 'locked' WHERE state = 'closed'", ())
        .unwrap();
    is_refused(lock(PAYER, 6, 10).await, "4096 open locks");
    assert_eq!(
        lock(PAYER, 5, 20).await.unwrap(),
        20,
        "more into one is no new one"
    );
    assert_eq!(lock(PAYEE, 7, 10).await.unwrap(), 10);
}

/// How SQLite answers this question.
fn plan(connection: &Connection, question: &str) -> String {
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {question}"))
        .unwrap();
    let bound: [&dyn rusqlite::ToSql; 3] = [&"payer", &"", &10];
    let wanted = statement.parameter_count();
    let steps = statement.query_map(&bound[..wanted], |row| row.get::<_, String>(3));
    steps.unwrap().collect::<Result<Vec<_>, _>>().unwrap().join("; ")
}

#[test]
fn ten_thousand_closed_locks_do_not_change_the_plan() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(include_str!("../../src/store/schema.sql"))
        .unwrap();
    let add = |state: &str, from: i64, to: i64| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT ?2 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
             INSERT INTO lease SELECT unhex(printf('%064x', i)), '{}', 'payer', 'payee', ?1, 5, 0, 1, 1, NULL FROM n";
        connection.execute(sql, params![state, from, to]).unwrap();
    };
    add("locked", 1, 3);
    for closed in [0, 10_000] {
        if closed > 0 {
            add("closed", 4, 3 + closed);
        }
        let walked = "SEARCH lease USING INDEX lease_open (payer=?";
        for question in [LOCKED, OPEN] {
            let plan = plan(&connection, question);
            assert!(plan.starts_with(walked), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "nothing is sorted: {plan}");
        }
        assert_eq!(read_locked(&connection, "payer").unwrap(), 15);
        assert_eq!(read_open(&connection, "payer", None, 10).unwrap().len(), 3);
    }
    // As it was before: the index has all of them, and each is looked at.
    connection
        .execute_batch("DROP INDEX lease_open; CREATE INDEX lease_by_payer ON lease (payer)")
        .unwrap();
    assert!(plan(&connection, LOCKED).contains("lease_by_payer"));
}
