//! A disk that returns another byte of the base than was written. Read straight from the volume it goes through: that is the
//! control, and what spaces would get without the tree of hashes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use host::names;
use market::id::Digest;
use provision::base::{self, Bases};
use storage::Storage;
use storage::verity::Seal;

use super::{power_off, power_on};

/// The base of the image that runs.
const MEDIUM: &str = "/dev/vdd2";
const BLOCK: usize = 4096;

pub(super) fn is_found() -> Result<()> {
    let state = power_on(&[])?.state?;
    let group = state.groups()[0].clone();
    let storage = Storage::start()?;
    let (digest, bytes, seal) = of_the_image()?;
    let bases = Bases::new(storage.clone(), MEDIUM.into(), digest, bytes).sealed(seal);
    let device = bases.ensure_blocking(&group)?;
    let mapping = names::base_mapping(&group, digest.as_bytes());
    ensure!(device == names::mapping_device(&mapping), "{}", device.display());
    ensure!(
        base::device(&storage, &group, &digest)? == device,
        "a space reads another device"
    );
    let read = io::copy(&mut File::open(&device)?, &mut io::sink())?;
    ensure!(read == seal.data_bytes, "{read} of {} bytes", seal.data_bytes);
    ensure!(
        bases.damaged_blocking(std::slice::from_ref(&group))?.is_empty(),
        "damaged from the start"
    );

    let at = seal.data_bytes / 2 / BLOCK as u64 * BLOCK as u64;
    let right = block(MEDIUM.as_ref(), at)?;
    let disk = below(&storage, &group)?;
    let place = find(&disk, &right)?;
    let mut wrong = right.clone();
    wrong[100] ^= 1;
    write(&disk, place, &wrong)?;

    let volume = names::lvm_device(&group, &names::base_volume(digest.as_bytes()));
    ensure!(
        block(&volume, at)? == wrong,
        "the control: the byte was not flipped"
    );
    let error = block(&device, at).err().context("a flipped byte went through")?;
    ensure!(error.raw_os_error() == Some(nix::libc::EIO), "{error}");
    ensure!(
        block(&device, 0)? == block(MEDIUM.as_ref(), 0)?,
        "a sound block is refused"
    );
    let damaged = bases.damaged_blocking(std::slice::from_ref(&group))?;
    ensure!(damaged == [group.clone()], "{damaged:?}");

    // What is not the root's is not read either, wherever it was written.
    let other = Seal {
        root: [7; 32],
        ..seal
    };
    storage.verity().close(&mapping)?;
    ensure!(!device.exists(), "it stayed open");
    let opened = storage.verity().open(&volume, &mapping, &other)?;
    ensure!(block(&opened, 0).is_err(), "another root was believed");

    // Halt finds it open, and closes it below the group.
    power_off(state)?;
    ensure!(!device.exists(), "it stayed open");
    let state = power_on(&[])?.state?;
    let next = Bases::new(storage.clone(), MEDIUM.into(), Digest::from([9; 32]), bytes);
    base::device(&storage, &group, &digest)?;
    ensure!(device.exists(), "its tag did not open it");
    ensure!(next.remove_unused(&group, &[])? == [digest], "it was not removed");
    ensure!(!device.exists(), "its mapping stayed");
    power_off(state)
}

fn of_the_image() -> Result<(Digest, u64, Seal)> {
    // Written by the image's maker, a key a line.
    let image = fs::read_to_string(names::IMAGE_JSON)?;
    let text = |key: &str| -> Result<String> {
        let lines = image
            .lines()
            .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
        let mut values = lines.filter(|(name, _)| name.trim_matches('"') == key);
        let (_, value) = values.next().with_context(|| format!("no {key}"))?;
        Ok(value.trim_matches('"').to_owned())
    };
    let number = |key: &str| -> Result<u64> { Ok(text(key)?.parse()?) };
    let root: Digest = text("base_root")?.parse()?;
    let seal = Seal {
        data_bytes: number("base_data_bytes")?,
        root: *root.as_bytes(),
    };
    Ok((text("base_digest")?.parse()?, number("base_bytes")?, seal))
}

/// A block as the disk has it now.
fn block(device: &std::path::Path, at: u64) -> io::Result<Vec<u8>> {
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    let mut block = vec![0; BLOCK];
    File::open(device)?.read_exact_at(&mut block, at)?;
    Ok(block)
}

/// The partition that a group stands on.
fn below(storage: &Storage, group: &str) -> Result<std::path::PathBuf> {
    let disks = storage.lvm().pvs()?;
    let disk = disks
        .into_iter()
        .find(|disk| disk.group.as_deref() == Some(group));
    Ok(disk.context("the group has no disk")?.device)
}

/// Where on a disk a block of a base lies. It is one of packed data: there is no second one like it.
fn find(disk: &std::path::Path, wanted: &[u8]) -> Result<u64> {
    let file = File::open(disk)?;
    let mut part = vec![0; 1 << 20];
    for start in (0..1 << 30).step_by(1 << 20) {
        file.read_exact_at(&mut part, start)?;
        if let Some(at) = part.chunks(BLOCK).position(|block| block == wanted) {
            return Ok(start + (at * BLOCK) as u64);
        }
    }
    anyhow::bail!("the block is not in the first GiB of the disk")
}

fn write(disk: &std::path::Path, at: u64, bytes: &[u8]) -> Result<()> {
    let file = File::options().write(true).open(disk)?;
    file.write_all_at(bytes, at)?;
    Ok(file.sync_all()?)
}
