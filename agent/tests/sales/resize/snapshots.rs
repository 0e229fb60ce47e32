//! A snapshot of a space that runs: sold as disk, taken, put back over a power cut, removed.

use agent::sales::NotRestored;
use market::quantity::UnixMillis;

use super::*;

fn ask_snapshot(bought: &Bought, wanted: bool) -> Resize {
    Resize {
        snapshot: Some(wanted),
        ..ask(bought, 0, 0, 0)
    }
}

/// Signs a change to what was quoted.
async fn change(user: &User, stream: &mut DirectStream, bought: &Bought, number: u32, quote: &Quote) {
    let change = user.sign(amend(user, bought, number, quote, Prices::of(PRICE)));
    signed(user, stream, &change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_sold_as_disk_taken_and_removed() {
    let (_street, node, user, bought, mut stream) = active().await;
    let small = Resize {
        snapshot: Some(true),
        ..ask(&bought, 250, 256, 0)
    };
    let without = user.quote(&mut stream, ask(&bought, 250, 256, 0)).await;
    let quote = user.quote(&mut stream, small).await;
    assert!(
        quote.price > without.price,
        "{} and {}",
        quote.price,
        without.price
    );
    let quote = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
    assert_eq!(quote.lacks, []);
    assert_eq!(quote.price, PRICE, "half a CPU counts more than 4 GiB of disk");
    let bytes = quote.gives.snapshot;
    assert!(
        bytes > Bytes(2048 * MIB) && bytes < Bytes(2064 * MIB),
        "{bytes:?}"
    );
    // What is not a whole snapshot is not sold.
    let part = Quote {
        gives: Gives {
            snapshot: Bytes(4 * MIB),
            ..quote.gives
        },
        ..quote.clone()
    };
    let part = user.sign(amend(&user, &bought, 1, &part, Prices::of(PRICE)));
    assert_eq!(
        refusal(&user, &say(&mut stream, &part.bytes).await).code,
        RefusalCode::Mismatch
    );

    change(&user, &mut stream, &bought, 1, &quote).await;
    let machine = || node.machine.running.lock().unwrap()[&bought.id].snapshot;
    eventually(|| machine() == bytes).await;
    let taken = wait_snapshot(&user, &mut stream, &bought, true).await;
    assert!(taken.is_some());
    let grown = user.quote(&mut stream, ask(&bought, 0, 0, 3072)).await;
    let words = grown.lacks[0].words.clone().unwrap();
    assert!(words.contains("while there is a snapshot"), "{words}");

    let quote = user.quote(&mut stream, ask_snapshot(&bought, false)).await;
    assert_eq!((quote.lacks.clone(), quote.gives.snapshot), (vec![], Bytes::ZERO));
    change(&user, &mut stream, &bought, 2, &quote).await;
    wait_snapshot(&user, &mut stream, &bought, false).await;
    assert_eq!(machine(), Bytes::ZERO);
    let soon = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
    let words = soon.lacks[0].words.clone().unwrap();
    assert!(words.contains("a moment ago"), "{words}");
    user.cancel(&mut stream, bought.id).await;
}

/// The status's word, once there is a snapshot, or none.
async fn wait_snapshot(
    user: &User,
    stream: &mut DirectStream,
    bought: &Bought,
    wanted: bool,
) -> Option<UnixMillis> {
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..500 {
        pace.tick().await;
        let status = user.wait_for(stream, bought.id, SaleState::Active).await;
        if status.snapshot.is_some() == wanted {
            return status.snapshot;
        }
    }
    panic!("never {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_put_back_once_and_the_key_opens_it_then() {
    let (_street, node, user, bought, mut stream) = active().await;
    let restore = |nonce: u8, taken: UnixMillis| {
        user.sign(Restore {
            sale: bought.id,
            nonce: [nonce; 16],
            taken,
        })
    };
    let none = say(&mut stream, &restore(1, UnixMillis(1)).bytes).await;
    assert_eq!(
        refusal(&user, &none).code,
        RefusalCode::State,
        "there is no snapshot"
    );
    let quote = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
    change(&user, &mut stream, &bought, 1, &quote).await;
    let taken = wait_snapshot(&user, &mut stream, &bought, true).await.unwrap();
    let other = say(&mut stream, &restore(1, UnixMillis(taken.0 - 1)).bytes).await;
    assert_eq!(
        refusal(&user, &other).code,
        RefusalCode::Mismatch,
        "of another time"
    );

    // It is broken: the space goes on.
    let failed = |is_untouched| {
        *node.machine.not_restored.lock().unwrap() = Some(NotRestored {
            why: "no such chunk".into(),
            is_untouched,
        });
    };
    failed(true);
    user.open::<Status>(&say(&mut stream, &restore(1, taken).bytes).await);
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(status.why.as_deref(), Some("not restored: no such chunk"));

    // It fails on the way: no key opens the half of it.
    failed(false);
    user.open::<Status>(&say(&mut stream, &restore(2, taken).bytes).await);
    let status = user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
    assert_eq!(status.why.as_deref(), Some("not restored: no such chunk"));
    let early = say(&mut stream, &user.sign(Funded { sale: bought.id }).bytes).await;
    assert_eq!(refusal(&user, &early).code, RefusalCode::Busy);

    user.open::<Status>(&say(&mut stream, &restore(3, taken).bytes).await);
    let status = user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
    assert_eq!(
        (status.why, status.snapshot),
        (None, Some(taken)),
        "it is there for another time"
    );
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    let restores = || node.machine.restores.load(Ordering::SeqCst);
    assert_eq!(restores(), 3);
    user.open::<Status>(&say(&mut stream, &restore(3, taken).bytes).await);
    user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(restores(), 3, "said again, not done again");
    assert!(node.machine.running.lock().unwrap().contains_key(&bought.id));
}

/// One restore after the other closes, copies and opens a volume, and nobody pays for it. The control: no pause.
#[tokio::test(flavor = "multi_thread")]
async fn from_one_restore_to_the_next_there_is_a_pause() {
    for (pause_ms, second) in [(0, None), (3_600_000, Some(RefusalCode::Busy))] {
        let machine = Machine {
            restore_every_ms: pause_ms.into(),
            ..Machine::default()
        };
        let (_street, node, user, bought, mut stream) = active_on(machine).await;
        let quote = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
        change(&user, &mut stream, &bought, 1, &quote).await;
        let taken = wait_snapshot(&user, &mut stream, &bought, true).await.unwrap();
        let restore = |nonce: u8| {
            user.sign(Restore {
                sale: bought.id,
                nonce: [nonce; 16],
                taken,
            })
        };
        user.open::<Status>(&say(&mut stream, &restore(1).bytes).await);
        user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
        let answer = say(&mut stream, &restore(2).bytes).await;
        let restores = || node.machine.restores.load(Ordering::SeqCst);
        match second {
            Some(code) => {
                let refused = refusal(&user, &answer);
                assert_eq!(refused.code, code);
                let words = refused.words;
                assert!(words.contains("again in 36"), "{words}");
                // The same as before is no other one.
                user.open::<Status>(&say(&mut stream, &restore(1).bytes).await);
                assert_eq!(restores(), 1);
            }
            None => {
                user.open::<Status>(&answer);
                eventually(|| restores() == 2).await;
            }
        }
        let receipt = user.cancel(&mut stream, bought.id).await;
        assert_eq!(receipt.state, SaleState::Ended);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_the_power_cut_stopped_goes_on_by_itself() {
    let (street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
    change(&user, &mut stream, &bought, 1, &quote).await;
    let taken = wait_snapshot(&user, &mut stream, &bought, true).await.unwrap();
    let specs: Vec<_> = node.machine.running.lock().unwrap().values().cloned().collect();
    node.machine.is_stuck.store(true, Ordering::SeqCst);
    let restore = user.sign(Restore {
        sale: bought.id,
        nonce: [9; 16],
        taken,
    });
    user.open::<Status>(&say(&mut stream, &restore.bytes).await);
    eventually(|| node.machine.restores.load(Ordering::SeqCst) == 1).await;
    user.wait_for(&mut stream, bought.id, SaleState::Building).await;
    node.power_cut();

    let node = Node::start(&street, Arc::default(), specs).await;
    let restores = || node.machine.restores.load(Ordering::SeqCst);
    eventually(|| restores() == 1).await;
    let user = User::new(&street, USER).await;
    let request = user.request(77, 512 << 20).await;
    let offer = user.open::<Offer>(&user.ask(&request).await);
    let bought = Bought {
        node: grid::EndpointAddress::from_bytes(&offer.message.address).unwrap(),
        ..bought
    };
    let mut stream = user.speak(&bought).await;
    user.wait_for(&mut stream, bought.id, SaleState::Locked).await;
    user.open::<Status>(&say(&mut stream, &restore.bytes).await);
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(restores(), 1, "said again after it came through");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_does_not_wait_until_a_snapshot_is_put_back() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
    change(&user, &mut stream, &bought, 1, &quote).await;
    let taken = wait_snapshot(&user, &mut stream, &bought, true).await.unwrap();
    node.machine.is_stuck.store(true, Ordering::SeqCst);
    let restore = user.sign(Restore {
        sale: bought.id,
        nonce: [9; 16],
        taken,
    });
    user.open::<Status>(&say(&mut stream, &restore.bytes).await);
    eventually(|| node.machine.restores.load(Ordering::SeqCst) == 1).await;
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!(receipt.state, SaleState::Ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_without_room_is_refused_with_figures_and_price() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 0, 0, 6 * 1024)).await;
    top_up(&user, &bought, Amount(10 * PRICE.0)).await;
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();
    let larger = user.sign(amend(&user, &bought, 1, &quote, prices));
    signed(&user, &mut stream, &larger).await;
    let early = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
    let words = early.lacks[0].words.clone().unwrap();
    assert!(words.contains("while there is a snapshot"), "{words}");
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    eventually(|| node.machine.keys.load(Ordering::SeqCst) == 1).await;

    let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..500 {
        pace.tick().await;
        let refused = user.quote(&mut stream, ask_snapshot(&bought, true)).await;
        if let Some(asked) = refused.lacks[0].asked {
            let (six, all) = (6 << 30, 10 << 30);
            assert!((2 * six..2 * six + (16 << 20)).contains(&asked), "{asked}");
            // What it has already is in it; what is the node's own on a disk is not for sale.
            let have = refused.lacks[0].have.unwrap();
            assert!((all - (128 << 20)..all).contains(&have), "{have}");
            assert!(refused.price > quote.price, "what it would cost");
            return;
        }
    }
    panic!("it never had grown");
}
