//! When things happened since power-on, as the kernel and the processor count, and where the programs of one boot write
//! it down for each other: PID 1 and the loader of modules begin, the agent reads and adds what it did.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use crate::names;

/// Since the kernel's clock began, suspended time included.
pub fn moment() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Into::into)
}

/// The same in whole milliseconds.
pub fn moment_ms() -> i64 {
    i64::try_from(moment().as_millis()).unwrap_or(i64::MAX)
}

/// The processor's counter: it begins at reset, at a frequency that only the kernel knows.
pub fn counter() -> u64 {
    // SAFETY: reads a register that every x86-64 processor has; PID 1 has not forbidden it (PR_SET_TSC).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Writes a line down for the other programs of this boot. One write: lines of two programs do not mix.
pub fn note(line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(names::RUN_BOOT)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// All lines of this boot so far.
pub fn notes() -> String {
    fs::read_to_string(names::RUN_BOOT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_and_counter_go_on() {
        let (first, beat) = (moment(), counter());
        std::thread::sleep(Duration::from_millis(2));
        assert!(moment() > first && counter() > beat);
        assert!(moment_ms() >= 0);
    }
}
