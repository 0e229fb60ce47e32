//! Quantities: newtypes with one text form that reads back.
//!
//! Invariant: what [`FromStr`] accepts is never zero, never rounded and never without a unit (a CPU count needs none);
//! every refusal says what would be right. `Display` writes what `FromStr` reads; `human` is for tables, and rounds
//! down to one digit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number and a unit.
    #[error("\"{text}\" is not {what}; write it like {example}")]
    Shape {
        /// What was given.
        text: String,
        /// What was expected.
        what: &'static str,
        /// What would be right.
        example: &'static str,
    },
    /// A number without a unit.
    #[error("\"{text}\" has no unit; write it like {suggestion}")]
    NoUnit {
        /// What was given.
        text: String,
        /// What would be right.
        suggestion: String,
    },
    /// A unit that is not ours.
    #[error("\"{text}\": the unit \"{unit}\" is not known here; write one of {known}")]
    Unit {
        /// What was given.
        text: String,
        /// Its unit.
        unit: String,
        /// What would be right.
        known: String,
    },
    /// Nothing.
    #[error("\"{0}\" is nothing; it must be more than zero")]
    Zero(String),
    /// Finer than the smallest part.
    #[error("\"{text}\" is finer than {smallest}")]
    TooFine {
        /// What was given.
        text: String,
        /// The smallest part.
        smallest: &'static str,
    },
    /// Does not fit.
    #[error("\"{text}\" is larger than can be; write {most} or less")]
    TooLarge {
        /// What was given.
        text: String,
        /// The most that can be written.
        most: String,
    },
}

/// How one kind of quantity is written: its units, smallest part first among equals, largest last.
struct Scale {
    what: &'static str,
    example: &'static str,
    smallest: &'static str,
    /// Unit as written, and how many smallest parts it is.
    units: &'static [(&'static str, u64)],
}

const CPUS: Scale = Scale {
    what: "a number of CPUs",
    example: "0.5",
    smallest: "0.001 CPU",
    units: &[("", 1000)],
};
const BYTES: Scale = Scale {
    what: "a size",
    example: "512MiB",
    smallest: "1B",
    units: &[
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
};
const RATES: Scale = Scale {
    what: "a rate",
    example: "10Mbit",
    smallest: "1bit",
    units: &[
        ("bit", 1),
        ("kbit", 1_000),
        ("Mbit", 1_000_000),
        ("Gbit", 1_000_000_000),
    ],
};
const DURATIONS: Scale = Scale {
    what: "a duration",
    example: "2h",
    smallest: "1s",
    units: &[("s", 1), ("min", 60), ("h", 3600), ("d", 86400)],
};

impl Scale {
    fn read(&self, text: &str) -> Result<u64, QuantityError> {
        let shape = || QuantityError::Shape {
            text: text.to_owned(),
            what: self.what,
            example: self.example,
        };
        let split = text
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty()
            || fraction.contains('.')
            || (number.contains('.') && fraction.is_empty())
            || text.len() > 40
        {
            return Err(shape());
        }
        let Some((_, parts)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(self.wrong_unit(text, number, unit));
        };
        let large = || self.too_large(text, u64::MAX);
        let power = 10u128
            .checked_pow(u32::try_from(fraction.len()).map_err(|_| large())?)
            .ok_or_else(large)?;
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| large())?;
        let scaled = digits.checked_mul(u128::from(*parts)).ok_or_else(large)?;
        if scaled == 0 {
            return Err(QuantityError::Zero(text.to_owned()));
        }
        if !scaled.is_multiple_of(power) {
            return Err(QuantityError::TooFine {
                text: text.to_owned(),
                smallest: self.smallest,
            });
        }
        u64::try_from(scaled / power).map_err(|_| large())
    }

    fn wrong_unit(&self, text: &str, number: &str, unit: &str) -> QuantityError {
        let text = text.to_owned();
        if unit.is_empty() {
            let names: Vec<String> = self
                .units
                .iter()
                .skip(1)
                .map(|(name, _)| format!("{number}{name}"))
                .collect();
            return QuantityError::NoUnit {
                text,
                suggestion: names.join(" or "),
            };
        }
        let known: Vec<&str> = self
            .units
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !name.is_empty())
            .collect();
        if known.is_empty() {
            return QuantityError::Shape {
                text,
                what: self.what,
                example: self.example,
            };
        }
        QuantityError::Unit {
            text,
            unit: unit.to_owned(),
            known: known.join(", "),
        }
    }

    /// Rounded down to whole units, so that it can be written as it is said.
    fn too_large(&self, text: &str, most: u64) -> QuantityError {
        let (name, parts) = self.units.last().unwrap_or(&self.units[0]);
        QuantityError::TooLarge {
            text: text.to_owned(),
            most: format!("{}{name}", most / parts),
        }
    }

    /// The largest unit that divides it without a rest.
    fn exact(&self, value: u64, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = self
            .units
            .iter()
            .rev()
            .find(|(_, parts)| value != 0 && value.is_multiple_of(*parts));
        let (name, parts) = fits.unwrap_or(&self.units[0]);
        write!(formatter, "{}{name}", value / parts)
    }

    /// The largest unit of which there is one, with one digit after the point unless that is zero.
    fn human(&self, value: u64) -> String {
        let fits = self.units.iter().rev().find(|(_, parts)| value >= *parts);
        let (name, parts) = fits.unwrap_or(&self.units[0]);
        let tenths = u128::from(value) * 10 / u128::from(*parts);
        match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole} {name}"),
            (whole, tenth) => format!("{whole}.{tenth} {name}"),
        }
    }
}

macro_rules! quantity {
    ($name:ident, $inner:ty, $scale:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// None of it.
            pub const ZERO: $name = $name(0);

            /// The sum, or none where it does not fit.
            pub fn checked_add(self, other: $name) -> Option<$name> {
                self.0.checked_add(other.0).map($name)
            }

            /// The difference, or none where it would be below zero.
            pub fn checked_sub(self, other: $name) -> Option<$name> {
                self.0.checked_sub(other.0).map($name)
            }

            /// The difference, or none of it.
            pub fn saturating_sub(self, other: $name) -> $name {
                $name(self.0.saturating_sub(other.0))
            }
        }

        impl FromStr for $name {
            type Err = QuantityError;

            fn from_str(text: &str) -> Result<$name, QuantityError> {
                let value = $scale.read(text)?;
                <$inner>::try_from(value)
                    .map($name)
                    .map_err(|_| $scale.too_large(text, <$inner>::MAX.into()))
            }
        }
    };
}

quantity!(
    MilliCpus,
    u32,
    CPUS,
    "Thousandths of one CPU's time; written `0.5`."
);
quantity!(Bytes, u64, BYTES, "A size; written `512MiB`.");
quantity!(BitsPerSecond, u64, RATES, "A network rate; written `10Mbit`.");
quantity!(Seconds, u64, DURATIONS, "A duration; written `2h`.");

impl fmt::Display for MilliCpus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        write!(
            formatter,
            "{whole}.{}",
            format!("{rest:03}").trim_end_matches('0')
        )
    }
}

impl MilliCpus {
    /// As a table shows it: `0.5 cpu`.
    pub fn human(self) -> String {
        format!("{self} cpu")
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        BYTES.exact(self.0, formatter)
    }
}

impl Bytes {
    /// As a table shows it, rounded down: `8.2 GiB`.
    pub fn human(self) -> String {
        BYTES.human(self.0)
    }
}

impl fmt::Display for BitsPerSecond {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        RATES.exact(self.0, formatter)
    }
}

impl BitsPerSecond {
    /// As a table shows it, rounded down: `10 Mbit`.
    pub fn human(self) -> String {
        RATES.human(self.0)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        DURATIONS.exact(self.0, formatter)
    }
}

impl Seconds {
    /// As a table shows it, rounded down: `3 h`.
    pub fn human(self) -> String {
        DURATIONS.human(self.0)
    }

    /// In milliseconds; the largest number where that does not fit.
    pub fn as_ms(self) -> u64 {
        self.0.saturating_mul(1000)
    }

    /// How many whole periods of this length make up `duration`; none where a remainder or nothing is left.
    pub fn periods_in(self, duration: Seconds) -> Option<u32> {
        let whole = self.0 != 0 && duration.0 != 0 && duration.0.is_multiple_of(self.0);
        whole.then(|| u32::try_from(duration.0 / self.0).ok())?
    }
}

/// Wall-clock time in messages: milliseconds since 1970, by the rail's signed time or SNTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Later by so many milliseconds; the end of time where it does not fit.
    pub fn plus_ms(self, ms: u64) -> UnixMillis {
        UnixMillis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this, zero where it is not later.
    pub fn ms_since(self, earlier: UnixMillis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Year, month and day in the Gregorian calendar, UTC (Howard Hinnant, "chrono-compatible low-level date
    /// algorithms", `civil_from_days`).
    pub fn date(self) -> (u64, u64, u64) {
        let shifted = self.0 / 86_400_000 + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        (year + era * 400 + u64::from(month <= 2), month, day)
    }
}

impl From<escrow::RailTime> for UnixMillis {
    fn from(time: escrow::RailTime) -> UnixMillis {
        UnixMillis(time.0)
    }
}

impl From<UnixMillis> for escrow::RailTime {
    fn from(time: UnixMillis) -> escrow::RailTime {
        escrow::RailTime(time.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_help_are_read() {
        assert_eq!("0.5".parse(), Ok(MilliCpus(500)));
        assert_eq!("512MiB".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("1.5GiB".parse(), Ok(Bytes(3 << 29)));
        assert_eq!("10Mbit".parse(), Ok(BitsPerSecond(10_000_000)));
        assert_eq!("2h".parse(), Ok(Seconds(7200)));
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let says = |error: QuantityError, part: &str| assert!(error.to_string().contains(part), "{error}");
        says("512".parse::<Bytes>().unwrap_err(), "512MiB");
        says("1GB".parse::<Bytes>().unwrap_err(), "GiB");
        says("2 h".parse::<Seconds>().unwrap_err(), "h");
        says("0MiB".parse::<Bytes>().unwrap_err(), "more than zero");
        says("0.0001".parse::<MilliCpus>().unwrap_err(), "0.001");
        says("500m".parse::<MilliCpus>().unwrap_err(), "0.5");
        says("-1".parse::<MilliCpus>().unwrap_err(), "0.5");
        says(
            "99999999999TiB".parse::<Bytes>().unwrap_err(),
            "16777215TiB or less",
        );
        assert!("16777215TiB".parse::<Bytes>().is_ok() && "16777216TiB".parse::<Bytes>().is_err());
        for text in ["", ".", "1.", ".5", "1..2", "1e9", "٣"] {
            assert!(text.parse::<MilliCpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_rounded_values() {
        assert_eq!(Bytes(8_912_345_678).human(), "8.3 GiB");
        assert_eq!(Bytes(512 << 20).human(), "512 MiB");
        assert_eq!(BitsPerSecond(10_000_000).human(), "10 Mbit");
        assert_eq!(Seconds(5400).human(), "1.5 h");
        assert_eq!(MilliCpus(1500).human(), "1.5 cpu");
    }

    #[test]
    fn periods_have_no_remainder() {
        assert_eq!(Seconds(3600).periods_in(Seconds(7200)), Some(2));
        assert_eq!(Seconds(3600).periods_in(Seconds(5400)), None);
        assert_eq!(Seconds(0).periods_in(Seconds(5400)), None);
        assert_eq!(Seconds(1).periods_in(Seconds(u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(cpus in 1u32.., bytes in 1u64.., rate in 1u64.., seconds in 1u64..) {
            prop_assert_eq!(MilliCpus(cpus).to_string().parse(), Ok(MilliCpus(cpus)));
            prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
            prop_assert_eq!(BitsPerSecond(rate).to_string().parse(), Ok(BitsPerSecond(rate)));
            prop_assert_eq!(Seconds(seconds).to_string().parse(), Ok(Seconds(seconds)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,50}") {
            let _ = (text.parse::<MilliCpus>(), text.parse::<Bytes>(), text.parse::<BitsPerSecond>(), text.parse::<Seconds>());
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_088, (2024, 12, 31)),
            (20_089, (2025, 1, 1)),
        ] {
            assert_eq!(UnixMillis(days * 86_400_000).date(), date);
            assert_eq!(UnixMillis((days + 1) * 86_400_000 - 1).date(), date);
        }
    }
}
