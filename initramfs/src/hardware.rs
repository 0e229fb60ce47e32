//! What the modules of an image say of themselves: the hardware that they drive, the firmware that they load. From it come
//! the firmware that goes in and the page of `docs/` that names the hardware; neither is typed.
//!
//! Invariant: a family of [`FAMILIES`] without its module is an error, so a new kernel loses none in silence.

use anyhow::{Context, Result, bail};
use packages::program::{command, text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Path below the version's folder.
    pub path: String,
    /// Its name, as `lsmod` shows it.
    pub name: String,
    /// What its authors call it.
    pub description: String,
    /// How many devices it names on each bus (`pci`, `usb`, …).
    pub devices: BTreeMap<String, usize>,
    /// The firmware that it may load, below `/usr/lib/firmware`.
    pub firmware: BTreeSet<String>,
}

/// Hardware that an image must drive, with the modules that do it.
pub const FAMILIES: &[(&str, &[&str])] = &[
    ("SATA", &["ahci", "ata_piix"]),
    ("NVMe", &["nvme"]),
    ("USB disks and sticks", &["usb_storage", "uas"]),
    ("USB controllers", &["xhci_pci", "ehci_pci", "uhci_hcd"]),
    ("Intel VMD and RST", &["vmd"]),
    ("MegaRAID, PERC", &["megaraid_sas", "megaraid_mbox"]),
    ("LSI MPT, SAS HBAs", &["mpt3sas", "mptsas", "mptspi"]),
    ("Smart Array, SmartRAID", &["hpsa", "smartpqi"]),
    (
        "Adaptec, Areca, 3ware",
        &["aacraid", "arcmsr", "3w_9xxx", "3w_sas"],
    ),
    ("SD and eMMC", &["sdhci_pci", "sdhci_acpi", "mmc_block"]),
    (
        "Intel network",
        &["e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice"],
    ),
    ("Realtek network", &["r8169", "8139too", "8139cp"]),
    ("Broadcom network", &["tg3", "bnx2", "bnx2x", "bnxt_en"]),
    ("Mellanox network", &["mlx4_core", "mlx4_en", "mlx5_core"]),
    ("Marvell, Aquantia network", &["sky2", "atlantic", "qede"]),
    (
        "nForce, Atheros, JMicron network",
        &["forcedeth", "alx", "atl1c", "jme"],
    ),
    (
        "USB network",
        &[
            "r8152",
            "ax88179_178a",
            "asix",
            "cdc_ether",
            "cdc_ncm",
            "aqc111",
            "smsc95xx",
            "lan78xx",
        ],
    ),
    ("QEMU, KVM", &["virtio_blk", "virtio_scsi", "virtio_net"]),
    ("VMware", &["vmw_pvscsi", "vmxnet3"]),
    ("Hyper-V", &["hv_vmbus", "hv_storvsc", "hv_netvsc"]),
    ("Xen", &["xen_blkfront", "xen_netfront"]),
];

/// Asks modinfo about the modules at `paths` below `folder`, all at once.
pub fn describe(folder: &Path, paths: &[String]) -> Result<Vec<Module>> {
    let program = ["/usr/sbin/modinfo", "/sbin/modinfo"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let files: Vec<PathBuf> = paths.iter().map(|path| folder.join(path)).collect();
    let said = text(command(program.context("no modinfo: install kmod")?).args(&files))?;
    let modules = parse(folder, &said);
    if modules.len() != paths.len() {
        bail!("modinfo described {} of {} modules", modules.len(), paths.len());
    }
    Ok(modules)
}

fn parse(folder: &Path, said: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for (key, value) in said.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if key == "filename" {
            let below = Path::new(value).strip_prefix(folder).unwrap_or(Path::new(value));
            let path = below.display().to_string();
            let name = crate::modules::name(&path);
            modules.push(Module {
                path,
                name,
                ..Module::default()
            });
        }
        let Some(module) = modules.last_mut() else {
            continue;
        };
        match key {
            "description" if module.description.is_empty() => module.description = value.to_owned(),
            "firmware" => {
                module.firmware.insert(value.to_owned());
            }
            "alias" => {
                if let Some((bus, _)) = value.split_once(':').filter(|(bus, _)| BUSES.contains(bus)) {
                    *module.devices.entry(bus.to_owned()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    modules
}

/// Buses on which a machine has disks and network cards, as modules' aliases name them.
const BUSES: &[&str] = &[
    "pci", "usb", "virtio", "vmbus", "acpi", "xen", "mmc", "sdio", "pnp",
];

/// Headings of the page: folders of modules below `kernel/drivers/`.
const KINDS: &[(&str, &[&str])] = &[
    (
        "Disks",
        &[
            "ata/",
            "block/",
            "message/fusion/",
            "mmc/",
            "nvme/",
            "pci/controller/",
            "scsi/",
            "ufs/",
            "usb/storage/",
        ],
    ),
    (
        "Network",
        &[
            "net/ethernet/",
            "net/hyperv/",
            "net/usb/",
            "net/virtio_net",
            "net/vmxnet3/",
            "net/xen-netfront",
        ],
    ),
    ("USB controllers", &["usb/host/"]),
];

/// The page. `has` says whether a firmware file is in the image.
pub fn page(modules: &[Module], has: &dyn Fn(&str) -> bool) -> Result<String> {
    let mut page = String::from(
        "# Hardware\n\nMade from the image by `./x hardware`, not typed. A test compares the two.\n\n\
         ## What people ask for\n\n| hardware | modules |\n|---|---|\n",
    );
    for (family, names) in FAMILIES {
        page.push_str(&format!("| {family} | {} |\n", names.join(", ")));
    }
    for (kind, folders) in KINDS {
        let of_kind = |module: &&Module| {
            let below = module.path.strip_prefix("kernel/drivers/").unwrap_or_default();
            folders.iter().any(|folder| below.starts_with(folder)) && !module.devices.is_empty()
        };
        let mut rows: Vec<&Module> = modules.iter().filter(of_kind).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        page.push_str(&format!(
            "\n## {kind}: {} drivers\n\n| module | drives | devices it knows | firmware |\n|---|---|---|---|\n",
            rows.len()
        ));
        for module in rows {
            page.push_str(&row(module, has));
        }
    }
    page.push_str(WORDS);
    Ok(page)
}

const WORDS: &str = "
\"none needed\": the card has its own. \"not there\": Debian has no such file, or it is left out for its size; the driver is
in the image all the same, and says on the node's log what it misses. A device that needs it may work with less, or not at all.
";

fn row(module: &Module, has: &dyn Fn(&str) -> bool) -> String {
    let devices: Vec<String> = module
        .devices
        .iter()
        .map(|(bus, count)| format!("{count} {bus}"))
        .collect();
    let there = module.firmware.iter().filter(|name| has(name)).count();
    let firmware = match (module.firmware.len(), there) {
        (0, _) => "none needed".to_owned(),
        (all, there) if all == there => format!("there ({all})"),
        (all, 0) => format!("not there ({all})"),
        (all, there) => format!("{there} of {all} there"),
    };
    let what = module.description.replace('|', "/");
    format!(
        "| {} | {what} | {} | {firmware} |\n",
        module.name,
        devices.join(", ")
    )
}

/// Fails with the first family that lacks a module, neither in the image nor built into the kernel.
pub fn check_families(names: &BTreeSet<String>, builtin: &BTreeSet<String>) -> Result<()> {
    for (family, wanted) in FAMILIES {
        let lacking = wanted
            .iter()
            .find(|name| !names.contains(**name) && !builtin.contains(**name));
        if let Some(name) = lacking {
            bail!("{family}: the image lacks the module {name}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "filename:       /m/kernel/drivers/net/ethernet/realtek/r8169.ko.xz\n\
        firmware:       rtl_nic/rtl8126a-3.fw\nfirmware:       rtl_nic/gone.fw\n\
        description:    RealTek RTL-8169 Gigabit Ethernet driver\n\
        alias:          pci:v000010ECd00008125sv*sd*bc*sc*i*\nalias:          pci:v000010ECd00008126sv*sd*bc*sc*i*\n\
        parm:           debug:alias: not one (int)\n\
        filename:       /m/kernel/drivers/scsi/scsi_mod.ko.xz\ndescription:    SCSI core\nalias:          scsi:t-0x00\n";

    #[test]
    fn modules_say_what_they_drive_and_load() -> Result<()> {
        let modules = parse(Path::new("/m"), SAID);
        assert_eq!(modules.len(), 2);
        assert_eq!(modules[0].path, "kernel/drivers/net/ethernet/realtek/r8169.ko.xz");
        assert_eq!(modules[0].devices, BTreeMap::from([("pci".to_owned(), 2)]));
        assert!(modules[1].devices.is_empty());
        let page = page(&modules, &|name| name == "rtl_nic/rtl8126a-3.fw")?;
        let row = "| r8169 | RealTek RTL-8169 Gigabit Ethernet driver | 2 pci | 1 of 2 there |\n";
        assert!(page.contains(row), "{page}");
        assert!(!page.contains("scsi_mod"), "it drives no device by itself");
        Ok(())
    }

    #[test]
    fn a_family_without_its_module_is_an_error() {
        let all: BTreeSet<String> = FAMILIES
            .iter()
            .flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned()))
            .collect();
        assert!(check_families(&all, &BTreeSet::new()).is_ok());
        let mut without = all.clone();
        without.remove("vmd");
        let said = check_families(&without, &BTreeSet::new());
        assert!(
            said.is_err_and(|error| error.to_string() == "Intel VMD and RST: the image lacks the module vmd")
        );
        assert!(
            check_families(&without, &BTreeSet::from(["vmd".to_owned()])).is_ok(),
            "built in"
        );
    }
}
