//! Loads modules for the hardware that is there, and for what is plugged in later; a service beside
//! the agent (no udev).
//!
//! ```text
//!  /sys: what may lead to disks and networks ───────────────────► HARDWARE_READY
//!          └─ while they wait ──► what every node needs ──► the rest ──► what is announced, for ever
//! ```
//!
//! It says that disks and networks of power-on have been looked for by making `names::HARDWARE_READY`;
//! `host::module::wait_for_hardware` waits for that.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use host::module::{self, Aliases, Index, Uevents};

use crate::console::chain;
use crate::stamps;

/// The name under which `init` is this.
pub const NAME: &str = "steading-hardware";

/// For an announcement that may never come.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// Never ends but with an error; PID 1 then starts it again.
pub fn run() -> ExitCode {
    let Err(error) = serve();
    eprintln!("init: modules for the hardware: {}", chain(&*error));
    ExitCode::FAILURE
}

fn serve() -> Result<std::convert::Infallible, Box<dyn std::error::Error>> {
    let begin_ms = host::boot::moment_ms();
    // Before the agent, which waits for the disks: refused, it is slower.
    let _ = host::process::set_nice(-10);
    // Before the walk: what appears during it is not lost.
    let events = Uevents::open()?;
    let ready = || {
        answer_where_asked();
        stamps::done(inventory::boot::Part::Modules, begin_ms);
        if let Err(error) = module::announce_hardware() {
            eprintln!("init: nobody learns that the disks are there: {}", chain(&error));
        }
    };
    let index = module::of_running_kernel().inspect_err(|_| ready())?;
    let mut aliases = Aliases::of_sys();
    aliases.also(&AHEAD);
    load(&index, &mut aliases, &events, ready)?;
    loop {
        events.wait(FOR_EVER)?;
        load(&index, &mut aliases, &events, || {})?;
    }
}

/// What a node needs before it sells, whatever it is made of: its medium's file system, its volumes and theirs, then its
/// walls. Each would come by itself when it is first asked for; but through a program that the kernel starts for it, which
/// reads all lists of modules again, while somebody waits.
const AHEAD: [&str; 14] = [
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "dm-mod",
    "ext4",
    "nf_tables",
    "nft_ct",
    "nft_connlimit",
    "nft_reject_inet",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "dm-verity",
    "erofs",
];

fn load(
    index: &Index,
    aliases: &mut Aliases,
    events: &Uevents,
    ready: impl FnOnce() + Send,
) -> io::Result<()> {
    let start = Instant::now();
    let (loaded, failed) = module::load_for_hardware(index, aliases, events, ready)?;
    answer_where_asked();
    for error in failed {
        eprintln!("init: {}", chain(&error));
    }
    if loaded > 0 {
        println!(
            "init: {loaded} modules for the hardware, {} ms",
            start.elapsed().as_millis()
        );
    }
    Ok(())
}

/// A disk's answers are worked up on the processor that asked, and not on the one that the controller happens to interrupt:
/// there they would cost somebody else's time.
fn answer_where_asked() {
    for disk in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        // Mappings have no queue of their own; and each setting stops a disk for a moment.
        let setting = disk.path().join("queue/rq_affinity");
        let set = fs::read_to_string(&setting).is_ok_and(|text| text.trim() == "2");
        if disk.path().join("device").exists() && !set {
            let _ = fs::write(setting, "2");
        }
    }
}
