//! What a hostile space, root inside, uses up, and what is left for the one beside it.

pub mod client;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use host::isolate;
use libtest_mimic::Trial;

use crate::spaces::bench::{Bench, START, expect, value};
use crate::trial;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![trial(
        "hostile::one_space_cannot_use_up_the_watches_of_all",
        watches,
    )]
}

/// The kernel counts inotify by who made the user namespace: one count for all, were they all made by root.
fn watches() -> Result<()> {
    const TAKE: &str = "import ctypes,sys,time\n\
        l=ctypes.CDLL(None,use_errno=True)\n\
        n=0\n\
        while n<2000 and l.inotify_init1(0)>=0: n+=1\n\
        print('got=%d' % n, 'errno=%d' % ctypes.get_errno(), sep='\\n', flush=True)\n\
        time.sleep(600)\n";
    let (first, second) = (Bench::new(1)?, Bench::new(2)?);
    // More open files than instances, so that only the wall in question is met.
    let script = |bench: &Bench| -> Result<()> {
        std::fs::create_dir_all(bench.volume().join("upper/root"))?;
        std::fs::write(bench.volume().join("upper/root/take.py"), TAKE)?;
        let script = "exec >/root/found 2>&1; ulimit -n 4096; exec python3 /root/take.py";
        isolate::start(
            &bench.space(&["/usr/bin/catatonit", "--", "/bin/bash", "-c", script]),
            START,
        )?;
        let end = Instant::now() + Duration::from_secs(60);
        while !bench.found().is_ok_and(|found| found.contains("errno=")) {
            ensure!(Instant::now() < end, "waited 60 s for the watches");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    script(&first)?;
    // The first still holds all that it got.
    script(&second)?;
    for bench in [&first, &second] {
        let found = bench.found()?;
        let got: u32 = value(&found, "got")?.parse()?;
        // EMFILE: the limit is there; and each has its own.
        ensure!((900..1100).contains(&got), "{found}");
        expect(&found, "errno", "24")?;
    }
    Ok(())
}
