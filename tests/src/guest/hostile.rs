//! What a hostile space, root inside, uses up, and what is left for the one beside it.

pub mod client;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use host::isolate;
use libtest_mimic::Trial;

use crate::spaces::bench::{Bench, START, expect, value};
use crate::trial;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("hostile::one_space_cannot_use_up_the_watches_of_all", watches),
        trial("hostile::one_space_cannot_use_up_the_terminals_of_all", terminals),
        trial(
            "hostile::one_that_serves_itself_files_ends_all_the_same",
            deadlock,
        ),
    ]
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

/// Terminals and rings for reading ahead are counted for all spaces together: the bound for all is out of reach of one.
fn terminals() -> Result<()> {
    const TAKE: &str = "import ctypes,os,time\n\
        held=[]\n\
        try:\n\
        \x20 while len(held)<4000: held.append(os.open('/dev/ptmx',os.O_RDWR|os.O_NOCTTY))\n\
        except OSError as e: print('errno=%d' % e.errno)\n\
        l=ctypes.CDLL(None,use_errno=True)\n\
        ring=ctypes.c_ulong(0)\n\
        print('rings=%d' % l.syscall(206,60000,ctypes.byref(ring)))\n\
        print('got=%d' % len(held), flush=True)\n\
        time.sleep(600)\n";
    let (first, second) = (Bench::new(1)?, Bench::new(2)?);
    for (bench, most) in [(&first, "4000"), (&second, "4000")] {
        std::fs::create_dir_all(bench.volume().join("upper/root"))?;
        std::fs::write(bench.volume().join("upper/root/take.py"), TAKE)?;
        let script = "exec >/root/found 2>&1; ulimit -n 8192; exec python3 /root/take.py";
        isolate::start(
            &bench.space(&["/usr/bin/catatonit", "--", "/bin/bash", "-c", script]),
            START,
        )?;
        let end = Instant::now() + Duration::from_secs(60);
        while !bench.found().is_ok_and(|found| found.contains("got=")) {
            ensure!(Instant::now() < end, "waited 60 s for the terminals");
            std::thread::sleep(Duration::from_millis(20));
        }
        // The first still holds all that it got.
        let found = bench.found()?;
        expect(&found, "got", most)?;
        expect(&found, "rings", "0")?;
    }
    Ok(())
}

/// A process serves a FUSE file system, asks it itself, and does not answer: its threads hold each other, and a kill does
/// not end them. Aborting the connection does.
fn deadlock() -> Result<()> {
    // Answers INIT (struct fuse_init_out of version 7.31) and then only reads.
    const SERVE: &str = "import ctypes,os,struct,threading,time\n\
        l=ctypes.CDLL(None,use_errno=True)\n\
        fd=os.open('/dev/fuse',os.O_RDWR)\n\
        os.makedirs('/mnt/self',exist_ok=True)\n\
        o=('fd=%d,rootmode=40000,user_id=0,group_id=0'%fd).encode()\n\
        print('mounted=%d'%l.mount(b'self',b'/mnt/self',b'fuse',0,o),ctypes.get_errno(),flush=True)\n\
        head=os.read(fd,1<<20)\n\
        unique=struct.unpack_from('<IIQ',head)[2]\n\
        body=struct.pack('<IIIIHHIIHHI7I',7,31,65536,0,12,9,65536,1,0,0,0,*([0]*7))\n\
        os.write(fd,struct.pack('<IiQ',16+len(body),0,unique)+body)\n\
        threading.Thread(target=lambda: os.stat('/mnt/self/x')).start()\n\
        asked=os.read(fd,1<<20)\n\
        print('asked=%d'%struct.unpack_from('<II',asked)[1],flush=True)\n\
        while True: os.read(fd,1<<20)\n";
    let bench = Bench::new(1)?;
    std::fs::create_dir_all(bench.volume().join("upper/root"))?;
    std::fs::write(bench.volume().join("upper/root/serve.py"), SERVE)?;
    let script = "exec >/root/found 2>&1; exec python3 /root/serve.py";
    isolate::start(
        &bench.space(&["/usr/bin/catatonit", "--", "/bin/bash", "-c", script]),
        START,
    )?;
    let end = Instant::now() + Duration::from_secs(60);
    while !bench.found().is_ok_and(|found| found.contains("asked=")) {
        ensure!(Instant::now() < end, "waited 60 s: {:?}", bench.found());
        std::thread::sleep(Duration::from_millis(20));
    }
    let cgroup = bench.cgroup();
    host::cgroup::kill(&cgroup)?;
    let killed = host::cgroup::wait_empty(&cgroup, Duration::from_secs(3));
    ensure!(killed.is_err(), "the control: a kill is enough");
    let stuck = host::cgroup::processes(&cgroup);
    let aborted = host::fuse::abort(&stuck, Path::new(host::names::RUN_READINGS));
    ensure!(aborted == 1, "{aborted} connections of {stuck:?} were aborted");
    host::cgroup::wait_empty(&cgroup, Duration::from_secs(10))?;
    bench.end()
}
