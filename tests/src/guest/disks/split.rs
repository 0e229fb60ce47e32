//! Two disks took turns: what was sold while one of them was away is not written over when both are there again.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::block::Device;
use market::id::SaleId;
use provision::journal::{Journal, SaleRow};
use provision::state::State;
use storage::Storage;

use super::{ONE, TWO, power_off, power_on, power_without};

const EARLY: [u8; 32] = [0xe1; 32];
const LATE: [u8; 32] = [0x1a; 32];

pub(super) fn both_kept() -> Result<()> {
    let state = power_on(&[])?.state?;
    let (first, second) = if leads_on_one(&state)? {
        (ONE, TWO)
    } else {
        (TWO, ONE)
    };
    power_off(state)?;
    let (_, other) = alone(first, |journal| sell(journal, EARLY))?;
    let (_, leads) = alone(second, |journal| sell(journal, LATE))?;

    let state = power_on(&[])?.state?;
    ensure!(
        state.groups()[0] == leads,
        "{:?} leads, not {leads}",
        state.groups()
    );
    ensure!(
        state.split().iter().eq([&other]),
        "{:?} went another way, not {other}",
        state.split()
    );
    state.replicate()?;
    power_off(state)?;

    // It alone serves what it sold; when that is over there is nothing to keep, and it follows again: the control.
    let (sales, group) = alone(first, |journal| {
        let sales = known(&journal.write_blocking(|entry| entry.sales())?);
        journal.write_blocking(|entry| entry.remove_sale(&SaleId::from(EARLY)))?;
        Ok(sales)
    })?;
    ensure!(sales == [EARLY] && group == other, "{group} has {sales:?}");
    alone(second, |_| Ok(()))?; // it leads again
    let state = power_on(&[])?.state?;
    ensure!(state.split().is_empty(), "{:?}", state.split());
    power_off(state)?;
    let read = |journal: &Journal| Ok(known(&journal.write_blocking(|entry| entry.sales())?));
    let (copied, _) = alone(first, read)?;
    ensure!(copied == [LATE], "{copied:?}");
    Ok(())
}

fn leads_on_one(state: &State) -> Result<bool> {
    let leads = state.groups().first().context("no group")?;
    let volumes = Storage::start()?.lvm().pvs()?;
    let volume = volumes.iter().find(|volume| volume.group.as_ref() == Some(leads));
    Ok(volume.context("no PV")?.device == Path::new("/dev/vda1"))
}

fn known(rows: &[SaleRow]) -> Vec<[u8; 32]> {
    rows.iter().map(|row| *row.sale.as_bytes()).collect()
}

fn sell(journal: &Journal, sale: [u8; 32]) -> Result<()> {
    let row = SaleRow {
        sale: SaleId::from(sale),
        signed: vec![1],
        state: "{}".into(),
        spec: "{}".into(),
        host_key: None,
        epoch: 0,
    };
    Ok(journal.write_blocking(move |entry| entry.put_sale(&row))?)
}

/// Starts without a disk, works on the journal, and gives the disk back. Says which group led.
fn alone<T>(away: &str, work: impl FnOnce(&Journal) -> Result<T>) -> Result<(T, String)> {
    let state = pulled(away)?;
    let group = state.groups().first().context("no group")?.clone();
    let done = work(state.journal().map_err(|error| anyhow::anyhow!("{error}"))?)?;
    power_off(state)?;
    Device::open(Path::new(away))?.reread_partitions()?;
    Ok((done, group))
}

fn pulled(away: &str) -> Result<State> {
    Device::open(Path::new(away))?.forget_partition(1)?;
    Ok(power_without(away)?.state?)
}
