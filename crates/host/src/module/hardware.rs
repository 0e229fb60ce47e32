//! Modules for the hardware that is there: once over `/sys`, then by what the kernel announces.
//!
//! ```text
//!   /sys, once ─┐           ┌─ urgent ─► load, four at once: some wait for their devices
//!               ├─► Aliases ┤
//!   uevents ────┘     ▲     └─ the rest ► load, two at once, while few others want the processor
//!                     └────── always looked at: a driver brings new devices to light
//!   nothing urgent is left, nor being loaded ──► ready        nothing at all ──► done
//! ```
//!
//! A bus driver brings devices to light, which want modules in turn (PCI, then virtio, then the
//! disk). What a node waits for is announced before the driver's loading returns; what appears later (USB takes seconds) is
//! announced, too.
//!
//! Invariant: what is announced after the end was decided stays in the socket, for the next call.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::aliases::{Aliases, Share, is_urgent};
use super::index::Index;
use super::uevents::Uevents;
use super::{ModuleError, load_some};
use crate::names;

/// So many load what a node waits for, whatever processors there are: a driver that waits for its device needs none.
const URGENT: usize = 4;
/// So many load the rest meanwhile.
const REST: usize = 2;
/// Who has nothing to do looks so often whether the last of the others has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is shared by those who load.
struct Work<'a, R> {
    aliases: &'a mut Aliases,
    /// Being loaded, and those of them that a node waits for.
    busy: usize,
    urgent: usize,
    loaded: usize,
    failed: Vec<ModuleError>,
    ready: Option<R>,
    /// Somebody found nothing left, so all end: what is announced from then on is the next call's.
    is_over: bool,
}

/// What one of them does next.
enum Next<R> {
    /// All disks and networks that are known of have been looked for: that is to be told.
    Tell(R),
    Load(u8, String),
    /// The others may bring new devices to light.
    Wait,
    End,
}

/// Loads what devices want, until nothing new is announced; disks and network first. Gives how many modules were new, and
/// what failed: one driver that fails is no reason to stop. `ready` is called once, when all disks and networks that are
/// known of have been looked for; what leads to neither may still be loading then.
///
/// # Errors
/// When announcements cannot be received.
pub fn load_for_hardware(
    index: &Index,
    aliases: &mut Aliases,
    events: &Uevents,
    ready: impl FnOnce() + Send,
) -> io::Result<(usize, Vec<ModuleError>)> {
    aliases.listen(events)?;
    if aliases.is_empty() {
        ready();
        return Ok((0, Vec::new()));
    }
    let work = Mutex::new(Work {
        aliases,
        busy: 0,
        urgent: 0,
        loaded: 0,
        failed: Vec::new(),
        ready: Some(ready),
        is_over: false,
    });
    std::thread::scope(|scope| {
        let shares = [Share::Urgent; URGENT].into_iter().chain([Share::Rest; REST]);
        let work = &work;
        let loaders: Vec<_> = shares
            .map(|share| scope.spawn(move || load_what_waits(index, events, work, share)))
            .collect();
        let panicked = |_| Err(io::Error::other("a loader of modules panicked"));
        // All are joined before the first error is told.
        let ended: Vec<_> = loaders
            .into_iter()
            .map(|loader| loader.join().unwrap_or_else(panicked))
            .collect();
        ended.into_iter().collect::<io::Result<()>>()
    })?;
    let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((work.loaded, work.failed))
}

/// How much of the processor each share gets beside others: see [`set_nice`](crate::process::set_nice).
fn nice(share: Share) -> libc::c_int {
    match share {
        Share::Urgent => -10,
        Share::Rest => 5,
    }
}

fn load_what_waits<R: FnOnce() + Send>(
    index: &Index,
    events: &Uevents,
    work: &Mutex<Work<'_, R>>,
    share: Share,
) -> io::Result<()> {
    // Refused, it is slower.
    let _ = crate::process::set_nice(nice(share));
    let lock = || -> MutexGuard<'_, Work<'_, R>> { work.lock().unwrap_or_else(PoisonError::into_inner) };
    // Whatever ends one of them ends the others, when they have done what they do.
    let _over = Over(work);
    loop {
        let next = lock().next(events, share)?;
        match next {
            Next::End => return Ok(()),
            Next::Tell(ready) => ready(),
            Next::Wait => _ = events.wait(LOOK_AGAIN)?,
            Next::Load(urgency, alias) => {
                let result = load_some(index, &alias, |module| !ON_REQUEST.contains(&module));
                lock().done(urgency, result);
            }
        }
    }
}

/// Says that all is over when it is dropped: at the end, after an error, in a panic.
struct Over<'w, 'a, R>(&'w Mutex<Work<'a, R>>);

impl<R> Drop for Over<'_, '_, R> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
    }
}

impl<R: FnOnce()> Work<'_, R> {
    fn next(&mut self, events: &Uevents, share: Share) -> io::Result<Next<R>> {
        if self.is_over {
            return Ok(Next::End);
        }
        self.aliases.listen(events)?;
        Ok(self.next_of(share))
    }

    fn next_of(&mut self, share: Share) -> Next<R> {
        if self.urgent == 0
            && !self.aliases.has_urgent()
            && let Some(ready) = self.ready.take()
        {
            return Next::Tell(ready);
        }
        match self.aliases.take(share, self.ready.is_none()) {
            Some((urgency, alias)) => {
                self.busy += 1;
                self.urgent += usize::from(is_urgent(urgency));
                Next::Load(urgency, alias)
            }
            None if self.busy == 0 && self.aliases.is_empty() => {
                self.is_over = true;
                Next::End
            }
            None => Next::Wait,
        }
    }

    fn done(&mut self, urgency: u8, result: Result<usize, ModuleError>) {
        self.busy -= 1;
        self.urgent -= usize::from(is_urgent(urgency));
        match result {
            Ok(count) => self.loaded += count,
            // Most devices (bridges, buttons) want no module that the image has.
            Err(ModuleError::Unknown(_)) => {}
            Err(error) => self.failed.push(error),
        }
    }
}

/// What the processor could compute faster, and a node computes seldom or never: loaded when the kernel looks for its name.
const ON_REQUEST: [&str; 6] = [
    "crc32_pclmul",
    "crct10dif_pclmul",
    "ghash_clmulni_intel",
    "polyval_clmulni",
    "sha1_ssse3",
    "sha512_ssse3",
];

/// Says that the hardware of power-on has been looked at.
pub fn announce_hardware() -> io::Result<()> {
    File::create(names::HARDWARE_READY).map(drop)
}

/// Waits until the modules for the hardware of power-on are loaded, for at most `limit`; says
/// whether they are. Slow buses may show their disks later still.
pub fn wait_for_hardware(limit: Duration) -> io::Result<bool> {
    let ready = Path::new(names::HARDWARE_READY);
    // SAFETY: flags alone; a new descriptor or -1.
    let watch =
        crate::process::owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }.into())?;
    let folder = std::ffi::CString::new(names::RUN)?;
    // SAFETY: an open descriptor and a C string that lives for the call.
    Errno::result(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), folder.as_ptr(), libc::IN_CREATE) })?;
    let end = std::time::Instant::now() + limit;
    while !ready.exists() {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() || !crate::process::wait_readable(watch.as_fd(), left)? {
            return Ok(ready.exists());
        }
        let _ = nix::unistd::read(&watch, &mut [0u8; 4096]);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_end_when_one_finds_nothing_left_and_ready_is_told_before_what_leads_nowhere() {
        let mut aliases = Aliases::default();
        for alias in ["virtio:d00000002v00001AF4", "acpi:PNP0C0C:"] {
            aliases.add(alias.to_owned());
        }
        let mut work = Work {
            aliases: &mut aliases,
            busy: 0,
            urgent: 0,
            loaded: 0,
            failed: Vec::new(),
            ready: Some(|| {}),
            is_over: false,
        };
        let Next::Load(disk, _) = work.next_of(Share::Urgent) else {
            panic!("the disk is there to load")
        };
        assert!(matches!(work.next_of(Share::Urgent), Next::Wait));
        assert!(
            matches!(work.next_of(Share::Rest), Next::Wait),
            "the button waits"
        );
        work.done(disk, Ok(1));
        assert!(matches!(work.next_of(Share::Rest), Next::Tell(_)));
        let Next::Load(button, alias) = work.next_of(Share::Rest) else {
            panic!("the button is there to load")
        };
        assert_eq!(alias, "acpi:PNP0C0C:");
        assert!(matches!(work.next_of(Share::Urgent), Next::Wait));
        work.done(button, Err(ModuleError::Unknown(alias)));
        assert!(!work.is_over && matches!(work.next_of(Share::Urgent), Next::End));
        assert!(work.is_over, "for the other share too, whatever is announced now");
        assert_eq!((work.loaded, work.failed.len()), (1, 0));
    }
}
