//! The book under floods, lapses and random histories.

mod disks;
mod snapshots;

use proptest::prelude::*;

use super::*;
use crate::quantity::{BitsPerSecond, MilliCpus};

const GIB: u64 = 1 << 30;

fn group(name: &str) -> GroupId {
    GroupId(name.to_owned())
}

fn capacity() -> Capacity {
    Capacity {
        cpu: MilliCpus(4000),
        memory: Bytes(8 * GIB),
        rate: BitsPerSecond(100_000_000),
        pids: 8192,
        spaces: 64,
        disks: [(group("a"), Bytes(10 * GIB)), (group("b"), Bytes(30 * GIB))].into(),
        a_volume: Bytes::ZERO,
    }
}

fn gives(cpu: u32, memory: u64, disk: u64) -> Gives {
    Gives {
        cpu: MilliCpus(cpu),
        memory: Bytes(memory),
        disk: Bytes(disk),
        rate: BitsPerSecond(1_000_000),
        pids: 64,
        snapshot: Bytes::ZERO,
    }
}

fn asker(user: u8, neighbour: u8) -> Asker {
    Asker {
        user: UserId([user; 32]),
        neighbour: EndpointId([neighbour; 32]),
    }
}

fn request(number: u8) -> RequestHash {
    RequestHash([number; 32])
}

fn sale(number: u8) -> SaleId {
    SaleId([number; 32])
}

const SMALL: fn() -> Gives = || gives(100, GIB / 8, GIB / 4);

#[test]
fn a_small_disk_is_filled_before_a_large_one() {
    let mut book = Book::new(capacity());
    assert_eq!(
        book.offer(request(1), asker(1, 1), gives(100, GIB, 4 * GIB), 0)
            .unwrap()
            .group,
        group("a")
    );
    assert_eq!(
        book.offer(request(2), asker(2, 1), gives(100, GIB, 12 * GIB), 0)
            .unwrap()
            .group,
        group("b")
    );
}

#[test]
fn no_offer_exceeds_the_largest_free_on_one_disk() {
    let mut book = Book::new(capacity());
    let reasons = book
        .offer(request(1), asker(1, 1), gives(100, GIB, 31 * GIB), 0)
        .unwrap_err();
    assert_eq!(
        reasons,
        [Reason::numbers(
            DeclineCode::Disk,
            u128::from(31 * GIB),
            u128::from(30 * GIB)
        )]
    );
}

#[test]
fn four_holds_a_key_and_eight_a_neighbour_then_unheld() {
    let mut book = Book::new(capacity());
    let held: Vec<bool> = (0..5)
        .map(|n| book.offer(request(n), asker(1, 1), SMALL(), 0).unwrap().held)
        .collect();
    assert_eq!(held, [true, true, true, true, false]);
    let held: Vec<bool> = (5..10)
        .map(|n| book.offer(request(n), asker(n, 1), SMALL(), 0).unwrap().held)
        .collect();
    assert_eq!(held, [true, true, true, true, false]);
    assert!(
        book.offer(request(11), asker(11, 2), SMALL(), 0).unwrap().held,
        "another neighbour"
    );
}

#[test]
fn who_only_looks_takes_nothing() {
    let mut book = Book::new(capacity());
    let (free, whole) = (book.free(), book.clone());
    for _ in 0..100 {
        assert_eq!(book.look(&SMALL(), 0), Ok(group("a")));
    }
    assert_eq!(book.free(), free);
    assert_eq!((&book.pending, &book.lapsed), (&whole.pending, &whole.lapsed));
    let reasons = book.look(&gives(100, GIB, 31 * GIB), 0).unwrap_err();
    assert_eq!(reasons[0].code, DeclineCode::Disk);
    book.offer(request(1), asker(1, 1), SMALL(), 0).unwrap();
    assert_ne!(book.free(), free, "one who asks for a hold takes some");
}

#[test]
fn a_flood_takes_holds_but_no_sale() {
    let mut book = Book::new(capacity());
    for number in 0..200 {
        book.offer(request(number), asker(number, number), gives(500, GIB, GIB), 0)
            .unwrap();
    }
    let honest = book
        .offer(request(250), asker(250, 250), gives(500, GIB, GIB), 0)
        .unwrap();
    assert!(!honest.held);
    book.agree(request(250), sale(1), 1).unwrap();
    assert_eq!(
        book.fund(sale(1), 2),
        Ok(()),
        "the first lock seen is served from the half that is never held"
    );
}

#[test]
fn a_hold_lapses_and_is_free_again() {
    let mut book = Book::new(capacity());
    let whole = book.free();
    book.offer(request(1), asker(1, 1), SMALL(), 0).unwrap();
    assert_ne!(book.free(), whole);
    assert_eq!(book.lapse(HOLD_MS - 1), []);
    assert_eq!(
        book.lapse(HOLD_MS),
        [Lapse::Offer {
            request: request(1),
            held: true
        }]
    );
    assert_eq!(book.free(), whole);
    assert_eq!(
        book.agree(request(1), sale(1), HOLD_MS),
        Err(BookError::OfferGone)
    );
}

#[test]
fn an_offer_is_agreed_once_and_a_late_lock_is_not_served() {
    let mut book = Book::new(capacity());
    book.offer(request(1), asker(1, 1), SMALL(), 0).unwrap();
    assert_eq!(book.agree(request(1), sale(1), 10), Ok(()));
    assert_eq!(book.agree(request(1), sale(1), 11), Ok(()), "the same again");
    assert_eq!(book.agree(request(1), sale(2), 12), Err(BookError::AgreedAlready));
    assert_eq!(book.lapse(10 + AGREED_MS), [Lapse::Agreement { sale: sale(1) }]);
    assert_eq!(book.fund(sale(1), 10 + AGREED_MS), Err(BookError::Lapsed));
}

fn hash(number: u32) -> RequestHash {
    RequestHash(std::array::from_fn(|index| number.to_be_bytes()[index % 4]))
}

/// Neighbours 1 to 4 ask 2,000 times each, and who asked once before them is then let to agree, or not.
fn asked_before_a_flood(room: Room) -> (Book, Result<(), BookError>) {
    let mut book = Book::with_room(capacity(), room);
    let small = || gives(1, GIB / 1024, GIB / 1024);
    for number in 0..8 {
        let asker = asker(u8::try_from(number).unwrap(), 9);
        book.offer(hash(number), asker, small(), 0).unwrap();
    }
    let honest = hash(8);
    let is_held = book.offer(honest, asker(9, 9), small(), 0).unwrap().held;
    assert!(!is_held, "a hold would spare it");
    for number in 0..8000 {
        let neighbour = u8::try_from(number % 4 + 1).unwrap();
        let _ = book.offer(
            hash(number + 100),
            asker((number % 251) as u8, neighbour),
            small(),
            1,
        );
        assert!(book.pending.len() <= MOST_ENTRIES);
    }
    let agreed = book.agree(honest, sale(1), 2);
    (book, agreed)
}

#[test]
fn one_neighbour_leaves_room_for_the_others() {
    let mut book = Book::new(capacity());
    for number in 0..1100 {
        let placed = book
            .offer(hash(number), asker((number % 251) as u8, 7), SMALL(), 0)
            .unwrap();
        let gave_way = (number >= 1024).then(|| placed.instead_of.unwrap());
        assert_eq!(
            gave_way.is_some(),
            placed.instead_of.is_some(),
            "request {number}"
        );
        assert!(
            gave_way != Some(hash(0)),
            "a hold that was promised does not give way"
        );
    }
    assert_eq!(book.pending.len(), 1024);
    let others = book.offer(hash(1100), asker(1, 8), SMALL(), 0).unwrap();
    assert!(others.instead_of.is_none(), "another neighbour");
}

#[test]
fn who_floods_gives_way_to_who_asks_after_and_takes_nothing_from_who_asked_before() {
    let (mut book, agreed) = asked_before_a_flood(Room::default());
    assert_eq!(agreed, Ok(()));
    let after = book.offer(hash(9), asker(10, 10), SMALL(), 2).unwrap();
    assert!(after.instead_of.is_some());
    assert_eq!(book.agree(hash(9), sale(2), 3), Ok(()));

    let declines = Room {
        gives_way: false,
        ..Room::default()
    };
    let (mut book, _) = asked_before_a_flood(declines);
    let busy = book.offer(hash(9), asker(10, 10), SMALL(), 2).unwrap_err();
    assert_eq!(
        busy[0].code,
        DeclineCode::Busy,
        "the control: who asks after is starved"
    );
}

#[test]
fn where_nobody_has_more_than_another_the_oldest_gives_way_but_no_hold_and_no_agreement() {
    let room = Room {
        entries: 8,
        ..Room::default()
    };
    let mut book = Book::with_room(capacity(), room);
    let large = || gives(3000, GIB, GIB); // more than half: unheld
    for number in 0..8u8 {
        let at = u64::from(number);
        let gives = if number == 0 { SMALL() } else { large() };
        book.offer(request(number), asker(number, number), gives, at)
            .unwrap();
    }
    book.agree(request(1), sale(1), 8).unwrap();
    let gave_way: Vec<_> = (8..14u8)
        .map(|number| {
            let placed = book.offer(request(number), asker(number, number), large(), 9);
            placed.unwrap().instead_of.unwrap()
        })
        .collect();
    assert_eq!(gave_way, [2, 3, 4, 5, 6, 7].map(request));
    for number in 8..14u8 {
        book.agree(request(number), sale(number), 10).unwrap();
    }
    let busy = book.offer(request(14), asker(14, 14), large(), 11).unwrap_err();
    assert_eq!(busy[0].code, DeclineCode::Busy, "all that is left was promised");
}

fn id(number: u32) -> SaleId {
    SaleId(hash(number).0)
}

/// A user's offer number so-and-so, agreed at once.
fn agrees(book: &mut Book, user: u8, number: u32, now_ms: u64) -> Result<(), BookError> {
    book.offer(hash(number), asker(user, user), SMALL(), now_ms)
        .unwrap();
    book.agree(hash(number), id(number), now_ms)
}

/// 128 keys with eight agreements each, as many as there is room for; nobody sends money.
fn flooded_by_agreements(room: Room) -> Book {
    let mut book = Book::with_room(capacity(), room);
    for number in 0..1024u32 {
        let user = u8::try_from(number / 8).unwrap();
        assert_eq!(
            agrees(&mut book, user, number, u64::from(number)),
            Ok(()),
            "{number}"
        );
    }
    book
}

#[test]
fn agreements_without_money_are_bounded() {
    let mut book = Book::new(capacity());
    for number in 0..9 {
        let agreed = agrees(&mut book, 1, number, 1);
        assert_eq!(agreed.is_ok(), number < 8, "one user, agreement {number}");
    }
    assert_eq!(book.agree(hash(3), id(3), 2), Ok(()), "the same again");
    for number in 9..1100 {
        let user = u8::try_from(number / 8 + 2).unwrap();
        assert_eq!(agrees(&mut book, user, number, 1), Ok(()), "agreement {number}");
        let waiting = book.pending.values().filter(|entry| entry.sale.is_some());
        assert!(waiting.count() <= MOST_AGREED);
    }
    book.release(id(3));
    assert_eq!(book.agree(hash(8), id(8), 3), Ok(()), "the control");
}

#[test]
fn who_agrees_and_does_not_pay_gives_way_to_who_does() {
    let mut book = flooded_by_agreements(Room::default());
    assert_eq!(agrees(&mut book, 200, 5000, 2000), Ok(()));
    let oldest = Lapse::Agreement { sale: id(0) };
    assert_eq!(book.lapse(2000), [oldest], "one of the flood gave way");
    assert_eq!(
        book.fund(id(0), 2000),
        Err(BookError::Lapsed),
        "a lock for it is given back"
    );
    // The flood goes on, with a fresh key for each: it takes its own places, for others of its keys have more.
    for number in 6000..6800u32 {
        let user = u8::try_from(number % 50 + 201).unwrap();
        let _ = agrees(&mut book, user, number, 2001);
    }
    assert_eq!(book.fund(id(5000), 2002), Ok(()));

    let declines = Room {
        gives_way: false,
        ..Room::default()
    };
    let mut book = flooded_by_agreements(declines);
    let late = AGREED_MS - 1;
    for (number, now_ms) in [(5000, 2000), (5001, late)] {
        assert_eq!(
            agrees(&mut book, 200, number, now_ms),
            Err(BookError::TooManyAgreed),
            "the control: for two minutes nobody buys"
        );
    }
}

#[test]
fn a_resize_takes_only_what_is_free() {
    let mut book = Book::new(capacity());
    book.restore(sale(1), gives(1000, GIB, 4 * GIB), group("a"));
    assert_eq!(book.resize(sale(1), gives(2000, GIB, 10 * GIB)), Ok(()));
    assert_eq!(
        book.resize(sale(1), gives(2000, GIB, 11 * GIB)),
        Err(BookError::NoCapacity)
    );
    assert_eq!(book.sold_on(&group("a")), Bytes(10 * GIB));
}

#[test]
fn five_hundred_abandoned_requests_leave_nothing_behind() {
    let mut book = Book::new(capacity());
    let whole = book.free();
    for number in 0..500u64 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let _ = book.offer(RequestHash(hash), asker(number as u8, 1), SMALL(), number * 10);
        if number % 3 == 0 {
            let _ = book.agree(RequestHash(hash), SaleId(hash), number * 10 + 1);
        }
    }
    book.lapse(500 * 10 + AGREED_MS + 1);
    assert_eq!(book.free(), whole);
}

#[derive(Debug, Clone)]
enum Happens {
    Offer(u8, u8, u8, Gives),
    Agree(u8, u8),
    Fund(u8),
    Release(u8),
    Resize(u8, Gives),
}

fn happens() -> impl Strategy<Value = (u64, Happens)> {
    let some_gives = || {
        (1u32..3000, 1u64..5 * GIB, 1u64..20 * GIB).prop_map(|(cpu, memory, disk)| gives(cpu, memory, disk))
    };
    let what = prop_oneof![
        4 => (any::<u8>(), 0u8..4, 0u8..3, some_gives()).prop_map(|(request, user, neighbour, gives)| Happens::Offer(request, user, neighbour, gives)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(request, sale)| Happens::Agree(request, sale)),
        3 => any::<u8>().prop_map(Happens::Fund),
        1 => any::<u8>().prop_map(Happens::Release),
        1 => (any::<u8>(), some_gives()).prop_map(|(sale, gives)| Happens::Resize(sale, gives)),
    ];
    (0u64..4000, what)
}

/// Room for so few agreements that histories fill it.
const NARROW: usize = 5;

/// Sold and held, added up by somebody who does not trust `free`.
fn check(book: &Book) -> Result<(), TestCaseError> {
    let whole = capacity();
    let held = book.pending.values().filter(|entry| entry.held);
    let all: Vec<(&Gives, &GroupId)> = book
        .sold
        .values()
        .map(|entry| (&entry.gives, &entry.group))
        .chain(held.clone().map(|entry| (&entry.gives, &entry.group)))
        .collect();
    let sum = |part: fn(&Gives) -> u64| all.iter().map(|(gives, _)| part(gives)).sum::<u64>();
    prop_assert!(sum(|gives| u64::from(gives.cpu.0)) <= u64::from(whole.cpu.0));
    prop_assert!(sum(|gives| gives.memory.0) <= whole.memory.0);
    prop_assert!(sum(|gives| gives.rate.0) <= whole.rate.0);
    for (group, size) in &whole.disks {
        let on: u64 = all
            .iter()
            .filter(|(_, on)| *on == group)
            .map(|(gives, _)| gives.disk.0)
            .sum();
        prop_assert!(on <= size.0, "{group} holds {on}");
    }
    for entry in held.clone() {
        let of_user = held
            .clone()
            .filter(|other| other.asker.user == entry.asker.user)
            .count();
        let of_neighbour = held
            .clone()
            .filter(|other| other.asker.neighbour == entry.asker.neighbour)
            .count();
        prop_assert!(of_user <= MOST_HOLDS_A_USER && of_neighbour <= MOST_HOLDS_A_NEIGHBOUR);
    }
    let waiting = book.pending.values().filter(|entry| entry.sale.is_some());
    prop_assert!(waiting.count() <= NARROW);
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_ever_sold_twice(history in prop::collection::vec(happens(), 1..120)) {
        let room = Room { agreed: NARROW, ..Room::default() };
        let (mut book, mut now_ms) = (Book::with_room(capacity(), room), 0);
        for (wait_ms, event) in history {
            now_ms += wait_ms;
            match event {
                Happens::Offer(number, user, neighbour, gives) => {
                    let _ = book.offer(request(number), asker(user, neighbour), gives, now_ms);
                }
                Happens::Agree(number, by) => drop(book.agree(request(number), sale(by), now_ms)),
                Happens::Fund(by) => drop(book.fund(sale(by), now_ms)),
                Happens::Release(by) => book.release(sale(by)),
                Happens::Resize(by, gives) => drop(book.resize(sale(by), gives)),
            }
            check(&book)?;
        }
        let sales: Vec<SaleId> = book.sold.keys().copied().collect();
        sales.into_iter().for_each(|sale| book.release(sale));
        book.lapse(now_ms + AGREED_MS + 1);
        prop_assert_eq!(book.free(), capacity(), "in the end everything is free");
    }
}

#[test]
fn an_agreement_that_was_not_kept_leaves_its_offer_as_it_was() {
    let mut book = Book::new(capacity());
    book.offer(request(1), asker(1, 1), gives(500, GIB, GIB), 0)
        .unwrap();
    book.agree(request(1), sale(1), 10).unwrap();
    book.disagree(sale(1), 20);
    book.agree(request(1), sale(2), 30).unwrap();
    book.disagree(sale(2), 40);
    assert_eq!(
        book.lapse(40 + HOLD_MS).len(),
        1,
        "it lapses as an offer, and says so"
    );
    assert_eq!(book.group_of(sale(2)), None);
}
