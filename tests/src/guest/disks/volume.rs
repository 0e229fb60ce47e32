//! The volume of a space, from nothing to nothing.

use super::*;

/// What the table of a space hands to the steps of its volume.
struct Context1 {
    storage: Storage,
    group: String,
    key: Option<UnlockKey>,
}

impl VolumeContext for Context1 {
    fn storage(&self) -> &Storage {
        &self.storage
    }
    fn group(&self) -> &str {
        &self.group
    }
    fn bytes(&self) -> u64 {
        200 * MIB
    }
    fn snapshot_bytes(&self) -> u64 {
        0
    }

    fn unlock_key(&self) -> Option<&UnlockKey> {
        self.key.as_ref()
    }
}

pub fn made_locked_opened_and_destroyed() -> Result<()> {
    let started = power_on(&[])?;
    let state = started.state?;
    let group = state.groups()[0].clone();
    let storage = Storage::start()?;
    let free = |storage: &Storage| -> Result<u64> {
        Ok(storage
            .lvm()
            .vgs()?
            .into_iter()
            .find(|vg| vg.name == group)
            .context("no group")?
            .free_bytes)
    };
    let before = free(&storage)?;
    let sale = SaleId::from([0xc4; 32]);
    let context = |byte: Option<u8>| Context1 {
        storage: storage.clone(),
        group: group.clone(),
        key: byte.map(|byte| UnlockKey::take(&mut [byte; 64])),
    };
    let steps: Vec<Box<dyn Step<Context1>>> =
        vec![Box::new(VolumeStep), Box::new(KeyStep), Box::new(MountStep)];
    let table = Table::new(steps)?;
    let log = state.journal().map_err(|e| anyhow::anyhow!("{e}"))?.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let run = |byte| runtime.block_on(table.run(&log, &sale, &context(byte)));

    ensure!(
        run(None).is_err() && free(&storage)? == before,
        "made without a key, or something stayed"
    );
    run(Some(1))?;
    let mark = mount_point(&sale).join("mark");
    fs::write(&mark, "the user's")?;
    let size = nix::sys::statvfs::statvfs(&mount_point(&sale))?;
    let bytes = size.blocks() * size.fragment_size();
    ensure!(
        bytes >= least_bytes(200 * MIB) && bytes <= 204 * MIB,
        "{bytes} bytes of 200 MiB"
    );
    ensure!(
        before - free(&storage)? == extents_for(200 * MIB).context("no size")?,
        "it takes other extents"
    );
    run(Some(1)).context("running again is not idempotent")?;
    ensure!(
        fs::read_to_string(&mark)? == "the user's",
        "running again made a new file system"
    );

    runtime.block_on(table.tear_down_to(&log, &sale, &context(None), "mount"))?;
    ensure!(!mark.exists(), "still mounted");
    ensure!(
        !storage.luks().is_open(&host::names::mapping(sale.as_bytes()))?,
        "still open: the key is in the kernel"
    );
    let wrong = runtime.block_on(table.run_from(&log, &sale, &context(Some(2)), "mount"));
    ensure!(wrong.is_err(), "another key opened it");
    runtime.block_on(table.run_from(&log, &sale, &context(Some(1)), "mount"))?;
    ensure!(
        fs::read_to_string(&mark)? == "the user's",
        "the user's file is gone"
    );

    // As after a reboot: the kernel knows nothing, the journal says both steps are applied.
    drop(log);
    power_off(state)?;
    let state = power_on(&[])?.state?;
    let log = state.journal().map_err(|e| anyhow::anyhow!("{e}"))?.clone();
    let records = runtime
        .block_on(log.records(&sale))
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    ensure!(records.len() == 3, "{records:?}");
    runtime.block_on(table.run_from(&log, &sale, &context(Some(1)), "mount"))?;
    ensure!(
        fs::read_to_string(&mark)? == "the user's",
        "the user's file is gone after a boot"
    );

    // In use: the undo fails, is told, and goes on when it can.
    let held = File::open(&mark)?;
    let error = runtime.block_on(table.tear_down(&log, &sale, &context(None)));
    let error = error.err().context("torn down below an open file")?.to_string();
    ensure!(error.contains("mount") && error.contains("volume"), "{error}");
    drop(held);
    runtime.block_on(table.tear_down(&log, &sale, &context(None)))?;
    runtime.block_on(table.tear_down(&log, &sale, &context(None)))?;
    ensure!(
        free(&storage)? == before,
        "{} bytes did not come back",
        before - free(&storage)?
    );
    let names: BTreeSet<String> = storage
        .lvm()
        .lvs(Some(&group))?
        .into_iter()
        .map(|lv| lv.name)
        .collect();
    ensure!(names == BTreeSet::from(["state".to_owned()]), "{names:?}");
    power_off(state)
}
