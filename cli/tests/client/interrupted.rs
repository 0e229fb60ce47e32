//! The client dies, or Ctrl-C is pressed, after each line that `buy` prints: the next verb shows what is open, and it
//! can be finished or undone, both ways after both. No list of steps is kept here: they are read off the running program until
//! one purchase comes to its end. Each of the four has a street of its own. Ledger, grid, client and the node's desk are the real ones.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::person::{Person, facts, write_ssh};
use crate::street::{MONEY, Machine, Node, PRICE, Street};
use market::id::Digest;
use serde_json::Value;

const FARMER: u8 = 40;

/// How the client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// SIGKILL: it says nothing more.
    Kill,
    /// SIGINT, as Ctrl-C sends it: it says what is open.
    Interrupt,
}

/// What its user does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// `unlock` goes on from where it stopped.
    Finish,
    /// `cancel` undoes it.
    Undo,
}

/// Runs `buy` until it has printed so many steps; then it is stopped. The last step's label and the rest of what it
/// said, unless it had come to its end all the same; none where the purchase came to its end before.
fn buy_until(person: &Person, steps: usize, stop: Stop) -> Option<(String, Option<String>)> {
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
    match stop {
        Stop::Kill => child.kill().unwrap(),
        Stop::Interrupt => {
            let kill = format!("kill -INT {}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
    }
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    if stop == Stop::Interrupt {
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
async fn killed_and_finished() {
    stopped_after_each_step(Stop::Kill, Then::Finish).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_undone() {
    stopped_after_each_step(Stop::Kill, Then::Undo).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_and_finished() {
    stopped_after_each_step(Stop::Interrupt, Then::Finish).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_and_undone() {
    stopped_after_each_step(Stop::Interrupt, Then::Undo).await;
}

async fn stopped_after_each_step(stop: Stop, then: Then) {
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
    let mut stopped_after = Vec::new();
    let mut states = BTreeSet::new();
    while let Some((label, rest)) = buy_until(&person, stopped_after.len() + 1, stop) {
        let when = format!("{stop:?}, {then:?} after {label:?}, said {rest:?}");
        println!("{when}");
        let open = open_space(&person);
        if let Some(space) = &open {
            let name = space["name"].as_str().unwrap();
            states.insert(space["state"].as_str().unwrap().to_owned());
            if stop == Stop::Interrupt
                && let Some(rest) = &rest
            {
                let next = format!("`steading unlock {name}` goes on, `steading cancel {name}` undoes it");
                assert!(rest.contains(&next), "{when}");
            }
            if then == Then::Finish {
                person.json(&["unlock", name]);
                assert_eq!(person.state(), "active", "{when}");
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
        } else if stop == Stop::Interrupt {
            assert!(
                rest.is_some_and(|rest| rest.contains("nothing is open")),
                "{label}"
            );
        }
        assert_eq!(open_space(&person), None, "{when}");
        let now = street.balance(FARMER).await.0;
        let paid = now - earned;
        let is_finished = then == Then::Finish && open.is_some();
        let right = if is_finished {
            vec![PRICE.0]
        } else {
            vec![0, PRICE.0]
        };
        assert!(right.contains(&paid), "{when}: {paid}");
        assert_eq!(
            person.balance(),
            (MONEY.0 - now, 0),
            "{when}: nothing is lost, nothing is held"
        );
        earned = now;
        stopped_after.push(label);
    }
    assert!(stopped_after.len() >= 5, "stopped after {stopped_after:?}");
    assert!(states.len() >= 3, "seen open: {states:?}");
    // The one that nobody stopped.
    let space = open_space(&person).expect("a whole purchase");
    person.json(&["cancel", space["name"].as_str().unwrap()]);
    assert_eq!(person.balance(), (MONEY.0 - earned - PRICE.0, 0));
}
