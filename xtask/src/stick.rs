//! The stick image is what it should be, starts from BIOS and from UEFI, and its node joins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use qemu::{Boot, Bus, Disk, Firmware, Machine};
use stage::Stage;

use crate::image_test;
use crate::show::Step;
use crate::test::{Built, Makers};
use crate::tree::Tree;

/// Firmware, kernel and modules under emulation, on two cores that others may use too.
const JOINS_WITHIN: Duration = Duration::from_secs(300);

/// Looks at the image, then boots it from both firmwares; each node must join the grid that its `farmer.toml` names.
pub fn run(tree: &Tree, built: &Built, makers: &Makers) -> Result<()> {
    let dir = tree.artefact("stick-test");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let stage = Stage::open(&dir, built.artefacts.clone(), "sticks")?;
    let farmer = stage.person("farmer")?;
    for (name, firmware) in [("bios", Firmware::Bios), ("uefi", uefi(&dir)?)] {
        let image = dir.join(format!("{name}.img"));
        let settings = stage::NodeSettings::new(name, farmer.address());
        let text = stage::farmer_toml(&stage, &settings);
        let made = (makers.stick)(&text, &image)?;
        if name == "bios" {
            image_test::all(tree, makers.store, &made, &text, &image)?;
        }
        let step = Step::start(&format!("the stick boots from {} and joins", name.to_uppercase()));
        let mut machine = Machine::new(name, Boot::Disk(firmware));
        machine.memory_mib = 1536;
        machine.console_log = Some(dir.join(format!("{name}.log")));
        machine.disks.push(Disk::new(&image, "STICK").on(Bus::Usb));
        let target = dir.join(format!("{name}-disk.img"));
        Disk::ensure_blank(&target, 8 << 30)?;
        machine.disks.push(Disk::new(&target, "TARGET").on(Bus::Sata));
        let mut running = machine.start()?;
        running.wait_for("  joined ", JOINS_WITHIN)?;
        step.done();
    }
    Ok(())
}

/// Debian's OVMF, under the names that its versions have.
fn uefi(dir: &Path) -> Result<Firmware> {
    let folder = Path::new("/usr/share/OVMF");
    let find = |names: &[&str]| -> Result<PathBuf> {
        let found = names
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.exists());
        found.with_context(|| {
            format!(
                "none of {names:?} in {}; on Debian: apt install ovmf",
                folder.display()
            )
        })
    };
    let code = find(&["OVMF_CODE_4M.fd", "OVMF_CODE.fd"])?;
    let vars = dir.join("ovmf-vars.fd");
    std::fs::copy(find(&["OVMF_VARS_4M.fd", "OVMF_VARS.fd"])?, &vars)?;
    Ok(Firmware::Uefi {
        code,
        vars,
        secure: false,
    })
}
