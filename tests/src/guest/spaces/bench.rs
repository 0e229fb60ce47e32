//! What one space needs, made and unmade as `provision` does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use host::command::{Program, Run};
use host::isolate::{self, SpaceStart};
use host::process::Pidfd;
use host::{cgroup, mount, names, netns};
use market::id::SaleId;
use nix::mount::MsFlags;

/// The disk whose partitions are the volumes.
pub const DISK: &str = "/dev/vdc";
const BASE: &str = "/dev/vdd2";
/// What the spaces are told to be the digest of their base.
pub const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Bytes of a volume: three fit on the disk.
const SIZE: u64 = 320 << 20;
/// What a start may take.
pub const START: Duration = Duration::from_secs(60);

/// A volume, a namespace and a cgroup for one space; gone when dropped.
pub struct Bench {
    number: u32,
    id: [u8; 32],
}

impl Bench {
    /// Volume `number` (1, 2 or 3) is made anew.
    pub fn new(number: u32) -> Result<Self> {
        let disk = host::block::Device::open(Path::new(DISK))?;
        disk.add_partition(number, u64::from(number - 1) * SIZE + (1 << 20), SIZE)?;
        let mut id = [0u8; 32];
        id[..2].copy_from_slice(&[0xe0, number as u8]);
        let bench = Self { number, id };
        bench.remove();
        Run::new(Program::MkfsExt4)
            .args(["-q", "-F"])
            .path(&bench.device())
            .run()?;
        mount::ensure_mounted(&bench.device(), &bench.volume(), "ext4", MsFlags::MS_NODEV, "")?;
        netns::create_owned(&names::space_netns(&id), bench.first_id())?;
        fs::create_dir_all(bench.cgroup())?;
        Ok(bench)
    }

    /// As whose space it is known to the network.
    pub fn sale(&self) -> SaleId {
        SaleId(self.id)
    }

    pub fn device(&self) -> PathBuf {
        host::block::partition_path(Path::new(DISK), self.number)
    }

    pub fn volume(&self) -> PathBuf {
        names::volume_mount(&self.id)
    }

    pub fn cgroup(&self) -> PathBuf {
        names::cgroup(&self.id)
    }

    pub fn netns(&self) -> PathBuf {
        names::netns_path(&names::space_netns(&self.id))
    }

    pub fn first_id(&self) -> u32 {
        100_000 + 65_536 * self.number
    }

    pub fn space(&self, argv: &[&str]) -> SpaceStart {
        SpaceStart {
            base: BASE.into(),
            base_digest: DIGEST.into(),
            volume: self.volume(),
            first_id: self.first_id(),
            netns: self.netns(),
            cgroup: self.cgroup(),
            hostname: format!("space-{}", self.number),
            argv: argv.iter().map(|s| (*s).to_owned()).collect(),
            seccomp: None,
        }
    }

    /// Starts `script` as the child of catatonit, waits for its end, and gives what it found.
    pub fn run(&self, script: &str) -> Result<String> {
        let script = format!("exec >/root/found 2>&1; {script}");
        let pid = isolate::start(
            &self.space(&["/usr/bin/catatonit", "--", "/bin/sh", "-c", &script]),
            START,
        )?;
        // It may have ended by now: that its number is gone is then its end.
        if let Ok(process) = Pidfd::open(pid)
            && !process.wait_ended(Duration::from_secs(120))?
        {
            bail!(
                "the script did not end; so far: {}; where its processes are:\n{}",
                self.found().unwrap_or_default(),
                where_they_are(&self.cgroup())
            );
        }
        cgroup::wait_empty(&self.cgroup(), Duration::from_secs(10))?;
        self.found()
    }

    pub fn found(&self) -> Result<String> {
        let path = self.volume().join("upper/root/found");
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Ends all of it, as `provision` does.
    pub fn end(&self) -> Result<()> {
        cgroup::ensure_absent(&self.cgroup(), Duration::from_secs(10))?;
        netns::delete(&names::space_netns(&self.id))?;
        mount::ensure_unmounted(&self.volume())?;
        Ok(())
    }

    pub fn remove(&self) {
        let _ = self.end();
    }
}

/// What each process of a cgroup is, and in which call of the kernel it waits: what a trial that hangs has to say.
fn where_they_are(cgroup: &Path) -> String {
    let read = |pid: &i32, file: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.replace('\0', " ").trim_end().to_owned()
    };
    let one = |pid: i32| {
        let status = read(&pid, "status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        format!(
            "{pid} below {} {}: {} ({}), call {}\n{}\n",
            field("PPid:"),
            field("State:"),
            read(&pid, "cmdline"),
            read(&pid, "wchan"),
            read(&pid, "syscall"),
            read(&pid, "stack")
        )
    };
    cgroup::processes(cgroup).into_iter().map(one).collect()
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.remove();
        let blank = || -> Result<()> {
            let mut device = fs::OpenOptions::new().write(true).open(self.device())?;
            device.write_all(&vec![0; 2 << 20])?;
            device.sync_all()?;
            drop(device);
            let disk = host::block::Device::open(Path::new(DISK))?;
            host::block::Device::open_writable(&self.device())?.discard(0, SIZE)?;
            disk.forget_partition(self.number)?;
            Ok(())
        };
        if let Err(error) = blank() {
            println!("{DISK} is not blank again: {error:#}");
        }
    }
}

/// The value after `key=` in what a script wrote.
pub fn value<'a>(found: &'a str, key: &str) -> Result<&'a str> {
    found
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .with_context(|| format!("no {key}= in:\n{found}"))
}

pub fn expect(found: &str, key: &str, wanted: &str) -> Result<()> {
    let is = value(found, key)?;
    ensure!(
        is == wanted,
        "{key} is {is:?}, wanted {wanted:?}; all of it:\n{found}"
    );
    Ok(())
}
