//! What each period of one sale costs: one price, and after a resize the prices before it.
//!
//! ```text
//!   period      1   2   3   4   5   6 ...
//!   price      10  10  10  25  25  12 ...      earlier: until 3 at 10, until 5 at 25; from then on 12
//! ```
//!
//! A new price counts from the period after those that have begun. More begins that period at once, and is paid before
//! it is given ([`crate::sale`]): what is left of the period before is given up.
//!
//! Invariant: what began is never priced anew, so what is owed for it never changes.

use escrow::Amount;
use serde::{Deserialize, Serialize};

/// Most prices that one sale had before the one that it has.
pub const MOST_EARLIER: usize = 64;

/// What some periods cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Earlier {
    /// The last period that costs it, counted from 1.
    pub until: u32,
    /// The price of one.
    pub price: Amount,
}

/// What each period costs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prices {
    /// The price of a period, where none of the earlier ones holds.
    pub price: Amount,
    /// Earlier prices, by rising period.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
}

impl Prices {
    /// One price for all.
    pub fn of(price: Amount) -> Prices {
        Prices {
            price,
            earlier: Vec::new(),
        }
    }

    /// Whether the earlier ones rise, and are not too many.
    pub fn are_in_order(&self) -> bool {
        let untils = self.earlier.iter().map(|run| run.until);
        let before = std::iter::once(0).chain(untils.clone());
        self.earlier.len() <= MOST_EARLIER && before.zip(untils).all(|(before, until)| before < until)
    }

    /// The price of one period, counted from 1.
    pub fn at(&self, period: u32) -> Amount {
        let run = self.earlier.iter().find(|run| period <= run.until);
        run.map_or(self.price, |run| run.price)
    }

    /// What the first `periods` cost together; none where it does not fit an amount.
    pub fn owed(&self, periods: u64) -> Option<Amount> {
        let (mut sum, mut counted) = (Amount::ZERO, 0);
        for run in &self.earlier {
            let until = u64::from(run.until).min(periods);
            sum = sum.checked_add(run.price.checked_mul(until.saturating_sub(counted))?)?;
            counted = counted.max(until);
        }
        sum.checked_add(self.price.checked_mul(periods.saturating_sub(counted))?)
    }

    /// How many periods a sum pays for; `most` where the last of them cost nothing.
    pub fn paid(&self, sum: Amount, most: u32) -> u32 {
        let (mut left, mut counted) = (sum.0, 0_u32);
        for run in &self.earlier {
            let many = run.until.saturating_sub(counted);
            let cost = run.price.0.saturating_mul(u128::from(many));
            if cost > left {
                return counted.saturating_add(whole(left, run.price));
            }
            left -= cost;
            counted = run.until;
        }
        match self.price.0 {
            0 => most,
            _ => counted.saturating_add(whole(left, self.price)),
        }
    }

    /// Whether a sum is that of 1 to `most` whole periods.
    pub fn is_whole(&self, sum: Amount, most: u32) -> bool {
        let periods = self.paid(sum, most);
        (1..=most).contains(&periods) && !sum.is_zero() && self.owed(u64::from(periods)) == Some(sum)
    }

    /// The prices from a resize on that both agree to when `begun` periods have begun; none where there were too many.
    pub fn changed(&self, begun: u32, price: Amount) -> Option<Prices> {
        let mut earlier: Vec<Earlier> = self
            .earlier
            .iter()
            .copied()
            .filter(|run| run.until < begun)
            .collect();
        if begun > 0 && self.at(begun) != price {
            earlier.push(Earlier {
                until: begun,
                price: self.at(begun),
            });
        }
        let prices = Prices { price, earlier };
        prices.are_in_order().then_some(prices)
    }
}

fn whole(sum: u128, price: Amount) -> u32 {
    sum.checked_div(price.0)
        .map_or(0, |periods| u32::try_from(periods).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(prices: &Prices) -> Vec<u128> {
        (1..=8).map(|period| prices.at(period).0).collect()
    }

    #[test]
    fn a_new_price_counts_from_the_next_period() {
        let prices = Prices::of(Amount(10)).changed(3, Amount(25)).unwrap();
        assert_eq!(list(&prices), [10, 10, 10, 25, 25, 25, 25, 25]);
        let prices = prices.changed(5, Amount(12)).unwrap();
        assert_eq!(list(&prices), [10, 10, 10, 25, 25, 12, 12, 12]);
        assert_eq!(prices.owed(6), Some(Amount(92)));
        assert_eq!(
            [79, 80, 91, 92, 103].map(|sum| prices.paid(Amount(sum), 8)),
            [4, 5, 5, 6, 6]
        );
        assert!(prices.is_whole(Amount(92), 8) && !prices.is_whole(Amount(90), 8));
        assert!(!prices.is_whole(Amount(92), 5) && !prices.is_whole(Amount::ZERO, 8));
    }

    #[test]
    fn a_price_that_no_period_had_leaves_no_trace() {
        let less = Prices::of(Amount(10)).changed(3, Amount(4)).unwrap();
        assert_eq!(less.changed(3, Amount(10)).unwrap(), Prices::of(Amount(10)));
    }

    #[test]
    fn prices_without_end_are_refused() {
        let mut prices = Prices::of(Amount(1));
        let many = u32::try_from(MOST_EARLIER).unwrap();
        for begun in 1..=many {
            prices = prices.changed(begun, Amount(u128::from(begun) + 1)).unwrap();
        }
        assert_eq!(prices.changed(many + 1, Amount(1000)), None);
        assert!(
            !Prices {
                price: Amount(1),
                earlier: vec![Earlier {
                    until: 0,
                    price: Amount(1)
                }]
            }
            .are_in_order()
        );
    }

    proptest! {
        /// Against a list with one price a period; what began keeps its price, a sum and its periods fit each other.
        #[test]
        fn the_sums_are_those_of_a_list(changes in prop::collection::vec((0u32..4, 0u128..50), 0..8), most in 1u32..40) {
            let (mut prices, mut all, mut begun) = (Prices::of(Amount(10)), vec![10_u128; 64], 1_u32);
            for (later, price) in changes {
                begun += later;
                all[begun as usize..].fill(price);
                prices = prices.changed(begun, Amount(price)).unwrap();
                prop_assert!(prices.are_in_order());
            }
            let sum = |periods: u32| all[..periods as usize].iter().sum::<u128>();
            for periods in 0..=most {
                prop_assert_eq!(prices.owed(u64::from(periods)), Some(Amount(sum(periods))));
                prop_assert!(prices.paid(Amount(sum(periods)), most) >= periods.min(most));
                if sum(periods) > 0 {
                    prop_assert!(prices.is_whole(Amount(sum(periods)), most.max(40)));
                }
            }
            for short in 1..=most {
                if sum(short) > 0 {
                    prop_assert!(prices.paid(Amount(sum(short) - 1), most) < short);
                }
            }
        }
    }
}
