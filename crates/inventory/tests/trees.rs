//! Captured machines, read whole: what is there, and what is null.

// A test that panics has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use inventory::capture::{UnpackError, capture, unpack};
use inventory::{Bus, FirmwareKind, Inventory, Tpm, read};

fn read_capture(text: &str) -> Inventory {
    let folder = tempfile::tempdir().expect("a scratch folder");
    unpack(text, folder.path()).expect("a good capture");
    read(folder.path())
}

#[test]
fn an_empty_root_is_all_null() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let json = serde_json::to_value(read(folder.path())).expect("JSON");
    fn only_nulls(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null => true,
            serde_json::Value::Object(fields) => fields.values().all(only_nulls),
            _ => false,
        }
    }
    assert!(only_nulls(&json), "{json}");
}

#[test]
fn a_root_that_is_not_there_is_all_null() {
    let found = read(Path::new("/nowhere/at/all"));
    assert_eq!(found.disks, None);
    assert_eq!(found.tpm, None);
}

#[test]
fn a_cloud_guest_without_dmi() {
    let found = read_capture(include_str!("trees/firecracker.tree"));
    assert_eq!(found.cpu.model.as_deref(), Some("AMD EPYC"));
    assert_eq!(found.cpu.cores, Some(2));
    assert_eq!(found.cpu.threads, Some(2));
    assert_eq!(found.cpu.sockets, Some(1));
    assert!(found.cpu.flags.as_ref().expect("flags").contains(&"aes".into()));
    assert_eq!(found.memory_bytes, Some(24_684_092 * 1024));
    assert_eq!(found.product, inventory::Product::default());
    assert_eq!(
        found.tpm,
        Some(Tpm {
            present: false,
            version: None
        })
    );
    assert_eq!(found.firmware.kind, Some(FirmwareKind::Bios));
    assert_eq!(found.firmware.secure_boot, None);
    assert_eq!(found.gpus, Some(vec![]));
    let disks = found.disks.expect("disks");
    assert_eq!(disks.len(), 1, "loop and zram are no disks: {disks:?}");
    assert_eq!(disks[0].name, "vda");
    assert_eq!(disks[0].size_bytes, Some(536_870_912 * 512));
    assert_eq!(disks[0].bus, Some(Bus::Virtio));
    assert_eq!(disks[0].serial.as_deref(), Some("overlayblk"));
    assert_eq!(disks[0].vendor, None, "0x1af4 is a PCI id, not a name");
    let nics = found.nics.expect("nics");
    assert_eq!(nics.len(), 1, "lo and ifb have no device: {nics:?}");
    assert_eq!(nics[0].driver.as_deref(), Some("virtio_net"));
    assert_eq!(nics[0].mac.as_deref(), Some("02:fc:00:00:00:01"));
    assert_eq!(nics[0].link, Some(true));
    assert_eq!(nics[0].speed_mbit, None, "-1 is not a speed");
}

#[test]
fn a_desktop_with_every_kind_of_disk() {
    let found = read_capture(include_str!("trees/desktop.tree"));
    assert_eq!(found.cpu.cores, Some(2), "four threads on two cores");
    assert_eq!(found.cpu.threads, Some(4));
    assert_eq!(found.product.vendor.as_deref(), Some("ASUS"));
    assert_eq!(found.product.name, None, "System Product Name is no name");
    assert_eq!(found.product.board.as_deref(), Some("PRIME B550M-A"));
    assert_eq!(found.product.serial, None);
    assert_eq!(
        found.tpm,
        Some(Tpm {
            present: true,
            version: Some(2)
        })
    );
    assert_eq!(found.firmware.kind, Some(FirmwareKind::Uefi));
    assert_eq!(found.firmware.secure_boot, Some(true));
    let disks = found.disks.expect("disks");
    let named = |name: &str| {
        disks
            .iter()
            .find(|disk| disk.name == name)
            .unwrap_or_else(|| panic!("{name} of {disks:?}"))
    };
    assert_eq!(named("nvme0n1").bus, Some(Bus::Nvme));
    assert_eq!(named("nvme0n1").serial.as_deref(), Some("S5GXNX0R123456"));
    assert_eq!(named("nvme0n1").wwn.as_deref(), Some("eui.0025385b01401234"));
    assert_eq!(named("sda").bus, Some(Bus::Sata));
    assert_eq!(named("sda").rotational, Some(true));
    assert_eq!(named("sda").serial.as_deref(), Some("WD-WCC4N1234567"));
    assert_eq!(named("sda").wwn.as_deref(), Some("naa.50014ee2b1234567"));
    assert_eq!(named("sda").physical_sector_bytes, Some(4096));
    assert_eq!(named("sdb").bus, Some(Bus::Usb));
    assert_eq!(named("sdb").removable, Some(true));
    assert_eq!(named("sdc").size_bytes, None, "a reader without a card");
    assert_eq!(disks.len(), 4, "sr0 and nvme0c0n1 are left out: {disks:?}");
    let nics = found.nics.expect("nics");
    assert_eq!(nics[0].driver.as_deref(), Some("r8169"));
    assert_eq!(nics[0].speed_mbit, Some(1000));
    assert_eq!(nics[0].wireless, Some(false));
    assert_eq!(nics[1].wireless, Some(true));
    assert_eq!(nics[1].link, None, "a link that is down does not say");
    let gpus = found.gpus.expect("gpus");
    assert_eq!(gpus.len(), 1);
    assert_eq!(gpus[0].vendor_id.as_deref(), Some("10de"));
    assert_eq!(gpus[0].device_id.as_deref(), Some("2504"));
    assert_eq!(gpus[0].driver, None);
}

#[test]
fn a_guest_with_a_disk_on_each_bus() {
    let found = read_capture(include_str!("trees/qemu.tree"));
    assert_eq!(found.cpu.cores, Some(2));
    assert_eq!(found.product.vendor.as_deref(), Some("QEMU"));
    assert_eq!(found.product.serial, None);
    assert_eq!(found.firmware.kind, Some(FirmwareKind::Bios));
    let disks: Vec<_> = found
        .disks
        .expect("disks")
        .into_iter()
        .map(|disk| (disk.name, disk.bus, disk.serial, disk.size_bytes))
        .collect();
    let gib = |n: u64| Some(n << 30);
    let serial = |text: &str| Some(text.to_owned());
    assert_eq!(
        disks,
        vec![
            ("sda".to_owned(), Some(Bus::Sata), serial("SATA0001"), gib(8)),
            ("sdb".to_owned(), Some(Bus::Usb), serial("USB0001"), gib(1)),
            ("vda".to_owned(), Some(Bus::Virtio), serial("VIRTIO01"), gib(8)),
            ("nvme0n1".to_owned(), Some(Bus::Nvme), serial("NVME0001"), gib(8)),
        ]
    );
    let nics = found.nics.expect("nics");
    assert_eq!(nics[0].driver.as_deref(), Some("e1000e"));
    assert_eq!(nics[0].mac.as_deref(), Some("52:54:00:12:34:56"));
    let gpus = found.gpus.expect("gpus");
    assert_eq!(gpus[0].vendor_id.as_deref(), Some("1234"));
}

#[test]
fn a_controller_without_a_visible_disk_says_what_to_do() {
    let found = read_capture(include_str!("trees/controllers.tree"));
    let controllers = found.controllers.expect("controllers");
    let empty: Vec<&str> = controllers
        .iter()
        .filter(|one| one.is_merely_empty())
        .map(|one| one.address.as_str())
        .collect();
    assert_eq!(empty, ["0000:00:11.0"]);
    let lacking: Vec<(String, String)> = controllers
        .iter()
        .filter_map(|one| Some((format!("{} {}", one.address, one.words()), one.lacks()?)))
        .collect();
    let said = |address: &str, words: &str| {
        let found = lacking.iter().find(|(which, _)| which == address);
        let (_, why) = found.unwrap_or_else(|| panic!("{address} of {lacking:?}"));
        assert!(why.contains(words), "{address}: {why}");
    };
    said("0000:00:0e.0 RAID controller", "switch VMD off");
    said("0000:00:11.0 SATA controller", "is one plugged in");
    said("0000:00:17.0 RAID controller", "hides 1 NVMe drive");
    said("0000:01:00.0 RAID controller", "HBA (IT, JBOD) mode");
    said(
        "0000:02:00.0 storage controller",
        "no driver for it (PCI 1b4b:2241)",
    );
    said("0000:03:00.0 RAID controller", "from RAID (RST) to AHCI");
    // While its driver starts, the kernel falls over whoever asks.
    let starting = include_str!("trees/controllers.tree").replace("0000:00:17.0/ata1", "0000:00:17.0/power");
    let starting = read_capture(&starting).controllers.expect("controllers");
    assert!(
        starting.iter().all(|one| one.hidden_nvme.is_none()),
        "{starting:?}"
    );
    assert!(
        controllers.iter().any(|one| one.hidden_nvme == Some(1)),
        "the control"
    );
    // Those with a disk say nothing, in RAID mode or not.
    assert_eq!(lacking.len(), 6, "{lacking:?}");
    for text in [
        include_str!("trees/desktop.tree"),
        include_str!("trees/qemu.tree"),
        include_str!("trees/firecracker.tree"),
    ] {
        let found = read_capture(text).controllers.expect("controllers");
        assert!(found.iter().all(|one| one.lacks().is_none()), "{found:?}");
    }
}

#[test]
fn a_hostile_tree_is_bounded_and_stays_inside() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let secret = tempfile::tempdir().expect("another folder");
    std::fs::write(secret.path().join("model"), "SECRET\n").expect("written");
    unpack(include_str!("trees/hostile.tree"), folder.path()).expect("a good capture");
    let escape = folder.path().join("sys/block/sdx/device");
    std::os::unix::fs::symlink(secret.path(), &escape).expect("a link out");
    let long = "A\u{1b}[2J\u{7}".repeat(5000);
    std::fs::write(folder.path().join("sys/block/sdy/device/model"), long).expect("written");
    let found = read(folder.path());
    assert_eq!(found.cpu.cores, None, "cpu cores: minus one");
    assert_eq!(found.memory_bytes, None, "an overflow is not a size");
    assert_eq!(found.firmware.secure_boot, None, "2 is neither on nor off");
    let disks = found.disks.clone().expect("disks");
    assert!(
        disks.iter().all(|disk| disk.name != "sdx"),
        "a link that leads out of the root leads nowhere: {disks:?}"
    );
    let sdy = disks.iter().find(|disk| disk.name == "sdy").expect("sdy");
    let model = sdy.model.as_deref().expect("a model");
    assert!(model.chars().count() <= 128 && !model.contains(char::is_control));
    assert_eq!(sdy.size_bytes, None, "2^64 - 1 sectors overflow");
    assert_eq!(sdy.rotational, None, "7 is neither yes nor no");
    assert_eq!(sdy.wwn, None, "a circle of links ends");
    assert!(found.to_string().lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_capture_reads_as_its_machine_does() {
    for text in [
        include_str!("trees/firecracker.tree"),
        include_str!("trees/desktop.tree"),
        include_str!("trees/qemu.tree"),
        include_str!("trees/controllers.tree"),
    ] {
        let folder = tempfile::tempdir().expect("a scratch folder");
        unpack(text, folder.path()).expect("a good capture");
        assert_eq!(read_capture(&capture(folder.path())), read(folder.path()));
    }
}

#[test]
fn this_machine_can_be_captured() {
    let text = capture(Path::new("/"));
    let again = read_capture(&text);
    let now = read(Path::new("/"));
    assert_eq!(again.disks, now.disks);
    assert_eq!(again.cpu, now.cpu);
    assert_eq!(again.nics, now.nics);
}

#[test]
fn a_capture_cannot_write_outside() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    for bad in ["file ../x\n|1\n", "file /etc/x\n|1\n", "dir  a/../../b\n"] {
        assert!(matches!(
            unpack(bad, folder.path()),
            Err(UnpackError::Path { line: 1, .. })
        ));
    }
    assert!(matches!(
        unpack("nonsense\n", folder.path()),
        Err(UnpackError::Line { line: 1 })
    ));
    assert!(matches!(
        unpack("data a\n|0g\n", folder.path()),
        Err(UnpackError::Line { line: 2 })
    ));
}

#[test]
fn text_for_people_says_what_is_unknown() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let text = read(folder.path()).to_string();
    assert!(text.contains("disks     unknown"), "{text}");
    let text = read_capture(include_str!("trees/desktop.tree")).to_string();
    assert!(text.contains("UEFI, Secure Boot on · TPM 2"), "{text}");
    assert!(text.contains("no medium"), "{text}");
    assert!(text.contains("2 cores · 4 threads"), "{text}");
}
