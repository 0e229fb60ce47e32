//! A node under QEMU: its disks and its `farmer.toml` are kept, so it can be switched off and on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use qemu::{Accel, Boot, Disk, Line, Machine, Running};

use crate::Stage;

/// What a farmer chooses.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Name of the machine, and of its folder.
    pub name: String,
    /// The farmer's wallet address; none: the node joins and sells nothing.
    pub wallet: Option<String>,
    /// Price as in `farmer.toml`.
    pub price: String,
    /// Two-letter country.
    pub country: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Sizes of the blank disks, bytes.
    pub disks: Vec<u64>,
    /// Further lines of `farmer.toml`.
    pub more: String,
    /// How instructions are executed.
    pub accel: Accel,
}

impl NodeSettings {
    /// 1.5 GiB of memory, two blank disks of 8 GiB, a price of 0.40 an hour.
    pub fn new(name: &str, wallet: &str) -> NodeSettings {
        NodeSettings {
            name: name.into(),
            wallet: Some(wallet.into()),
            price: "0.40".into(),
            country: "BE".into(),
            memory_mib: 1536,
            disks: vec![8 << 30, 8 << 30],
            more: String::new(),
            accel: Accel::Tcg,
        }
    }
}

/// A node that can be switched on.
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    dir: PathBuf,
    machine: Machine,
}

/// QEMU only, for what costs seconds where every instruction is emulated: calibrations, self-tests, mitigations; places
/// drawn by lot for each program, since QEMU keeps what it translated by its address; and three parts of the kernel that no
/// node uses, two of which look for ciphers before there is a disk.
const EMULATED: &str = "console=ttyS0,115200 quiet loglevel=4 tsc=reliable no_timer_check lpj=4000000 cryptomgr.notests \
    mitigations=off norandmaps initcall_blacklist=init_encrypted,crypto_kdf108_init,jent_mod_init";

/// The kernel's command line for direct boot.
///
/// An emulated guest reads the host's time stamp counter. On a busy host the kernel's own calibration of it can be
/// wrong by a factor of two, and the guest's clock with it; so it is told the frequency where the host knows it.
pub fn emulated_command_line() -> String {
    match host_tsc_khz() {
        Some(khz) => format!("{EMULATED} tsc_early_khz={khz}"),
        None => EMULATED.to_string(),
    }
}

/// The frequency of the host's time stamp counter, where it is constant. A virtual host's `cpu MHz` is that frequency;
/// a physical one's varies with load, so there it is left to the guest.
fn host_tsc_khz() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))?
            .split_once(':')
            .map(|(_, value)| value)
    };
    let flags = field("flags")?;
    let told = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    if !told("constant_tsc") || !told("hypervisor") {
        return None;
    }
    let mhz: f64 = field("cpu MHz")?.trim().parse().ok()?;
    Some((mhz * 1000.0) as u64)
}

impl Node {
    /// Prepares the folder: blank disks where there are none, and the boot medium anew.
    pub fn prepare(stage: &Stage, settings: NodeSettings) -> Result<Node> {
        let dir = stage.dir().join("nodes").join(&settings.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let medium = write_medium(stage, &settings, &dir)?;
        let mut machine = Machine::new(
            &settings.name,
            Boot::Direct {
                kernel: stage.artefacts().kernel.clone(),
                initrd: stage.artefacts().initramfs.clone(),
                command_line: emulated_command_line(),
            },
        );
        machine.memory_mib = settings.memory_mib;
        machine.accel = settings.accel;
        machine.console_log = Some(dir.join("console.log"));
        machine.disks.push(Disk::new(&medium, "STEADING-MEDIUM"));
        for (index, bytes) in settings.disks.iter().enumerate() {
            let path = dir.join(format!("disk{index}.img"));
            Disk::ensure_blank(&path, *bytes).with_context(|| format!("making {}", path.display()))?;
            machine.disks.push(Disk::new(
                &path,
                &format!("{}-{index}", settings.name.to_uppercase()),
            ));
        }
        Ok(Node {
            settings,
            dir,
            machine,
        })
    }

    /// The machine as a value, to be changed before power on.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The farmer writes other further lines of `farmer.toml` onto the boot medium, while the machine is off.
    pub fn rewrite(&mut self, stage: &Stage, more: &str) -> Result<()> {
        self.settings.more = more.into();
        write_medium(stage, &self.settings, &self.dir).map(drop)
    }

    /// What the farmer chose.
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The folder with its disks and its console's log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Powers it on.
    pub fn power_on(&self) -> Result<Running> {
        Ok(self.machine.start()?)
    }
}

fn write_medium(stage: &Stage, settings: &NodeSettings, dir: &Path) -> Result<PathBuf> {
    let medium = dir.join("medium.img");
    image::disk::medium(&medium, &farmer_toml(stage, settings), &stage.artefacts().base)
        .context("making the boot medium")?;
    Ok(medium)
}

/// Generous: emulated processors on a shared machine differ by a factor of four.
pub const BOOT_WITHIN: Duration = Duration::from_secs(240);

/// Waits until the node sells, and returns the lines of the way there.
pub fn wait_until_selling(running: &mut Running) -> Result<Line> {
    Ok(running.wait_for("  selling", BOOT_WITHIN)?)
}

/// The `farmer.toml` of a node with these settings, as seen from behind QEMU's user network.
pub fn farmer_toml(stage: &Stage, settings: &NodeSettings) -> String {
    let (ledger, ticket) = stage.seen_from_guest();
    let wallet = settings
        .wallet
        .as_ref()
        .map(|wallet| format!("wallet = {wallet:?}\n"))
        .unwrap_or_default();
    format!(
        "{wallet}price = {:?}\ncountry = {:?}\nname = {:?}\ngrid = {ticket:?}\nledger = {ledger:?}\n{}\n",
        settings.price, settings.country, settings.name, settings.more
    )
}
