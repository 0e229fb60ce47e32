//! A copy of a node's disk, started beside it: real nodes, a real grid and a real ledger. The copy asks for the seat as
//! the agent does; the control is a copy that does not ask.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::street::{Node, Street, User, ask, sells, user};
use agent::seat::{Asker, SeatError};
use escrow::LockState;
use grid::{JoinConfig, SeatState};
use market::message::*;
use provision::space::SpaceSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const USER: u8 = 20;
const SOON: Duration = Duration::from_secs(60);
/// What a copy waits for its answer, and a node that was switched off and on again: most of it is the 4 s for which who
/// sits is called. What else a start takes is not in it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// One power-on of a machine that has this node's disk; its note is gone with the power.
fn power_on(street: &Street, machine: u8, boot: u8) -> Asker {
    let mut instance = [machine; 16];
    instance[15] = boot;
    Asker {
        join: JoinConfig::new(street.ticket(), [0; 32]),
        instance,
        note: street.folder.path().join(format!("seat-{machine}-{boot}")),
    }
}

/// The disk of the node, copied while it runs.
async fn copy_disk(street: &Street) -> PathBuf {
    let copy = street.folder.path().join("copy.sqlite");
    for end in ["", "-wal"] {
        let name = |path: PathBuf| PathBuf::from(format!("{}{end}", path.display()));
        let _ = std::fs::copy(name(street.journal()), name(copy.clone()));
    }
    copy
}

/// A street with a node that has its seat, a user with a space there that is paid, and the space as a disk has it.
async fn sold() -> (Street, Node, User, user::Bought, Vec<SpaceSpec>) {
    let street = Street::new().await;
    street.fund(USER).await;
    let asker = power_on(&street, 1, 0);
    let node = Node::start_seated(&street, &street.journal(), Vec::new(), asker).await;
    let node = node.unwrap();
    let user = User::new(&street, USER).await;
    sells(&user).await;
    let (bought, mut stream) = user.ready(1).await;
    user.pay(&mut stream, &bought, 1).await;
    let specs = node.machine.running.lock().unwrap().values().cloned().collect();
    (street, node, user, bought, specs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_refused_and_the_node_goes_on_selling() {
    let (street, node, user, bought, specs) = sold().await;
    let opening = TunnelOpening {
        delegate: user.delegate(bought.id).await.bytes,
        port: 22,
    };
    let opening = opening.to_bytes();
    let opened = user.grid.dial_tunnel(&bought.node, &opening, SOON);
    let (_, mut login) = opened.await.unwrap();

    let disk = copy_disk(&street).await;
    let begun = Instant::now();
    let copy = Node::start_seated(&street, &disk, specs.clone(), power_on(&street, 2, 0)).await;
    let why = copy.err().expect("two machines act for one node");
    println!("refused after {:?}: {why}", begun.elapsed());
    assert!(begun.elapsed() < ANSWERED_WITHIN);
    let said = why.to_string();
    assert!(
        said.starts_with("this node's key is in use by another machine, for "),
        "{said}"
    );
    // The agent that is started again on that machine does not even ask: else it would sit when the node is off.
    let again = Node::start_seated(&street, &disk, specs.clone(), power_on(&street, 2, 0)).await;
    assert!(matches!(again.err(), Some(SeatError::RefusedBefore)));

    // Nobody but the node answers, over many requests, and the login goes on.
    for nonce in 100..150 {
        assert_eq!(who_offers(&user, nonce).await.as_deref(), Some("journal"));
        login.write_all(b"still here").await.unwrap();
        let mut echo = [0; 10];
        login.read_exact(&mut echo).await.unwrap();
    }
    let mut stream = user.speak(&bought).await;
    let status = user.pay(&mut stream, &bought, 2).await;
    assert_eq!(status.state, SaleState::Active);
    assert_eq!(user.lock_state(&bought).await, LockState::Active);
    assert!(node.machine.running.lock().unwrap().contains_key(&bought.id));

    // The control: one that does not ask. It offers as the same node, from a disk on which the space is locked.
    let control = Node::start_copy(&street, &disk, specs).await;
    let mut offers = Vec::new();
    for nonce in 200..250 {
        offers.push(who_offers(&user, nonce).await);
        if offers.ends_with(&[Some("copy".to_owned())]) {
            break;
        }
    }
    assert!(
        offers.ends_with(&[Some("copy".to_owned())]),
        "the control: {offers:?}"
    );
    drop(control);
}

/// The disk from which the first answer to a request comes, if it is an offer: a node that has just begun sells nothing
/// until it knows the rail's time.
async fn who_offers(user: &User, nonce: u16) -> Option<String> {
    let look = user.look(nonce).await;
    let answer = user.ask(&look).await;
    match market::envelope::open::<Decline>(&answer, None) {
        Ok(_) => None,
        Err(_) => user.open::<Offer>(&answer).message.facts.name,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_power_was_cut_gets_its_own_seat_back() {
    let (street, node, user, bought, specs) = sold().await;
    node.power_cut();
    let node = Node::start_seated(&street, &street.journal(), specs, power_on(&street, 1, 1)).await;
    let node = node.expect("nobody answers for its former life");
    println!("seated again after {:?}", node.seated_after);
    assert!(node.seated_after < ANSWERED_WITHIN);
    let mut stream = user.speak(&bought).await;
    user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
    // An agent that is started again in the same boot has its seat at once, and asks nobody first.
    drop(node);
    let begun = Instant::now();
    let node = Node::start_seated(&street, &street.journal(), Vec::new(), power_on(&street, 1, 1)).await;
    println!("the same boot after {:?}", begun.elapsed());
    assert!(node.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_that_is_started_again_learns_who_sat_first() {
    let (street, node, _user, _bought, specs) = sold().await;
    let disk = copy_disk(&street).await;
    let street = street.restart_grid().await;
    let seat = node.seat.as_ref().unwrap().seat();
    // The copy comes in the moment in which the grid knows nobody: it is granted, and loses it to who sat before.
    let copy = power_on(&street, 2, 0);
    let mut asked = ask(copy.clone()).await.unwrap();
    let first = asked.granted().await;
    let begun = Instant::now();
    let why = match first {
        Ok(()) => tokio::time::timeout(Duration::from_secs(60), asked.lost())
            .await
            .expect("the node is back"),
        Err(why) => why,
    };
    println!("the copy lost it after {:?}: {why}", begun.elapsed());
    let mut state = seat.state();
    let held = state.wait_for(|state| *state == SeatState::Held);
    tokio::time::timeout(SOON, held).await.unwrap().unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), seat.refused())
            .await
            .is_err()
    );
    drop(asked);
    let again = Node::start_seated(&street, &disk, specs, copy).await;
    assert!(matches!(again.err(), Some(SeatError::RefusedBefore)));
}

/// The bootstrap is gone. Who never sat in this boot does nothing; who sat goes on, and so does his agent when it is
/// started again in the same boot.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_grid_only_a_boot_that_sat_goes_on() {
    let (street, node, _user, _bought, _specs) = sold().await;
    let (same_boot, next_boot) = (power_on(&street, 1, 0), power_on(&street, 1, 1));
    let notes = tempfile::tempdir().unwrap();
    let kept = |mut asker: Asker| {
        let note = notes.path().join(asker.note.file_name().unwrap());
        let _ = std::fs::copy(&asker.note, &note); // only the boot that sat has one
        asker.note = note;
        asker
    };
    let (same_boot, next_boot) = (kept(same_boot), kept(next_boot));
    street.end().await;
    let seat = node.seat.as_ref().unwrap().seat();
    let mut state = seat.state();
    let away = state.wait_for(|state| *state == SeatState::Away);
    tokio::time::timeout(SOON, away).await.unwrap().unwrap();

    let mut asked = ask(same_boot).await.unwrap();
    let at_once = tokio::time::timeout(Duration::from_secs(1), asked.granted()).await;
    assert!(at_once.unwrap().is_ok());

    let mut asked = ask(next_boot).await.unwrap();
    let mut state = asked.seat().state();
    let known = state.wait_for(|state| *state != SeatState::Asking(None));
    let known = tokio::time::timeout(SOON, known).await.unwrap().unwrap().clone();
    let SeatState::Asking(Some(why)) = known else {
        panic!("a boot that never sat acts for the node: {known:?}")
    };
    assert!(why.contains("does not answer"), "{why}");
    let never = tokio::time::timeout(Duration::ZERO, asked.granted()).await;
    assert!(never.is_err(), "a boot that never sat acts for the node");
}
