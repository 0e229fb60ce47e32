//! Disks of ours that rot, and groups that cannot be opened.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::block::Device;
use provision::claim::Holding;
use storage::Storage;

use super::{TWO, blank, find, group, power_off, power_on};

/// What LVM or the kernel needs to see our volumes is damaged: nothing is written, and once it is mended they are there.
pub(super) fn not_begun_anew() -> Result<()> {
    const TABLE: u64 = 512;
    let partition = 1 << 20;
    for (what, at, bytes) in [
        ("the label of LVM", partition + 512, 512),
        ("the text of LVM", partition + 4096 + 512, 4096),
        ("the head of the table", TABLE + 16, 4),
    ] {
        let started = power_on(&[])?;
        group(find(&started, TWO)?)?;
        power_off(started.state?)?;
        let disk = File::options().read(true).write(true).open(TWO)?;
        let mut right = vec![0; bytes];
        disk.read_exact_at(&mut right, at)?;
        let wrong: Vec<u8> = right.iter().map(|byte| byte ^ 0x55).collect();
        let put = |bytes: &[u8]| -> Result<()> {
            disk.write_all_at(bytes, at)?;
            disk.sync_all()?;
            Ok(Device::open(Path::new(TWO))?.reread_partitions()?)
        };
        put(&wrong)?;
        let started = power_on(&[])?;
        let words = find(&started, TWO)?.words();
        power_off(started.state?)?;
        put(&right)?;
        ensure!(words.contains("not touched"), "{what} is damaged: {words}");
        let started = power_on(&[])?;
        let state = find(&started, TWO)?;
        ensure!(
            matches!(state.state, Holding::Claimed { new: false, .. }),
            "{what} is mended: {}",
            state.words()
        );
        power_off(started.state?)?;
    }
    Ok(())
}

/// A group that looks like another node's, on a disk that has become smaller than its volumes.
pub(super) fn stops_nobody() -> Result<()> {
    const OTHER: &str = "steading-01234567-89abcdef";
    let started = power_on(&[])?;
    let mine = group(find(&started, TWO)?)?.to_owned();
    let state = started.state?;
    let node = state.node();
    power_off(state)?;
    let storage = Storage::start()?;
    let lvm = storage.lvm();
    lvm.vg_remove(&mine)?;
    let partition = host::block::partition_path(Path::new(TWO), 1);
    lvm.vg_create(OTHER, &partition, &[])?;
    let free = lvm.vgs()?.into_iter().find(|group| group.name == OTHER);
    let free = free.context("the other group")?.free_bytes;
    lvm.lv_create(OTHER, host::names::STATE_VOLUME, free, &["state"])?;
    lvm.vg_activate(OTHER, false)?;
    let disk = Device::open(Path::new(TWO))?;
    disk.forget_partition(1)?;
    disk.add_partition(1, 1 << 20, 1 << 30)?;
    ensure!(lvm.vg_activate(OTHER, true).is_err(), "it opens all the same");
    let started = power_on(&[])?;
    let words = find(&started, TWO)?.words();
    let state = started.state.context("the other group stopped the node")?;
    ensure!(state.node() == node, "another node");
    power_off(state)?;
    ensure!(words.contains("not touched"), "{words}");
    blank(TWO)?;
    let started = power_on(&[])?;
    group(find(&started, TWO)?)?;
    power_off(started.state?)
}
