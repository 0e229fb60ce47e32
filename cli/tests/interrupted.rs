//! The client dies, or Ctrl-C is pressed, after each line that `buy` prints: the next verb shows what is open, and it
//! can be finished or undone. No list of steps is kept here: they are read off the running program until one purchase
//! comes to its end. Ledger, grid, client and the node's desk are the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test stops loudly

mod person;
#[path = "../../agent/tests/street/mod.rs"]
#[allow(dead_code)] // the agent's own tests use more of it
mod street;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;

use market::id::Digest;
use person::{Person, facts, write_ssh};
use serde_json::Value;
use street::{MONEY, Machine, Node, PRICE, Street};

const FARMER: u8 = 40;

/// How the client ends, and what its user does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// SIGKILL; `unlock` goes on from where it stopped.
    KilledAndFinished,
    /// SIGINT; `cancel` undoes it.
    InterruptedAndUndone,
}

/// Runs `buy` until it has printed so many steps; then it is stopped. The last step's label and the rest of what it
/// said, unless it had come to its end all the same; none where the purchase came to its end before.
fn buy_until(person: &Person, steps: usize, then: Then) -> Option<(String, Option<String>)> {
    let mut child = person
        .command(&["buy", "--duration", "3h"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let (mut seen, mut line) = (0, String::new());
    while seen < steps {
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            assert!(
                child.wait().unwrap().success(),
                "a purchase that nobody stops goes well"
            );
            return None;
        }
        let is_step = line.starts_with(' ') && !line.trim_end().ends_with("so far)");
        seen += usize::from(is_step);
    }
    match then {
        Then::KilledAndFinished => child.kill().unwrap(),
        Then::InterruptedAndUndone => {
            let kill = format!("kill -INT {}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
    }
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    if then == Then::InterruptedAndUndone {
        assert!(matches!(code, Some(130 | 0)), "{code:?} after {line:?}");
    }
    let label = line.split_whitespace().next().unwrap().to_owned();
    Some((label, (code != Some(0)).then_some(rest)))
}

/// The only open space, if there is one.
fn open_space(person: &Person) -> Option<Value> {
    let spaces = person.json(&["spaces"])["spaces"].as_array().unwrap().clone();
    assert!(spaces.len() <= 1, "{spaces:?}");
    spaces.into_iter().next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_stops_a_purchase_it_can_be_finished_or_undone() {
    let street = Street::new().await;
    let _node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
    let dir = street.folder.path().to_owned();
    write_ssh(&dir, &facts(1024, &Digest([7; 32]).to_string()));
    let person = Person {
        home: dir.join("user"),
        dir,
        ledger: street.address().to_string(),
        grid: street.ticket().to_string(),
    };
    let address = person.json(&["wallet", "new"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    street.fund_account(&address.parse().unwrap()).await;

    let mut earned = 0;
    for then in [Then::KilledAndFinished, Then::InterruptedAndUndone] {
        let mut stopped_after = Vec::new();
        while let Some((label, rest)) = buy_until(&person, stopped_after.len() + 1, then) {
            let when = format!("{then:?} after {label:?}, said {rest:?}");
            println!("{when}");
            if let Some(space) = open_space(&person) {
                let name = space["name"].as_str().unwrap();
                match then {
                    Then::KilledAndFinished => {
                        person.json(&["unlock", name]);
                        assert_eq!(person.state(), "active", "{when}");
                    }
                    Then::InterruptedAndUndone => {
                        let next = format!("steading cancel {name}");
                        assert!(rest.is_none_or(|rest| rest.contains(&next)), "{when}");
                    }
                }
                let cancelled = person.json(&["cancel", name]);
                assert_eq!(
                    cancelled["lock"],
                    if cancelled["returned"] == "0" {
                        "none"
                    } else {
                        "closed"
                    },
                    "{when}"
                );
            }
            assert_eq!(open_space(&person), None, "{when}");
            let now = street.balance(FARMER).await.0;
            let paid = now - earned;
            assert!(paid == 0 || paid == PRICE.0, "{when}: {paid}");
            assert_eq!(
                person.balance(),
                (MONEY.0 - now, 0),
                "{when}: nothing is lost, nothing is held"
            );
            earned = now;
            stopped_after.push(label);
        }
        assert!(stopped_after.len() >= 5, "stopped after {stopped_after:?}");
        let space = open_space(&person).expect("the one that nobody stopped");
        person.json(&["cancel", space["name"].as_str().unwrap()]);
        earned += PRICE.0;
    }
    assert_eq!(person.balance(), (MONEY.0 - earned, 0));
}
