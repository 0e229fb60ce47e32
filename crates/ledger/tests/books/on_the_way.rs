//! A box between client and ledger that changes or repeats answers is noticed.

use std::sync::{Arc, Mutex};

use crate::setting::{HOUR_MS, PAYER, START_MS, Setting, VOUCHER, free, key};
use escrow::{Amount, Rail, RailError, RailTime, Sure, Wallet};
use ledger::{LedgerRail, LedgerWallet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the box does with an answer before it hands it on.
type Tamper = Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>;

/// A box in front of the ledger; returns HOST:PORT.
async fn put_box_before(ledger: String, tamper: Tamper) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (ledger, tamper) = (ledger.clone(), tamper.clone());
            tokio::spawn(async move { pass_one(client, &ledger, &tamper).await });
        }
    });
    authority
}

/// One request, one answer, both read whole by their content-length.
async fn pass_one(mut client: TcpStream, ledger: &str, tamper: &Tamper) {
    let Some(request) = read_message(&mut client).await else {
        return;
    };
    let mut upstream = TcpStream::connect(ledger).await.unwrap();
    upstream.write_all(&request).await.unwrap();
    let answer = read_message(&mut upstream).await.unwrap();
    let _ = client.write_all(&tamper(answer)).await;
}

async fn read_message(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0u8; 4096];
        let count = from.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
        if let Some(head) = body_start(&bytes) {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if bytes.len() >= head + length {
                return Some(bytes);
            }
        }
    }
}

fn body_start(message: &[u8]) -> Option<usize> {
    message
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn assert_unknown<T: std::fmt::Debug>(result: Result<T, RailError>, word: &str) {
    match result {
        Err(RailError::Unknown(why)) => assert!(why.contains(word), "{why}"),
        other => panic!("noticed nothing: {other:?}"),
    }
}

async fn rail_behind(setting: &Setting, tamper: Tamper) -> LedgerRail {
    let address = setting.address();
    let authority = put_box_before(address.authority().to_owned(), tamper).await;
    LedgerRail::new(ledger::RailAddress::new(address.key(), &authority).unwrap()).unwrap()
}

#[tokio::test]
async fn an_honest_box_passes() {
    let setting = Setting::new().await;
    let rail = rail_behind(&setting, Arc::new(|answer| answer)).await;
    assert_eq!(rail.now().await.unwrap(), RailTime(START_MS));
}

#[tokio::test]
async fn any_flipped_bit_of_an_answer_is_noticed() {
    let setting = Setting::new().await;
    let reference = rail_behind(&setting, Arc::new(|answer| answer)).await;
    let length = Arc::new(Mutex::new(0));
    let seen = length.clone();
    let measure = rail_behind(
        &setting,
        Arc::new(move |answer| {
            *seen.lock().unwrap() = answer.len() - body_start(&answer).unwrap();
            answer
        }),
    )
    .await;
    measure.view(&setting.terms(1), Sure::Final).await.unwrap();
    reference.view(&setting.terms(1), Sure::Final).await.unwrap();
    let bits = *length.lock().unwrap() * 8;
    assert!(bits > 1000);
    let at = Arc::new(Mutex::new(0));
    let flips = at.clone();
    let rail = rail_behind(
        &setting,
        Arc::new(move |mut answer| {
            let bit = *flips.lock().unwrap();
            let start = body_start(&answer).unwrap();
            answer[start + bit / 8] ^= 1 << (bit % 8);
            answer
        }),
    )
    .await;
    for bit in (0..bits).step_by(7) {
        *at.lock().unwrap() = bit;
        assert_unknown(rail.view(&setting.terms(1), Sure::Final).await, "signed");
    }
}

#[tokio::test]
async fn an_old_answer_is_noticed_and_the_money_is_not_believed() {
    let setting = Setting::new().await;
    setting.fund(PAYER, 100, 1).await;
    let first: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let kept = first.clone();
    let rail = rail_behind(
        &setting,
        Arc::new(move |answer| kept.lock().unwrap().get_or_insert(answer).clone()),
    )
    .await;
    let account = setting.account(PAYER);
    assert_eq!(free(&rail, &account).await, 100);
    assert_unknown(rail.balance_of(&account).await, "signed");

    // The act went through all the same, which is what "unknown" means; repeating is safe.
    let wallet = LedgerWallet::new(rail, key(PAYER)).with_voucher_key(key(VOUCHER));
    let (terms, expiry) = (setting.terms(1), RailTime(START_MS + HOUR_MS));
    assert_unknown(wallet.lock(&terms, Amount(60), expiry).await, "signed");
    let view = setting.wallet().lock(&terms, Amount(60), expiry).await.unwrap();
    assert_eq!(view.funded, Amount(60));
    assert_eq!(free(&setting.rail(), &account).await, 40);
}

#[tokio::test]
async fn an_answer_by_another_ledger_is_noticed() {
    let (setting, other) = (Setting::new().await, Setting::new().await);
    let moved = ledger::RailAddress::new(setting.address().key(), other.address().authority());
    assert_unknown(LedgerRail::new(moved.unwrap()).unwrap().now().await, "signed");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_long_answer_not_read() {
    let setting = Setting::new().await;
    let target = setting.address().url();
    let redirect = Arc::new(move |_| {
        format!("HTTP/1.1 307 Go\r\nlocation: {target}/v1\r\ncontent-length: 0\r\n\r\n").into_bytes()
    });
    assert_unknown(rail_behind(&setting, redirect).await.now().await, "307");
    let long = Arc::new(|answer: Vec<u8>| {
        let head = String::from_utf8(answer[..body_start(&answer).unwrap()].to_vec()).unwrap();
        let signature = head
            .lines()
            .find(|line| line.starts_with("steading-signature"))
            .unwrap()
            .to_owned();
        let mut bytes = format!("HTTP/1.1 200 OK\r\n{signature}\r\nconnection: close\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + ledger::wire::ANSWER_BYTES + 1, b' ');
        bytes
    });
    assert_unknown(rail_behind(&setting, long).await.now().await, "too long");
    let silent = LedgerRail::new(ledger::RailAddress::new([1; 32], "127.0.0.1:1").unwrap()).unwrap();
    assert_unknown(silent.now().await, "127.0.0.1:1");
}

#[tokio::test]
async fn a_long_or_senseless_request_changes_nothing() {
    let setting = Setting::new().await;
    let authority = setting.address().authority().to_owned();
    for (body, status) in [
        (vec![b' '; ledger::wire::REQUEST_BYTES + 1], "413"),
        (b"{\"nonce\": 1}".to_vec(), "200"),
        (vec![0xff; 100], "200"),
    ] {
        let mut stream = TcpStream::connect(&authority).await.unwrap();
        let head = format!(
            "POST /v1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(&body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(
            status == "413" || answer.contains("\"kind\":\"invalid\""),
            "{answer}"
        );
    }
    assert_eq!(
        setting
            .rail()
            .ask(ledger::wire::Ask::Now)
            .await
            .unwrap()
            .journal
            .sequence,
        0
    );
}
