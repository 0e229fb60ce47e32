//! What a space costs, from the one number a farmer writes: the price of one unit for one hour.
//!
//! A unit is 1 CPU, 1 GiB of memory and 10 GiB of disk together. A space counts as many units as its largest share
//! asks for: half a CPU, 512 MiB and 2 GiB of disk are half a unit; the same with 20 GiB of disk are two. So whoever
//! takes one thing whole pays for what cannot be sold any more beside it, and no weight between CPU and disk has to be
//! invented.
//!
//! Invariant: integers only, rounded up once, at the end: never below the exact price, and less than one smallest unit
//! above it.

use escrow::Amount;

use crate::quantity::{Bytes, MilliCpus, Seconds};

/// CPU time in one unit.
pub const UNIT_CPU: MilliCpus = MilliCpus(1000);
/// Memory in one unit.
pub const UNIT_MEMORY: Bytes = Bytes(1 << 30);
/// Disk in one unit.
pub const UNIT_DISK: Bytes = Bytes(10 << 30);

const HOUR_S: u128 = 3600;
/// A unit in parts that divide by all three measures.
const PARTS: u128 = 1000 * (10 << 30);

/// The size of a space in parts of a unit: its largest share. At most 2^64 × 10000, so it fits.
fn parts(cpu: MilliCpus, memory: Bytes, disk: Bytes) -> u128 {
    let share = |amount: u128, unit: u128| amount * (PARTS / unit);
    let cpu = share(u128::from(cpu.0), u128::from(UNIT_CPU.0));
    let memory = share(u128::from(memory.0), u128::from(UNIT_MEMORY.0));
    let disk = share(u128::from(disk.0), u128::from(UNIT_DISK.0));
    cpu.max(memory).max(disk)
}

/// The price of one period of such a space; none where it does not fit an amount.
pub fn of_period(
    unit_hour: Amount,
    cpu: MilliCpus,
    memory: Bytes,
    disk: Bytes,
    period: Seconds,
) -> Option<Amount> {
    let dividend = unit_hour
        .0
        .checked_mul(parts(cpu, memory, disk))?
        .checked_mul(u128::from(period.0))?;
    Some(Amount(dividend.div_ceil(PARTS * HOUR_S)))
}

/// What a period's price is an hour, rounded up: what `--max-price` is compared with and tables show.
pub fn per_hour(period_price: Amount, period: Seconds) -> Option<Amount> {
    let dividend = period_price.0.checked_mul(HOUR_S)?;
    (period.0 > 0).then(|| Amount(dividend.div_ceil(u128::from(period.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;
    const HOUR: Seconds = Seconds(3600);

    fn price(unit: u128, cpu: u32, memory: u64, disk: u64, period: u64) -> u128 {
        of_period(
            Amount(unit),
            MilliCpus(cpu),
            Bytes(memory),
            Bytes(disk),
            Seconds(period),
        )
        .unwrap()
        .0
    }

    #[test]
    fn the_largest_share_counts() {
        assert_eq!(price(800_000, 500, GIB / 2, 2 * GIB, 3600), 400_000);
        assert_eq!(price(800_000, 500, GIB / 2, 20 * GIB, 3600), 1_600_000);
        assert_eq!(price(800_000, 500, 4 * GIB, 2 * GIB, 3600), 3_200_000);
        assert_eq!(price(800_000, 1000, GIB, 10 * GIB, 1), 223); // 222.2…
    }

    #[test]
    fn nothing_wraps() {
        assert_eq!(
            of_period(Amount(u128::MAX), MilliCpus(1), Bytes(1), Bytes(1), HOUR),
            None
        );
        assert!(
            of_period(
                Amount(1),
                MilliCpus(u32::MAX),
                Bytes(u64::MAX),
                Bytes(u64::MAX),
                HOUR
            )
            .is_some()
        );
        assert_eq!(per_hour(Amount(10), Seconds(0)), None);
    }

    proptest! {
        #[test]
        fn rounded_up_and_by_less_than_one(
            unit in 0u128..1 << 40, cpu in 1u32..100_000, memory in 1u64..1 << 40, disk in 1u64..1 << 44, period in 1u64..100_000,
        ) {
            let got = price(unit, cpu, memory, disk, period);
            let exact = unit * parts(MilliCpus(cpu), Bytes(memory), Bytes(disk)) * u128::from(period);
            let whole = PARTS * HOUR_S;
            prop_assert!(got * whole >= exact, "never below");
            prop_assert!(got * whole < exact + whole, "less than one above");
        }

        #[test]
        fn more_never_costs_less(
            unit in 0u128..1 << 40, cpu in 1u32..100_000, memory in 1u64..1 << 40, disk in 1u64..1 << 44,
            more_cpu in 0u32..1000, more_memory in 0u64..1 << 30, more_disk in 0u64..1 << 30, period in 1u64..100_000,
        ) {
            let (less, more) = (price(unit, cpu, memory, disk, period), price(unit, cpu + more_cpu, memory + more_memory, disk + more_disk, period));
            prop_assert!(less <= more);
            prop_assert!(price(unit, cpu, memory, disk, period + 1) >= less);
        }

        #[test]
        fn an_hour_of_an_hours_price_is_itself(amount in 0u128..1 << 100) {
            prop_assert_eq!(per_hour(Amount(amount), HOUR), Some(Amount(amount)));
        }
    }
}
