//! Seats at a real bootstrap peer: strangers in numbers, words that are wrong, and a copy that comes while another sits.

use std::time::{Duration, Instant};

use grid::{JoinConfig, Refused, Seat, SeatConfig, SeatState, serve::Serve};

use crate::{quick, serve_config, within};

async fn dialled(serve: &Serve, instance: u8) -> Seat {
    // This secret is nobody's.
    let mut join = JoinConfig::new(serve.ticket().clone(), [0; 32]);
    join.timing = quick();
    let instance = [instance; 16];
    Seat::dial(SeatConfig { join, instance }).await.unwrap()
}

async fn asked(serve: &Serve, node: [u8; 32], instance: u8) -> (Seat, Result<(), Refused>) {
    let seat = dialled(serve, instance).await;
    seat.ask(&node, None);
    let answer = within("an answer", seat.granted()).await;
    (seat, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_a_key() {
    crate::logs();
    let serve = Serve::start(serve_config(1)).await.unwrap();
    let (first, answer) = asked(&serve, [4; 32], 1).await;
    assert_eq!(answer, Ok(()));
    let begun = Instant::now();
    let (second, answer) = asked(&serve, [4; 32], 2).await;
    println!("refused after {:?}", begun.elapsed());
    assert!(answer.is_err());
    assert_eq!(*first.state().borrow(), SeatState::Held);
    // another node's key, and the same machine again, are nobody's copy
    assert_eq!(asked(&serve, [5; 32], 3).await.1, Ok(()));
    let (again, answer) = asked(&serve, [4; 32], 1).await;
    assert_eq!(answer, Ok(()));
    // who was refused does not ask again when the seat is free
    drop((first, again));
    let waits = tokio::time::timeout(Duration::from_secs(2), second.granted()).await;
    assert!(matches!(waits, Ok(Err(_))), "{waits:?}");
}

/// The disks of a node may take longer than the bootstrap waits for an ask.
#[tokio::test(flavor = "multi_thread")]
async fn who_dialled_long_before_it_asks_is_answered() {
    crate::logs();
    let serve = Serve::start(serve_config(1)).await.unwrap();
    let seat = dialled(&serve, 1).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        *seat.state().borrow(),
        SeatState::Asking(None),
        "nobody was asked for"
    );
    seat.ask(&[4; 32], None);
    within("an answer", seat.granted()).await.unwrap();
    assert!(asked(&serve, [4; 32], 2).await.1.is_err(), "it sits");
}

/// One that had it for longer comes back: so it is after the bootstrap was started again, or when the network was gone.
#[tokio::test(flavor = "multi_thread")]
async fn who_sat_before_gets_it_back() {
    crate::logs();
    let serve = Serve::start(serve_config(1)).await.unwrap();
    let (copy, answer) = asked(&serve, [4; 32], 2).await;
    assert_eq!(answer, Ok(()));
    let before = dialled(&serve, 1).await;
    before.ask(&[4; 32], Some(Duration::from_secs(3 * 3600)));
    within("the seat", before.granted()).await.unwrap();
    let refused = within("the copy hears it", copy.refused()).await;
    assert!(refused.to_string().ends_with("for 3 hours now"), "{refused}");
}

/// What strangers can take is bounded, and takes nothing from others: a node that sat before them keeps its seat and is
/// protected, one that comes after them is granted one.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_in_numbers_keep_nobody_from_selling() {
    crate::logs();
    let mut settings = serve_config(1);
    settings.limits.seats = 20;
    let serve = Serve::start(settings).await.unwrap();
    let (_first, answer) = asked(&serve, [4; 32], 1).await;
    assert_eq!(answer, Ok(()));
    let begun = Instant::now();
    let mut strangers = Vec::new();
    // All that a stranger needs is a fresh key.
    for number in 0..100u8 {
        let mut node = [9; 32];
        node[0] = number;
        let stranger = dialled(&serve, number).await;
        stranger.ask(&node, None);
        strangers.push(stranger);
    }
    for stranger in &strangers {
        within("an answer for a stranger", stranger.granted())
            .await
            .unwrap();
    }
    println!("{} strangers after {:?}", strangers.len(), begun.elapsed());
    let (_later, answer) = asked(&serve, [5; 32], 1).await;
    assert_eq!(answer, Ok(()), "one that comes later");
    assert!(
        asked(&serve, [4; 32], 2).await.1.is_err(),
        "a copy of one that came before"
    );
    // The price, which the threat model names: a copy of the later one is not seen.
    assert_eq!(asked(&serve, [5; 32], 2).await.1, Ok(()));
}
