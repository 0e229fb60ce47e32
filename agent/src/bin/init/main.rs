//! `init`: PID 1 of a node, and what only a small single-threaded program may be.
//!
//! ```text
//!  called as            is                                        file
//!  init, PID 1          boots, supervises, halts                  mount, settings, supervise, halt
//!  modprobe             loads modules for the kernel              modprobe
//!  steading-hardware    loads modules for the hardware            hardware
//!  steading-space       starts a space, makes its namespaces      space
//!  steading-readings    what spaces read about themselves         readings
//! ```
//!
//! ```text
//!  power on ─► leave rootfs ─► mounts ─► first line ─► settings ─► supervise ─┐
//!                 │ fails        │ fails                  panic ─►┐           │ a signal
//!                 └──────────────┴────────────────────────────────┴─► halt ◄──┘
//!      halt: end the agent, end the spaces, close volumes, unmount, sync, off or again
//!                                                                     ▲
//!  a fault (SEGV, BUS, ILL, FPE, ABRT) ─► executed anew, as `fault` ──┘
//!      a fault of that ─► the kernel's panic ─► it starts again after 10 s (kernel.panic)
//! ```
//!
//! Invariant: PID 1 never returns, never blocks on hardware, and every way out of it is `halt`.
//! It links libc (and libgcc_s) alone and knows no sale. The kernel ends it for no other's sake:
//! it kills no PID 1 for memory, and no signal reaches one that has no handler.

mod console;
mod enough;
mod halt;
mod hardware;
mod modprobe;
mod mount;
mod readings;
mod settings;
mod space;
mod stamps;
mod supervise;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Duration;

use host::power::End;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    match called.rsplit('/').next().unwrap_or_default() {
        "modprobe" => modprobe::run(arguments),
        hardware::NAME => hardware::run(),
        readings::NAME => readings::run(),
        host::isolate::HELPER_NAME => space::run(),
        FAULT if std::process::id() == 1 => after_fault(&arguments.next().unwrap_or_default()),
        _ if std::process::id() == 1 => power_on(),
        name => {
            eprintln!("{name}: is PID 1 of a Steading node, or is called as modprobe");
            ExitCode::from(2)
        }
    }
}

/// The name under which `init` stands in the place of a PID 1 that a fault has ended. Its memory may
/// hold anything, so nothing of it is used: a fresh program closes what is open.
const FAULT: &str = "init-fault";

/// Halts in the place of a PID 1 that ended by `fault`; never comes back.
fn after_fault(fault: &str) -> ! {
    let _ = host::process::reset_signals();
    console::say(&format!(
        "init: PID 1 ended by {fault}: a fresh one closes what is open; then the machine starts again"
    ));
    end(End::Reboot)
}

/// Boots, supervises, halts; never comes back.
fn power_on() -> ! {
    if let Err(error) = host::process::execute_at_fault("/init", FAULT) {
        console::say(&format!("init: its faults are the machine's: {error}"));
    }
    let how = match catch_unwind(boot) {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => {
            console::say(&format!(
                "init: cannot boot: {}. Starts again in 30 s.",
                console::chain(&*error)
            ));
            std::thread::sleep(Duration::from_secs(30));
            End::Reboot
        }
        Err(_) => {
            console::say("init: panicked (see the lines above): the machine starts again.");
            End::Reboot
        }
    };
    end(how)
}

fn end(how: End) -> ! {
    let _ = catch_unwind(|| halt::halt(how));
    // The kernel refused, or halt panicked: nothing is left but the kernel's own way out.
    console::say(&format!(
        "init: the kernel does not end the machine: {}",
        host::power::end_now(End::Reboot)
    ));
    std::process::abort()
}

/// From power-on to the signal that says how to end.
fn boot() -> Result<End, Box<dyn std::error::Error>> {
    let stamp = stamps::Stamp::here();
    mount::first()?;
    console::say(&format!("steading {}: init, PID 1", env!("CARGO_PKG_VERSION")));
    if let Some(end) = enough::missing() {
        return Ok(end);
    }
    mount::rest()?;
    settings::apply();
    stamps::started(&stamp);
    Ok(supervise::supervise(&mut [
        supervise::Service::hardware(),
        supervise::Service::agent(),
        supervise::Service::readings(),
    ])?)
}
