//! Modules that lie in the image as the kernel takes them, and not packed.

use super::{Index, name};
use std::collections::BTreeSet;
use std::path::Path;

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
    "sha256-ssse3",
    "crc32c-intel",
    "crc32c_generic",
    "button",
    "vfat",
    "nls_ascii",
    "fuse",
    "veth",
];

/// What stands at the end of a signed module: the signature, twelve bytes of which the last four are its length, big-endian,
/// and these words (`include/linux/module_signature.h`).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// Takes the signature away: where a processor is emulated, to check one is a third of what it costs to load a module.
pub(super) fn unsign(module: &mut Vec<u8>) {
    let length = || {
        let rest = module.strip_suffix(SIGNED)?;
        let (rest, length) = rest.split_last_chunk::<4>()?;
        rest.len().checked_sub(8 + u32::from_be_bytes(*length) as usize)
    };
    if let Some(length) = length() {
        module.truncate(length);
    }
}

/// Whether this kernel takes no module without a signature. One whose configuration is not beside it may.
pub(super) fn asks_for_signatures(tree: &Path, version: &str) -> bool {
    let config = std::fs::read_to_string(tree.join(format!("boot/config-{version}")));
    config.map_or(true, |text| {
        text.lines().any(|line| line == "CONFIG_MODULE_SIG_FORCE=y")
    })
}

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
    fn a_signature_is_taken_away_and_nothing_else() {
        let signed = [
            b"ELF..".as_slice(),
            b"signature",
            &[0, 0, 2, 0, 0, 0, 0, 0],
            &9u32.to_be_bytes(),
            SIGNED,
        ]
        .concat();
        let taken = |module: &[u8]| {
            let mut module = module.to_vec();
            unsign(&mut module);
            module
        };
        assert_eq!(taken(&signed), b"ELF..");
        let too_long = [&[0; 8], 9u32.to_be_bytes().as_slice(), SIGNED].concat();
        for other in [b"ELF..".as_slice(), SIGNED, &too_long] {
            assert_eq!(taken(other), other);
        }
    }

    #[test]
    fn a_kernel_that_forces_signatures_or_does_not_say_gets_them() -> anyhow::Result<()> {
        let tree = tempfile::tempdir()?;
        assert!(asks_for_signatures(tree.path(), "6.12"), "it does not say");
        std::fs::create_dir(tree.path().join("boot"))?;
        for (line, asks) in [
            ("CONFIG_MODULE_SIG_FORCE=y", true),
            ("# CONFIG_MODULE_SIG_FORCE is not set", false),
        ] {
            let config = format!("CONFIG_MODULE_SIG=y\n{line}\n");
            std::fs::write(tree.path().join("boot/config-6.12"), config)?;
            assert_eq!(asks_for_signatures(tree.path(), "6.12"), asks, "{line}");
        }
        Ok(())
    }

    #[test]
    fn what_every_node_loads_is_plain_with_what_it_needs() {
        let dep = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\nkernel/fs/jbd2/jbd2.ko.xz:\nkernel/fs/isofs/isofs.ko.xz:\n";
        let paths: Vec<String> = paths(dep).into_iter().collect();
        assert_eq!(paths, ["kernel/fs/ext4/ext4.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz"]);
        assert!(
            PLAIN
                .iter()
                .all(|name| ALWAYS.contains(name) || QEMU.contains(name) || *name == "scsi_mod")
        );
    }
}
