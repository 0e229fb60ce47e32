//! What a node earned: in all, and today, which begins at midnight UTC by the rail's clock.
//!
//! ```text
//!  in all = of sales that are forgotten + what each known sale has paid
//!  today  = in all − what it was when the day began ◄── the journal's row `earned`/`day`: which day, and that sum
//! ```
//!
//! So a restart forgets nothing of the day; the first look of a new day begins it.

use std::collections::BTreeMap;

use escrow::{Amount, RailTime};
use market::id::SaleId;
use provision::journal::{Journal, JournalError};

use super::retired::EARNED;

const DAY: &[u8] = b"day";
const DAY_MS: u64 = 24 * 3_600_000;

/// A day, and what had been earned in all when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    /// Days since 1970.
    number: u64,
    before: Amount,
}

/// What sales paid.
#[derive(Debug, Default)]
pub(super) struct Earned {
    forgotten: Amount,
    known: BTreeMap<SaleId, Amount>,
    day: Option<Day>,
}

impl Earned {
    /// As the journal has it.
    pub(super) fn new(
        forgotten: Amount,
        known: impl Iterator<Item = (SaleId, Amount)>,
        day: Option<Day>,
    ) -> Self {
        Self {
            forgotten,
            known: known.collect(),
            day,
        }
    }

    /// A sale has paid so much up to now.
    pub(super) fn paid(&mut self, sale: SaleId, paid: Amount) {
        self.known.insert(sale, paid);
    }

    /// A sale is forgotten; what it paid is not.
    pub(super) fn forget(&mut self, sale: SaleId, paid: Amount) {
        self.known.remove(&sale);
        self.forgotten = self.forgotten.checked_add(paid).unwrap_or(self.forgotten);
    }

    /// In all.
    pub(super) fn all(&self) -> Amount {
        let add = |sum: Amount, paid: &Amount| sum.checked_add(*paid).unwrap_or(sum);
        self.known.values().fold(self.forgotten, add)
    }

    /// Since the day began; none before the rail's time was ever known.
    pub(super) fn today(&self) -> Option<Amount> {
        let day = self.day?;
        Some(self.all().checked_sub(day.before).unwrap_or(Amount::ZERO))
    }

    /// Begins a day where `now` is in another one; returns what the journal is to keep of it.
    pub(super) fn turn(&mut self, now: RailTime) -> Option<Day> {
        let number = now.0 / DAY_MS;
        if self.day.is_some_and(|day| day.number == number) {
            return None;
        }
        self.day = Some(Day {
            number,
            before: self.all(),
        });
        self.day
    }
}

/// Keeps it.
pub(super) async fn keep(journal: &Journal, day: Day) -> Result<(), JournalError> {
    let text = format!("{} {}", day.number, day.before);
    let kept = journal.write(move |entry| entry.put_row(EARNED, DAY, text.as_bytes()));
    kept.await
}

/// The day that was kept last. One that cannot be read is none: it is for the screen alone, and stops no sale.
pub(super) async fn kept(journal: &Journal) -> Result<Option<Day>, JournalError> {
    let row = journal.write(|entry| entry.row(EARNED, DAY)).await?;
    Ok(row.and_then(|row| read(&row)))
}

fn read(row: &[u8]) -> Option<Day> {
    let (number, before) = std::str::from_utf8(row).ok()?.split_once(' ')?;
    Some(Day {
        number: number.parse().ok()?,
        before: before.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: RailTime = RailTime(20_784 * DAY_MS + DAY_MS / 2);
    const ONE: SaleId = SaleId([1; 32]);
    const OTHER: SaleId = SaleId([2; 32]);

    #[test]
    fn a_day_counts_what_is_paid_in_it_and_nothing_of_the_day_before() {
        let mut earned = Earned::new(Amount(5), [(ONE, Amount(10))].into_iter(), None);
        assert_eq!((earned.all(), earned.today()), (Amount(15), None));
        assert!(earned.turn(NOON).is_some());
        earned.paid(ONE, Amount(13));
        earned.paid(OTHER, Amount(4));
        assert_eq!((earned.all(), earned.today()), (Amount(22), Some(Amount(7))));
        // The same day begins once, and what is forgotten in it was earned in it all the same.
        assert_eq!(earned.turn(NOON.plus_ms(DAY_MS / 2 - 1)), None);
        earned.forget(OTHER, Amount(4));
        assert_eq!((earned.all(), earned.today()), (Amount(22), Some(Amount(7))));
        assert!(earned.turn(NOON.plus_ms(DAY_MS / 2)).is_some());
        assert_eq!((earned.all(), earned.today()), (Amount(22), Some(Amount::ZERO)));
    }

    #[tokio::test]
    async fn a_restart_goes_on_with_the_day() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let journal = Journal::create(&folder.path().join("journal")).expect("a journal");
        assert_eq!(kept(&journal).await.expect("read"), None);
        let mut earned = Earned::new(Amount::ZERO, [(ONE, Amount(10))].into_iter(), None);
        let day = earned.turn(NOON).expect("a new day");
        keep(&journal, day).await.expect("written");
        earned.paid(ONE, Amount(12));
        let day = kept(&journal).await.expect("read");
        let mut again = Earned::new(Amount::ZERO, [(ONE, Amount(12))].into_iter(), day);
        assert_eq!(again.today(), Some(Amount(2)));
        assert_eq!(again.turn(NOON), None);
        assert!(again.turn(NOON.plus_ms(DAY_MS)).is_some(), "a day later");
    }

    #[test]
    fn a_row_that_is_no_day_is_none() {
        assert_eq!(read(b"20784 7").map(|day| day.before), Some(Amount(7)));
        for row in [&b""[..], b"20784", b"-1 7", b"20784 x", b"\xff 7"] {
            assert_eq!(read(row), None);
        }
    }
}
