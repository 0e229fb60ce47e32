//! Ten spaces at once: the first one's end waits for none of the others.

use anyhow::{Result, ensure};
use host::names;
use market::id::SaleId;
use market::quantity::{Bytes, MilliCpus};
use provision::space::SpaceSpec;

use super::bench::{Bench, access, spec};
use super::{banner, told};

const SPACES: u8 = 10;

fn small(number: u8) -> SpaceSpec {
    SpaceSpec {
        memory: Bytes(128 << 20),
        disk: Bytes(64 << 20),
        cpu: MilliCpus(500),
        ..spec(sale(number), 1 + number % 2)
    }
}

fn sale(number: u8) -> SaleId {
    SaleId([0xa0 + number; 32])
}

/// Its mapping, volume and key are gone at once, whatever the others hold: a mount namespace of a later space would
/// be a copy of the node's mounts, the earlier spaces' volumes among them, did it not let go of them.
pub async fn first_of_ten(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let free = bench.free()?;
    for number in 0..SPACES {
        provisioner.build(small(number), access()).await.map_err(told)?;
    }
    let each = (free - bench.free()?) / u64::from(SPACES);
    let full = bench.free()?;
    provisioner.end(sale(0)).await?;
    let mapping = names::mapping_device(&names::mapping(sale(0).as_bytes()));
    ensure!(!mapping.exists(), "{} is still there", mapping.display());
    ensure!(
        bench.free()? == full + each,
        "{} bytes free, {full} before",
        bench.free()?
    );
    for number in 1..SPACES {
        banner(&provisioner, sale(number)).await?;
    }
    for number in 1..SPACES {
        provisioner.end(sale(number)).await?;
    }
    ensure!(
        bench.free()? == free,
        "{} bytes free, {free} before",
        bench.free()?
    );
    bench.nothing_left().await
}
