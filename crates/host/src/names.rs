//! Every name that the kernel sees, from one place, with its length limit.
//!
//! A name is made from the id that it stands for (a sale, a user, a base, a node: 32 bytes), so it
//! can be found again after a crash without a table. Names carry a prefix of the id where the
//! kernel has no room for all of it:
//!
//! | what | shape | limit |
//! |---|---|---|
//! | volume group | `steading-<8 hex node>-<8 hex partition>` | 127 |
//! | logical volume | `state`, `base-<64 hex>`, `space-<16 hex>`, `snap-<16 hex>` of a space | 127 |
//! | LUKS mapping | `steading-<16 hex>` | 127 |
//! | mapping of a base, checked as it is read | `base-<64 hex>-<volume group>` | 127 |
//! | cgroup | `/sys/fs/cgroup/steading/<16 hex>` | 255 a part |
//! | network namespace | `u-<12 hex>` of a user, `s-<12 hex>` of a space | 255 |
//! | interface | `u<12 hex>`, `s<12 hex>` | 15 |
//!
//! A prefix can be shared by two ids, by chance or because somebody searched for it: who creates
//! a thing by such a name uses the `create` that fails where it exists, and refuses the sale.

use std::path::{Path, PathBuf};

/// A 32-byte id of anything: a sale, a user's key, a node's key, a digest.
pub type Id = [u8; 32];

/// Where everything of ours that is not on a disk lives.
pub const RUN: &str = "/run/steading";
/// The base file systems that are mounted, one folder a digest.
pub const RUN_BASE: &str = "/run/steading/base";
/// The volumes of spaces, unmapped (ids as on disk), one folder a space.
pub const RUN_VOLUME: &str = "/run/steading/volume";
/// The state volumes, one folder a volume group.
pub const RUN_STATE: &str = "/run/steading/state";
/// The network namespaces, one bound file each.
pub const RUN_NETNS: &str = "/run/steading/netns";
/// The empty folder on which a starting space builds its root, in a mount namespace of its own.
pub const RUN_START: &str = "/run/steading/start";
/// Where lxcfs shows what a space reads about itself.
pub const RUN_READINGS: &str = "/run/steading/readings";
/// The folder in which locks of LVM live.
pub const RUN_LVM_LOCK: &str = "/run/lock/lvm";
/// What this boot knows of the node's seat in the grid: gone with the power.
pub const RUN_SEAT: &str = "/run/steading/seat";
/// What the programs of this boot tell each other of when they did what, a line each.
pub const RUN_BOOT: &str = "/run/steading/boot";
/// The lines for disks that were confirmed at a console, for the agent's next start.
pub const RUN_CONSENTS: &str = "/run/steading/consents";
/// Exists once the modules for the hardware found at power-on have been loaded.
pub const HARDWARE_READY: &str = "/run/steading/hardware-ready";
/// The mount point of cgroup v2.
pub const CGROUP_MOUNT: &str = "/sys/fs/cgroup";
/// The cgroup under which every space has its own.
pub const CGROUP_SPACES: &str = "/sys/fs/cgroup/steading";
/// The cgroup of lxcfs, beside the spaces': what they ask of it is bounded there.
pub const CGROUP_READINGS: &str = "/sys/fs/cgroup/readings";
/// What the kernel's workers are told: a folder for each kind of them that can be told anything.
pub const WORKERS: &str = "/sys/devices/virtual/workqueue";
/// What the image says about itself.
pub const IMAGE_JSON: &str = "/etc/steading/image.json";

/// GPT type of a claimed disk's partition.
pub const CLAIM_TYPE: &str = "53544541-4449-4e47-8000-4449534b0001";
/// GPT type of the partition that holds a base (erofs).
pub const BASE_TYPE: &str = "53544541-4449-4e47-8000-424153450001";
/// GPT type of an EFI system partition.
pub const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// The logical volume with the node's state on each group.
pub const STATE_VOLUME: &str = "state";

/// Longest name of a device-mapper mapping: `DM_NAME_LEN` (128) less the closing zero.
pub const MAPPING_LIMIT: usize = 127;
/// Longest name of a volume group or logical volume: `NAME_LEN` (128) of LVM less the zero.
pub const LVM_LIMIT: usize = 127;
/// Longest name of a network interface: `IFNAMSIZ` (16) less the closing zero.
pub const INTERFACE_LIMIT: usize = 15;
/// Longest part of a path: `NAME_MAX`.
pub const FILE_LIMIT: usize = 255;
/// Longest name in a GPT entry, in UTF-16 units.
pub const GPT_NAME_LIMIT: usize = 36;

/// The first `digits` lower hex digits of `bytes`.
fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    text.truncate(digits);
    text
}

/// The volume group of one claimed disk: `steading-<node>-<partition>`; `partition` is the GUID
/// of the partition, its bytes in the order in which the GUID is printed.
pub fn volume_group(node: &Id, partition: &[u8; 16]) -> String {
    format!("steading-{}-{}", hex(node, 8), hex(partition, 8))
}

/// The beginning that every volume group of this node has.
pub fn volume_group_prefix(node: &Id) -> String {
    format!("steading-{}-", hex(node, 8))
}

/// How the GPT names of claimed disks' partitions begin.
pub const CLAIM_PARTITION_PREFIX: &str = "steading-";

/// The GPT name of a claimed disk's partition.
pub fn claim_partition(node: &Id) -> String {
    format!("{CLAIM_PARTITION_PREFIX}{}", hex(node, 8))
}

/// The read-only logical volume that keeps a base.
pub fn base_volume(digest: &Id) -> String {
    format!("base-{}", hex(digest, 64))
}

/// The checked mapping of a base in a group.
pub fn base_mapping(group: &str, digest: &Id) -> String {
    format!("{}-{group}", base_volume(digest))
}

/// The logical volume of a space.
pub fn space_volume(sale: &Id) -> String {
    format!("space-{}", hex(sale, 16))
}

/// The snapshot of a space's volume.
pub fn snapshot_volume(sale: &Id) -> String {
    format!("snap-{}", hex(sale, 16))
}

/// The device with what a snapshot keeps, as LVM names it.
pub fn snapshot_store_device(group: &str, snapshot: &str) -> PathBuf {
    mapping_device(&format!("{}-cow", lvm_mapping(group, snapshot)))
}

/// The LUKS mapping of a space, as `/dev/mapper` shows it.
pub fn mapping(sale: &Id) -> String {
    format!("steading-{}", hex(sale, 16))
}

/// The device of a mapping.
pub fn mapping_device(mapping: &str) -> PathBuf {
    Path::new("/dev/mapper").join(mapping)
}

/// The name that LVM gives to the mapping of a logical volume: hyphens doubled, one between.
pub fn lvm_mapping(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// The device of a logical volume.
pub fn lvm_device(group: &str, volume: &str) -> PathBuf {
    mapping_device(&lvm_mapping(group, volume))
}

/// Where a base is mounted.
pub fn base_mount(digest: &Id) -> PathBuf {
    Path::new(RUN_BASE).join(hex(digest, 64))
}

/// Where a space's volume is mounted, unmapped.
pub fn volume_mount(sale: &Id) -> PathBuf {
    Path::new(RUN_VOLUME).join(hex(sale, 16))
}

/// Where the state volume of a group is mounted.
pub fn state_mount(group: &str) -> PathBuf {
    Path::new(RUN_STATE).join(group)
}

/// The cgroup of a space.
pub fn cgroup(sale: &Id) -> PathBuf {
    Path::new(CGROUP_SPACES).join(hex(sale, 16))
}

/// The name of a user's network namespace.
pub fn user_netns(user: &Id) -> String {
    format!("u-{}", hex(user, 12))
}

/// The name of a space's network namespace.
pub fn space_netns(sale: &Id) -> String {
    format!("s-{}", hex(sale, 12))
}

/// The file on which a network namespace is bound.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new(RUN_NETNS).join(name)
}

/// The node's end of the link to a user's namespace.
pub fn user_interface(user: &Id) -> String {
    format!("u{}", hex(user, 12))
}

/// The user namespace's end of the link to a space.
pub fn space_interface(sale: &Id) -> String {
    format!("s{}", hex(sale, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Id = [0xee; 32];

    #[test]
    fn every_name_fits_the_kernel() {
        for name in [user_interface(&LONG), space_interface(&LONG)] {
            assert!(name.len() <= INTERFACE_LIMIT, "{name}");
        }
        let group = volume_group(&LONG, &[0xee; 16]);
        for volume in [
            STATE_VOLUME.to_owned(),
            base_volume(&LONG),
            space_volume(&LONG),
            snapshot_volume(&LONG),
        ] {
            assert!(volume.len() <= LVM_LIMIT && group.len() <= LVM_LIMIT);
            let mapping = lvm_mapping(&group, &volume);
            assert!(mapping.len() <= MAPPING_LIMIT, "{mapping} has {}", mapping.len());
        }
        assert!(mapping(&LONG).len() <= MAPPING_LIMIT);
        assert!(base_mapping(&group, &LONG).len() <= MAPPING_LIMIT);
        assert!(claim_partition(&LONG).encode_utf16().count() <= GPT_NAME_LIMIT);
        for path in [
            base_mount(&LONG),
            volume_mount(&LONG),
            state_mount(&group),
            cgroup(&LONG),
            netns_path(&user_netns(&LONG)),
            netns_path(&space_netns(&LONG)),
        ] {
            assert!(path.iter().all(|part| part.len() <= FILE_LIMIT), "{path:?}");
            // lowerdir, upperdir and workdir of an overlay are separated by ':' and ','.
            assert!(!path.to_string_lossy().contains([':', ',', ' ']), "{path:?}");
        }
    }

    #[test]
    fn names_are_what_they_were() {
        let mut id = [0u8; 32];
        id.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
        assert_eq!(volume_group(&id, &[0xab; 16]), "steading-00010203-abababab");
        assert!(volume_group(&id, &[0xab; 16]).starts_with(&volume_group_prefix(&id)));
        assert_eq!(space_volume(&id), "space-0001020304050607");
        assert_eq!(
            lvm_device("steading-00010203-abababab", "space-0001020304050607"),
            Path::new("/dev/mapper/steading--00010203--abababab-space--0001020304050607")
        );
        assert_eq!(
            volume_mount(&id),
            Path::new("/run/steading/volume/0001020304050607")
        );
        assert_eq!(user_netns(&id), "u-000102030405");
        assert_eq!(space_interface(&id), "s000102030405");
    }

    #[test]
    fn a_user_and_a_space_of_the_same_id_do_not_meet() {
        assert_ne!(user_netns(&LONG), space_netns(&LONG));
        assert_ne!(user_interface(&LONG), space_interface(&LONG));
    }

    #[test]
    fn type_guids_spell_what_they_are() {
        let letters: Vec<u8> = BASE_TYPE
            .split('-')
            .collect::<String>()
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(&letters[..8], b"STEADING");
        assert_eq!(&letters[10..14], b"BASE");
        assert_ne!(BASE_TYPE, CLAIM_TYPE);
    }
}
