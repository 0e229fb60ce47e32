//! What is asked of the archive, by purpose.

use serde::{Deserialize, Serialize};

/// A purpose. A package may serve several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// What everything of ours is linked against.
    Sysroot,
    /// The signed kernel and its modules.
    Kernel,
    /// The kernel's sources, for the build from source.
    Source,
    /// Firmware of network cards and disk controllers.
    Firmware,
    /// Programs in the initramfs, with the libraries they need.
    Programs,
    /// The Debian that a space stands on.
    Base,
    /// Boot loaders of the stick.
    Boot,
    /// Programs that run here while the image is made, so that any builder makes the same one.
    Tools,
    /// Programs that make of an image what is handed on: packed and signed.
    Release,
    /// Programs that people use on a space from outside, for the scenarios.
    Tests,
    /// What scenarios install in a space by apt, in the place of Debian's own archive: what the base lacks of it.
    Archive,
    /// podman and what it needs beyond the base, for scenarios that put it into a space.
    Containers,
    /// Programs that make disks as other systems leave them, for the machines that find such disks.
    Disks,
}

/// How a set's names become packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// With all that they depend on, recommended ones left out.
    Closure,
    /// Exactly these.
    Exact,
}

impl Set {
    /// All of them.
    pub const ALL: [Set; 13] = [
        Set::Sysroot,
        Set::Kernel,
        Set::Source,
        Set::Firmware,
        Set::Programs,
        Set::Base,
        Set::Boot,
        Set::Tools,
        Set::Release,
        Set::Tests,
        Set::Archive,
        Set::Containers,
        Set::Disks,
    ];

    /// How the names become packages.
    pub fn reach(self) -> Reach {
        match self {
            Set::Base => Reach::Closure,
            Set::Sysroot
            | Set::Kernel
            | Set::Source
            | Set::Firmware
            | Set::Programs
            | Set::Boot
            | Set::Tools
            | Set::Release
            | Set::Tests
            | Set::Archive
            | Set::Containers
            | Set::Disks => Reach::Exact,
        }
    }

    /// What is asked for. `linux-image-amd64` stands for the kernel that it depends on.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            // Exact: their dependencies would bring Perl and a package manager. The test of the initramfs finds a
            // library that is missing here. The -dev packages are all named by somebody's .pc file.
            Set::Sysroot => &[
                "libaio1t64",
                "libargon2-1",
                "libargon2-dev",
                "libblkid-dev",
                "libblkid1",
                "libbsd0",
                "libc6",
                "libc6-dev",
                "libcap2",
                "libcrypt-dev",
                "libcrypt1",
                "libcryptsetup-dev",
                "libcryptsetup12",
                "libdevmapper-dev",
                "libdevmapper-event1.02.1",
                "libdevmapper1.02.1",
                "libedit2",
                "libgcc-s1",
                "libjson-c-dev",
                "libjson-c5",
                "liblvm2-dev",
                "liblvm2cmd2.03",
                "libmd0",
                "libpcre2-16-0",
                "libpcre2-32-0",
                "libpcre2-8-0",
                "libpcre2-dev",
                "libpopt-dev",
                "libpopt0",
                "libreadline8t64",
                "libselinux1",
                "libselinux1-dev",
                "libsepol-dev",
                "libsepol2",
                "libsystemd0",
                "libssl-dev",
                "libssl3t64",
                "libtinfo6",
                "libudev-dev",
                "libudev1",
                "libuuid1",
                "libzstd-dev",
                "libzstd1",
                "linux-libc-dev",
                "uuid-dev",
                "zlib1g",
                "zlib1g-dev",
            ],
            Set::Kernel => &["linux-image-amd64"],
            // Of the kernel's series: another one is another name.
            Set::Source => &["linux-source-6.12"],
            // netronome's 26 MB are left out, and so is all that is not a network card or a disk controller.
            Set::Firmware => &[
                "firmware-realtek",
                "firmware-bnx2",
                "firmware-bnx2x",
                "firmware-intel-misc",
                "firmware-linux-free",
                "firmware-misc-nonfree",
                "firmware-qlogic",
            ],
            Set::Programs => &[
                "e2fsprogs",
                "libblkid1",
                "libcom-err2",
                "libext2fs2t64",
                "libfuse3-4",
                "libgmp10",
                "libjansson4",
                "libmnl0",
                "libnftables1",
                "libnftnl11",
                "libss2",
                "libxtables12",
                "lxcfs",
                "nftables",
            ],
            Set::Base => &[
                "?essential",
                "apt",
                "bash-completion",
                "ca-certificates",
                "catatonit",
                "curl",
                "debian-archive-keyring",
                "iproute2",
                "iputils-ping",
                "less",
                "libstdc++6",
                "nano",
                "ncurses-term",
                "openssh-server",
                "openssh-sftp-server",
                "passwd",
                "procps",
                "python3-minimal",
                "python3",
                "rsync",
                "sudo",
                "tar",
                "tmux",
                "uidmap",
                "wget",
                "xz-utils",
            ],
            Set::Tools => &[
                "erofs-utils",
                "grub-common",
                "libdeflate0",
                "liblz4-1",
                "liblzma5",
            ],
            Set::Release => &[
                "libgcc-s1",
                "liblz4-1",
                "liblzma5",
                "libsodium23",
                "libstdc++6",
                "minisign",
                "zlib1g",
                "zstd",
            ],
            // rsync, Ansible, and the Python that it runs in: the build machine may have none.
            Set::Tests => &[
                "ansible-core",
                "libacl1",
                "libbz2-1.0",
                "libexpat1",
                "libffi8",
                "liblz4-1",
                "liblzma5",
                "libpython3.13-minimal",
                "libpython3.13-stdlib",
                "libuuid1",
                "libxxhash0",
                "libyaml-0-2",
                "python3-jinja2",
                "python3-markupsafe",
                "python3-packaging",
                "python3-resolvelib",
                "python3-yaml",
                "python3.13-minimal",
                "rsync",
            ],
            // What Ansible's module for apt wants, and a package to install.
            Set::Archive => &["distro-info-data", "passt", "python-apt-common", "python3-apt"],
            Set::Containers => &[
                "conmon",
                "crun",
                "golang-github-containers-common",
                "golang-github-containers-image",
                "libassuan9",
                "libatomic1",
                "libglib2.0-0t64",
                "libgpg-error0",
                "libgpgme11t64",
                "libjansson4",
                "libnftables1",
                "libnftnl11",
                "libyajl2",
                "netavark",
                "nftables",
                "passt",
                "podman",
            ],
            // Their other libraries are the sysroot's.
            Set::Disks => &[
                "btrfs-progs",
                "cryptsetup-bin",
                "e2fsprogs",
                "libcom-err2",
                "libext2fs2t64",
                "liblzo2-2",
                "libntfs-3g89t64",
                "libpopt0",
                "libsmartcols1",
                "ntfs-3g",
                "util-linux",
            ],
            Set::Boot => &[
                "shim-signed",
                "shim-helpers-amd64-signed",
                "grub-efi-amd64-signed",
                "grub-pc-bin",
            ],
        }
    }
}
