//! A running space changes its size: live, with its files, and whatever stops it between.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use host::names;
use market::quantity::{Bytes, MilliCpus};
use provision::space::SpaceSpec;
use provision::volume::least_bytes;

use super::bench::{Bench, access, spec};
use super::{FIRST, banner, told};

const MIB: u64 = 1 << 20;
/// More than the first size of [`spec`] holds.
const LARGE: u64 = 300 * MIB;

/// What it becomes.
pub fn larger() -> SpaceSpec {
    SpaceSpec {
        cpu: MilliCpus(1500),
        memory: Bytes(384 * MIB),
        disk: Bytes(640 * MIB),
        ..spec(FIRST, 1)
    }
}

fn limit(file: &str) -> Result<String> {
    let path = names::cgroup(FIRST.as_bytes()).join(file);
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

fn volume_bytes() -> Result<u64> {
    let mount = names::volume_mount(FIRST.as_bytes());
    let found = nix::sys::statvfs::statvfs(&mount).context("statvfs")?;
    Ok(found.blocks() * found.fragment_size())
}

/// Each limit as the kernel has it, and the size of the file system, which is never a smaller one's.
fn ensure_size(size: &SpaceSpec) -> Result<()> {
    let cpu = format!("{} 100000", u64::from(size.cpu.0) * 100);
    ensure!(limit("cpu.max")? == cpu, "cpu.max is {}", limit("cpu.max")?);
    let memory = limit("memory.max")?;
    ensure!(memory == size.memory.0.to_string(), "memory.max is {memory}");
    // A group of blocks that is added has tables of its own, which the first size did not need.
    let (has, least) = (volume_bytes()?, least_bytes(size.disk.0) - size.disk.0 / 128);
    ensure!(
        (least..=size.disk.0).contains(&has),
        "the file system has {has} bytes, at least {least} of {} are sold",
        size.disk.0
    );
    Ok(())
}

/// Grows while a file is written, shrinks CPU and memory, is full only beyond the new size; processes and files stay.
pub async fn changes(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    ensure_size(&spec(FIRST, 1))?;
    let pid = provisioner.space_pid(&FIRST).context("no PID 1")?;
    let root = names::volume_mount(FIRST.as_bytes()).join("upper/root");
    std::fs::write(root.join("mark"), "the user's")?;
    let full = fill(&root.join("control"), LARGE);
    ensure!(full.is_err(), "300 MiB fit into 256: the control shows nothing");
    std::fs::remove_file(root.join("control"))?;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, path) = (stop.clone(), root.join("log"));
        move || -> Result<u64> {
            let (mut file, mut lines) = (File::create(path)?, 0);
            while !stop.load(Ordering::SeqCst) {
                writeln!(file, "{lines:015}")?;
                lines += 1;
            }
            Ok(lines)
        }
    });
    let began = std::time::Instant::now();
    provisioner.resize(larger(), Some(access().unlock_key)).await?;
    println!("resized in {} ms", began.elapsed().as_millis());
    stop.store(true, Ordering::SeqCst);
    let lines = writer.join().ok().context("the writer panicked")??;
    ensure_size(&larger())?;
    fill(&root.join("large"), LARGE).context("300 MiB in the larger one")?;
    let log = std::fs::read_to_string(root.join("log"))?;
    ensure!(
        log.lines().count() as u64 == lines && log.ends_with(&format!("{:015}\n", lines - 1)),
        "the log that was written meanwhile is not whole"
    );
    ensure!(
        provisioner.space_pid(&FIRST) == Some(pid),
        "its PID 1 is another one"
    );
    banner(&provisioner, FIRST).await?;
    bench.opens_by_the_key_alone(FIRST)?;

    // Less CPU and memory needs no key, and the disk stays.
    let less = SpaceSpec {
        cpu: MilliCpus(250),
        memory: Bytes(128 * MIB),
        ..larger()
    };
    provisioner.resize(less.clone(), None).await?;
    ensure_size(&less)?;
    let used = provisioner.memory_in_use(&FIRST)?;
    ensure!(used.0 > 0 && used <= less.memory, "{used:?} is in use");
    // The wrong key grows nothing.
    let more = SpaceSpec {
        disk: Bytes(768 * MIB),
        ..less.clone()
    };
    let other = storage::luks::UnlockKey::take(&mut [0x43; 64]);
    ensure!(
        provisioner.resize(more, Some(other)).await.is_err(),
        "any key grows it"
    );
    ensure_size(&less)?;
    provisioner.resize(less, Some(access().unlock_key)).await?;
    provisioner.end(FIRST).await?;
    bench.nothing_left().await
}

/// The agent is gone at each point of a resize: the space runs on, and the next agent goes on with it. The same where
/// the logical volume alone has grown, and where the power went and the unlock makes the rest.
#[cfg(feature = "fault-points")]
pub async fn killed(mut bench: Bench) -> Result<()> {
    use provision::space::Outcome;
    use provision::step::fault::{Side, Way, What};

    use super::faults::{after_death, clean, lock, point};

    let free = bench.free()?;
    let mut points = 0;
    let mark = names::volume_mount(FIRST.as_bytes()).join("upper/root/mark");
    for step in ["limits", "mount"] {
        for side in [Side::Intended, Side::Done] {
            points += 1;
            let provisioner = bench.provisioner().await?;
            provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
            std::fs::write(&mark, "the user's")?;
            let pid = provisioner.space_pid(&FIRST);
            drop(provisioner);
            let at = point(Way::Do, step, side, What::Die);
            let (provisioner, found) = after_death(&mut bench, "resize", &at).await?;
            ensure!(matches!(&found[..], [Outcome::Running { .. }]), "{at}: {found:?}");
            ensure!(provisioner.space_pid(&FIRST) == pid, "{at}: it was started anew");
            provisioner.resize(larger(), Some(access().unlock_key)).await?;
            ensure_size(&larger()).with_context(|| at.to_string())?;
            ensure!(
                std::fs::read_to_string(&mark)? == "the user's",
                "{at}: the file is gone"
            );
            provisioner.end(FIRST).await?;
            clean(&bench, &provisioner, free, &at.to_string()).await?;
        }
    }
    let provisioner = bench.provisioner().await?;
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    std::fs::write(&mark, "the user's")?;
    bench.extend_volume_alone(FIRST, larger().disk.0 + 4 * MIB)?;
    provisioner.resize(larger(), Some(access().unlock_key)).await?;
    ensure_size(&larger()).context("the logical volume alone had grown")?;
    let largest = SpaceSpec {
        disk: Bytes(896 * MIB),
        ..larger()
    };
    bench.extend_volume_alone(FIRST, largest.disk.0 + 4 * MIB)?;
    provisioner.set_size(&largest).await?;
    drop(provisioner);
    lock(FIRST)?;
    bench.journal_again()?;
    let provisioner = bench.provisioner().await?;
    let mut again = access();
    again.host_key_seed = None;
    provisioner.unlock(FIRST, again).await.map_err(told)?;
    ensure_size(&largest).context("after the power cut")?;
    ensure!(
        std::fs::read_to_string(&mark)? == "the user's",
        "the file is gone"
    );
    provisioner.end(FIRST).await?;
    clean(&bench, &provisioner, free, "after the power cut").await?;
    println!("{} points", points + 2);
    Ok(())
}

/// What was agreed has no room on the disk: the key opens the files all the same, and grows the volume when there is.
#[cfg(feature = "fault-points")]
pub async fn has_no_room(mut bench: Bench) -> Result<()> {
    use super::faults::lock;

    let provisioner = bench.provisioner().await?;
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    let mark = names::volume_mount(FIRST.as_bytes()).join("upper/root/mark");
    std::fs::write(&mark, "the user's")?;
    provisioner.set_size(&larger()).await?;
    drop(provisioner);
    lock(FIRST)?;
    bench.journal_again()?;
    let lvm = bench.storage().lvm();
    lvm.lv_create(super::bench::GROUP, "in-the-way", bench.free()?, &[])?;
    let provisioner = bench.provisioner().await?;
    let mut again = access();
    again.host_key_seed = None;
    let ready = provisioner.unlock(FIRST, again).await.map_err(told)?;
    ensure!(!ready.is_grown, "it grew without room");
    ensure!(
        std::fs::read_to_string(&mark)? == "the user's",
        "the file is gone"
    );
    banner(&provisioner, FIRST).await?;
    let key = || Some(access().unlock_key);
    ensure!(
        provisioner.resize(larger(), key()).await.is_err(),
        "the control: a growth that fails is told where it is what was asked for"
    );
    lvm.lv_remove(super::bench::GROUP, "in-the-way")?;
    provisioner.resize(larger(), key()).await?;
    ensure_size(&larger())?;
    provisioner.end(FIRST).await?;
    bench.nothing_left().await
}

fn fill(path: &std::path::Path, bytes: u64) -> std::io::Result<()> {
    let (mut file, block) = (File::create(path)?, vec![0xa5; MIB as usize]);
    for _ in 0..bytes / MIB {
        file.write_all(&block)?;
    }
    file.sync_all()
}
