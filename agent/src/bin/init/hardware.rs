//! Loads modules for the hardware that is there, and for what is plugged in later; a service beside
//! the agent (no udev).
//!
//! It says that the hardware of power-on has been looked at by making `names::HARDWARE_READY`;
//! `host::module::wait_for_hardware` waits for that.

use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use host::module::{self, Index, ModuleError, Uevents};

use crate::console::chain;
use crate::stamps;

/// The name under which `init` is this.
pub const NAME: &str = "steading-hardware";

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
    let walked = module::of_running_kernel().map(|index| {
        let mut seen = HashSet::new();
        walk(&index, &mut seen);
        (index, seen)
    });
    stamps::done(inventory::boot::Part::Modules, begin_ms);
    // An image without modules has none to wait for.
    module::announce_hardware()?;
    let (index, mut seen) = walked?;
    loop {
        match events.receive()? {
            Some(event) => {
                let added = event.get("ACTION").is_some_and(|action| action == "add");
                if added && event.get("DEVTYPE").is_some_and(|kind| kind == "disk") {
                    answer_where_asked();
                }
                let alias = event.get("MODALIAS").filter(|_| added);
                if let Some(alias) = alias.filter(|alias| seen.insert((*alias).clone())) {
                    match module::load(&index, alias) {
                        Ok(_) | Err(ModuleError::Unknown(_)) => {}
                        Err(error) => eprintln!("init: {}", chain(&error)),
                    }
                }
            }
            None => walk(&index, &mut seen),
        }
    }
}

fn walk(index: &Index, seen: &mut HashSet<String>) {
    let start = Instant::now();
    answer_where_asked();
    let (loaded, failed) = module::load_for_hardware(index, seen);
    for error in failed {
        eprintln!("init: {}", chain(&error));
    }
    if loaded > 0 {
        println!(
            "init: {loaded} modules for the hardware, {} ms",
            start.elapsed().as_millis()
        );
    }
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
