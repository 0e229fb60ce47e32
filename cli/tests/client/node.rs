//! A farmer's own node, from afar: the client, the grid, the ledger and the node's desk are the real ones.

use std::sync::Arc;

use crate::person::{Person, facts, write_ssh};
use crate::street::{MONEY, Machine, Node, Street, key};
use market::id::{Digest, NodeId};

fn somebody(street: &Street, home: &str) -> Person {
    let dir = street.folder.path().to_owned();
    write_ssh(&dir, &facts(1024, &Digest([7; 32]).to_string()));
    let person = Person {
        home: dir.join(home),
        dir,
        ledger: street.address().to_string(),
        grid: street.ticket().to_string(),
    };
    person.json(&["wallet", "new"]);
    person
}

fn owner(person: &Person) -> [u8; 32] {
    let shown = person.json(&["node", "key"]);
    let hex = shown["owner"].as_str().unwrap();
    assert_eq!(shown["line"], format!("owner = \"{hex}\""));
    data_encoding::HEXLOWER
        .decode(hex.as_bytes())
        .unwrap()
        .try_into()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_key_commands_the_node_and_no_other_does() {
    let street = Street::new().await;
    let (farmer, user, stranger) = (
        somebody(&street, "farmer"),
        somebody(&street, "user"),
        somebody(&street, "stranger"),
    );
    let machine = Arc::new(Machine::default());
    let _node = Node::start_owned(&street, machine, Vec::new(), Some(owner(&farmer))).await;
    let id = NodeId(key(4).verifying_key().to_bytes()).to_string();
    let address = user.json(&["wallet", "address"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    street.fund_account(&address.parse().unwrap()).await;
    let bought = user.json(&["buy", "--duration", "3h"]);
    let (name, sale) = (
        bought["name"].as_str().unwrap(),
        bought["sale"]["id"].as_str().unwrap(),
    );

    let sold = farmer.json(&["node", "spaces", "--node", &id]);
    assert_eq!(sold["spaces"][0]["name"], name, "{sold}");
    assert_eq!(sold["spaces"][0]["sale"], sale, "{sold}");
    let state = sold["spaces"][0]["state"].as_str().unwrap();
    assert!(state.starts_with("active"), "{sold}");
    let report = farmer.json(&["node", "boot-report", &id]);
    assert_eq!(report, farmer.json(&["node", "boot-report", "--node", &id]));
    let lines = report["lines"].as_array().unwrap();
    assert!(
        lines.iter().any(|line| line.as_str().unwrap().contains(name)),
        "{report}"
    );
    farmer.json(&["node", "disks", "--node", &id]);

    // Whoever else has the node's id and the space's name gets nothing.
    for (who, what) in [
        (&stranger, &["node", "spaces", "--node", &id][..]),
        (&stranger, &["node", "stop", sale, "--node", &id]),
        (&user, &["node", "stop", sale, "--node", &id]),
    ] {
        let (code, why) = who.code(what);
        assert_eq!(code, 10, "{why}");
        let line = format!("owner = \"{}\"", data_encoding::HEXLOWER.encode(&owner(who)));
        assert!(
            why.contains("because:") && why.contains("to do:") && why.contains(&line),
            "{why}"
        );
    }
    assert_eq!(user.state(), "active", "nothing was stopped");

    let (code, why) = farmer.code(&["node", "stop", "no-such", "--node", &id]);
    assert_eq!(code, 7, "{why}");
    let stopped = farmer.json(&["node", "stop", name, "--node", &id]);
    assert_eq!(stopped["sale"], sale, "{stopped}");
    assert_eq!(
        farmer.json(&["node", "spaces", "--node", &id])["spaces"],
        serde_json::json!([])
    );
    user.json(&["cancel", name]);
    let (free, locked) = user.balance();
    assert_eq!(locked, 0, "what was not used came back");
    assert!(free > MONEY.0 - 1_200_000 && free < MONEY.0, "{free}");

    // A node that is not there is silent, in three parts.
    let nobody = NodeId(key(9).verifying_key().to_bytes()).to_string();
    let (code, why) = farmer.code(&["node", "disks", "--node", &nobody]);
    assert_eq!(code, 9, "{why}");
    assert!(why.contains("because:") && why.contains("to do:"), "{why}");
}
