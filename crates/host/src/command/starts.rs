//! Children begin only while nobody holds them up.

use std::io;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

static STARTS: RwLock<()> = RwLock::new(());

/// While it lives no child begins, so that none inherits what is open now. For as short as a disk is open: whoever
/// runs a program on the thread that holds it waits for ever.
#[must_use = "children begin again once it is dropped"]
#[derive(Debug)]
pub struct Starts {
    _held: RwLockWriteGuard<'static, ()>,
}

impl Starts {
    /// Waits for the children that are about to begin, and holds up the next ones.
    pub fn hold() -> Self {
        Self {
            _held: STARTS.write().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Starts the child: it has executed its program when this returns, and closed what a program does not inherit.
pub(super) fn begin(command: &mut Command) -> io::Result<Child> {
    let _open = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_child_begins_when_the_disk_is_closed() {
        let (begun, seen) = mpsc::channel();
        let start = move || {
            let begun = begun.clone();
            std::thread::spawn(move || {
                let child = begin(&mut Command::new("true"));
                begun.send(child.and_then(|mut child| child.wait())).unwrap();
            })
        };
        // What a child takes here that nobody holds up.
        let asked = Instant::now();
        start();
        assert!(seen.recv().unwrap().unwrap().success());
        let long = 3 * asked.elapsed().max(Duration::from_millis(100));
        let held = Starts::hold();
        start();
        let early = seen.recv_timeout(long);
        assert!(early.is_err(), "it began: {early:?}");
        drop(held);
        assert!(seen.recv().unwrap().unwrap().success());
    }
}
