//! LVM and LUKS as the C libraries and the kernel really do them, on a blank disk.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use host::command::Starts;
use libtest_mimic::Trial;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};
use storage::Storage;
use storage::luks::{LuksError, UnlockKey};
use storage::lvm::LvmError;
use storage::probe::{Content, probe};

use crate::trial;

/// The small disk: these trials leave it as blank as they found it.
const DISK: &str = "/dev/vdc";
const GROUP: &str = "steading-00000000-11111111";
const MAPPING: &str = "steading-trial";
const MIB: u64 = 1 << 20;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "storage::lvm_makes_grows_and_removes",
            lvm_makes_grows_and_removes,
        ),
        trial(
            "storage::luks_opens_by_the_key_alone",
            luks_opens_by_the_key_alone,
        ),
        trial(
            "storage::a_header_that_is_not_ours_is_refused",
            a_foreign_header_is_refused,
        ),
        trial(
            "storage::a_marker_is_found_nowhere_in_the_raw_disk",
            a_marker_is_nowhere,
        ),
        trial("storage::destroying_leaves_no_key", destroying_leaves_no_key),
        trial("storage::no_child_inherits_its_disks", no_child_inherits),
    ]
}

fn key(byte: u8) -> UnlockKey {
    UnlockKey::take(&mut [byte; 64])
}

/// A volume group on the disk, for one trial; the disk is blank again after it.
fn with_group(test: impl FnOnce(&Storage) -> Result<()>) -> Result<()> {
    host::module::wait_for_hardware(std::time::Duration::from_secs(60)).context("waiting for the disks")?;
    ensure!(
        probe(Path::new(DISK))? == Content::Empty,
        "{DISK} is not blank: {:?}",
        probe(Path::new(DISK))?
    );
    let storage = Storage::start()?;
    storage.lvm().pv_create(Path::new(DISK))?;
    storage.lvm().vg_create(GROUP, Path::new(DISK), &["trial"])?;
    let result = test(&storage);
    let cleaned = storage
        .luks()
        .close(MAPPING)
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            storage.lvm().vg_activate(GROUP, false)?;
            blank(Path::new(DISK))
        });
    result.and(cleaned.context("cleaning up"))
}

/// The disk is blank again: QEMU's disks read as zeros where they were discarded.
fn blank(disk: &Path) -> Result<()> {
    let device = host::block::Device::open_exclusive(disk)?;
    device.discard(0, device.size()?)?;
    ensure!(
        probe(disk)? == Content::Empty,
        "{} is not blank after a discard",
        disk.display()
    );
    Ok(())
}

fn volume(name: &str) -> PathBuf {
    host::names::lvm_device(GROUP, name)
}

fn lvm_makes_grows_and_removes() -> Result<()> {
    with_group(|storage| {
        let lvm = storage.lvm();
        let physical = lvm.pvs()?;
        let ours = physical
            .iter()
            .find(|pv| pv.device == Path::new(DISK))
            .context("no PV")?;
        ensure!(ours.group.as_deref() == Some(GROUP), "{ours:?}");
        let group = lvm
            .vgs()?
            .into_iter()
            .find(|vg| vg.name == GROUP)
            .context("no group")?;
        ensure!(group.tags == ["trial"] && group.missing_devices == 0, "{group:?}");
        ensure!(
            group.size_bytes == group.free_bytes && group.size_bytes > 1000 * MIB,
            "{group:?}"
        );

        lvm.lv_create(GROUP, "one", 30 * MIB, &["sale-ab", "two"])?;
        let made = lvm.lvs(Some(GROUP))?;
        ensure!(
            made.len() == 1 && made[0].size_bytes == 32 * MIB && made[0].active,
            "{made:?}"
        );
        ensure!(
            made[0].tags == ["sale-ab", "two"] && made[0].path == volume("one"),
            "{made:?}"
        );
        ensure!(
            host::block::Device::open(&volume("one"))?.size()? == 32 * MIB,
            "the kernel disagrees"
        );

        let again = lvm.lv_create(GROUP, "one", 4 * MIB, &[]);
        let Err(LvmError::Failed { lines, .. }) = &again else {
            bail!("made twice: {again:?}")
        };
        ensure!(
            lines.iter().any(|line| line.contains("already exists")),
            "{lines:?}"
        );
        let huge = lvm
            .lv_create(GROUP, "huge", 1 << 50, &[])
            .err()
            .context("made a PiB")?;
        ensure!(huge.to_string().contains("insufficient free space"), "{huge}");

        lvm.lv_extend(GROUP, "one", 64 * MIB)?;
        ensure!(
            host::block::Device::open(&volume("one"))?.size()? == 64 * MIB,
            "it did not grow"
        );
        lvm.lv_seal(GROUP, "one", "whole")?;
        let sealed = lvm.lvs(Some(GROUP))?;
        ensure!(
            !sealed[0].writeable && sealed[0].tags.contains(&"whole".to_owned()),
            "{sealed:?}"
        );
        let written = File::options()
            .write(true)
            .open(volume("one"))
            .and_then(|mut f| f.write_all(&[1; 4096]));
        ensure!(written.is_err(), "a sealed volume can be written");

        lvm.vg_activate(GROUP, false)?;
        ensure!(
            !volume("one").exists() && !lvm.lvs(Some(GROUP))?[0].active,
            "still active"
        );
        lvm.vg_activate(GROUP, true)?;
        ensure!(volume("one").exists(), "not active");
        lvm.lv_create(GROUP, "two", 4 * MIB, &[])?;
        // Who is killed before the node of a mapping is made, or after another of its name went, leaves this.
        for wrong in [None, Some("two")] {
            std::fs::remove_file(volume("one"))?;
            if let Some(other) = wrong {
                std::fs::hard_link(volume(other), volume("one"))?;
            }
            ensure!(
                lvm.lvs(Some(GROUP))?[0].active,
                "the control: its mapping is there"
            );
            lvm.vg_activate(GROUP, true)?;
            let size = host::block::Device::open(&volume("one"))?.size()?;
            ensure!(size == 64 * MIB, "the device of {wrong:?}: {size} bytes");
        }
        lvm.lv_remove(GROUP, "two")?;
        lvm.lv_remove(GROUP, "one")?;
        ensure!(
            lvm.lvs(Some(GROUP))?.is_empty() && !volume("one").exists(),
            "still there"
        );
        ensure!(lvm.lv_remove(GROUP, "one").is_err(), "removed twice");
        Ok(())
    })
}

fn luks_opens_by_the_key_alone() -> Result<()> {
    with_group(|storage| {
        storage.lvm().lv_create(GROUP, "space", 64 * MIB, &[])?;
        let (luks, device, name) = (storage.luks(), volume("space"), MAPPING);
        luks.format(&device, &key(1))?;
        ensure!(luks.opens(&device, &key(1))?, "the key does not open");
        ensure!(!luks.opens(&device, &key(2))?, "another key opens");
        ensure!(!luks.is_open(name)?, "open before opening");
        let wrong = luks.open(&device, name, &key(2));
        ensure!(matches!(wrong, Err(LuksError::WrongKey { .. })), "{wrong:?}");
        let mapping = luks.open(&device, name, &key(1))?;
        ensure!(luks.is_open(name)?, "not open");
        ensure!(
            host::block::Device::open(&mapping)?.size()? == 63 * MIB,
            "the header is not 1 MiB"
        );
        ensure!(
            luks.open(&device, name, &key(1))? == mapping,
            "opening again is not idempotent"
        );
        ensure!(
            luks.open(&device, name, &key(2)).is_err(),
            "open already, so any key is right?"
        );

        fs::write(&mapping, [0x5a; 4096]).context("writing")?;
        let held = File::open(&mapping)?;
        let busy = luks.close(name);
        ensure!(matches!(busy, Err(LuksError::Busy { .. })), "{busy:?}");
        drop(held);
        luks.close(name)?;
        luks.close(name).context("closing twice")?;
        let mapping = luks.open(&device, name, &key(1))?;
        let mut back = [0; 4096];
        File::open(&mapping)?.read_exact(&mut back)?;
        ensure!(back == [0x5a; 4096], "what was written did not come back");

        storage.lvm().lv_extend(GROUP, "space", 128 * MIB)?;
        luks.resize(&device, name, &key(1))?;
        ensure!(
            host::block::Device::open(&mapping)?.size()? == 127 * MIB,
            "the mapping did not grow"
        );
        luks.close(name)?;
        Ok(())
    })
}

/// libcryptsetup refuses a header with a wrong checksum; whoever writes one makes the checksum right, as here.
fn a_foreign_header_is_refused() -> Result<()> {
    with_group(|storage| {
        storage.lvm().lv_create(GROUP, "space", 64 * MIB, &[])?;
        let (luks, device) = (storage.luks(), volume("space"));
        luks.format(&device, &key(1))?;
        ensure!(luks.opens(&device, &key(1))?, "the key does not open");
        // A whole, valid header of somebody's cryptsetup, with cipher_null in its one segment.
        rewrite_header(&device, |json| {
            json.replace(
                "aes-xts-plain64\",\"sector_size",
                "cipher_null-ecb\",\"sector_size",
            )
        })?;
        let refused = luks.open(&device, MAPPING, &key(1));
        let Err(LuksError::NotOurs { what, .. }) = &refused else {
            bail!("{refused:?}")
        };
        ensure!(what.contains("cipher_null-ecb"), "{what}");
        ensure!(!luks.is_open(MAPPING)?, "it was opened");
        Ok(())
    })
}

/// Changes the JSON of both LUKS2 headers and makes their checksums right again.
fn rewrite_header(device: &Path, change: impl Fn(&str) -> String) -> Result<()> {
    let file = File::options().read(true).write(true).open(device)?;
    for start in [0, 16 * 1024] {
        let mut header = vec![0; 16 * 1024];
        file.read_exact_at(&mut header, start)?;
        let end = header[4096..]
            .iter()
            .position(|byte| *byte == 0)
            .context("JSON without end")?;
        let json = std::str::from_utf8(&header[4096..4096 + end])?.to_owned();
        let changed = change(&json);
        ensure!(changed != json, "nothing to change in {json}");
        header[4096..].fill(0);
        header[4096..4096 + changed.len()].copy_from_slice(changed.as_bytes());
        // lib/luks2/luks2.h: csum of 64 bytes at 448, taken as zeros while it is computed.
        header[448..512].fill(0);
        let sum = <[u8; 32]>::from(Sha256::digest(&header));
        header[448..480].copy_from_slice(&sum);
        file.write_all_at(&header, start)?;
    }
    Ok(file.sync_all()?)
}

const MARKER: &[u8] = b"steading marker: nobody may ever read this sentence on the raw disk";

fn a_marker_is_nowhere() -> Result<()> {
    with_group(|storage| {
        storage.lvm().lv_create(GROUP, "space", 64 * MIB, &[])?;
        storage.lvm().lv_create(GROUP, "plain", 64 * MIB, &[])?;
        storage.luks().format(&volume("space"), &key(1))?;
        let mapping = storage.luks().open(&volume("space"), MAPPING, &key(1))?;
        write_marker(&mapping)?;
        let here = count(&mapping)?;
        ensure!(here >= 1000, "{here} in the opened volume, so this shows nothing");
        let raw = count(Path::new(DISK))?;
        ensure!(raw == 0, "the marker lies on the raw disk {raw} times");
        // The same search finds it where it is written in the clear.
        write_marker(&volume("plain"))?;
        let raw = count(Path::new(DISK))?;
        ensure!(raw >= 1000, "the search finds {raw} of what is there");
        Ok(storage.luks().close(MAPPING)?)
    })
}

/// Makes a file system and writes a file of markers into it, synced.
fn write_marker(device: &Path) -> Result<()> {
    use host::command::{Program, Run};
    let mkfs = Run::new(Program::MkfsExt4).args(["-q", "-F", "-E", "nodiscard"]);
    mkfs.path(device).run()?;
    let place = Path::new("/run/marker");
    host::mount::ensure_mounted(device, place, "ext4", nix::mount::MsFlags::empty(), "")?;
    let written = File::create(place.join("file")).and_then(|mut file| {
        file.write_all(&MARKER.repeat(1000))?;
        file.sync_all()
    });
    host::mount::ensure_unmounted(place)?;
    Ok(written?)
}

/// How often the marker stands on a device, read past the page cache of its own node.
pub fn count(device: &Path) -> Result<usize> {
    let mut file = File::open(device)?;
    // What was written through another node of the same disk is read from the disk, not from pages kept earlier.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let zeros = vec![0; 4 * MIB as usize];
    let mut part = zeros.clone();
    // The end of the part before, so that a marker across two parts is seen.
    let mut window = Vec::new();
    let mut found = 0;
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok(found);
        }
        // Most of a disk is blank: one comparison instead of one for each byte.
        if part[..read] == zeros[..read] {
            window.clear();
            continue;
        }
        window.extend_from_slice(&part[..read]);
        found += window.windows(MARKER.len()).filter(|w| *w == MARKER).count();
        window.drain(..window.len().saturating_sub(MARKER.len() - 1));
    }
}

fn destroying_leaves_no_key() -> Result<()> {
    with_group(|storage| {
        storage.lvm().lv_create(GROUP, "space", 64 * MIB, &[])?;
        let (luks, device) = (storage.luks(), volume("space"));
        luks.format(&device, &key(1))?;
        let mut before = vec![0; MIB as usize];
        File::open(&device)?.read_exact(&mut before)?;
        luks.destroy(&device)?;
        luks.destroy(&device).context("destroying twice")?;
        ensure!(luks.opens(&device, &key(1)).is_err(), "the key still opens it");
        let mut after = vec![0; MIB as usize];
        File::open(&device)?.read_exact(&mut after)?;
        ensure!(
            before.iter().any(|b| *b != 0) && after.iter().all(|b| *b == 0),
            "the header is not gone"
        );
        // Not even an old copy of the header brings it back: the key slot's area is gone with it.
        let mut file = File::options().write(true).open(&device)?;
        file.write_all(&before[..32 * 1024])?;
        file.sync_all()?;
        ensure!(
            !luks.opens(&device, &key(1))?,
            "a kept header opens it: the key slot was not wiped"
        );
        Ok(())
    })
}

/// LVM has disks open only while no child can begin: it does not begin while one may, and then it does.
fn no_child_inherits() -> Result<()> {
    let storage = Storage::start()?;
    let starts = Starts::hold();
    let (answer, answered) = mpsc::channel();
    let asking = storage.clone();
    std::thread::spawn(move || answer.send(asking.lvm().vgs()));
    let early = answered.recv_timeout(Duration::from_secs(2));
    ensure!(early.is_err(), "LVM went on beside a child: {early:?}");
    drop(starts);
    answered.recv()?.context("nobody holds it up")?;
    Ok(())
}
