//! Tests that need a real kernel with device-mapper, cgroups and namespaces of its own.
//!
//! ```text
//! ./x test ──► QEMU ──► init (PID 1) ──► guest-tests run ──► trials, one after the other
//!                                              └──► "guest tests: N passed, M failed", power off
//! ```
//!
//! Trials share a boot, so each leaves the machine as it found it, or says so in its name.

#[cfg(feature = "fault-points")]
mod claims;
#[cfg(feature = "fault-points")]
mod cuts;
mod disks;
mod escapes;
#[cfg(feature = "fault-points")]
mod flushes;
mod hostile;
mod limits;
mod machine;
mod network;
mod provisioner;
mod readings;
mod spaces;
mod storage;

use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "fault-points")]
use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};

/// A trial whose error is shown with all its causes.
pub fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn main() -> ExitCode {
    // At halt, init calls whatever stands in the agent's place to close volumes: trials close their own.
    if std::env::args().nth(1).as_deref() == Some("close") {
        return ExitCode::SUCCESS;
    }
    if let Some(code) = limits::child() {
        return code;
    }
    #[cfg(feature = "fault-points")]
    if let Some(code) = provisioner::faults::child() {
        return code;
    }
    #[cfg(feature = "fault-points")]
    if let Some(code) = cuts::guest().or_else(flushes::guest) {
        return code;
    }
    println!("guest tests: started");
    if word("guest-trace").is_some() {
        // For people who look where time goes: `guest-trace=debug` on the kernel's command line.
        tracing_subscriber::fmt()
            .with_env_filter(word("guest-trace").unwrap_or_default())
            .with_ansi(false)
            .with_writer(std::io::stdout)
            .init();
    }
    // Trials speak of disks: init loads their modules beside us.
    if let Err(error) = host::module::wait_for_hardware(Duration::from_secs(60)) {
        println!("guest tests: the hardware is not ready: {error}");
    }
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::default()
    };
    let rooms = [
        machine::trials(),
        limits::trials(),
        network::trials(),
        spaces::trials(),
        readings::trials(),
        escapes::trials(),
        hostile::trials(),
        storage::trials(),
        disks::trials(),
        #[cfg(feature = "fault-points")]
        claims::trials(),
        provisioner::trials(),
    ];
    let filter = word("guest-tests").unwrap_or_default();
    let (without, with): (Vec<&str>, Vec<&str>) = filter
        .split(',')
        .filter(|name| !name.is_empty())
        .partition(|name| name.starts_with('-'));
    let wanted = |trial: &Trial| {
        let named = |name: &&str| trial.name().contains(name.trim_start_matches('-'));
        (with.is_empty() || with.iter().any(named)) && !without.iter().any(named)
    };
    let trials = rooms.into_iter().flatten().filter(wanted).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    println!(
        "guest tests: {} passed, {} failed",
        conclusion.num_passed, conclusion.num_failed
    );
    if let Err(error) = host::power::request_power_off() {
        println!("guest tests: cannot power off: {error}");
    }
    conclusion.exit_code()
}

/// The value of `NAME=VALUE` on the kernel's command line. `guest-tests=NAME,NAME,-NAME`: only trials
/// whose name contains one of them, and not what stands after a `-`.
fn word(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map(String::from)
}

/// A boot that is one long trial: says in a sentence what came of it, then switches off.
#[cfg(feature = "fault-points")]
fn whole_boot(trial: impl FnOnce() -> anyhow::Result<String>) -> ExitCode {
    let result = host::module::wait_for_hardware(Duration::from_secs(60))
        .context("waiting for the disks")
        .and_then(|_| trial());
    let (passed, failed) = match &result {
        Ok(words) => {
            println!("guest cuts: {words}");
            (1, 0)
        }
        Err(error) => {
            println!("guest cuts: FAILED: {error:#}");
            (0, 1)
        }
    };
    println!("guest tests: {passed} passed, {failed} failed");
    if let Err(error) = host::power::request_power_off() {
        println!("guest cuts: cannot power off: {error}");
    }
    ExitCode::from(failed)
}
