//! Modules that lie in the image as the kernel takes them, and not packed.

use super::{Index, name};
use std::collections::BTreeSet;

/// What nearly every node loads before it sells; with all that these need it lies in the image as the kernel takes it. To
/// unpack a module costs more than all else that loading it does, and these are seven of two hundred MB.
const PLAIN: &[&str] = &[
    "dm-mod",
    "dm-verity",
    "dm-crypt",
    "ext4",
    "erofs",
    "overlay",
    "aesni-intel",
    "nf_tables",
    "nft_ct",
    "nft_connlimit",
    "nft_reject_inet",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "scsi_mod",
    "sd_mod",
    "ahci",
    "virtio_net",
    "virtio_blk",
];

/// The paths of [`PLAIN`] and of what these need.
pub(super) fn paths(dep: &str) -> BTreeSet<String> {
    let index = Index::parse(dep);
    let mut taken = BTreeSet::new();
    for path in PLAIN.iter().filter_map(|wanted| index.by_name.get(&name(wanted))) {
        index.take(path, &mut taken);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::super::{ALWAYS, QEMU};
    use super::*;

    #[test]
    fn what_every_node_loads_is_plain_with_what_it_needs() {
        let dep = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\nkernel/fs/jbd2/jbd2.ko.xz:\nkernel/fs/fat/vfat.ko.xz:\n";
        let paths: Vec<String> = paths(dep).into_iter().collect();
        assert_eq!(paths, ["kernel/fs/ext4/ext4.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz"]);
        assert!(
            PLAIN
                .iter()
                .all(|name| ALWAYS.contains(name) || QEMU.contains(name) || *name == "scsi_mod")
        );
    }
}
