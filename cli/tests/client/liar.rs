//! A node that lies about the space it sold. Ledger, grid, client and OpenSSH's own client are the real ones; behind the
//! node's tunnel stands a small SSH server (`stand_in/ssh.rs`) that proves whatever host key it is given and answers the
//! proof with whatever it is told to say. So OpenSSH itself judges the host key, the login runs through the grid, and no
//! sshd has to be installed where the tests run.

use std::sync::atomic::Ordering;

use crate::person::write_ssh;
use crate::setting::{MONEY, Market, facts};
use crate::stand_in::PRICE;
use crate::stand_in::ssh::Inside;
use ed25519_dalek::SigningKey;
use serde_json::Value;

fn host_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A market whose node grants this host key and has this behind its tunnel.
async fn market(granted: u8, inside: Option<Inside>) -> Market {
    let market = Market::open().await;
    std::fs::remove_file(market.dir.path().join("bin/ssh")).unwrap(); // the machine's own one
    let knobs = &market.node().knobs;
    *knobs.granted.lock().unwrap() = Some(host_key(granted).verifying_key().to_bytes());
    *knobs.inside.lock().unwrap() = Some(inside);
    market
}

/// `buy` names the check, ends in 12, no voucher left this machine, and the balance is whole again.
fn is_found_out(market: &Market, arguments: &[&str], check: &str) {
    let (code, said) = market.code(&[&["buy", "--duration", "2h"], arguments].concat());
    assert_eq!(code, 12, "{said}");
    assert!(said.contains(check), "{said}");
    assert_eq!(
        market.node().knobs.vouchers.load(Ordering::SeqCst),
        0,
        "nothing was signed"
    );
    assert_eq!(market.balances(), (MONEY, 0, 0));
}

/// The same with the lie taken back is bought and paid.
fn is_bought(market: &Market) {
    let bought = market.json(&["buy", "--duration", "2h"]);
    assert_eq!(
        (&bought["state"], &bought["proven"]),
        (&"active".into(), &true.into())
    );
    assert_eq!(market.balances(), (MONEY - 2 * PRICE, PRICE, PRICE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lie_of_the_inside_is_named_and_paid_nothing() {
    let truth = facts();
    let host_key = host_key(5);
    let market = market(5, None).await;
    for (from, to, check) in [
        ("volume 4096 496000", "volume 4096 248000", "the file system has"),
        (
            "memory.max 536870912",
            "memory.max max",
            "memory.max is \"max\", the sale says 512 MiB",
        ),
        ("base ba", "base ab", "the base is abba"),
        ("cpu.max 50000", "cpu.max 25000", "cpu.max"),
        ("pids.max 512", "pids.max 64", "pids.max"),
        ("uid_map 0 1000000", "uid_map 0 0", "uid_map"),
    ] {
        let facts = truth.replacen(from, to, 1);
        assert_ne!(facts, truth);
        let inside = Inside {
            host_key: host_key.clone(),
            facts,
        };
        *market.node().knobs.inside.lock().unwrap() = Some(Some(inside));
        is_found_out(&market, &[], check);
    }
    let facts = truth;
    *market.node().knobs.inside.lock().unwrap() = Some(Some(Inside { host_key, facts }));
    is_bought(&market);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_key_than_the_granted_one_is_found_out_by_openssh() {
    let inside = Inside {
        host_key: host_key(6),
        facts: facts(),
    };
    let market = market(5, Some(inside)).await;
    is_found_out(
        &market,
        &[],
        "the host key is not the one that the node signed in its grant",
    );
    *market.node().knobs.granted.lock().unwrap() = Some(host_key(6).verifying_key().to_bytes());
    is_bought(&market);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_without_an_ssh_server_is_not_ready() {
    let market = market(5, None).await;
    is_found_out(
        &market,
        &["--login-timeout", "3s"],
        "no login, though the node says that it is ready",
    );
    let inside = Inside {
        host_key: host_key(5),
        facts: facts(),
    };
    *market.node().knobs.inside.lock().unwrap() = Some(Some(inside));
    is_bought(&market);
}

/// What a node says of the money in its receipt stops nothing: the rail decides, and says so once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_that_is_false_is_told_and_the_sale_is_over() {
    let market = Market::open().await;
    let name = market.json(&["buy", "--duration", "2h"])["name"]
        .as_str()
        .unwrap()
        .to_owned();
    market.node().knobs.hides_payment.store(true, Ordering::SeqCst);
    let (code, said) = market.code(&["cancel", &name]);
    assert_eq!(code, 10, "{said}");
    assert!(
        said.contains("says 0.00 was paid, the ledger says 0.40"),
        "{said}"
    );
    assert!(said.contains("0.40 came back"), "{said}");
    assert_eq!(market.balances(), (MONEY - PRICE, PRICE, 0));
    let spaces = market.json(&["spaces"]);
    assert_eq!(spaces["spaces"], serde_json::json!([]), "it is over");
    assert_eq!(market.code(&["ssh", &name]).0, 7);
}

/// A backup of before a change: the node gives back what both signed, at the restore, or when it refuses what was signed
/// on the older record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_pays_on_at_the_price_that_both_signed_since() {
    let market = Market::open().await;
    let name = market.json(&["buy", "--duration", "5h"])["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let backup = market.dir.path().join("backup.json");
    let backup = backup.to_str().unwrap();
    market.json(&["wallet", "backup", backup]);
    let grown = facts().replace("memory.max 536870912", "memory.max 1073741824");
    write_ssh(market.dir.path(), &grown);
    market.json(&["resize", &name, "--memory", "1GiB", "--yes"]);
    let knobs = &market.node().knobs;
    let anew = || std::mem::take(&mut *knobs.sums.lock().unwrap());
    assert_eq!(anew()[3..], [3 * PRICE, 5 * PRICE, 7 * PRICE]);
    let at_the_new_price = [5 * PRICE, 7 * PRICE]; // the period before was paid with the change
    let memory =
        |home: &std::path::Path| market.json_of(home, &["spaces"])["spaces"][0]["memory_bytes"].clone();
    let login = |home: &std::path::Path| market.run_as(home, &["ssh", &name, "--", "exit7"]).status.code();

    // It remembers nothing when it is asked: the older record is compared again before anything is paid on it.
    let second = market.dir.path().join("second");
    let restored = market.json_of(&second, &["wallet", "restore", backup]);
    assert_eq!(
        (&restored["changed"], memory(&second)),
        (&Value::from(Vec::<Value>::new()), (512 << 20).into())
    );
    knobs.remembers.store(true, Ordering::SeqCst);
    assert_eq!((login(&second), anew()), (Some(7), at_the_new_price.to_vec()));
    assert_eq!(memory(&second), 1 << 30);

    let third = market.dir.path().join("third");
    let restored = market.json_of(&third, &["wallet", "restore", backup]);
    assert_eq!(
        (&restored["changed"], memory(&third)),
        (&Value::from(vec![name.as_str()]), (1 << 30).into())
    );
    assert_eq!((login(&third), anew()), (Some(7), at_the_new_price.to_vec()));
    let again = market.json_of(&third, &["wallet", "recall"]);
    assert_eq!(again["changed"], Value::from(Vec::<Value>::new()));

    // A record that nobody marked, with the next period due: the space is another than was sold, or the voucher refused.
    for is_seen in [true, false] {
        let home = market.dir.path().join(format!("unmarked-{is_seen}"));
        knobs.remembers.store(false, Ordering::SeqCst);
        write_ssh(market.dir.path(), &if is_seen { grown.clone() } else { facts() });
        market.json_of(&home, &["wallet", "restore", backup]);
        let record = market.record_of(&home, |record| {
            record["from_backup"] = false.into();
            record["vouchers_signed"] = 1.into();
            record["vouchers_sent"] = 1.into();
            let since = record["active_since_ms"].as_u64().unwrap();
            record["active_since_ms"] = (since - 2 * 3_600_000).into();
        });
        assert_eq!(record["amendments"], 0);
        knobs.remembers.store(true, Ordering::SeqCst);
        assert_eq!(login(&home), Some(7));
        // What does not look like the new size from inside is not paid at its price.
        let paid = if is_seen {
            at_the_new_price.to_vec()
        } else {
            Vec::new()
        };
        assert_eq!((anew(), memory(&home)), (paid, (1 << 30).into()));
    }
}
