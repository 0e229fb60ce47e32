//! The unlock key of a running space, looked for by root inside: in files, in what the kernel shows, in the memory of
//! every process that is seen. The control: the same search finds a key that was put into each of three such places.

use anyhow::{Context, Result, ensure};
use host::names;
use market::id::SaleId;
use provision::firewall::Openings;
use provision::network::address::{SpaceIndex, UserIndex};
use provision::space::Access;
use storage::luks::UnlockKey;
use zeroize::Zeroizing;

use crate::hostile::client::{Client, LOGIN};
use crate::network::town::Town;
use crate::provisioner::bench::{Bench, spec};

const SEARCH: &str = include_str!("search.py");
const SALE: SaleId = SaleId([0xa7; 32]);
/// A key that nothing else contains by chance.
fn key() -> [u8; 64] {
    std::array::from_fn(|place| (place as u8).wrapping_mul(151) ^ 0x6d)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The trial.
pub async fn nowhere(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let town = Town::build().await?;
    provisioner
        .set_uplinks(vec![town.uplink()?], Openings::default())
        .await?;
    let access = Access {
        unlock_key: UnlockKey::take(&mut key()),
        host_key_seed: Some(Zeroizing::new([7; 32])),
        authorized_keys: vec![LOGIN.to_owned()],
    };
    let spec = spec(SALE, 1);
    let user = names::netns_path(&names::user_netns(spec.user.as_bytes()));
    provisioner.build(spec, access).await?;
    let address = UserIndex::try_from(0)?.space(SpaceIndex::try_from(0)?);
    let client = Client::new(user, address)?;
    let (first, second) = (hex(&key()[..32]), hex(&key()[32..]));
    let search = format!("cat >/root/search.py; python3 /root/search.py {first} {second}");
    let found = client.run(&search, SEARCH).await?;
    let looked = |found: &str| -> Result<u32> {
        let count = found.lines().find_map(|line| line.strip_prefix("looked="));
        Ok(count.context("it did not come to an end")?.parse()?)
    };
    let places = looked(&found)?;
    println!("the unlock key: looked for in {places} places");
    ensure!(places > 300, "only {places} places were looked at:\n{found}");
    ensure!(!found.contains("found="), "the key is inside:\n{found}");

    // The control: in a file as base64, in an environment as hex, in a process's memory as it is.
    let plant = format!(
        "cat >/root/search.py; \
         python3 -c 'import base64,sys; print(base64.b64encode(bytes.fromhex(sys.argv[1]+sys.argv[2])).decode())' \
             {first} {second} >/dev/shm/planted; \
         PLANTED={first}{second} sleep 600 & \
         python3 -c 'import sys,time; key=bytes.fromhex(sys.argv[1]+sys.argv[2]); time.sleep(600)' {first} {second} & \
         sleep 2; python3 /root/search.py {first} {second}; kill %1 %2"
    );
    let found = client.run(&plant, SEARCH).await?;
    for place in ["found=/dev/shm/planted", "/environ", "found=memory of "] {
        ensure!(
            found
                .lines()
                .any(|line| line.starts_with("found=") && line.contains(place.trim_start_matches("found="))),
            "planted and not found: {place}\n{found}"
        );
    }
    Client::remove()?;
    provisioner.end(SALE).await?;
    drop(provisioner);
    town.remove().await
}
