//! The journal forgets nothing, so what fills it has a pace; and no pace keeps a payee from his money.
//!
//! | property | control in which it fails |
//! |---|---|
//! | one payer's entries are bounded, whatever he does with units that cost him nothing | no pace |
//! | a payee who asks again when he was told to is paid, whoever takes the turns before him | one pace for all sizes |
//! | what nobody waits for any more is swept | (counted beside the locks that were used) |

use escrow::lock::{Act, Windows};
use escrow::{Amount, LeaseId, LockView, RailTime, Refusal};
use ledger::store::book::{Action, BookError, Booked, LockAction, Operation, book};
use ledger::store::pace::Pace;
use ledger::store::read_lock;
use ledger::wire::Head;
use proptest::prelude::*;
use rusqlite::Connection;

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const NOTICE_MS: u64 = 24 * HOUR_MS;
/// What the payer has: two locks' worth, and units to spare.
const MONEY: u128 = 4_000_000_000;
const LOCKED: u128 = 1_000_000_000;

/// No pace: the control.
const UNPACED: Pace = Pace {
    steps_an_hour: u32::MAX,
    redemption_ms: 0,
    redemptions: 1,
    size_bits: 4,
};

/// A ledger's file in memory, and its clock.
struct Books {
    connection: Connection,
    pace: Pace,
    now_ms: u64,
    head: Head,
    operations: u64,
}

impl Books {
    fn new(pace: Pace) -> Books {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("../../src/store/schema.sql"))
            .unwrap();
        let head = Head {
            sequence: 0,
            hash: [0; 32],
        };
        let mut books = Books {
            connection,
            pace,
            now_ms: START_MS,
            head,
            operations: 0,
        };
        let fund = Action::Fund {
            to: "payer".to_owned(),
            amount: Amount(MONEY),
        };
        books.book(fund).unwrap();
        books
    }

    fn book(&mut self, action: Action) -> Result<Booked, Refusal> {
        self.operations += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.operations.to_be_bytes());
        let operation = Operation {
            hash,
            instruction: "{}".to_owned(),
            action,
        };
        let savepoint = self.connection.savepoint().unwrap();
        let booked = book(
            &savepoint,
            &self.pace,
            &operation,
            RailTime(self.now_ms),
            &mut self.head,
        );
        match booked {
            Ok(booked) => {
                savepoint.commit().unwrap();
                Ok(booked)
            }
            Err(BookError::Refused(refusal)) => Err(refusal),
            Err(BookError::Sqlite(error)) => panic!("{error}"),
        }
    }

    fn act(&mut self, lock: u8, act: Act) -> Result<LockView, Refusal> {
        let action = LockAction {
            lease: LeaseId([lock; 32]),
            terms: "{}".to_owned(),
            payer: "payer".to_owned(),
            payee: "payee".to_owned(),
            windows: Windows {
                accept_window_ms: HOUR_MS,
                notice_ms: NOTICE_MS,
            },
            act,
        };
        match self.book(Action::Lock(action))? {
            Booked::Lock(view) => Ok(view),
            Booked::Funded(_) => panic!("a lock was asked for"),
        }
    }

    fn view(&self, lock: u8) -> LockView {
        read_lock(&self.connection, &LeaseId([lock; 32])).unwrap()
    }

    /// As much more into the lock, and as much longer.
    fn step(&mut self, lock: u8, more: u128, longer_ms: u64) -> Result<LockView, Refusal> {
        let view = self.view(lock);
        let act = Act::Lock {
            total: Amount(view.funded.0 + more),
            expiry: view
                .expiry
                .max(RailTime(self.now_ms + 48 * HOUR_MS))
                .plus_ms(longer_ms),
        };
        self.act(lock, act)
    }

    fn redeem(&mut self, lock: u8, cumulative: u128) -> Result<LockView, Refusal> {
        let act = Act::Redeem {
            cumulative: Amount(cumulative),
            not_before: RailTime(0),
        };
        self.act(lock, act)
    }

    fn count(&self, table: &str) -> u64 {
        let count: i64 = self
            .connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap();
        u64::try_from(count).unwrap()
    }
}

/// What a payer does who fills the file: he has the vouchers' key, and pays an account of his own.
#[derive(Debug, Clone)]
enum Filling {
    TopUp(u8),
    Extend(u8),
    /// So much more.
    Redeem(u8, u128),
    /// All that is in it.
    Whole(u8),
    Pass(u64),
}

fn filling() -> impl Strategy<Value = Filling> {
    let lock = || 0..LOCKS;
    prop_oneof![
        3 => lock().prop_map(Filling::TopUp),
        2 => lock().prop_map(Filling::Extend),
        4 => (lock(), 1u128..20).prop_map(|(lock, more)| Filling::Redeem(lock, more)),
        2 => (lock(), 1u128..5000).prop_map(|(lock, more)| Filling::Redeem(lock, more)),
        1 => lock().prop_map(Filling::Whole),
        1 => (1u64..60_000).prop_map(Filling::Pass),
    ]
}

const LOCKS: u8 = 3;
/// Each thing that he does is done so often in a row.
const REPEATED: u32 = 40;

/// A short pace, so that a schedule of some thousand acts comes to its end.
const SHORT: Pace = Pace {
    steps_an_hour: 30,
    redemption_ms: 6_000,
    redemptions: 10,
    size_bits: 4,
};

fn fill(pace: Pace, schedule: &[Filling]) -> Result<(), String> {
    let mut books = Books::new(pace);
    for act in schedule {
        for _ in 0..REPEATED {
            // Refused or not: what counts is what stays.
            let _ = match *act {
                Filling::TopUp(lock) => books.step(lock, 1, 0),
                Filling::Extend(lock) => books.step(lock, 0, HOUR_MS),
                Filling::Redeem(lock, more) => books.redeem(lock, books.view(lock).paid.0 + more),
                Filling::Whole(lock) => books.redeem(lock, books.view(lock).funded.0),
                Filling::Pass(ms) => {
                    books.now_ms += ms / u64::from(REPEATED);
                    Ok(LockView::NONE)
                }
            };
        }
    }
    let passed_ms = books.now_ms - START_MS;
    let hours = passed_ms / HOUR_MS + 2;
    let steps = hours * u64::from(SHORT.steps_an_hour);
    // Three sizes up to 4096, and a whole for each step at most.
    let turns = SHORT.redemptions + passed_ms / SHORT.redemption_ms + 1;
    let most = 1 + 2 * steps + u64::from(LOCKS) * 4 * turns;
    let entries = books.count("entry");
    if entries > most {
        return Err(format!("{entries} entries, {most} at most"));
    }
    Ok(())
}

#[test]
fn whatever_a_payer_does_the_journal_grows_at_a_pace() {
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    };
    let schedules = || prop::collection::vec(filling(), 20..60);
    proptest!(config, |(schedule in schedules())| {
        fill(SHORT, &schedule).map_err(TestCaseError::fail)?;
    });
    // The control.
    let long = [Filling::TopUp(0), Filling::Redeem(0, 1), Filling::Extend(0)];
    let long: Vec<Filling> = long.iter().cycle().take(60).cloned().collect();
    fill(SHORT, &long).unwrap();
    let why = fill(UNPACED, &long).expect_err("nothing bounds it, and it was not seen");
    println!("without a pace: {why}");
}

/// How somebody who wants the payee not to be paid takes the turns before him.
#[derive(Debug, Clone, Copy)]
enum Taking {
    /// The least that takes the turn of what the payee holds.
    Least,
    /// So much.
    Sum(u128),
}

/// The payee shows one voucher, whenever he was told to; before him each time comes another with smaller ones of the
/// same lock. Returns how long it took until all of it was paid, or that it never was.
fn race(pace: Pace, owed: u128, taking: &[Taking]) -> Result<u64, String> {
    let mut books = Books::new(pace);
    books.step(1, LOCKED, 0).unwrap();
    // The user has closed: the notice is all that there is.
    books.redeem(1, 1).unwrap();
    books.act(1, Act::Close).unwrap();
    let closed_ms = books.now_ms;
    let mut turns = taking.iter().cycle();
    let goal = 1 + owed;
    loop {
        let mut taken = 0;
        while taken < 3 * pace.redemptions.min(100) {
            taken += 1;
            let (paid, left) = (books.view(1).paid.0, goal.saturating_sub(books.view(1).paid.0));
            let adds = match turns.next().unwrap() {
                Taking::Least => 1 << (left.max(1).ilog2() / pace.size_bits * pace.size_bits).min(126),
                Taking::Sum(sum) => *sum,
            };
            if books.redeem(1, paid + adds.min(left)).is_err() {
                break;
            }
        }
        match books.redeem(1, goal) {
            Ok(view) => {
                assert!(view.paid.0 >= goal);
                return Ok(books.now_ms - closed_ms);
            }
            Err(Refusal::NotYet(from)) => books.now_ms = from.0,
            Err(other) => return Err(other.to_string()),
        }
        if books.now_ms >= closed_ms + 2 * HOUR_MS {
            let left = goal - books.view(1).paid.0;
            return Err(format!("{left} of {owed} are not paid after two hours"));
        }
    }
}

#[test]
fn nobody_keeps_a_payee_from_his_money_with_vouchers_of_nothing() {
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    };
    let pace = Pace::default();
    let taking = prop_oneof![3 => Just(Taking::Least), 1 => (1u128..2_000_000).prop_map(Taking::Sum)];
    let takings = prop::collection::vec(taking, 1..6);
    proptest!(config, |(owed in 1u128..LOCKED / 2, takings in takings)| {
        let took_ms = race(pace, owed, &takings).map_err(TestCaseError::fail)?;
        // 15 turns at most in each size before the payee's own.
        let most_ms = u64::from(owed.ilog2() / pace.size_bits + 1) * 16 * pace.redemption_ms;
        prop_assert!(took_ms <= most_ms, "{took_ms} ms, {most_ms} at most");
    });
    // Nobody else asks: he is paid at once.
    assert_eq!(race(pace, 400_000, &[Taking::Sum(0)]), Ok(0));
    // The control: one pace for all sizes, and all turns are taken with one unit each.
    let one_size = Pace {
        size_bits: 128,
        ..pace
    };
    let why = race(one_size, 400_000, &[Taking::Sum(1)]).expect_err("the payee was paid");
    assert!(why.contains("not paid after two hours"), "{why}");
    race(pace, 400_000, &[Taking::Sum(1)]).unwrap();
}

#[test]
fn the_last_of_a_lock_is_paid_whenever_it_is_shown() {
    let mut books = Books::new(Pace::default());
    books.step(1, 1_000, 0).unwrap();
    let mut paid = 0;
    let refused = loop {
        match books.redeem(1, paid + 1) {
            Ok(_) => paid += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((paid, refused), (60, Refusal::NotYet(RailTime(START_MS + 6_000))));
    // The same voucher again moves nothing, and is no turn.
    for _ in 0..100 {
        assert_eq!(books.redeem(1, 60).unwrap().paid, Amount(60));
    }
    assert_eq!(books.count("entry"), 2 + 60);
    assert_eq!(books.redeem(1, 1_000).unwrap().paid, Amount(1_000));
}

/// Some hundred locks are redeemed in their turn; the turns of the first are gone when the last is.
#[test]
fn what_nobody_waits_for_is_swept() {
    let mut books = Books::new(Pace::default());
    for lock in 0..200 {
        books.step(lock, 10_000, 0).unwrap();
        for cumulative in [1, 20, 400, 5_000] {
            books.redeem(lock, cumulative).unwrap();
        }
        books.now_ms += 3_000;
    }
    let kept = books.count("redeemed");
    // six seconds of two locks, four sizes each, and what stands behind them
    assert!(kept <= 12, "{kept} turns are kept");
}
