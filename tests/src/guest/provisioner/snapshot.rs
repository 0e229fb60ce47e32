//! A snapshot of a space's volume: taken while it writes, put back, removed; and whatever stops it between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::names;
use market::quantity::Bytes;
use provision::space::{Outcome, Provisioner, SpaceSpec};
use provision::step::chain;
use provision::volume::snapshot_for;

use super::bench::{Bench, access, spec};
use super::{FIRST, banner, told};

const MIB: u64 = 1 << 20;

/// The space, with a snapshot.
pub fn with_snapshot() -> SpaceSpec {
    let plain = spec(FIRST, 1);
    SpaceSpec {
        snapshot: Bytes(snapshot_for(plain.disk.0).unwrap_or(0)),
        ..plain
    }
}

fn root() -> PathBuf {
    names::volume_mount(FIRST.as_bytes()).join("upper/root")
}

/// Names and bytes of all files of the user.
pub(super) fn files() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(root()).context("the user's files")? {
        let path = entry?.path();
        if path.is_file() {
            files.insert(path.display().to_string(), std::fs::read(&path)?);
        }
    }
    Ok(files)
}

/// Something new, something changed in place, something gone.
fn change() -> Result<()> {
    std::fs::write(root().join("new"), vec![0x22; 20 * MIB as usize])?;
    std::fs::write(root().join("mark"), "another")?;
    std::fs::remove_file(root().join("large"))?;
    host::mount::sync(&names::volume_mount(FIRST.as_bytes()))?;
    Ok(())
}

async fn build(provisioner: &Provisioner) -> Result<BTreeMap<String, Vec<u8>>> {
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    write_files()
}

/// Writes files of the user; what is there then.
pub(super) fn write_files() -> Result<BTreeMap<String, Vec<u8>>> {
    std::fs::write(root().join("mark"), "the user's")?;
    let large: Vec<u8> = (0..24 * MIB).map(|n| (n / 4096 % 251) as u8).collect();
    std::fs::write(root().join("large"), large)?;
    files()
}

async fn unlock(provisioner: &Provisioner) -> Result<()> {
    let mut again = access();
    again.host_key_seed = None;
    provisioner.unlock(FIRST, again).await.map_err(told)?;
    banner(provisioner, FIRST).await
}

/// Taken while it runs and without its key, put back byte for byte, twice; the control is what was written since. A
/// whole volume fits its store; while there is one the volume neither grows nor is it the larger for it.
pub async fn taken_and_put_back(mut bench: Bench) -> Result<()> {
    let mut provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    let before = build(&provisioner).await?;
    let pid = provisioner.space_pid(&FIRST);
    let room = bench.free()?;
    ensure!(
        provisioner.restore(FIRST).await.is_err(),
        "there is nothing to put back"
    );
    let began = std::time::Instant::now();
    provisioner.resize(with_snapshot(), None).await?;
    println!("taken in {} ms", began.elapsed().as_millis());
    ensure!(provisioner.space_pid(&FIRST) == pid, "it was started anew");
    let writes = writes_a_second()?;
    ensure!(writes == 1600, "{writes} writes a second copy a chunk each");
    let took = room - bench.free()?;
    ensure!(
        Bytes(took) == with_snapshot().snapshot,
        "it took {took}, {:?} is sold",
        with_snapshot().snapshot
    );
    banner(&provisioner, FIRST).await?;
    let grown = SpaceSpec {
        disk: Bytes(512 * MIB),
        ..with_snapshot()
    };
    let grew = provisioner.resize(grown, Some(access().unlock_key)).await;
    ensure!(grew.is_err(), "the volume grew below its snapshot");
    println!("refused: {}", chain(&grew.err().context("it grew")?));
    provisioner.resize(with_snapshot(), None).await?;

    change()?;
    let changed = files()?;
    ensure!(changed != before, "the control: nothing was changed");
    // A control without a restore: locked and opened again, what was written since is there.
    drop(provisioner);
    super::faults::lock(FIRST)?;
    bench.journal_again()?;
    provisioner = bench.provisioner().await?;
    unlock(&provisioner).await?;
    ensure!(
        files()? == changed,
        "what was written since the snapshot is gone without a restore"
    );

    let began = std::time::Instant::now();
    let bytes = provisioner.restore(FIRST).await?;
    println!(
        "{} KiB put back in {} ms",
        bytes >> 10,
        began.elapsed().as_millis()
    );
    ensure!(
        bytes > 20 * MIB && bytes < 128 * MIB,
        "{bytes} bytes were put back"
    );
    ensure!(provisioner.space_pid(&FIRST).is_none(), "it runs on");
    ensure!(files().is_err(), "the volume is open");
    unlock(&provisioner).await?;
    ensure!(files()? == before, "the files are not those of the snapshot");

    // The store holds a whole volume that changes; and the snapshot is there for another time.
    let full = std::fs::File::create(root().join("full")).and_then(|file| fill(file, 160));
    full.context("160 MiB")?;
    host::mount::sync(&names::volume_mount(FIRST.as_bytes()))?;
    std::fs::write(root().join("mark"), "again another")?;
    provisioner.restore(FIRST).await?;
    unlock(&provisioner).await?;
    ensure!(
        files()? == before,
        "the second time the files are not those of the snapshot"
    );
    bench.opens_by_the_key_alone(FIRST)?;

    provisioner.resize(spec(FIRST, 1), None).await?;
    ensure!(bench.free()? == room, "the room of the snapshot is not free");
    ensure!(writes_a_second()? == 5000, "the control: without a snapshot");
    ensure!(
        provisioner.restore(FIRST).await.is_err(),
        "it is gone, and was put back"
    );
    ensure!(files()? == before, "the files went with the snapshot");
    provisioner.resize(with_snapshot(), None).await?;
    provisioner.end(FIRST).await?;
    ensure!(
        bench.free()? == free,
        "{} bytes free, {free} before",
        bench.free()?
    );
    bench.nothing_left().await
}

/// What the space may write into its volume: operations.
fn writes_a_second() -> Result<u64> {
    let limits = std::fs::read_to_string(names::cgroup(FIRST.as_bytes()).join("io.max"))?;
    let writes = limits
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("wiops="));
    let writes: Vec<u64> = writes.map(str::parse).collect::<std::result::Result<_, _>>()?;
    // The other is the base's.
    let most = writes.into_iter().filter(|most| *most != 2000).max();
    most.with_context(|| format!("no limit of the volume: {limits}"))
}

fn fill(mut file: std::fs::File, mib: u64) -> std::io::Result<()> {
    use std::io::Write;
    let block = vec![0x5a; MIB as usize];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// Each step of taking and removing fails, is repeated, or the agent is gone at it: afterwards the kernel has what the
/// journal says, the space runs with its files, and it is gone on with.
#[cfg(feature = "fault-points")]
pub async fn stopped(mut bench: Bench) -> Result<()> {
    use provision::step::fault::{Side, Way, What, arm, disarm};

    use super::faults::{after_death, clean, point};

    let start = std::time::Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let (free, steps) = (bench.free()?, provisioner.snapshot_steps());
    let before = build(&provisioner).await?;
    let mut points = 0;
    for step in &steps {
        for side in Side::ALL {
            points += 1;
            let at = point(Way::Do, step, side, What::Fail);
            arm(std::slice::from_ref(&at));
            let result = provisioner.resize(with_snapshot(), None).await;
            ensure!(disarm().is_empty(), "{at}: never reached");
            ensure!(result.is_err(), "{at}: taken");
            bench.agrees(&provisioner).await.with_context(|| at.to_string())?;
            banner(&provisioner, FIRST)
                .await
                .with_context(|| at.to_string())?;
        }
        for side in [Side::Intended, Side::Done, Side::Recorded] {
            points += 1;
            let at = point(Way::Do, step, side, What::Die);
            drop(provisioner);
            let found;
            (provisioner, found) = after_death(&mut bench, "snapshot", &at).await?;
            ensure!(matches!(&found[..], [Outcome::Running { .. }]), "{at}: {found:?}");
            provisioner.resize(with_snapshot(), None).await?;
            bench.agrees(&provisioner).await.with_context(|| at.to_string())?;
            points += 1;
            let at = point(Way::Undo, step, side, What::Die);
            drop(provisioner);
            let found;
            (provisioner, found) = after_death(&mut bench, "remove", &at).await?;
            ensure!(matches!(&found[..], [Outcome::Running { .. }]), "{at}: {found:?}");
            provisioner.resize(spec(FIRST, 1), None).await?;
            bench.agrees(&provisioner).await.with_context(|| at.to_string())?;
        }
        points += 1;
        let at = [Way::Do, Way::Undo].map(|way| point(way, step, Side::Done, What::Repeat));
        arm(&at);
        provisioner.resize(with_snapshot(), None).await?;
        provisioner.resize(spec(FIRST, 1), None).await?;
        ensure!(disarm().is_empty(), "{step} was not repeated");
        bench
            .agrees(&provisioner)
            .await
            .context("taken and removed twice")?;
    }
    ensure!(files()? == before, "the files are others");
    sold_again(&bench, &provisioner, &before).await?;
    provisioner.end(FIRST).await?;
    clean(&bench, &provisioner, free, "after all of it").await?;
    println!("{points} points in {} s", start.elapsed().as_secs());
    Ok(())
}

/// A removal gets as far as the header and fails, and the snapshot is sold again: it is another one, with a header. Put
/// back without one, the volume would have none, and no key would open it.
#[cfg(feature = "fault-points")]
async fn sold_again(
    bench: &Bench,
    provisioner: &Provisioner,
    before: &BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    use provision::step::fault::{Side, Way, What, arm, disarm};

    use super::faults::point;

    for step in provisioner.snapshot_steps() {
        provisioner.resize(with_snapshot(), None).await?;
        let name = names::snapshot_volume(FIRST.as_bytes());
        let device = names::lvm_device(super::bench::GROUP, &name);
        let luks = bench.storage().luks();
        ensure!(luks.has_key(&device)?, "the control: a snapshot has the header");
        luks.destroy(&device)?;
        let at = point(Way::Undo, step, Side::Intended, What::Fail);
        arm(std::slice::from_ref(&at));
        let removed = provisioner.resize(spec(FIRST, 1), None).await;
        ensure!(disarm().is_empty(), "{at}: never reached");
        ensure!(removed.is_err(), "{at}: removed");
        ensure!(
            device.exists() && !luks.has_key(&device).unwrap_or(false),
            "{at}: the control: it is there, without a header"
        );
        provisioner.resize(with_snapshot(), None).await?;
        change()?;
        provisioner.restore(FIRST).await?;
        unlock(provisioner).await?;
        ensure!(files()? == *before, "the files are not those of the snapshot");
        provisioner.resize(spec(FIRST, 1), None).await?;
    }
    Ok(())
}

/// The agent is gone at each point of putting back: no key opens the half of it, the next one goes on. Then the undo of
/// the snapshot fails at an end: the volume's header goes after the snapshot, so it is there.
#[cfg(feature = "fault-points")]
pub async fn put_back_stopped(mut bench: Bench) -> Result<()> {
    use provision::step::fault::{Side, Way, What, arm, disarm};

    use super::faults::{after_death, clean, point};

    let start = std::time::Instant::now();
    let mut provisioner = bench.provisioner().await?;
    let (free, steps) = (bench.free()?, provisioner.snapshot_steps());
    let before = build(&provisioner).await?;
    provisioner.resize(with_snapshot(), None).await?;
    let mut points = 0;
    for (name, side) in [
        ("put-back", Side::Intended),
        ("put-back-part", Side::Done),
        ("put-back", Side::Done),
    ] {
        points += 1;
        change()?;
        let at = point(Way::Do, name, side, What::Die);
        drop(provisioner);
        let found;
        (provisioner, found) = after_death(&mut bench, "restore", &at).await?;
        ensure!(matches!(&found[..], [Outcome::Locked]), "{at}: {found:?}");
        let early = unlock(&provisioner).await;
        ensure!(early.is_err(), "{at}: opened before it was put back to its end");
        // This process built the space, and a child closed it: a new agent remembers nothing of what it made.
        bench.storage().luks().close(&names::mapping(FIRST.as_bytes()))?;
        provisioner.restore(FIRST).await?;
        unlock(&provisioner).await?;
        ensure!(
            files()? == before,
            "{at}: the files are not those of the snapshot"
        );
        bench.agrees(&provisioner).await.with_context(|| at.to_string())?;
    }
    // An end that waits stops it, and what is half put back is no hindrance to the end. The control: all above.
    change()?;
    provisioner.hurry(FIRST);
    let stopped = provisioner
        .restore(FIRST)
        .await
        .err()
        .context("it was put back")?;
    ensure!(
        chain(&stopped).contains("the end of its sale"),
        "{}",
        chain(&stopped)
    );
    for step in &steps {
        points += 1;
        let at = point(Way::Undo, step, Side::Intended, What::Fail);
        arm(std::slice::from_ref(&at));
        let ended = provisioner.end(FIRST).await;
        ensure!(disarm().is_empty(), "{at}: never reached");
        let error = ended.err().with_context(|| format!("{at}: ended"))?;
        ensure!(
            chain(&error).contains("there is a snapshot of the volume"),
            "{}",
            chain(&error)
        );
        bench
            .opens_by_the_key_alone(FIRST)
            .context("the header went before the snapshot")?;
        provisioner.end(FIRST).await?;
        clean(&bench, &provisioner, free, &at.to_string()).await?;
    }
    println!("{points} points in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Whatever was suspended goes on: else a write waits for ever.
pub(super) fn goes_on() -> Result<()> {
    let (done, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let write = || -> Result<()> {
            let path = root().join("alive");
            std::fs::write(&path, "alive")?;
            host::mount::sync(Path::new(&names::volume_mount(FIRST.as_bytes())))?;
            Ok(std::fs::remove_file(&path)?)
        };
        let _ = done.send(write());
    });
    let written = heard.recv_timeout(std::time::Duration::from_secs(60));
    written.context("the volume is suspended, and nobody lets it go on")?
}
