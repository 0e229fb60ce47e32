//! Sales with a node that lies, changes its mind, or falls silent: what the client does about it.
//! Ledger, grid and client are the real programs; the node speaks the protocol but has no machine,
//! and a small `ssh` of the test's own says what the space would.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use crate::person::write_ssh;
use crate::setting::{MONEY, Market, facts};
use crate::stand_in::PRICE;
use market::message::SaleState;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_goes_well_is_paid_by_the_period_and_the_rest_comes_back() {
    let market = Market::open().await;
    let asked = market.json(&["request", "--duration", "3h", "--offers", "1"]);
    assert_eq!(asked["offers"].as_array().unwrap().len(), 1);
    assert_eq!(asked["offers"][0]["price_in_all"], (3 * PRICE).to_string());
    let bought = market.json(&["buy", "1"]);
    let name = bought["name"].as_str().unwrap().to_owned();
    assert_eq!(bought["state"], "active");
    assert_eq!(bought["inside"]["outside_uid"], 1_000_000);
    assert_eq!(bought["inside"]["memory_max"], "536870912");
    assert_eq!(bought["price_of_period"], PRICE.to_string());
    let times = |json: &Value, names: &[&str]| -> Vec<u64> {
        names
            .iter()
            .map(|name| json["times"][name].as_u64().unwrap_or_else(|| panic!("{name}")))
            .collect()
    };
    let mut order = times(&asked, &["request_sent", "first_offer"]);
    order.extend(times(
        &bought,
        &["agreed", "funded", "keyed", "ready", "logged_in", "unlocked"],
    ));
    assert_eq!(market.balances(), (MONEY - 3 * PRICE, PRICE, 2 * PRICE));
    assert_eq!(
        market.node().knobs.vouchers.load(Ordering::SeqCst),
        3,
        "three are signed ahead"
    );
    for kind in ["request", "offer", "sale", "grant"] {
        let verified = market.json(&["verify", bought["sale"][kind].as_str().unwrap()]);
        assert_eq!(verified["kind"], kind);
    }
    assert_eq!(
        market.code(&["ssh", &name, "--", "exit7"]).0,
        7,
        "ssh's own exit code"
    );
    assert_eq!(market.state(), "active");
    let cancelled = market.json(&["cancel", &name]);
    order.extend(times(&cancelled, &["cancelled", "refunded", "receipt"]));
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(cancelled["periods_paid"], 1);
    assert_eq!(cancelled["returned"], (2 * PRICE).to_string());
    assert_eq!(market.balances(), (MONEY - PRICE, PRICE, 0));
    let receipt = cancelled["receipt"].as_str().unwrap();
    assert_eq!(market.json(&["verify", receipt])["kind"], "receipt");
    assert_eq!(market.json(&["spaces"])["spaces"], Value::Array(Vec::new()));
    assert_eq!(market.code(&["ssh", &name]).0, 7, "it is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_only_looks_and_a_request_asks_for_a_hold() {
    let market = Market::open().await;
    let knobs = &market.node().knobs;
    let asked = || {
        (
            knobs.looks.load(Ordering::SeqCst),
            knobs.holds.load(Ordering::SeqCst),
        )
    };
    let nodes = market.json(&["nodes", "--wait", "5s"]);
    assert_eq!(nodes["nodes"][0]["sells"], true);
    assert_eq!(asked(), (1, 0));
    assert_eq!(
        market.code(&["buy", "1"]).0,
        7,
        "what was looked at cannot be bought"
    );
    market.json(&["request", "--offers", "1"]);
    assert_eq!(asked(), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_that_is_not_what_was_sold_is_not_paid_and_ends_in_12() {
    let market = Market::open().await;
    write_ssh(
        market.dir.path(),
        &facts().replace("memory.max 536870912", "memory.max max"),
    );
    let (code, said) = market.code(&["buy", "--duration", "2h"]);
    assert_eq!(code, 12, "{said}");
    assert!(
        said.contains("memory.max is \"max\", the sale says 512 MiB"),
        "{said}"
    );
    assert_eq!(
        market.node().knobs.vouchers.load(Ordering::SeqCst),
        0,
        "nothing was signed"
    );
    assert_eq!(market.balances(), (MONEY, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_key_after_the_proof_ends_in_12_and_gets_no_key() {
    let market = Market::open().await;
    let name = market.json(&["buy"])["name"].as_str().unwrap().to_owned();
    let knobs = &market.node().knobs;
    assert_eq!(knobs.keys.load(Ordering::SeqCst), 1);
    // The node was off: with the same host key the same command brings the space back.
    *knobs.state.lock().unwrap() = SaleState::Locked;
    assert_eq!(market.state(), "locked");
    market.json(&["unlock", &name]);
    assert_eq!(knobs.keys.load(Ordering::SeqCst), 2);
    assert_eq!(market.balances().1, PRICE, "dark time costs nothing");
    *knobs.state.lock().unwrap() = SaleState::Locked;
    knobs.host_key.store(2, Ordering::SeqCst);
    let (code, said) = market.code(&["unlock", &name]);
    assert_eq!(code, 12, "{said}");
    assert!(said.contains("another host key"), "{said}");
    assert_eq!(
        knobs.keys.load(Ordering::SeqCst),
        2,
        "the unlock key was not handed over"
    );
}

/// A copy of the node's disk has the node's keys and the right host key; what it does not have is the count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_of_an_older_disk_ends_in_12_and_gets_no_key() {
    let market = Market::open().await;
    let name = market.json(&["buy"])["name"].as_str().unwrap().to_owned();
    let knobs = &market.node().knobs;
    let locked = || *knobs.state.lock().unwrap() = SaleState::Locked;
    locked();
    market.json(&["unlock", &name]);
    assert_eq!(knobs.keys.load(Ordering::SeqCst), 2);

    locked();
    knobs.older_disk.store(true, Ordering::SeqCst);
    // The first two grants of that disk have numbers that were seen.
    for number in 1..=2 {
        let (code, said) = market.code(&["unlock", &name]);
        assert_eq!(code, 12, "{said}");
        let why = format!("its grant has number {number}, and number 2 was seen already");
        assert!(
            said.contains("gone back to an older state") && said.contains(&why),
            "{said}"
        );
        assert_eq!(
            knobs.keys.load(Ordering::SeqCst),
            2,
            "the unlock key was handed over"
        );
    }
    // The control: the same node, with a number that nobody has seen.
    market.json(&["unlock", &name]);
    assert_eq!(knobs.keys.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_waiting_the_proof_comes_first_at_the_next_login() {
    let market = Market::open().await;
    let bought = market.json(&["buy", "--no-wait"]);
    let name = bought["name"].as_str().unwrap();
    assert_eq!(bought["proven"], false);
    assert_eq!(market.state(), "ready, not proven");
    assert_eq!(market.balances(), (MONEY - PRICE, 0, PRICE), "locked, not paid");
    assert_eq!(market.code(&["ssh", name, "--", "exit7"]).0, 7);
    assert_eq!(market.state(), "active");
    assert_eq!(market.balances(), (MONEY - PRICE, PRICE, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_offer_is_taken_again_if_it_is_no_worse_and_shown_if_it_is() {
    let market = Market::open().await;
    market.json(&["request", "--offers", "1"]);
    let knobs = &market.node().knobs;
    knobs.lapsed.store(true, Ordering::SeqCst);
    let name = market.json(&["buy", "1"])["name"].as_str().unwrap().to_owned();
    assert_eq!(knobs.agreed.load(Ordering::SeqCst), 2);
    market.json(&["cancel", &name]);

    market.json(&["request", "--offers", "1"]);
    knobs.lapsed.store(true, Ordering::SeqCst);
    knobs.dearer.store(100_000, Ordering::SeqCst);
    let before = market.balances();
    let (code, said) = market.code(&["buy", "1"]);
    assert_eq!(code, 14, "{said}");
    assert!(
        said.contains("0.40") && said.contains("0.70"),
        "both are shown: {said}"
    );
    assert_eq!(
        knobs.agreed.load(Ordering::SeqCst),
        3,
        "the new one was not signed"
    );
    assert_eq!(market.balances(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_there_is_is_refused_before_anything_is_signed() {
    let market = Market::open().await;
    let (code, said) = market.code(&["buy", "--duration", "26h"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("10.40 is needed, 10.00 is free"), "{said}");
    assert_eq!(market.node().knobs.agreed.load(Ordering::SeqCst), 0);
    let (code, said) = market.code(&["buy", "--node", &"ab".repeat(32)]);
    assert_eq!(code, 3, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_closed_without_it_and_the_user_hears_when_the_rest_returns() {
    let mut market = Market::open().await;
    let name = market.json(&["buy", "--duration", "2h"])["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let node = market.node.take().unwrap();
    node.grid.close().await;
    let output = market.run_as(&market.user, &["cancel", &name, "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(11), "{said}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["receipt"], Value::Null);
    assert_eq!(json["lock"], "active");
    assert_eq!(
        market.json(&["spaces", "--offline"])["spaces"][0]["state"],
        "ending"
    );
    let asked = json["times"]["cancelled"].as_u64().unwrap();
    let from = json["refund_from"].as_u64().unwrap();
    assert!(
        (86_400_000..86_500_000).contains(&(from - asked)),
        "a day of notice: {}",
        from - asked
    );
    assert_eq!(
        market.balances(),
        (MONEY - 2 * PRICE, PRICE, PRICE),
        "not lost, not yet back"
    );
    assert!(said.contains("comes back from"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_alone_brings_back_what_lies_in_escrow() {
    let market = Market::open().await;
    let bought = market.json(&["buy", "--duration", "2h"]);
    let sale = bought["sale"]["id"].as_str().unwrap();
    let seed = std::fs::read_to_string(market.user.join("data/seed")).unwrap();
    let line = market.dir.path().join("seed.txt");
    std::fs::write(&line, seed).unwrap();
    let elsewhere = market.dir.path().join("elsewhere");
    let restored = market.json_of(&elsewhere, &["wallet", "restore", line.to_str().unwrap()]);
    assert_eq!(restored["unknown_locks"], Value::from(vec![sale]));
    let output = market.run_as(&elsewhere, &["cancel", sale, "--json"]);
    assert_eq!(
        output.status.code(),
        Some(11),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["refund_from"].as_u64().unwrap() > 0);
    assert_eq!(json["paid"], PRICE.to_string());
    // With its files there too, nothing is unknown.
    let whole = market.dir.path().join("whole.json");
    market.json(&["wallet", "backup", whole.to_str().unwrap()]);
    let third = market.dir.path().join("third");
    let restored = market.json_of(&third, &["wallet", "restore", whole.to_str().unwrap()]);
    assert_eq!(restored["unknown_locks"], Value::Array(Vec::new()));
    let name = bought["name"].as_str().unwrap();
    assert_eq!(market.json_of(&third, &["spaces"])["spaces"][0]["name"], name);
}

/// OpenSSH starts `connect` once for each login; ten at once share one sale and one relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_connections_at_once_carry_every_byte_both_ways() {
    let market = Market::open().await;
    let name = market.json(&["buy"])["name"].as_str().unwrap().to_owned();
    let (market, name) = (&market, &name);
    std::thread::scope(|scope| {
        for number in 0..10u8 {
            scope.spawn(move || {
                let sent: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8 ^ number).collect();
                let mut child = Command::new(env!("CARGO_BIN_EXE_steading"))
                    .args(["connect", name])
                    .env("STEADING_HOME", &market.user)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut stdin = child.stdin.take().unwrap();
                let bytes = sent.clone();
                let writing = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
                let output = child.wait_with_output().unwrap();
                writing.join().unwrap();
                assert!(output.status.success(), "connection {number}");
                assert!(
                    output.stdout == sent,
                    "connection {number}: {} bytes",
                    output.stdout.len()
                );
            });
        }
    });
    *market.node().knobs.state.lock().unwrap() = SaleState::Locked;
    let (code, said) = market.code(&["connect", name]);
    assert_eq!(code, 10, "{said}");
    assert!(
        said.contains("the space is locked") && said.contains("steading unlock"),
        "{said}"
    );
}

/// Whatever was signed and not taken goes out again with the next verb.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vouchers_that_did_not_arrive_are_sent_again() {
    let market = Market::open().await;
    let knobs = &market.node().knobs;
    knobs.busy.store(true, Ordering::SeqCst);
    let (code, said) = market.code(&["buy", "--duration", "2h"]);
    assert_eq!(code, 10, "{said}");
    assert_eq!(market.balances(), (MONEY - 2 * PRICE, 0, 2 * PRICE));
    let spaces = market.json(&["spaces"]);
    let name = spaces["spaces"][0]["name"].as_str().unwrap();
    assert!(said.contains(&format!("steading unlock {name}")), "{said}");
    market.json(&["unlock", name]);
    assert_eq!(knobs.vouchers.load(Ordering::SeqCst), 2);
    assert_eq!(market.balances(), (MONEY - 2 * PRICE, PRICE, PRICE));
    market.json(&["unlock", name]);
    assert_eq!(
        knobs.vouchers.load(Ordering::SeqCst),
        2,
        "once taken, never again"
    );
}

/// What a verb cannot do is said before anything is signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_there_is_or_than_a_node_keeps_is_not_signed() {
    let market = Market::open().await;
    let (code, said) = market.code(&["buy", "--ahead", "65", "--yes"]);
    assert_eq!((code, said.contains("64")), (2, true), "{said}");
    market.json(&["request", "--offers", "1"]);
    let (code, said) = market.code(&["buy", "1", "--memory", "4GiB"]);
    assert_eq!((code, said.contains("--memory")), (2, true), "{said}");
    let name = market.json(&["buy", "1"])["name"].as_str().unwrap().to_owned();
    let (code, said) = market.code(&["extend", &name, "--duration", "9000h"]);
    assert_eq!((code, said.contains("nothing was signed")), (6, true), "{said}");
    let extended = market.json(&["extend", &name, "--duration", "1h"]);
    assert_eq!(extended["periods"], 2, "the refused one left nothing behind");
}

/// A change that the node may have signed goes out again before another one takes its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_whose_answer_was_lost_does_not_stop_the_next_one() {
    let market = Market::open().await;
    let name = market.json(&["buy"])["name"].as_str().unwrap().to_owned();
    market.node().knobs.lost.store(true, Ordering::SeqCst);
    let (code, said) = market.code(&["extend", &name, "--duration", "3h"]);
    assert_eq!(code, 9, "{said}");
    assert_eq!(
        market.balances(),
        (MONEY - PRICE, PRICE, 0),
        "nothing was locked for it"
    );
    let extended = market.json(&["extend", &name, "--duration", "1h"]);
    assert_eq!(
        extended["periods"], 2,
        "what was never locked is no base for more"
    );
    assert_eq!(market.balances(), (MONEY - 2 * PRICE, PRICE, PRICE));
}

/// One file that cannot be read stops no other space, and comes back from the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_stops_no_other_space() {
    let market = Market::open().await;
    let id = market.json(&["buy"])["sale"]["id"].as_str().unwrap().to_owned();
    let record = market.user.join("data/sales").join(&id).join("record.json");
    std::fs::write(&record, "{").unwrap();
    let spaces = market.json(&["spaces"]);
    assert_eq!(spaces["spaces"], Value::Array(Vec::new()));
    assert_eq!(spaces["damaged"], Value::from(vec![id]));
    market.json(&["request", "--offers", "1"]);
    assert_eq!(market.json(&["buy", "1"])["state"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_time_is_signed_by_both_and_locked() {
    let market = Market::open().await;
    let name = market.json(&["buy", "--duration", "2h"])["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(market.node().knobs.vouchers.load(Ordering::SeqCst), 2);
    let (code, said) = market.code(&["extend", &name, "--duration", "90min"]);
    assert_eq!(code, 2, "{said}");
    let extended = market.json(&["extend", &name, "--duration", "1h"]);
    assert_eq!(extended["periods"], 3);
    assert_eq!(market.balances(), (MONEY - 3 * PRICE, PRICE, 2 * PRICE));
    let amended = extended["amended"].as_str().unwrap();
    assert_eq!(market.json(&["verify", amended])["kind"], "amended");
    let cancelled = market.json(&["cancel", &name]);
    assert_eq!(cancelled["returned"], (2 * PRICE).to_string());
}

/// The stand-in makes nothing: what its space says of itself is what is believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_size_is_asked_signed_locked_and_paid_once_it_is_seen() {
    let market = Market::open().await;
    let bought = market.json(&["buy", "--duration", "3h"]);
    let name = bought["name"].as_str().unwrap().to_owned();
    let (code, said) = market.code(&["resize", &name, "--memory", "8GiB", "--yes"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("8 GiB asked, 4 GiB free"), "{said}");
    assert!(said.contains("it would cost 6.40 a period"), "{said}");
    let (code, said) = market.code(&["resize", &name, "--disk", "1GiB", "--yes"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("a disk never shrinks"), "{said}");
    let (code, said) = market.code(&["resize", &name, "--memory", "1GiB"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains(
            "0.80 a period from period 2 on, which begins now and is paid with it, until now 0.40; 0.80 more"
        ),
        "{said}"
    );
    let changes = &market.node().knobs.changes;
    assert!(changes.lock().unwrap().is_empty(), "nothing was signed");

    // Signed and paid for one period, and not given: no other voucher at the new price.
    let vouchers = || market.node().knobs.vouchers.load(Ordering::SeqCst);
    let (code, said) = market.code(&["resize", &name, "--memory", "1GiB", "--yes", "--timeout", "1s"]);
    assert_eq!((code, vouchers()), (12, 4), "{said}");
    assert!(
        said.contains("memory.max is \"536870912\", the sale says 1 GiB"),
        "{said}"
    );

    let grown = facts().replace("memory.max 536870912", "memory.max 1073741824");
    write_ssh(market.dir.path(), &grown);
    let resized = market.json(&["resize", &name]);
    assert_eq!(
        changes.lock().unwrap().len(),
        1,
        "it goes on, and signs nothing new"
    );
    assert_eq!(
        vouchers(),
        5,
        "the other one that was signed ahead is signed anew"
    );
    assert_eq!(resized["price_of_period"], (2 * PRICE).to_string());
    assert_eq!(resized["total"], (5 * PRICE).to_string());
    assert_eq!(market.balances(), (MONEY - 5 * PRICE, 3 * PRICE, 2 * PRICE));
    assert_eq!(market.json(&["spaces"])["spaces"][0]["memory_bytes"], 1 << 30);
    let extended = market.json(&["extend", &name, "--duration", "1h"]);
    assert_eq!(extended["total"], (7 * PRICE).to_string());
    let cancelled = market.json(&["cancel", &name]);
    assert_eq!(cancelled["periods_paid"], 2);
    assert_eq!(cancelled["returned"], (4 * PRICE).to_string());
}
