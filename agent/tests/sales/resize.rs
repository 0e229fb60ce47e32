//! Another size of a space that runs, over a real ledger and a real grid: asked, signed, made, paid; and refused.

mod snapshots;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::street::user::{Bought, eventually, say};
use crate::street::{MONEY, Machine, Node, PRICE, Street, User, opened_with};
use agent::sales::{Failed, SpaceVolume};
use escrow::{Amount, Rail, RailTime, Wallet};
use grid::DirectStream;
use market::envelope::{Signed, open};
use market::id::GroupId;
use market::message::*;
use market::prices::Prices;
use market::quantity::{Bytes, MilliCpus};

const FARMER: u8 = 40;
const USER: u8 = 20;
const MIB: u64 = 1 << 20;

/// A space that runs and is paid for its first period.
async fn active() -> (Street, Node, User, Bought, DirectStream) {
    active_on(Machine::default()).await
}

/// The same, on a machine that is as the test wants it.
async fn active_on(machine: Machine) -> (Street, Node, User, Bought, DirectStream) {
    let (street, node, user) = opened_with(machine).await;
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

fn amend(user: &User, bought: &Bought, number: u32, quote: &Quote, prices: Prices) -> Amend {
    let next = u64::from(quote.begun) + 1;
    let voucher = (quote.price > prices.at(quote.begun)).then(|| {
        let wallet = user.wallet();
        let voucher = wallet.voucher(&bought.terms, prices.owed(next).unwrap(), RailTime(0));
        voucher.unwrap().to_bytes()
    });
    Amend {
        voucher,
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
async fn more_of_everything_is_signed_and_paid_and_made_with_the_key() {
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
    let cheap = user.sign(amend(&user, &bought, 1, &quote, cheap));
    let refused = refusal(&user, &say(&mut stream, &cheap.bytes).await);
    assert_eq!(refused.code, RefusalCode::Mismatch, "{}", refused.words);
    let anew = user.sign(amend(&user, &bought, 1, &quote, Prices::of(quote.price)));
    let refused = refusal(&user, &say(&mut stream, &anew.bytes).await);
    assert_eq!(
        refused.code,
        RefusalCode::State,
        "what began keeps its price: {}",
        refused.words
    );

    let change = user.sign(amend(&user, &bought, 1, &quote, prices.clone()));
    let refused = refusal(&user, &say(&mut stream, &change.bytes).await);
    assert_eq!(refused.code, RefusalCode::NotFunded, "{}", refused.words);
    let total = prices.owed(3).unwrap();
    top_up(&user, &bought, total).await;
    // All of it is locked, but that comes back: what costs more is paid before it is given.
    let unpaid = Amend {
        voucher: None,
        ..amend(&user, &bought, 1, &quote, prices.clone())
    };
    let unpaid = user.sign(unpaid);
    let refused = loop {
        let refused = refusal(&user, &say(&mut stream, &unpaid.bytes).await);
        if refused.code != RefusalCode::NotFunded {
            break refused;
        }
    };
    assert_eq!(refused.code, RefusalCode::Voucher, "{}", refused.words);
    assert_eq!(
        node.machine.running.lock().unwrap()[&bought.id].cpu,
        MilliCpus(500)
    );
    let amended = signed(&user, &mut stream, &change).await;
    assert_eq!(amended.message.amend.bytes, change.bytes);
    let size = || node.machine.running.lock().unwrap()[&bought.id].clone();
    eventually(|| size().memory == Bytes(1024 * MIB)).await;
    assert_eq!(
        (size().cpu, node.machine.keys.load(Ordering::SeqCst)),
        (MilliCpus(1000), 0)
    );
    let again = user.open::<Amended>(&say(&mut stream, &change.bytes).await);
    assert_eq!(again.bytes, amended.bytes, "said again, answered again");
    let mut greedy = amend(&user, &bought, 1, &quote, prices.clone());
    greedy.gives = Some(Gives {
        cpu: MilliCpus(64_000),
        ..quote.gives
    });
    let refused = refusal(&user, &say(&mut stream, &user.sign(greedy).bytes).await);
    assert_eq!(
        refused.code,
        RefusalCode::State,
        "another size under a number that is taken"
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
    let two = Amount(3 * PRICE.0);
    while street.balance(FARMER).await < two {
        tokio::task::yield_now().await;
    }
    let new = user.pay_sum(&mut stream, &bought, Amount(5 * PRICE.0)).await;
    let status = user.open::<Status>(&new).message;
    assert_eq!(
        (status.paid, status.periods_paid),
        (two, 2),
        "the second period began with it, the third has not begun"
    );
    let receipt = user.cancel(&mut stream, bought.id).await;
    assert_eq!((receipt.paid, receipt.returned), (two, Amount(total.0 - two.0)));
    assert_eq!(street.balance(USER).await, Amount(MONEY.0 - two.0));
    assert_eq!(street.balance(FARMER).await, two);
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
    let change = user.sign(amend(&user, &bought, 1, &quote, prices));
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
    let change = user.sign(amend(&user, &bought, 1, &quote, prices));
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
    let change = user.sign(amend(&user, &bought, 1, &quote, larger.clone()));
    signed(&user, &mut stream, &change).await;
    let back = user.quote(&mut stream, ask(&bought, 0, 0, 2048)).await;
    assert_eq!(back.lacks, [], "the control: the key has not come yet");

    let grant = user.grant(&mut stream, bought.id).await;
    let waits = node.machine.resizes.write().await;
    user.open::<Status>(&user.seal(&mut stream, &grant).await);
    let smaller = larger.changed(back.begun, back.price).unwrap();
    let change = user.sign(amend(&user, &bought, 2, &back, smaller));
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
    let change = user.sign(amend(&user, &bought, 1, &quote, prices));
    signed(&user, &mut stream, &change).await;
    let spec = node.machine.running.lock().unwrap()[&bought.id].clone();
    node.power_cut();

    let machine = Arc::new(Machine::default());
    machine.has_no_room.store(true, Ordering::SeqCst);
    let node = Node::start(&street, machine, vec![spec]).await;
    let user = User::new(&street, USER).await;
    crate::street::sells(&user).await;
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

/// The newest takes the place of the one before; without that, each would be a row for ever.
#[tokio::test(flavor = "multi_thread")]
async fn changes_without_end_fill_no_journal() {
    let (_street, node, user, bought, mut stream) = active().await;
    let rows = async || {
        let read = node.journal.write(|entry| entry.rows("sale-amended"));
        read.await.unwrap()
    };
    for number in 1..=20 {
        let change = user.sign(Amend {
            sale: bought.id,
            number,
            periods: bought.body.periods + number % 2,
            gives: None,
            prices: Prices::of(PRICE),
            voucher: None,
        });
        let amended = user.open::<Amended>(&say(&mut stream, &change.bytes).await);
        let rows = rows().await;
        assert_eq!(rows.len(), 1, "after {number} changes");
        assert_eq!(rows[0].1, amended.bytes, "the newest is kept");
    }
}

/// Each time it is said is work that stands before the end of the sale: one waits, however often it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_said_a_thousand_times_is_made_once_more_and_ends_are_not_held_up() {
    let (_street, node, user, bought, mut stream) = active().await;
    let quote = user.quote(&mut stream, ask(&bought, 250, 0, 0)).await;
    let prices = Prices::of(PRICE).changed(1, quote.price).unwrap();
    let change = user.sign(amend(&user, &bought, 1, &quote, prices));
    let waits = node.machine.resizes.write().await;
    for _ in 0..1000 {
        user.open::<Amended>(&say(&mut stream, &change.bytes).await);
    }
    let asked = || node.machine.resizes_asked.load(Ordering::SeqCst);
    eventually(|| asked() == 1).await;
    drop(waits);
    let size = || node.machine.running.lock().unwrap()[&bought.id].cpu;
    eventually(|| size() == MilliCpus(250)).await;
    user.cancel(&mut stream, bought.id).await;
    assert!(asked() <= 2, "{} times", asked());
}
