//! Controllers behind which a disk may be that nobody sees, in the words of the farmer's page.

use inventory::Inventory;

use crate::console::Disk;

/// A line for each, which stands among the disks: that is where a missing one is looked for. One that is merely empty is
/// named where there is no disk but the medium.
pub(super) fn lacking(machine: &Inventory, medium: Option<&str>) -> Vec<Disk> {
    let mut disks = machine.disks.iter().flatten();
    let other = disks.any(|disk| Some(disk.name.as_str()) != medium && disk.size_bytes.is_some());
    let controllers = machine.controllers.iter().flatten();
    controllers
        .filter(|controller| !(other && controller.is_merely_empty()))
        .filter_map(|controller| {
            let why = controller.lacks()?;
            let address = controller.address.strip_prefix("0000:");
            Some(Disk {
                name: address.unwrap_or(&controller.address).to_owned(),
                state: format!("{}: {why}", controller.words()),
                controller: true,
                ..Disk::default()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_controller_is_named_where_there_is_no_other_disk_and_one_that_hides_disks_always() {
        let capture = include_str!("../../../crates/inventory/tests/trees/controllers.tree");
        let folder = tempfile::tempdir().expect("a scratch folder");
        inventory::capture::unpack(capture, folder.path()).expect("a good capture");
        let mut machine = inventory::read(folder.path());
        let lines = |machine: &Inventory, medium| -> Vec<String> {
            let lines = lacking(machine, medium).into_iter();
            lines
                .map(|line| format!("{} {}", line.name, line.state))
                .collect()
        };
        let has = |lines: &[String], word: &str| lines.iter().any(|line| line.contains(word));
        machine
            .disks
            .iter_mut()
            .flatten()
            .for_each(|disk| disk.size_bytes = Some(1 << 40));
        let beside_a_disk = lines(&machine, None);
        assert!(has(
            &beside_a_disk,
            "00:17.0 RAID controller: it hides 1 NVMe drive"
        ));
        assert!(!has(&beside_a_disk, "SATA controller"), "{beside_a_disk:?}");
        machine
            .disks
            .iter_mut()
            .for_each(|disks| disks.retain(|disk| disk.name == "sda"));
        let alone = lines(&machine, Some("sda"));
        assert!(
            has(&alone, "00:11.0 SATA controller: no disk is visible behind it"),
            "{alone:?}"
        );
        assert!(lacking(&machine, Some("sda")).iter().all(|line| line.controller));
    }
}
