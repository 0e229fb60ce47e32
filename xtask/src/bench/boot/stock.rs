//! Debian's own: the cloud kernel of the suite that everything here comes from, and the initramfs that its
//! installation makes. mmdebstrap installs both as anybody would; what is kept is the folder `/boot`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use packages::program::{command, run};
use packages::{Mirror, apt};

use crate::artefacts::say;
use crate::tree::Tree;

/// What initramfs-tools' PID 1 says first.
pub const PID_1: &str = "Loading, please wait";

/// A kernel and its initramfs.
pub struct Stock {
    /// Its release.
    pub kernel: String,
    /// As an ELF file, for QEMU: ours is started in the same way.
    pub vmlinux: PathBuf,
    /// As Debian signed it.
    pub vmlinuz: PathBuf,
    /// As Debian's tools made it.
    pub initrd: PathBuf,
}

/// Installs it into a folder for nothing else, once.
pub fn ensure(tree: &Tree) -> Result<Stock> {
    let folder = tree.artefact("image/stock");
    if find(&folder).is_err() {
        say("installing Debian's cloud kernel and initramfs-tools with mmdebstrap");
        std::fs::create_dir_all(&folder)?;
        let mirror = Mirror::find(None, None)?;
        let mut mmdebstrap = command("mmdebstrap");
        mmdebstrap.args([
            "--quiet",
            "--variant=apt",
            "--format=null",
            "--skip=check/qemu",
            "--architectures=amd64",
            "--include=linux-image-cloud-amd64,initramfs-tools",
            "--aptopt=APT::Install-Recommends \"false\"",
            "--dpkgopt=force-unsafe-io",
        ]);
        mmdebstrap.arg(format!("--customize-hook=copy-out /boot {}", folder.display()));
        mmdebstrap.args([apt::SUITE, "/dev/null"]);
        mmdebstrap.arg(format!("deb {} {} main", mirror.debian, apt::SUITE));
        mmdebstrap.arg(format!("deb {} {}-security main", mirror.security, apt::SUITE));
        run(&mut mmdebstrap).context("installing the stock kernel")?;
    }
    find(&folder)
}

fn find(folder: &Path) -> Result<Stock> {
    let boot = folder.join("boot");
    let mut kernels: Vec<String> = std::fs::read_dir(&boot)
        .with_context(|| format!("reading {}", boot.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .collect();
    kernels.sort();
    let kernel = kernels.pop().context("no kernel was installed")?;
    let (vmlinuz, vmlinux) = (boot.join(format!("vmlinuz-{kernel}")), boot.join("vmlinux"));
    if !vmlinux.exists() {
        initramfs::kernel::extract(&vmlinuz, &vmlinux)?;
    }
    let initrd = boot.join(format!("initrd.img-{kernel}"));
    anyhow::ensure!(initrd.exists(), "the installation made no {}", initrd.display());
    Ok(Stock {
        kernel,
        vmlinux,
        vmlinuz,
        initrd,
    })
}

impl Stock {
    /// A stick of the same layout and the same loaders, with this kernel.
    pub fn stick(&self, tree: &Tree, base: &Path, path: &Path) -> Result<()> {
        image::stick::write(
            path,
            &image::stick::Stick {
                vmlinuz: &self.vmlinuz,
                initramfs: &self.initrd,
                first: &self.initrd,
                base,
                farmer_toml: "",
                bill: "",
                licences: "",
                boot: &tree.artefact("image/boot"),
                tools: &tree.artefact("image/tools"),
                sysroot: &tree.sysroot(),
            },
        )
    }
}
