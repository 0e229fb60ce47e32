//! Loads modules for the hardware that is there, and for what is plugged in later; a service beside
//! the agent (no udev).
//!
//! ```text
//!  /sys: what may lead to disks and networks ─┬─► HARDWARE_READY ──► the rest ──► what is announced, for ever
//!         while these wait for their devices  └─► what every node needs, ahead of being asked
//! ```
//!
//! It says that disks and networks of power-on have been looked for by making `names::HARDWARE_READY`;
//! `host::module::wait_for_hardware` waits for that.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
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
    // Before the walk: what appears during it is not lost.
    let events = Uevents::open()?;
    let walked = module::of_running_kernel().map(|index| (Arc::new(index), Aliases::of_sys()));
    let walked = match walked {
        Ok((index, mut aliases)) => {
            let ahead = Arc::clone(&index);
            let idle = || _ = std::thread::spawn(move || load_ahead(&ahead));
            load(&index, &mut aliases, &events, true, idle)?;
            Ok((index, aliases))
        }
        Err(error) => Err(error),
    };
    stamps::done(inventory::boot::Part::Modules, begin_ms);
    // An image without modules has none to wait for.
    module::announce_hardware()?;
    let (index, mut aliases) = walked?;
    loop {
        load(&index, &mut aliases, &events, false, || {})?;
        events.wait(FOR_EVER)?;
    }
}

/// What a node needs before it sells, whatever it is made of: its volumes and file systems, then its walls. Each would
/// come by itself when it is first asked for; but through a program that the kernel starts for it, which reads all lists
/// of modules again, while somebody waits.
const AHEAD: [&str; 11] = [
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

/// One that fails fails again for whoever asks for it, who says so.
fn load_ahead(index: &Index) {
    for name in AHEAD {
        let _ = module::load(index, name);
    }
}

fn load(
    index: &Index,
    aliases: &mut Aliases,
    events: &Uevents,
    needed: bool,
    idle: impl FnOnce() + Send,
) -> io::Result<()> {
    let start = Instant::now();
    let (loaded, failed) = module::load_for_hardware(index, aliases, events, needed, idle)?;
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
