//! Where the kernel's workers write what somebody left to be written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use host::names;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::spaces::bench::{Bench, DISK};

/// The processor of whoever writes; another one is there.
const OWN: usize = 1;
/// How often workers have to be met at work.
const MEETINGS: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(30);
/// Where there is room is the scheduler's choice, and a control may find none: then both are counted anew, and what is held
/// must be held each time.
const COUNTS: u32 = 3;

/// Whoever leaves something to be written has it written on his own processor, full though that is. The control: without
/// the setting it is written where there is room, which is beside another.
pub fn written() -> Result<()> {
    let bench = Bench::new(1)?;
    let number = fs::read_to_string(format!("/sys/block/{}/dev", DISK.trim_start_matches("/dev/")))?;
    let workers = format!("+flush-{}", number.trim());
    let setting = Path::new(names::WORKERS).join("writeback/affinity_scope");
    let set = fs::read_to_string(&setting)?;
    for count in 1..=COUNTS {
        let held = elsewhere(&bench.volume(), &workers)?;
        fs::write(&setting, "system")?;
        let control = elsewhere(&bench.volume(), &workers);
        fs::write(&setting, set.trim())?;
        let control = control?;
        println!(
            "of {MEETINGS} looks {held} find it written on another processor; without the setting {control}"
        );
        ensure!(held < MEETINGS / 4, "{held} of {MEETINGS} on another processor");
        if control > MEETINGS / 2 {
            break;
        }
        ensure!(count < COUNTS, "the control: {control}: this shows nothing");
    }
    bench.end()
}

/// How many of so many looks at workers find them on another processor than that of whoever writes.
fn elsewhere(folder: &Path, workers: &str) -> Result<u32> {
    let stop = AtomicBool::new(false);
    let own = || -> Result<()> {
        let mut own = CpuSet::new();
        own.set(OWN)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &own)?)
    };
    let busy = || -> Result<()> {
        own()?;
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        Ok(())
    };
    let write = || -> Result<()> {
        own()?;
        let megabyte = vec![1; 1 << 20];
        while !stop.load(Ordering::Relaxed) {
            let mut file = File::create(folder.join("left"))?;
            for _ in 0..4 {
                file.write_all(&megabyte)?;
            }
            nix::unistd::syncfs(&file)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(busy), scope.spawn(write)];
        let counted = count(workers);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        counted
    })
}

fn count(workers: &str) -> Result<u32> {
    let end = Instant::now() + PATIENCE;
    let (mut met, mut elsewhere) = (0, 0);
    while met < MEETINGS {
        ensure!(
            Instant::now() < end,
            "{workers} was met {met} times in {PATIENCE:?}"
        );
        for entry in fs::read_dir("/proc")?.flatten() {
            // One that ends meanwhile is none.
            let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((name, rest)) = text.rsplit_once(')') else {
                continue;
            };
            if !name.ends_with(workers) {
                continue;
            }
            // The 39th figure, with the name as the second: on which it ran last.
            let processor = rest.split_whitespace().nth(36).context("too few figures")?;
            met += 1;
            elsewhere += u32::from(processor.parse() != Ok(OWN));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(elsewhere)
}
