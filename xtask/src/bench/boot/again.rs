//! A start that the emulator ends is made again, and said: it tells nothing of the system that started.
//!
//! With a thread for each processor QEMU's TCG may run the breakpoint that a kernel puts in the place of an instruction while
//! it patches it, and the kernel that finds it gone panics ("Oops: int3"). One start in some tens ends so, whatever starts.

use anyhow::Result;
use qemu::WaitError;

use crate::show::Step;

/// What the kernel calls it.
const FAULT: &str = "Oops: int3";
/// So many in a row are no accident.
const MOST: usize = 3;

/// Starts something, and again where the emulator ended it.
pub fn where_the_emulator_fails<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..MOST {
        match start() {
            Err(error) if is_the_emulator(&error) => {
                Step::start("the emulator lost an instruction that was patched: that start is made again")
                    .done();
            }
            ended => return ended,
        }
    }
    start()
}

fn is_the_emulator(error: &anyhow::Error) -> bool {
    let ended = error.downcast_ref::<WaitError>();
    matches!(ended, Some(WaitError::Panicked { tail, .. }) if tail.contains(FAULT))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn panicked(tail: &str) -> anyhow::Error {
        let (machine, needle) = ("node".to_owned(), "init".to_owned());
        let tail = tail.to_owned();
        WaitError::Panicked {
            machine,
            needle,
            tail,
        }
        .into()
    }

    #[test]
    fn only_what_the_emulator_ended_is_made_again() {
        let starts = Cell::new(0);
        let ends = |faults: usize, tail: &'static str| {
            starts.set(0);
            let ended = where_the_emulator_fails(|| {
                starts.set(starts.get() + 1);
                match starts.get() > faults {
                    true => Ok(()),
                    false => Err(panicked(tail).context("a start")),
                }
            });
            (ended.is_ok(), starts.get())
        };
        assert_eq!(ends(2, "x\nOops: int3: 0000"), (true, 3));
        assert_eq!(ends(9, "x\nOops: int3: 0000"), (false, 3));
        assert_eq!(ends(9, "Oops: general protection fault"), (false, 1));
    }
}
