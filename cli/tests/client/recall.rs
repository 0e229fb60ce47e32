//! A machine is lost, the seed's line is not: ledger, grid, client and the node's desk and journal are the real ones;
//! only the space behind the node is not there, and a small `ssh` of the test's own says what it would.

use std::path::Path;
use std::sync::Arc;

use crate::person::{Person, facts, write_ssh};
use crate::street::{MONEY, Machine, Node, PRICE, Street};
use market::id::Digest;

/// Processes and threads that the desk sells with every space.
const PIDS: u32 = 1024;

fn somebody(street: &Street, home: &str) -> Person {
    let dir = street.folder.path().to_owned();
    write_ssh(&dir, &facts(PIDS, &Digest([7; 32]).to_string()));
    Person {
        home: dir.join(home),
        dir,
        ledger: street.address().to_string(),
        grid: street.ticket().to_string(),
    }
}

fn known_hosts(person: &Person) -> String {
    std::fs::read_to_string(person.home.join("state/ssh/known_hosts")).unwrap()
}

fn files(sale: &Path) -> Vec<(String, Vec<u8>)> {
    let signed = ["request", "offer", "agree", "sale", "grant"];
    signed
        .map(|name| (name.to_owned(), std::fs::read(sale.join(name)).unwrap()))
        .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_alone_brings_working_spaces_back() {
    let street = Street::new().await;
    let node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    let before = somebody(&street, "before");
    let address = before.json(&["wallet", "new"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    street.fund_account(&address.parse().unwrap()).await;
    let bought = before.json(&["buy", "--duration", "3h"]);
    let (name, id) = (
        bought["name"].as_str().unwrap(),
        bought["sale"]["id"].as_str().unwrap(),
    );
    let (hosts, signed) = (
        known_hosts(&before),
        files(&before.home.join("data/sales").join(id)),
    );
    assert!(hosts.contains(bought["host_key"].as_str().unwrap()));

    // Of the old machine nothing is left but one line.
    let line = street.folder.path().join("line");
    std::fs::copy(before.home.join("data/seed"), &line).unwrap();
    std::fs::remove_dir_all(&before.home).unwrap();
    let after = somebody(&street, "after");
    let restored = after.json(&["wallet", "restore", line.to_str().unwrap()]);
    assert_eq!(restored["recalled"], serde_json::json!([name]));
    assert_eq!(restored["unknown_locks"], serde_json::json!([]));
    assert_eq!(
        known_hosts(&after),
        hosts,
        "the host key of the signed grant is pinned"
    );
    assert_eq!(
        files(&after.home.join("data/sales").join(id)),
        signed,
        "byte for byte"
    );
    assert_eq!(after.state(), "active");
    assert_eq!(after.code(&["ssh", name, "--", "exit7"]).0, 7);

    // A record that a full disk cut short comes back the same way.
    let record = after.home.join("data/sales").join(id).join("record.json");
    std::fs::write(&record, "{").unwrap();
    assert_eq!(
        after.json(&["wallet", "recall"])["recalled"],
        serde_json::json!([name])
    );
    assert_eq!(after.state(), "active");

    // The node loses its power: the unlock key follows from the seed, and the host key stays pinned.
    let specs: Vec<_> = node.machine.running.lock().unwrap().values().cloned().collect();
    node.power_cut();
    let node = Node::start(&street, Arc::new(Machine::default()), specs).await;
    assert_eq!(after.state(), "locked");
    after.json(&["unlock", name]);
    assert_eq!(after.state(), "active");
    assert_eq!(known_hosts(&after), hosts);
    assert!(node.said("unlocking"));

    let cancelled = after.json(&["cancel", name]);
    assert_eq!(cancelled["returned"], (2 * PRICE.0).to_string());
    assert_eq!(cancelled["volume_destroyed"], true);
    assert_eq!(after.balance(), (MONEY.0 - PRICE.0, 0));
}

/// The node's desk and journal are the real ones: a backup of before an extension, restored while the node answers and
/// while it is off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_before_an_extension_is_paid_to_its_end() {
    let street = Street::new().await;
    let node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    let before = somebody(&street, "before");
    let address = before.json(&["wallet", "new"])["address"].clone();
    street
        .fund_account(&address.as_str().unwrap().parse().unwrap())
        .await;
    let bought = before.json(&["buy"]);
    let (name, id) = (
        bought["name"].as_str().unwrap(),
        bought["sale"]["id"].as_str().unwrap(),
    );
    let backup = street.folder.path().join("backup.json");
    let backup = backup.to_str().unwrap();
    before.json(&["wallet", "backup", backup]);
    before.json(&["extend", name, "--duration", "2h"]);
    let record = |person: &Person| -> serde_json::Value {
        let path = person.home.join("data/sales").join(id).join("record.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };

    let second = somebody(&street, "second");
    let restored = second.json(&["wallet", "restore", backup]);
    assert_eq!(restored["changed"], serde_json::json!([name]));
    let known = record(&second);
    assert_eq!(
        (&known["periods"], &known["vouchers_sent"]),
        (&3.into(), &1.into())
    );
    assert_eq!(second.code(&["ssh", name, "--", "exit7"]).0, 7);
    assert_eq!(record(&second)["vouchers_sent"], 3);

    let specs: Vec<_> = node.machine.running.lock().unwrap().values().cloned().collect();
    node.power_cut();
    let third = somebody(&street, "third");
    let restored = third.json(&["wallet", "restore", backup]);
    assert_eq!(restored["changed"], serde_json::json!([]));
    let _node = Node::start(&street, Arc::new(Machine::default()), specs).await;
    assert_eq!(third.state(), "locked");
    third.json(&["unlock", name]);
    let known = record(&third);
    assert_eq!(
        (&known["periods"], &known["vouchers_sent"]),
        (&3.into(), &3.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_off_is_asked_again_later_and_a_strangers_seed_gets_nothing() {
    let street = Street::new().await;
    let node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    let before = somebody(&street, "before");
    let address = before.json(&["wallet", "new"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    street.fund_account(&address.parse().unwrap()).await;
    let bought = before.json(&["buy", "--no-wait"]);
    let id = bought["sale"]["id"].as_str().unwrap();
    let stranger = somebody(&street, "stranger");
    stranger.json(&["wallet", "new"]);
    let nothing = stranger.json(&["wallet", "recall"]);
    assert_eq!(nothing["recalled"], serde_json::json!([]));

    node.power_cut();
    let after = somebody(&street, "after");
    let line = before.home.join("data/seed");
    let restored = after.json(&["wallet", "restore", line.to_str().unwrap()]);
    assert_eq!(restored["unknown_locks"], serde_json::json!([id]));
    assert_eq!(restored["recalled"], serde_json::json!([]));

    // Back, it built nothing yet and nothing was proven: the purchase goes on from the other machine.
    let _node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    let recalled = after.json(&["wallet", "recall"]);
    assert_eq!(recalled["recalled"], serde_json::json!([bought["name"]]));
    assert_eq!(recalled["unknown_locks"], serde_json::json!([]));
    let name = bought["name"].as_str().unwrap();
    after.json(&["unlock", name]);
    assert_eq!(after.state(), "active");
    after.json(&["cancel", name]);
    assert_eq!(after.balance(), (MONEY.0 - PRICE.0, 0));
}
