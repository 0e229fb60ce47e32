//! Another size of a space that runs, over a real ledger and a real grid: asked, signed, made, paid; and refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

#[allow(dead_code)] // each test file uses a part
mod street;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent::sales::{Failed, NotRestored, SpaceVolume};
use escrow::{Amount, Rail, Wallet};
use grid::DirectStream;
use market::envelope::{Signed, open};
use market::id::GroupId;
use market::message::*;
use market::prices::Prices;
use market::quantity::{Bytes, MilliCpus, UnixMillis};
use street::user::{Bought, eventually, say};
use street::{MONEY, Machine, Node, PRICE, Street, User, opened};

const FARMER: u8 = 40;
const USER: u8 = 20;
const MIB: u64 = 1 << 20;

/// A space that runs and is paid for its first period.
async fn active() -> (Street, Node, User, Bought, DirectStream) {
    let (street, node, user) = opened().await;
    let (bought, mut stream) = user.ready(1).await;
    user.pay(&mut stream, &bought, 1).await;
    (street, node, user, bought, stream)
}

fn ask(bought: &Bought, cpu: u32, memory_mib: u64, disk_mib: u64) -> Resize {
    Resize {
        sale: bought.id,
        nonce: [1; 16],
        cpu: (cpu > 0).then_some(MilliCpus(cpu)),
        memory: (memory_mib > 0).then_some(Bytes(memory_mib * MIB)),
        disk: (disk_mib > 0).then_some(Bytes(disk_mib * MIB)),
        snapshot: None,
    }
}

fn amend(bought: &Bought, number: u32, quote: &Quote, prices: Prices) -> Amend {
    Amend {
        sale: bought.id,
        number,
        periods: bought.body.periods,
        gives: Some(quote.gives),
        prices,
    }
}

async fn top_up(user: &User, bought: &Bought, total: Amount) {
    let wallet = user.wallet();
    let expiry = wallet.now().await.unwrap().plus_ms(4 * 3_600_000);
    wallet.lock(&bought.terms, total, expiry).await.unwrap();
}

/// Says it until the node has looked at the lock.
async fn signed(user: &User, stream: &mut DirectStream, change: &Signed<Amend>) -> Signed<Amended> {
    loop {
        let answer = say(stream, &change.bytes).await;
        if let Ok(amended) = open::<Amended>(&answer, None) {
            return amended;
        }
        assert_eq!(refusal(user, &answer).code, RefusalCode::NotFunded);
    }
}

fn refusal(user: &User, bytes: &[u8]) -> Refusal {
    let refusal: Signed<Refusal> = user.open(bytes);
    refusal.message
}

#[tokio::test(flavor = "multi_thread")]
async fn more_of_everything_is_signed_made_with_the_key_and_paid_from_the_next_period() {
    let (street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 1000, 1024, 4096)).await;
    assert_eq!(quote.lacks, []);
    assert_eq!(
        (quote.price, quote.begun),
        (Amount(2 * PRICE.0), 1),
        "twice the size"
    );
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();

    let cheap = Prices::of(PRICE).changed(1, Amount(quote.price.0 - 1)).unwrap();
    let cheap = user.sign(amend(&bought, 1, &quote, cheap));
    let refused = refusal(&user, &say(&mut stream, &cheap.bytes).await);
    assert_eq!(refused.code, RefusalCode::Mismatch, "{}", refused.words);
    let anew = user.sign(amend(&bought, 1, &quote, Prices::of(quote.price)));
    let refused = refusal(&user, &say(&mut stream, &anew.bytes).await);
    assert_eq!(
        refused.code,
        RefusalCode::State,
        "what began keeps its price: {}",
        refused.words
    );

    let change = user.sign(amend(&bought, 1, &quote, prices.clone()));
    let refused = refusal(&user, &say(&mut stream, &change.bytes).await);
    assert_eq!(refused.code, RefusalCode::NotFunded, "{}", refused.words);
    let total = prices.owed(3).unwrap();
    top_up(&user, &bought, total).await;
    let amended = signed(&user, &mut stream, &change).await;
    assert_eq!(amended.message.amend.bytes, change.bytes);
    let size = || node.machine.running.lock().unwrap()[&bought.id].clone();
    eventually(|| size().memory == Bytes(1024 * MIB)).await;
    assert_eq!(
        (size().cpu, node.machine.keys.load(Ordering::SeqCst)),
        (MilliCpus(1000), 0)
    );
    let again = user.open::<Amended>(&say(&mut stream, &change.bytes).await);
    assert_eq!(
        again.message.amend.bytes, change.bytes,
        "said again, signed again"
    );

    let grant = user.grant(&mut stream, bought.id).await;
    assert_eq!(grant.epoch, 2);
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    eventually(|| node.machine.keys.load(Ordering::SeqCst) == 1).await;
    let no_more = refusal(
        &user,
        &say(&mut stream, &user.sign(Funded { sale: bought.id }).bytes).await,
    );
    assert_eq!(no_more.code, RefusalCode::State, "no key is needed any more");

    let old = refusal(
        &user,
        &user.pay_sum(&mut stream, &bought, Amount(2 * PRICE.0)).await,
    );
    assert_eq!(
        old.code,
        RefusalCode::Voucher,
        "two periods cost three first prices: {}",
        old.words
    );
    let new = user.pay_sum(&mut stream, &bought, Amount(3 * PRICE.0)).await;
    let status = user.open::<Status>(&new).message;
    assert_eq!(
        (status.paid, status.periods_paid),
        (PRICE, 1),
        "the second period has not begun"
    );
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!(
        (receipt.paid, receipt.returned),
        (PRICE, Amount(total.0 - PRICE.0))
    );
    assert_eq!(street.balance(USER).await, Amount(MONEY.0 - PRICE.0));
    assert_eq!(street.balance(FARMER).await, PRICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not_is_refused_with_figures_and_holds_nothing() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 0, 8192, 0)).await;
    let [lack] = &quote.lacks[..] else {
        panic!("{:?}", quote.lacks)
    };
    let free = 2048 - 320;
    assert_eq!(
        lack,
        &Reason::numbers(
            DeclineCode::Memory,
            8192 * u128::from(MIB),
            free * u128::from(MIB)
        )
    );
    assert!(quote.price > PRICE, "the price is said all the same");
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();
    let change = user.sign(amend(&bought, 1, &quote, prices));
    let refused = refusal(&user, &say(&mut stream, &change.bytes).await);
    assert_eq!(refused.code, RefusalCode::NoCapacity);

    let quote = user.quote(&mut stream, ask(&bought, 0, 0, 1024)).await;
    assert!(
        quote.lacks[0].words.as_ref().unwrap().contains("never shrinks"),
        "{:?}",
        quote.lacks
    );
    *node.machine.memory_in_use.lock().unwrap() = Bytes(200 * MIB);
    let quote = user.quote(&mut stream, ask(&bought, 0, 128, 0)).await;
    assert!(
        quote.lacks[0]
            .words
            .as_ref()
            .unwrap()
            .contains("200 MiB is in use"),
        "{:?}",
        quote.lacks
    );
    let quote = user.quote(&mut stream, ask(&bought, 250, 256, 0)).await;
    assert_eq!(quote.lacks, []);
    assert!(quote.price < PRICE);
    assert_eq!(
        node.machine.running.lock().unwrap()[&bought.id].memory,
        Bytes(512 * MIB)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_says_so_and_tries_again_when_asked() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 0, 1024, 0)).await;
    *node.machine.next_failure.lock().unwrap() = Some(Failed {
        why: "no such file".into(),
        quarantine: None,
    });
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();
    top_up(&user, &bought, prices.owed(3).unwrap()).await;
    let change = user.sign(amend(&bought, 1, &quote, prices));
    signed(&user, &mut stream, &change).await;
    eventually(|| node.said("could not be resized: no such file")).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(status.why.as_deref(), Some("not resized: no such file"));
    user.open::<Amended>(&say(&mut stream, &change.bytes).await);
    let size = || node.machine.running.lock().unwrap()[&bought.id].memory;
    eventually(|| size() == Bytes(1024 * MIB)).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(status.why, None);
}

/// Whoever has a larger disk made cannot sign the smaller one meanwhile, and have the larger one for its price.
#[tokio::test(flavor = "multi_thread")]
async fn a_growth_that_is_being_made_is_not_taken_back() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 0, 0, 4096)).await;
    let larger = Prices::of(PRICE).changed(1, quote.price).unwrap();
    top_up(&user, &bought, Amount(10 * PRICE.0)).await;
    let change = user.sign(amend(&bought, 1, &quote, larger.clone()));
    signed(&user, &mut stream, &change).await;
    let back = user.quote(&mut stream, ask(&bought, 0, 0, 2048)).await;
    assert_eq!(back.lacks, [], "the control: the key has not come yet");

    let grant = user.grant(&mut stream, bought.id).await;
    let waits = node.machine.resizes.write().await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    let smaller = larger.changed(1, back.price).unwrap();
    let change = user.sign(amend(&bought, 2, &back, smaller));
    let refused = refusal(&user, &say(&mut stream, &change.bytes).await);
    assert_eq!(refused.code, RefusalCode::NoCapacity, "{}", refused.words);
    let said = refused.words.contains("never shrinks, it has 4 GiB");
    assert!(said, "{}", refused.words);
    let waited = user.quote(&mut stream, ask(&bought, 0, 0, 2048)).await;
    assert_eq!(waited.lacks.len(), 1, "{:?}", waited.lacks);
    drop(waits);
    eventually(|| node.machine.keys.load(Ordering::SeqCst) == 1).await;
    let disk = node.machine.running.lock().unwrap()[&bought.id].disk;
    assert_eq!(disk, Bytes(4096 * MIB));
}

/// A disk without room for what was agreed keeps nobody from his files: the key opens them, and the next one is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_grow_is_opened_all_the_same() {
    let (street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 0, 0, 4096)).await;
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();
    top_up(&user, &bought, Amount(10 * PRICE.0)).await;
    let change = user.sign(amend(&bought, 1, &quote, prices));
    signed(&user, &mut stream, &change).await;
    let spec = node.machine.running.lock().unwrap()[&bought.id].clone();
    node.power_cut();

    let machine = Arc::new(Machine::default());
    machine.has_no_room.store(true, Ordering::SeqCst);
    let node = Node::start(&street, machine, vec![spec]).await;
    let user = User::new(&street, USER).await;
    street::sells(&user).await;
    let bought = Bought {
        node: user.offered(77).await.node,
        ..bought
    };
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    let why = status.why.unwrap();
    assert!(why.starts_with("not resized: its disk did not grow"), "{why}");
    let grant = user.grant(&mut stream, bought.id).await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    eventually(|| node.machine.keys.load(Ordering::SeqCst) == 1).await;
    let status = user.wait_for(&mut stream, bought.id, SaleState::Active).await;
    assert_eq!(status.why, None);
}

/// What a space has on its disk is in the book once, whether its volume is seen there yet or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_counted_once_whenever_the_disks_are_looked_at() {
    let (_street, node, user, bought, mut stream) = active().await;
    let room = [(GroupId("steading-test".into()), Bytes(10 << 30))];
    let count = |volumes: &[SpaceVolume]| {
        let capacity = agent::desk::capacity(2, Bytes(2 << 30), None, &room);
        node.desk.set_capacity(capacity, volumes);
    };
    let volume = |sale, bytes| SpaceVolume {
        sale,
        group: room[0].0.clone(),
        bytes: Bytes(bytes),
    };
    let mut most = async || {
        let quote = user.quote(&mut stream, ask(&bought, 0, 0, 100 * 1024)).await;
        quote.lacks[0].have.unwrap()
    };
    count(&[]);
    let before = most().await;
    count(&[volume(bought.id, 2052 * MIB)]);
    assert_eq!(most().await, before);
    count(&[volume(market::id::SaleId([9; 32]), 1024 * MIB)]);
    assert_eq!(most().await, before - (1 << 30), "nobody's: it is not sold");
}

fn ask_snapshot(bought: &Bought, wanted: bool) -> Resize {
    Resize {
        snapshot: Some(wanted),
        ..ask(bought, 0, 0, 0)
    }
}

/// Signs a change to what was quoted.
async fn change(user: &User, stream: &mut DirectStream, bought: &Bought, number: u32, quote: &Quote) {
    let change = user.sign(amend(bought, number, quote, Prices::of(PRICE)));
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
    let part = user.sign(amend(&bought, 1, &part, Prices::of(PRICE)));
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
async fn a_snapshot_without_room_is_refused_with_figures_and_price() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 0, 0, 6 * 1024)).await;
    top_up(&user, &bought, Amount(10 * PRICE.0)).await;
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();
    let larger = user.sign(amend(&bought, 1, &quote, prices));
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
            let (six, all) = (6 << 30, (10 << 30) - (64 << 20)); // the base's room is not for sale
            assert!((2 * six..2 * six + (16 << 20)).contains(&asked), "{asked}");
            assert_eq!(refused.lacks[0].have, Some(all), "with what it has already");
            assert!(refused.price > quote.price, "what it would cost");
            return;
        }
    }
    panic!("it never had grown");
}
