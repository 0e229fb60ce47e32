//! A volume that its user filled opens again after a power cut.

use std::fs::File;
use std::io::{ErrorKind, Write};

use anyhow::{Result, bail, ensure};
use host::names;

use super::bench::{Bench, access, spec};
use super::faults::lock;
use super::{FIRST, banner, told};

/// Filled to the last block, and locked as a power cut does; the key brings it back.
pub async fn opens_again(mut bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    let folder = names::volume_mount(FIRST.as_bytes()).join("upper/root");
    fill(&folder.join("full"), 1 << 20)?;
    fill(&folder.join("to the last block"), 4096)?;
    ensure!(
        std::fs::write(folder.join("more"), [0; 4096]).is_err(),
        "there is room left"
    );
    drop(provisioner);
    lock(FIRST)?;
    bench.journal_again()?;
    let provisioner = bench.provisioner().await?;
    let mut again = access();
    again.host_key_seed = None;
    provisioner.unlock(FIRST, again).await.map_err(told)?;
    banner(&provisioner, FIRST).await?;
    provisioner.end(FIRST).await?;
    Ok(())
}

/// Writes until nothing of this size fits any more.
fn fill(path: &std::path::Path, piece: usize) -> Result<()> {
    let (mut file, piece) = (File::create(path)?, vec![0x5a; piece]);
    loop {
        match file.write(&piece) {
            Ok(_) => {}
            Err(full) if full.kind() == ErrorKind::StorageFull => break,
            Err(error) => bail!(error),
        }
    }
    // What was left over by the filling is written too.
    match file.sync_all() {
        Err(error) if error.kind() != ErrorKind::StorageFull => bail!(error),
        _ => Ok(()),
    }
}
