//! A snapshot of a space, as its user has it: bought, shown, put back, replaced, given up.

use std::sync::atomic::Ordering;

use market::message::SaleState;

use crate::setting::{MONEY, Market};
use crate::stand_in::PRICE;

/// The stand-in keeps no files: what the client asks, signs, pays and says is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_priced_signed_shown_put_back_replaced_and_removed() {
    let market = Market::open().await;
    let bought = market.json(&["buy", "--duration", "3h"]);
    let name = bought["name"].as_str().unwrap().to_owned();
    let (code, said) = market.code(&["restore", &name, "--yes"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("has no snapshot; nothing was changed"), "{said}");
    let (code, said) = market.code(&["snapshot", &name]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("+ snapshot, until now"), "{said}");
    assert!(
        said.contains(
            "0.80 a period from period 2 on, which begins now and is paid with it, until now 0.40; 0.80 more"
        ),
        "{said}"
    );
    let changes = || market.node().knobs.changes.lock().unwrap().len();
    assert_eq!(changes(), 0, "nothing was signed");

    let taken = market.json(&["snapshot", &name, "--yes"]);
    assert_eq!(taken["price_of_period"], (2 * PRICE).to_string());
    assert_eq!(taken["total"], (5 * PRICE).to_string());
    assert_eq!(market.balances(), (MONEY - 5 * PRICE, 3 * PRICE, 2 * PRICE));
    let shown = market.json(&["spaces"])["spaces"][0].clone();
    assert_eq!(shown["snapshot_at"], taken["snapshot_at"]);
    assert!(shown["snapshot_bytes"].as_u64() > Some(0));
    let (code, said) = market.code(&["snapshot", &name, "--yes"]);
    assert_eq!((code, changes()), (2, 1), "{said}");
    assert!(said.contains("--replace takes a new one"), "{said}");

    let (code, said) = market.code(&["restore", &name]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("what was written since is lost"), "{said}");
    let keys = || market.node().knobs.keys.load(Ordering::SeqCst);
    let before = keys();
    let restored = market.json(&["restore", &name, "--yes"]);
    assert_eq!(restored["snapshot_at"], taken["snapshot_at"]);
    assert_eq!(keys(), before + 1, "the key opened it again");

    // Stopped while the node was at it: the same verb goes on with the same restore, and does not ask again.
    let knobs = &market.node().knobs;
    knobs.stays_at_it.store(true, Ordering::SeqCst);
    let (code, said) = market.code(&["restore", &name, "--yes", "--timeout", "1s"]);
    assert_eq!(code, 11, "{said}");
    assert_eq!(market.json(&["spaces"])["spaces"][0]["state"], "building");
    *knobs.state.lock().unwrap() = SaleState::Locked;
    market.json(&["restore", &name]);
    let restores = knobs.restores.lock().unwrap().clone();
    assert_eq!(restores.len(), 3);
    assert!(
        restores[0] != restores[1] && restores[1] == restores[2],
        "{restores:?}"
    );

    let replaced = market.json(&["snapshot", &name, "--replace", "--yes"]);
    assert!(replaced["snapshot_at"].as_u64() > taken["snapshot_at"].as_u64());
    assert_eq!(changes(), 3, "one went, one came");
    let removed = market.json(&["snapshot", &name, "--delete", "--yes"]);
    assert_eq!(removed["price_of_period"], PRICE.to_string());
    assert_eq!(removed["snapshot_at"], serde_json::Value::Null);
    assert_eq!(changes(), 4);
}
