//! Which kernel modules go into an image: by folder for the hardware of real machines, by name for what a space needs;
//! then all that these need, and an index for exactly this subset.

mod plain;

use crate::cpio::{Archive, Node};
use crate::{hardware, kernel};
use anyhow::{Context, Result, bail};
use packages::program::{command, output};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// For which machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What a virtual machine of QEMU can have, without the signatures of what it loads first: boots seconds sooner where
    /// every instruction is emulated. For tests alone; no image is made of it.
    Qemu,
    /// What real machines have as well.
    Machines,
}

/// What a node needs whatever it runs on: names of modules.
const ALWAYS: &[&str] = &[
    // volumes and file systems
    "dm-mod",
    "dm-crypt",
    "dm-verity",
    "dm-snapshot",
    "ext4",
    "erofs",
    "overlay",
    "fuse",
    "loop",
    "vfat",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_ascii",
    "nls_utf8",
    "crc32c_generic",
    "libcrc32c",
    "lz4_decompress",
    "zstd",
    // ciphers of the volumes, fast and plain; hashes of LUKS2; af_alg is how libcryptsetup reaches them
    "aesni-intel",
    "xts",
    "cbc",
    "ctr",
    "ecb",
    "essiv",
    "sha256_generic",
    "sha256-ssse3",
    "sha512-ssse3",
    "sha1-ssse3",
    "authenc",
    "cryptd",
    "crypto_simd",
    "gf128mul",
    "af_alg",
    "algif_hash",
    "algif_skcipher",
    "crc32c-intel",
    "crc32-pclmul",
    "crct10dif-pclmul",
    "ghash-clmulni-intel",
    "gcm",
    "chacha20poly1305",
    // a space's network, as the node makes it
    "veth",
    "ifb",
    "dummy",
    "bridge",
    "br_netfilter",
    "tun",
    "sch_tbf",
    "sch_htb",
    "sch_ingress",
    "sch_fq",
    "sch_fq_codel",
    "sch_prio",
    "cls_u32",
    "cls_matchall",
    "cls_flower",
    "cls_bpf",
    "act_police",
    "act_mirred",
    "act_gact",
    // its walls, and what a user's own firewall or container runtime asks for inside
    "nf_tables",
    "nfnetlink",
    "nf_conntrack",
    "nf_nat",
    "nf_log_syslog",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_fib",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_limit",
    "nft_log",
    "nft_hash",
    "nft_numgen",
    "nft_quota",
    "nft_connlimit",
    "nft_compat",
    "nft_tproxy",
    "nft_socket",
    "nf_reject_ipv4",
    "nf_reject_ipv6",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_tcpudp",
    "x_tables",
    "ip_tables",
    "ip6_tables",
    "iptable_nat",
    "iptable_filter",
    "nfnetlink_queue",
    "nfnetlink_log",
    "nf_conntrack_netlink",
    "macvlan",
    "ipvlan",
    "vxlan",
    "8021q",
    "tls",
    "af_packet",
    "unix_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "netlink_diag",
    "tcp_bbr",
    "xfrm_user",
];

/// What QEMU's machines have.
const QEMU: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "virtio_console",
    "virtio_balloon",
    "virtio-rng",
    "net_failover",
    "sd_mod",
    "sr_mod",
    "ahci",
    "ata_piix",
    "nvme",
    "e1000",
    "e1000e",
    "usb-storage",
    "uas",
    "xhci-pci",
    "ehci-pci",
    "uhci-hcd",
    "usbhid",
    "hid-generic",
    "button",
    "i6300esb",
    "tpm_crb",
    "tpm_tis",
    "8139cp",
];

/// Folders below `kernel/`, for real machines.
const FOLDERS: &[&str] = &[
    "drivers/acpi/",
    "drivers/ata/",
    "drivers/char/hw_random/",
    "drivers/cpufreq/",
    "drivers/hv/hv_vmbus",
    "drivers/hid/hid.",
    "drivers/hid/hid-generic",
    "drivers/hid/usbhid/usbhid",
    "drivers/md/dm-",
    "drivers/message/fusion/",
    "drivers/mmc/",
    "drivers/net/ethernet/",
    "drivers/net/hyperv/",
    "drivers/net/mdio",
    "drivers/net/phy/",
    "drivers/net/usb/",
    "drivers/net/vmxnet3/",
    "drivers/net/xen-netfront",
    "drivers/block/xen-blkfront",
    "drivers/nvme/host/",
    "drivers/pci/controller/",
    "drivers/scsi/",
    "drivers/usb/core/",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    "drivers/ufs/",
    "drivers/virtio/",
    "drivers/watchdog/iTCO",
    "drivers/watchdog/sp5100",
    "drivers/watchdog/softdog",
    "drivers/hwmon/coretemp",
    "drivers/hwmon/k10temp",
    "fs/efivarfs/",
    "fs/isofs/",
    "fs/exfat/",
];

/// Of those, what no spare computer has, or what only storage networks and lab cards need.
const LEFT_OUT: &[&str] = &[
    "drivers/net/ethernet/netronome/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/net/ethernet/microchip/",
    "drivers/net/ethernet/ti/",
    "drivers/net/ethernet/fungible/",
    "drivers/net/ethernet/8390/pcnet_cs",
    "drivers/net/ethernet/pensando/",
    "drivers/net/ethernet/cavium/",
    "drivers/net/ethernet/chelsio/inline_crypto/",
    "drivers/scsi/lpfc/",
    "drivers/scsi/qla2xxx/",
    "drivers/scsi/bfa/",
    "drivers/scsi/be2iscsi/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qedi/",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/fnic/",
    "drivers/scsi/csiostor/",
    "drivers/scsi/cxgbi/",
    "drivers/scsi/elx/",
    "drivers/scsi/qla4xxx/",
    "drivers/scsi/fcoe/",
    "drivers/scsi/libfc/",
    "drivers/scsi/scsi_debug",
    "drivers/scsi/pcmcia/",
    "drivers/scsi/cxlflash/",
    "drivers/md/dm-vdo/",
    "drivers/acpi/apei/",
    "drivers/acpi/nfit/",
    "drivers/pci/controller/cadence/",
    "drivers/net/usb/ipheth",
    "drivers/net/usb/qmi_wwan",
    "drivers/net/usb/hso",
    "drivers/net/usb/sierra_net",
    "drivers/ata/pata_pcmcia",
    "drivers/mmc/core/mmc_test",
];

/// What tests alone load: a RAM disk, which is no disk to sell.
const TESTS: &[&str] = &["brd"];

/// `modules.dep`: path of each module below the version's folder, with all that it needs.
struct Index {
    needs: BTreeMap<String, Vec<String>>,
    by_name: BTreeMap<String, String>,
}

/// Name of a module as the kernel compares it: `-` and `_` are one.
pub(crate) fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

impl Index {
    fn parse(text: &str) -> Self {
        let mut index = Self {
            needs: BTreeMap::new(),
            by_name: BTreeMap::new(),
        };
        for (path, needs) in text.lines().filter_map(|line| line.split_once(':')) {
            index.by_name.insert(name(path), path.to_owned());
            index.needs.insert(
                path.to_owned(),
                needs.split_whitespace().map(str::to_owned).collect(),
            );
        }
        index
    }

    fn take(&self, path: &str, taken: &mut BTreeSet<String>) {
        if taken.insert(path.to_owned()) {
            for next in self.needs.get(path).into_iter().flatten() {
                self.take(next, taken);
            }
        }
    }
}

/// `softdep NAME pre: a b post: c` → the names that are wanted beside NAME.
fn soft_dependencies(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("softdep ")) {
        let mut words = line.split_whitespace();
        if let Some(of) = words.next() {
            let wanted = words.filter(|word| !word.ends_with(':')).map(name);
            found.entry(name(of)).or_default().extend(wanted);
        }
    }
    found
}

/// The paths, below the version's folder, that `choice` means. A name that is neither a module nor built in is an error:
/// a new kernel has renamed it.
fn select(choice: Choice, dep: &str, builtin: &str, softdep: &str) -> Result<BTreeSet<String>> {
    let index = Index::parse(dep);
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let mut taken = BTreeSet::new();
    for wanted in listed(choice) {
        match index.by_name.get(&name(wanted)) {
            Some(path) => index.take(path, &mut taken),
            None if builtin.contains(&name(wanted)) || OPTIONAL.contains(&wanted) => {}
            None => bail!("the kernel has no module {wanted}, neither as a file nor built in"),
        }
    }
    if choice == Choice::Machines {
        for path in index.needs.keys() {
            let below = path.strip_prefix("kernel/").unwrap_or(path);
            if FOLDERS.iter().any(|f| below.starts_with(f)) && !LEFT_OUT.iter().any(|f| below.starts_with(f))
            {
                index.take(path, &mut taken);
            }
        }
    }
    let soft = soft_dependencies(softdep);
    let mut open: Vec<String> = taken.iter().map(|path| name(path)).collect();
    while let Some(module) = open.pop() {
        for path in soft
            .get(&module)
            .into_iter()
            .flatten()
            .filter_map(|wanted| index.by_name.get(wanted))
        {
            if !taken.contains(path) {
                index.take(path, &mut taken);
                open.push(name(path));
            }
        }
    }
    Ok(taken)
}

/// Names that kernels of our series have in some builds only.
const OPTIONAL: &[&str] = &[
    "lz4_decompress",
    "ctr",
    "cbc",
    "ecb",
    "sha256_generic",
    "gf128mul",
    "uhci-hcd",
];

/// Paths of the modules of `choice`, below the version's folder in `tree`, the unpacked kernel package.
pub fn chosen(tree: &Path, version: &str, choice: Choice) -> Result<BTreeSet<String>> {
    let folder = kernel::index_modules(tree, version)?;
    let read =
        |file: &str| std::fs::read_to_string(folder.join(file)).with_context(|| format!("reading {file}"));
    let chosen = select(
        choice,
        &read("modules.dep")?,
        &read("modules.builtin")?,
        &read("modules.softdep")?,
    )?;
    if choice == Choice::Machines {
        let names = chosen.iter().map(|path| name(path)).collect();
        let builtin = read("modules.builtin")?.lines().map(name).collect();
        hardware::check_families(&names, &builtin)?;
    }
    Ok(chosen)
}

/// What `choice` names and this kernel has built in: paths as in its `modules.builtin`.
pub fn built_in(tree: &Path, version: &str, choice: Choice) -> Result<BTreeSet<String>> {
    let file = kernel::index_modules(tree, version)?.join("modules.builtin");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let families: &[_] = match choice {
        Choice::Qemu => &[],
        Choice::Machines => hardware::FAMILIES,
    };
    let families = families.iter().flat_map(|(_, names)| names.iter().copied());
    let names: BTreeSet<String> = listed(choice).chain(families).map(name).collect();
    let found = text.lines().filter(|path| names.contains(&name(path)));
    Ok(found.map(str::to_owned).collect())
}

/// What is named for a choice one by one.
fn listed(choice: Choice) -> impl Iterator<Item = &'static str> {
    let tests = if choice == Choice::Qemu { TESTS } else { &[] };
    ALWAYS.iter().chain(QEMU).chain(tests).copied()
}

/// Puts the modules of `choice` and their index into the archive. `tree` is the unpacked kernel package, `scratch` a
/// folder for the index; returns their paths below the version's folder.
pub fn put(
    archive: &mut Archive,
    tree: &Path,
    version: &str,
    choice: Choice,
    scratch: &Path,
) -> Result<Vec<String>> {
    let folder = kernel::index_modules(tree, version)?;
    let chosen = chosen(tree, version, choice)?;
    let subset = scratch.join("usr/lib/modules").join(version);
    if scratch.exists() {
        std::fs::remove_dir_all(scratch)?;
    }
    let unsigns = choice == Choice::Qemu && !plain::asks_for_signatures(tree, version);
    let plain = plain::paths(&std::fs::read_to_string(folder.join("modules.dep"))?);
    for path in &chosen {
        let inside = match path.strip_suffix(".xz") {
            Some(unpacked) if plain.contains(path) => unpacked,
            _ => path,
        };
        let (from, to) = (folder.join(path), subset.join(inside));
        std::fs::create_dir_all(to.parent().context("a module lies in a folder")?)?;
        let from = if inside == path {
            std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(|_| ()))?;
            from
        } else {
            let mut unpacked = output(command("xz").args(["--decompress", "--stdout"]).arg(&from))?;
            if unsigns {
                plain::unsign(&mut unpacked);
            }
            std::fs::write(&to, unpacked)?;
            to
        };
        archive.put(
            &format!("/usr/lib/modules/{version}/{inside}"),
            Node::File(from, 0o644),
        )?;
    }
    for file in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        std::fs::copy(folder.join(file), subset.join(file))?;
    }
    std::os::unix::fs::symlink("usr/lib", scratch.join("lib"))?;
    kernel::depmod(scratch, version)?;
    for file in [
        "modules.dep",
        "modules.alias",
        "modules.softdep",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        archive.put(
            &format!("/usr/lib/modules/{version}/{file}"),
            Node::Bytes(std::fs::read(subset.join(file))?, 0o644),
        )?;
    }
    Ok(chosen.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_holds_what_it_needs() -> Result<()> {
        let all: Vec<&str> = ALWAYS.iter().chain(QEMU).chain(TESTS).copied().collect();
        let builtin = all
            .iter()
            .map(|m| format!("kernel/x/{m}.ko"))
            .collect::<Vec<_>>()
            .join("\n");
        let dep = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz\n\
                   kernel/fs/jbd2/jbd2.ko.xz:\nkernel/fs/mbcache.ko.xz:\nkernel/soft/crc-soft.ko.xz:\n\
                   kernel/drivers/ata/ahci.ko.xz:\nkernel/drivers/net/ethernet/netronome/nfp.ko.xz:\n\
                   kernel/drivers/net/ethernet/intel/igb/igb.ko.xz:\nkernel/sound/snd.ko.xz:\n";
        let softdep = "# comment\nsoftdep ext4 pre: crc_soft\n";
        let names = |choice| -> Result<Vec<String>> {
            Ok(select(choice, dep, &builtin, softdep)?
                .iter()
                .map(|path| name(path))
                .collect())
        };
        assert_eq!(
            names(Choice::Qemu)?,
            ["ahci", "ext4", "jbd2", "mbcache", "crc_soft"]
        );
        assert_eq!(
            names(Choice::Machines)?,
            ["ahci", "igb", "ext4", "jbd2", "mbcache", "crc_soft"]
        );
        let said = select(Choice::Qemu, dep, "", softdep).map_err(|error| error.to_string());
        assert!(said.is_err_and(|error| error.contains("no module dm-mod")));
        Ok(())
    }
}
