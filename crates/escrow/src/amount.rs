//! Money and the rail's time: integers in the smallest unit, never a float.
//!
//! Invariant: no arithmetic here wraps; in JSON an amount is a decimal string, for a u128 does not fit a JSON number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimals of every asset on a ledger rail: one whole unit is 1,000,000 smallest ones.
pub const LEDGER_DECIMALS: u8 = 6;

/// An amount of one asset, in its smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u128);

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a plain decimal number.
    #[error("\"{0}\" is not an amount; write digits with at most one point, as in 0.40")]
    NotANumber(String),
    /// More digits after the point than the asset has.
    #[error("\"{text}\" has more than {decimals} digits after the point")]
    TooFine {
        /// What was given.
        text: String,
        /// How many the asset has.
        decimals: u8,
    },
    /// Does not fit.
    #[error("\"{0}\" is larger than any amount can be")]
    TooLarge(String),
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// The sum, or none where it does not fit.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// The difference, or none where it would be below zero.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// So many times this amount, or none where it does not fit.
    pub fn checked_mul(self, times: u64) -> Option<Amount> {
        self.0.checked_mul(u128::from(times)).map(Amount)
    }

    /// The difference, or zero.
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As a person reads it: whole units with at least two digits after the point where the asset has them.
    pub fn to_decimal(self, decimals: u8) -> String {
        let digits = format!("{:0>width$}", self.0, width = usize::from(decimals) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
        let least = usize::from(decimals.min(2));
        let used = fraction.trim_end_matches('0').len().max(least);
        if used == 0 {
            return whole.to_owned();
        }
        format!("{whole}.{}", &fraction[..used])
    }

    /// Reads what [`Amount::to_decimal`] writes: `"0.40"` with six decimals is 400000.
    pub fn from_decimal(text: &str, decimals: u8) -> Result<Amount, AmountError> {
        let refuse = || AmountError::NotANumber(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let empty_half = whole.is_empty() || (text.contains('.') && fraction.is_empty());
        if empty_half || !digits(whole) || !digits(fraction) {
            return Err(refuse());
        }
        if fraction.len() > usize::from(decimals) {
            return Err(AmountError::TooFine {
                text: text.to_owned(),
                decimals,
            });
        }
        let all = format!("{whole}{fraction:0<width$}", width = usize::from(decimals));
        all.parse()
            .map(Amount)
            .map_err(|_| AmountError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Reads an integer of smallest units, without sign, space or leading zero.
    fn from_str(text: &str) -> Result<Amount, AmountError> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || (text.len() > 1 && text.starts_with('0')) {
            return Err(AmountError::NotANumber(text.to_owned()));
        }
        text.parse()
            .map(Amount)
            .map_err(|_| AmountError::TooLarge(text.to_owned()))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The rail's clock: milliseconds since 1970, as the rail says (and signs) them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RailTime(pub u64);

impl RailTime {
    /// Later by so many milliseconds; the end of time where it does not fit.
    pub fn plus_ms(self, ms: u64) -> RailTime {
        RailTime(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this, zero where it is not later.
    pub fn ms_since(self, earlier: RailTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for RailTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_go_there_and_back() {
        for (text, amount) in [
            ("0.40", 400_000),
            ("1.20", 1_200_000),
            ("0.000001", 1),
            ("12.00", 12_000_000),
        ] {
            assert_eq!(Amount::from_decimal(text, 6).unwrap(), Amount(amount));
            assert_eq!(Amount(amount).to_decimal(6), text);
        }
        assert_eq!(Amount::from_decimal("3", 6).unwrap(), Amount(3_000_000));
        assert_eq!(Amount(7).to_decimal(0), "7");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000001", "1,5", " 1"] {
            assert!(Amount::from_decimal(text, 6).is_err(), "{text}");
        }
        assert!(matches!(
            "340282366920938463463374607431768211456".parse::<Amount>(),
            Err(AmountError::TooLarge(_))
        ));
        assert!("01".parse::<Amount>().is_err());
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Amount(u128::MAX).checked_add(Amount(1)), None);
        assert_eq!(Amount(1).checked_sub(Amount(2)), None);
        assert_eq!(Amount(u128::MAX).checked_mul(2), None);
        assert_eq!(RailTime(u64::MAX).plus_ms(1), RailTime(u64::MAX));
    }
}
