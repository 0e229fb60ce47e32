//! The machines that the image is booted on. A row is one boot; each value of each column stands in one at least, and pairs
//! where one decides about the other (firmware and what the stick hangs on; controller and sectors).

use qemu::{Board, Bus};

use Bus::{Cd, Ehci, Ide, Megasas, Mptsas, Nvme, Sata, Usb, Virtio, VirtioScsi};
use Medium::{Http, Stick, Tftp};

/// Which firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
    /// OVMF with Microsoft's keys, which refuses what they did not sign.
    SecureBoot,
}

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The node joins, claims every blank disk and sells.
    Sells,
    /// It says this, and switches itself off.
    Stops(&'static str),
    /// It says this, waits for a person, and sells nothing.
    Waits(&'static str),
}

/// A second stick in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sibling {
    /// Of another image, with settings that would sell nothing.
    OtherImage,
    /// Of the same image, with other settings.
    OtherSettings,
}

/// What a machine is started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// The stick, or the same image as a CD, on this bus.
    Stick(Bus),
    /// The folder for the network, by TFTP.
    Tftp,
    /// The same by HTTP.
    Http,
}

/// One machine.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name, by which it is chosen.
    pub name: &'static str,
    /// Its firmware.
    pub firmware: Firmware,
    /// Its board.
    pub board: Board,
    /// Its processor, as QEMU calls it.
    pub cpu: &'static str,
    /// How many of them.
    pub cores: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What it is started from.
    pub medium: Medium,
    /// Another stick on NVMe, which is found before the one that is booted: a node that took the first would take it.
    pub sibling: Option<Sibling>,
    /// Its blank disks: what each hangs on, and the bytes of its sectors.
    pub targets: &'static [(Bus, u32)],
    /// Its network card, as QEMU calls it.
    pub card: &'static str,
    /// How its boot ends.
    pub ends: Ends,
}

/// An ordinary machine of today; the rows say what is different.
const PLAIN: Row = Row {
    name: "plain",
    firmware: Firmware::Uefi,
    board: Board::Q35,
    cpu: "max",
    cores: 2,
    memory_mib: 1536,
    medium: Stick(Usb),
    sibling: None,
    targets: &[(Sata, 512)],
    card: "virtio-net-pci",
    ends: Ends::Sells,
};

const BIOS: Row = Row {
    firmware: Firmware::Bios,
    ..PLAIN
};

const OLD: Row = Row {
    board: Board::I440fx,
    ..BIOS
};

/// Booted by every `./x test`.
pub const SHORT: [&str; 2] = ["old", "secure"];

/// All of them.
pub const ROWS: &[Row] = &[
    Row {
        name: "old",
        cpu: "qemu64",
        cores: 1,
        medium: Stick(Sata),
        targets: &[(VirtioScsi, 512)],
        card: "e1000",
        ..OLD
    },
    Row {
        name: "secure",
        firmware: Firmware::SecureBoot,
        targets: &[(Nvme, 4096)],
        card: "e1000e",
        ..PLAIN
    },
    Row {
        name: "ehci",
        cpu: "Nehalem",
        memory_mib: 1024,
        medium: Stick(Ehci),
        targets: &[(Ide, 512)],
        card: "rtl8139",
        ..OLD
    },
    Row {
        name: "megaraid",
        targets: &[(Megasas, 512)],
        card: "vmxnet3",
        ..BIOS
    },
    Row {
        name: "sas",
        cpu: "Nehalem",
        memory_mib: 2048,
        medium: Stick(Sata),
        targets: &[(Mptsas, 512)],
        card: "e1000e",
        ..BIOS
    },
    Row {
        name: "nvme",
        cores: 8,
        memory_mib: 8192,
        medium: Stick(Nvme),
        targets: &[(Nvme, 512), (VirtioScsi, 4096)],
        ..BIOS
    },
    Row {
        name: "virtio",
        medium: Stick(Virtio),
        targets: &[(Virtio, 512), (Virtio, 4096)],
        card: "usb-net",
        ..BIOS
    },
    Row {
        name: "uefi-nvme",
        cores: 8,
        memory_mib: 4096,
        medium: Stick(Nvme),
        targets: &[(Nvme, 4096), (Megasas, 512)],
        card: "vmxnet3",
        ..PLAIN
    },
    Row {
        name: "uefi-sata",
        cpu: "qemu64",
        cores: 1,
        memory_mib: 1024,
        medium: Stick(Sata),
        card: "e1000",
        ..PLAIN
    },
    Row {
        name: "uefi-virtio",
        cpu: "Nehalem",
        medium: Stick(Virtio),
        targets: &[(VirtioScsi, 512)],
        card: "igb",
        ..PLAIN
    },
    Row {
        name: "uefi-old",
        board: Board::I440fx,
        medium: Stick(Ehci),
        targets: &[(Virtio, 512)],
        card: "e1000",
        ..PLAIN
    },
    Row {
        name: "cd",
        medium: Stick(Cd),
        ..BIOS
    },
    Row {
        name: "cd-old",
        medium: Stick(Cd),
        targets: &[(Virtio, 512)],
        ..OLD
    },
    Row {
        name: "uefi-cd",
        firmware: Firmware::SecureBoot,
        medium: Stick(Cd),
        ..PLAIN
    },
    Row {
        name: "tftp",
        medium: Tftp,
        memory_mib: 2048,
        ..BIOS
    },
    Row {
        name: "http",
        medium: Http,
        memory_mib: 2048,
        ..BIOS
    },
    // Without a ROM of its own on the card, the firmware's own PXE fetches the signed shim.
    Row {
        name: "uefi-tftp",
        firmware: Firmware::SecureBoot,
        medium: Tftp,
        memory_mib: 2048,
        card: "virtio-net-pci,romfile=",
        ..PLAIN
    },
    Row {
        name: "32-bit",
        cpu: "pentium3",
        ends: Ends::Stops("this machine has a 32-bit processor, and a node needs a 64-bit one"),
        ..BIOS
    },
    Row {
        name: "cd-32-bit",
        cpu: "qemu32",
        medium: Stick(Cd),
        ends: Ends::Stops("this machine has a 32-bit processor, and a node needs a 64-bit one"),
        ..BIOS
    },
    Row {
        name: "two-sticks",
        sibling: Some(Sibling::OtherImage),
        ..PLAIN
    },
    Row {
        name: "two-alike",
        sibling: Some(Sibling::OtherSettings),
        ends: Ends::Waits("are sticks of this image with different farmer.toml"),
        ..BIOS
    },
    Row {
        name: "hidden-disks",
        targets: &[],
        ends: Ends::Waits("SATA controller: no disk is visible behind it"),
        ..BIOS
    },
    Row {
        name: "128-mib",
        memory_mib: 128,
        ends: TOO_LITTLE,
        ..BIOS
    },
    Row {
        name: "tftp-128-mib",
        memory_mib: 128,
        medium: Tftp,
        ends: TOO_LITTLE,
        ..BIOS
    },
    Row {
        name: "512-mib",
        memory_mib: 512,
        ends: TOO_LITTLE,
        ..PLAIN
    },
];

/// What a machine with too little memory says on every console before it switches itself off.
const TOO_LITTLE: Ends = Ends::Stops("of memory, and a node needs 1 GiB");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_value_stands_in_a_row_that_sells() {
        let sells: Vec<&Row> = ROWS.iter().filter(|row| row.ends == Ends::Sells).collect();
        let cards: BTreeSet<&str> = sells.iter().map(|row| row.card).collect();
        for card in [
            "e1000",
            "e1000e",
            "igb",
            "rtl8139",
            "virtio-net-pci",
            "vmxnet3",
            "usb-net",
        ] {
            assert!(cards.contains(card), "{card}");
        }
        for bus in [Usb, Ehci, Sata, Nvme, Virtio, Cd] {
            let medium = Stick(bus);
            assert!(sells.iter().any(|row| row.medium == medium), "{medium:?}");
        }
        for medium in [Tftp, Http] {
            assert!(sells.iter().any(|row| row.medium == medium), "{medium:?}");
        }
        let targets: BTreeSet<(Bus, u32)> = sells.iter().flat_map(|row| row.targets).copied().collect();
        for target in [
            (Sata, 512),
            (Nvme, 512),
            (Nvme, 4096),
            (Virtio, 512),
            (VirtioScsi, 512),
            (Megasas, 512),
            (Mptsas, 512),
        ] {
            assert!(targets.contains(&target), "{target:?}");
        }
        for cpu in ["qemu64", "Nehalem", "max"] {
            assert!(sells.iter().any(|row| row.cpu == cpu), "{cpu}");
        }
        for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::SecureBoot] {
            assert!(sells.iter().any(|row| row.firmware == firmware), "{firmware:?}");
        }
        assert!(sells.iter().any(|row| row.cores == 1) && sells.iter().any(|row| row.cores == 8));
        assert!(sells.iter().any(|row| row.board == Board::I440fx));
        assert!(sells.iter().any(|row| row.memory_mib == 8192));
    }

    #[test]
    fn names_are_of_one_row_each() {
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(SHORT.iter().all(|name| names.contains(name)));
    }
}
