//! What a hostile space, root inside, uses up, and what is left for the one beside it.

mod beside;
pub mod client;
mod written;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::isolate;
use libtest_mimic::Trial;
use nix::mount::MsFlags;

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
        trial("hostile::no_space_makes_others_forget_the_base", forget),
        trial(
            "hostile::what_one_leaves_to_be_written_is_written_where_he_runs",
            written::written,
        ),
        trial("hostile::a_good_space_does_not_notice", || {
            crate::provisioner::bench::Bench::with(beside::beside)
        }),
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

/// The base's pages are in memory once for all. Advice to forget them is not followed: else whoever gives it makes all
/// others read the disk. The control: under a filter that lets the advice through.
fn forget() -> Result<()> {
    const FORGET: &str = "import mmap,os\n\
        f=os.open('/usr/bin/perl',os.O_RDONLY)\n\
        m=mmap.mmap(f,0,prot=mmap.PROT_READ)\n\
        sum(m[::4096])\n\
        m.madvise(21)\n\
        m.close()\n\
        os.posix_fadvise(f,0,0,os.POSIX_FADV_DONTNEED)\n\
        print('forgot=1')\n";
    // `ret ALLOW`.
    const ALLOW_ALL: [u8; 8] = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    let filter = Path::new("/run/filter-of-a-trial");
    std::fs::write(filter, ALLOW_ALL)?;
    let (first, second) = (Bench::new(1)?, Bench::new(2)?);
    std::fs::create_dir_all(second.volume().join("upper/root"))?;
    std::fs::write(second.volume().join("upper/root/forget.py"), FORGET)?;
    let order = |bench: &Bench, seccomp: Option<&Path>, script: &str| -> Result<()> {
        host::cgroup::ensure_absent(&bench.cgroup(), Duration::from_secs(10))?;
        std::fs::create_dir_all(bench.cgroup())?;
        let script = format!("exec >/root/found 2>&1; {script}; echo done=1");
        let mut start = bench.space(&["/usr/bin/catatonit", "--", "/bin/bash", "-c", &script]);
        start.seccomp = seccomp.map(Path::to_owned);
        isolate::start(&start, START)?;
        host::cgroup::wait_empty(&bench.cgroup(), Duration::from_secs(60))?;
        expect(&bench.found()?, "done", "1")
    };
    // Sectors that the disk with the base gave, for one reading by the first space.
    let reading = || -> Result<u64> {
        let sectors = || -> Result<u64> {
            let stat = std::fs::read_to_string("/sys/block/vdd/stat")?;
            Ok(stat.split_whitespace().nth(2).context("no sectors")?.parse()?)
        };
        let before = sectors()?;
        order(&first, None, "cat /usr/bin/perl >/dev/null")?;
        Ok(sectors()? - before)
    };
    // Pages live as long as the base is mounted anywhere.
    let held = Path::new("/run/base-of-a-trial");
    host::mount::ensure_mounted(Path::new("/dev/vdd2"), held, "erofs", MsFlags::MS_RDONLY, "")?;
    reading()?;
    let kept = reading()?;
    let forget = |seccomp| -> Result<u64> {
        order(&second, seccomp, "python3 /root/forget.py")?;
        expect(&second.found()?, "forgot", "1")?;
        reading()
    };
    let (advised, control) = (forget(None)?, forget(Some(filter))?);
    println!(
        "sectors of the base read again: {kept}; after another's advice {advised}; where it is followed {control}"
    );
    std::fs::remove_file(filter)?;
    ensure!(
        control > 1000,
        "where it is followed {control} sectors: this shows nothing"
    );
    ensure!(advised < control / 4, "{advised} sectors are read again");
    Ok(())
}
