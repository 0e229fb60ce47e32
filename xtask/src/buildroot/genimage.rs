//! `genimage.cfg` of the build from source: the stick of `image`, in the words of genimage.

use image::layout::{
    ALIGNMENT_BYTES, BASE_ID, BASE_NAME, BASE_TYPE, DISK_ID, ESP_ID, ESP_TYPE, FAT_SERIAL, LABEL,
    SECTOR_BYTES, STICK_CLUSTER_BYTES, STICK_ESP_BYTES,
};

/// Files of the system partition, and what Buildroot's folder of images calls each.
const FILES: &[(&str, &str)] = &[
    ("farmer.toml", "farmer.toml"),
    ("EFI/BOOT/BOOTX64.EFI", "efi-part/EFI/BOOT/bootx64.efi"),
    ("EFI/BOOT/grub.cfg", "grub.cfg"),
    ("steading/a/vmlinuz", "bzImage"),
    ("steading/a/initramfs", "rootfs.cpio.zst"),
];

/// The whole file.
pub fn text() -> String {
    let sectors = STICK_CLUSTER_BYTES / SECTOR_BYTES;
    let files: String = FILES
        .iter()
        .map(|(path, from)| format!("\t\tfile {path} {{\n\t\t\timage = \"{from}\"\n\t\t}}\n"))
        .collect();
    let partition = |name: &str, file: &str, kind: &str, id: &str, more: &str| {
        format!(
            "\n\tpartition {name} {{\n\t\timage = \"{file}\"\n\t\tpartition-type-uuid = \"{kind}\"\n\
             \t\tpartition-uuid = \"{id}\"\n{more}\t}}\n"
        )
    };
    let first = format!("\t\toffset = {ALIGNMENT_BYTES}\n\t\tbootable = true\n");
    format!(
        "# Made by `./x buildroot` from image/layout.toml: the partitions that `./x image` writes. Not to be edited.\n\
         image esp.vfat {{\n\tvfat {{\n\t\tlabel = \"{LABEL}\"\n\t\textraargs = \"-F 32 -S {SECTOR_BYTES} -s {sectors} -i {FAT_SERIAL}\"\n\
         {files}\t}}\n\n\tsize = {STICK_ESP_BYTES}\n}}\n\n\
         image steading.img {{\n\thdimage {{\n\t\tpartition-table-type = \"gpt\"\n\t\tdisk-uuid = \"{DISK_ID}\"\n\
         \t\talign = {ALIGNMENT_BYTES}\n\t}}\n{}{}}}\n",
        partition(LABEL, "esp.vfat", ESP_TYPE, ESP_ID, &first),
        partition(BASE_NAME, "base.erofs", BASE_TYPE, BASE_ID, ""),
    )
}
