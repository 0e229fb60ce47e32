//! Disks that hold something: none is touched, each is shown with the line that frees it, and all are sold at the next boot
//! with these lines.
//!
//! ```text
//!  a blank disk and the others ─► boot: sells the blank one, names the others, a line for each ─► power cut
//!     every byte of the others is as before ─► the lines into farmer.toml ─► boot: claims and sells all
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Whence, lseek};
use packages::program::{pinned, run};
use packages::{Set, Store};
use qemu::{Bus, Disk, Running};
use sha2::{Digest, Sha256};

use super::cases::{Ended, Place, said, sells};
use super::foreign::{self, Partition};
use crate::artefacts;
use crate::tree::Tree;

/// The smallest that is sold.
const BYTES: u64 = 4 << 30;
const WWN: u64 = 0x5000_c500_d107_0000;
/// What separates the disk from its line on the console.
const LINE: &str = "add the line: erase = [\"";

type Lay = fn(&Tools, &Path) -> Result<()>;

/// Each with the words by which the console names what is on it.
const DISKS: &[(&str, &str, Lay)] = &[
    ("ext4", "ext4 \"backup\"", |tools, path| {
        tools.run("mke2fs", &["-q", "-F", "-t", "ext4", "-L", "backup"], path)
    }),
    ("ntfs", "NTFS \"photos\"", |tools, path| {
        tools.run("mkntfs", &["-q", "-Q", "-F", "-L", "photos"], path)
    }),
    ("btrfs", "btrfs \"home\"", |tools, path| {
        tools.run("mkfs.btrfs", &["-q", "-f", "-L", "home"], path)
    }),
    ("swap", "swap \"idle\"", |tools, path| {
        tools.run("mkswap", &["-L", "idle"], path)
    }),
    ("luks", "LUKS \"vault\"", luks),
    ("lvm", "LVM of the volume group vg0", |_, path| {
        Ok(foreign::lvm(&open(path)?, BYTES)?)
    }),
    ("md-0.90", "Linux RAID", |_, path| {
        Ok(foreign::md_0_90(&open(path)?, BYTES)?)
    }),
    ("md-1.0", "Linux RAID \"nas:0\"", |_, path| {
        let at = foreign::md_1_0_at(BYTES);
        Ok(foreign::md_1(&open(path)?, BYTES, at, "nas:0", 1, None)?)
    }),
    ("md-1.2", "Linux RAID \"nas:1\"", |_, path| {
        Ok(foreign::md_1(&open(path)?, BYTES, 4096, "nas:1", 1, None)?)
    }),
    ("md-missing", "Linux RAID \"nas:2\"", |_, path| {
        Ok(foreign::md_1(&open(path)?, BYTES, 4096, "nas:2", 5, Some(2))?)
    }),
    ("zfs", "ZFS \"tank\"", |_, path| {
        Ok(foreign::zfs(&open(path)?, BYTES)?)
    }),
    (
        "gpt-backup",
        "the copy of a partition table (gpt) at its end",
        |_, path| Ok(foreign::backup(&open(path)?, BYTES, &windows())?),
    ),
    (
        "mbr-alone",
        "the protective entry of a partition table (gpt) that is gone",
        |_, path| Ok(foreign::protective(&open(path)?, BYTES)?),
    ),
    ("random", "bytes that are not zero", random),
    (
        "windows",
        "a partition table (gpt) with 4 partitions",
        whole_windows,
    ),
];

/// Programs that make file systems.
struct Tools {
    trees: [PathBuf; 2],
}

impl Tools {
    fn unpack(tree: &Tree, store: &Store) -> Result<Tools> {
        let tools = tree.artefact("image/disks");
        artefacts::unpacked(store, &[Set::Disks], &tools)?;
        Ok(Tools {
            trees: [tools, tree.sysroot()],
        })
    }

    fn command(&self, program: &str) -> Result<Command> {
        let [tools, sysroot] = &self.trees;
        pinned(&[tools, sysroot], &format!("usr/sbin/{program}"))
    }

    fn run(&self, program: &str, words: &[&str], path: &Path) -> Result<()> {
        run(self.command(program)?.args(words).arg(path))
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn luks(tools: &Tools, path: &Path) -> Result<()> {
    let key = path.with_extension("key");
    std::fs::write(&key, "open sesame")?;
    run(tools
        .command("cryptsetup")?
        .args([
            "luksFormat",
            "-q",
            "--type",
            "luks2",
            "--label",
            "vault",
            "--disable-locks",
        ])
        .args([
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
            "--key-file",
        ])
        .arg(&key)
        .arg(path))
}

/// Random bytes at both ends and a few in the middle.
fn random(_: &Tools, path: &Path) -> Result<()> {
    let disk = open(path)?;
    let mut bytes = vec![0; 8 << 20];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[0] = 1;
    for at in [0, BYTES / 2, BYTES - bytes.len() as u64] {
        disk.write_all_at(&bytes, at)?;
    }
    Ok(())
}

/// System partition, reserved one, Windows, recovery.
fn windows() -> Vec<Partition> {
    let mib = |from: u64, to: u64| (from << 11, (to << 11) - 1);
    [mib(1, 101), mib(101, 117), mib(117, 3500), mib(3500, 4095)]
        .into_iter()
        .zip(foreign::WINDOWS)
        .map(|((first, last), kind)| (kind, first, last))
        .collect()
}

fn whole_windows(tools: &Tools, path: &Path) -> Result<()> {
    let disk = open(path)?;
    foreign::gpt(&disk, BYTES, &windows())?;
    let part = path.with_extension("part");
    let [_, _, (_, first, last), _] = windows()[..] else {
        anyhow::bail!("Windows has four partitions");
    };
    File::create(&part)?.set_len((last - first + 1) * 512)?;
    tools.run("mkntfs", &["-q", "-Q", "-F", "-L", "Windows"], &part)?;
    each_block(&File::open(&part)?, |at, block| {
        disk.write_all_at(block, first * 512 + at)
    })?;
    Ok(std::fs::remove_file(&part)?)
}

/// Every block of a sparse file that is not zero, with its place.
fn each_block(file: &File, mut see: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    let (size, mut at) = (file.metadata()?.len(), 0);
    let mut block = vec![0; BLOCK as usize];
    while at < size {
        // From here on there are holes alone: ENXIO.
        let Ok(data) = lseek(file, at as i64, Whence::SeekData) else {
            return Ok(());
        };
        at = data as u64 / BLOCK * BLOCK;
        let length = (size - at).min(BLOCK) as usize;
        file.read_exact_at(&mut block[..length], at)?;
        if block[..length].iter().any(|byte| *byte != 0) {
            see(at, &block[..length])?;
        }
        at += length as u64;
    }
    Ok(())
}

/// A hash of every byte of a disk: zeros weigh by the places of what is between them.
fn digest(path: &Path) -> Result<[u8; 32]> {
    let file = File::open(path)?;
    let mut hash = Sha256::new();
    hash.update(file.metadata()?.len().to_le_bytes());
    each_block(&file, |at, block| {
        hash.update(at.to_le_bytes());
        hash.update(block);
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

/// The disks of [`DISKS`], laid in a folder.
struct Laid {
    name: &'static str,
    words: &'static str,
    path: PathBuf,
    wwn: Option<u64>,
}

fn lay(place: &Place) -> Result<Vec<Laid>> {
    let tools = Tools::unpack(place.ground.tree, place.ground.store)?;
    let mut all = Vec::new();
    for (index, (name, words, make)) in DISKS.iter().enumerate() {
        let path = place.dir.join(format!("{name}.img"));
        File::create(&path)?.set_len(BYTES)?;
        make(&tools, &path).with_context(|| format!("making the disk {name}"))?;
        // Every fourth is of a maker who gives no world-wide name.
        let wwn = (index % 4 != 3).then_some(WWN + index as u64);
        all.push(Laid {
            name,
            words,
            path,
            wwn,
        });
    }
    Ok(all)
}

/// See the head of this file.
pub fn matrix(place: &Place) -> Result<Ended> {
    let disks = lay(place)?;
    let before: Vec<[u8; 32]> = disks
        .iter()
        .map(|disk| digest(&disk.path))
        .collect::<Result<_>>()?;

    let (begun, mut running) = (Instant::now(), start(place, &place.ground.stick, &disks)?);
    let first = sells(&mut running, begun)?;
    let claimed = claimed(&mut running)?;
    ensure!(
        claimed.len() == 1,
        "more than the blank disk was claimed: {claimed:?}"
    );
    let shown = told(&mut running);
    running.cut_power();
    let mut lines = Vec::new();
    for (disk, before) in disks.iter().zip(&before) {
        ensure!(digest(&disk.path)? == *before, "{} was written", disk.name);
        lines.push(line_of(&shown, disk, &lines)?);
    }

    let list: Vec<String> = lines.iter().map(|line| format!("{line:?}")).collect();
    let text = format!("{}erase = [{}]\n", place.ground.text, list.join(", "));
    let stick = place.stick(&text)?;
    let (begun, mut running) = (Instant::now(), start(place, &stick, &disks)?);
    let second = sells(&mut running, begun)?;
    let claimed = self::claimed(&mut running)?;
    let left = told(&mut running);
    ensure!(
        claimed.len() == disks.len() + 1,
        "of {} disks {claimed:?} were claimed; not: {left:#?}",
        disks.len() + 1
    );
    // Said when each of them has its base: then all of them are sold.
    said(&mut running, "may be pulled out")?;
    let all = begun.elapsed();
    running.cut_power();
    for (disk, before) in disks.iter().zip(&before) {
        ensure!(digest(&disk.path)? != *before, "{} was not written", disk.name);
        std::fs::remove_file(&disk.path)?;
    }
    Ok(Ended::Passed(Some(format!(
        "{} disks: sells after {:.1} s, with the lines after {:.1} s, all of them after {:.1} s",
        disks.len(),
        first.as_secs_f64(),
        second.as_secs_f64(),
        all.as_secs_f64()
    ))))
}

fn start(place: &Place, stick: &Path, disks: &[Laid]) -> Result<Running> {
    let mut machine = place.machine_from(stick);
    machine.disks.push(place.blank()?);
    for disk in disks {
        let mut plugged = Disk::new(&disk.path, disk.name).on(Bus::VirtioScsi);
        plugged.wwn = disk.wwn;
        machine.disks.push(plugged);
    }
    Ok(machine.start()?)
}

/// The disks that the console calls claimed.
fn claimed(running: &mut Running) -> Result<Vec<String>> {
    let line = running
        .seen("  disks claimed: ")
        .context("it sells and says no disk")?
        .text;
    let list = line.split("claimed: ").nth(1).unwrap_or_default();
    Ok(list.split(", ").map(String::from).collect())
}

/// The lines of the console about disks that were not touched.
fn told(running: &mut Running) -> Vec<String> {
    running
        .history()
        .iter()
        .map(|line| line.text.clone())
        .filter(|text| text.contains(": not touched, "))
        .collect()
}

/// The line that frees this disk, and not one of those before: by its world-wide name or, without one, its serial number.
fn line_of(shown: &[String], disk: &Laid, before: &[String]) -> Result<String> {
    let found = shown.iter().find_map(|text| {
        let line = text.split_once(LINE)?.1.split_once('"')?.0.to_owned();
        let is_its = match disk.wwn {
            Some(wwn) => line.starts_with(&format!("naa.{wwn:x}, ")),
            None => line.starts_with(&format!("serial {}, ", disk.name)),
        };
        (is_its && !before.contains(&line)).then_some((text, line))
    });
    let (text, line) =
        found.with_context(|| format!("{} is not shown with its line: {shown:#?}", disk.name))?;
    ensure!(
        text.contains(&format!("holds {}", disk.words)),
        "{} is not shown by name: {text}",
        disk.name
    );
    Ok(line)
}
