//! What init leaves behind for the agent: mounts, modules on demand, a root that can be pivoted.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;

use crate::trial;

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("machine::init_has_mounted_what_the_agent_needs", || {
            // For a moment of its start lxcfs takes options of cgroup2 away; init brings them back.
            let end = Instant::now() + Duration::from_secs(60);
            let mut mounts = String::new();
            while Instant::now() < end && !mounts.contains("nsdelegate") {
                mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
            }
            for (point, kind) in [
                ("/proc", "proc"),
                ("/sys", "sysfs"),
                ("/dev", "devtmpfs"),
                ("/run", "tmpfs"),
            ] {
                let found = mounts.lines().any(|line| {
                    let mut words = line.split(' ').skip(1);
                    words.next() == Some(point) && words.next() == Some(kind)
                });
                ensure!(found, "{point} is not a {kind}:\n{mounts}");
            }
            let cgroup = mounts
                .lines()
                .find(|line| line.contains(" cgroup2 "))
                .context("no cgroup2")?;
            ensure!(
                cgroup.contains("nsdelegate"),
                "cgroup2 without nsdelegate: {cgroup}"
            );
            Ok(())
        }),
        trial("machine::init_is_pid_1_and_we_are_its_child", || {
            ensure!(
                std::os::unix::process::parent_id() == 1,
                "parent is {}",
                std::os::unix::process::parent_id()
            );
            let name = fs::read_to_string("/proc/1/comm").context("reading PID 1's name")?;
            ensure!(name.trim() == "init", "PID 1 is {name}");
            Ok(())
        }),
        trial("machine::the_kernel_finds_modprobe", || {
            let path = fs::read_to_string("/proc/sys/kernel/modprobe").context("reading kernel.modprobe")?;
            ensure!(path.trim() == "/sbin/modprobe", "kernel.modprobe is {path}");
            // A file system that nobody has asked for yet: the kernel calls modprobe by itself.
            let before = fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems")?;
            ensure!(
                !before.contains("overlay"),
                "overlay is there already, so this shows nothing"
            );
            let _ = nix::mount::mount(
                Some("/dev/null"),
                "/proc",
                Some("overlay"),
                nix::mount::MsFlags::MS_RDONLY,
                None::<&str>,
            );
            let after = fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems")?;
            ensure!(after.contains("overlay"), "asking for overlay loaded nothing");
            Ok(())
        }),
        trial("machine::a_sata_disk_says_how_it_is", sata_health),
        trial("machine::a_ram_disk_is_no_disk_to_sell", ram_disk),
    ]
}

/// It is there, blank and large enough, and neither the inventory nor LVM takes it for a disk.
fn ram_disk() -> anyhow::Result<()> {
    let of_memory = |name: &str| name.starts_with("ram");
    let index = host::module::of_running_kernel()?;
    host::module::load(&index, "brd")?;
    let size = host::block::Device::open(Path::new("/dev/ram0"))?.size()?;
    ensure!(size >= 4 << 20, "{size} bytes are too few to show anything");
    let disks = inventory::read(Path::new("/")).disks.context("no disks")?;
    ensure!(
        !disks.is_empty() && !disks.iter().any(|disk| of_memory(&disk.name)),
        "{disks:?}"
    );
    let made = storage::Storage::start()?.lvm().pv_create(Path::new("/dev/ram0"));
    ensure!(made.is_err(), "LVM made a volume of it");
    Ok(())
}

/// The real question to a disk that answers it; one that is on another bus is asked in vain.
fn sata_health() -> anyhow::Result<()> {
    let root = Path::new("/");
    let disks = inventory::read(root).disks.context("no disks")?;
    let sata = disks
        .iter()
        .find(|disk| disk.bus == Some(inventory::Bus::Sata))
        .with_context(|| format!("no SATA disk: {disks:?}"))?;
    ensure!(
        inventory::bus_of(root, &sata.name) == sata.bus,
        "its bus has two names"
    );
    let health = host::ata::health(&Path::new("/dev").join(&sata.name)).context("asking the disk")?;
    // QEMU's disk is at 31 degrees, always.
    let well = host::ata::Health {
        celsius: Some(31),
        ..host::ata::Health::default()
    };
    ensure!(health == well, "{health:?}");
    ensure!(
        host::ata::health(Path::new("/dev/vda")).is_err(),
        "a disk that is no SATA disk answers"
    );
    Ok(())
}
