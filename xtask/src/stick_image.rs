//! `./x image`: the stick image, from the product's parts with the modules and firmware of real machines, and what is
//! handed on beside it. `./x hardware`: the page that says which hardware it drives.

use crate::artefacts::{self, say, unpacked};
use crate::bill;
use crate::network_image::{self, Parts};
use crate::options::Options;
use crate::shipped::{self, Shipped};
use crate::tree::Tree;
use anyhow::{Context, Result, ensure};
use image::bill::Component;
use image::forms;
use initramfs::assemble::FIRMWARE;
use initramfs::{Choice, Summary};
use packages::program::{pinned, run};
use packages::{Set, Store};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Steading's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `./x image [--locked] [--mirror URL] [--farmer FILE] [--out FILE] [--sign KEYFILE] [--network] [--bare]`
pub fn verb(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = artefacts::store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let farmer = options.value("farmer")?;
    let key = options.value("sign")?.map(PathBuf::from);
    let out = match options.value("out")? {
        Some(out) => PathBuf::from(out),
        None => tree.artefact(&format!("image/steading-{VERSION}.img")),
    };
    let bare = options.flag("bare");
    let network = options.flag("network");
    options.done()?;
    if let Some(key) = &key {
        ensure!(
            key.is_file(),
            "no key at {}: minisign -G makes one",
            key.display()
        );
    }
    let text = match &farmer {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?,
        None => image::stick::FARMER_TOML.to_owned(),
    };
    let shipped = if build {
        artefacts::ensure_sysroot(&tree, &store)?;
        shipped::ensure(&tree)?
    } else {
        shipped::of_the_tree(&tree)?
    };
    let made = make(&tree, &store, &shipped, &text, &out)?;
    if network {
        let folder = PathBuf::from(format!("{}-network", out.with_extension("").display()));
        network_image::write(&folder, &made.parts, &text)?;
        say(&format!(
            "{}: hand it out by TFTP or HTTP (docs/network.md)",
            folder.display()
        ));
    }
    if bare {
        println!("{}", out.display());
        return Ok(ExitCode::SUCCESS);
    }
    let forms = forms::write(&forms::Recipe {
        image: &out,
        bill: &image::bill::cyclonedx(VERSION, &made.components)?,
        version: VERSION,
        key: key.as_deref(),
        trees: &[&release_tools(&tree, &store)?, &tree.sysroot()],
        most_packed_bytes: forms::MOST_PACKED_BYTES,
    })?;
    if !store.is_as_locked() {
        say("not the locked image: the archive no longer had all pinned packages");
    }
    for form in &forms {
        let name = form.path.file_name().unwrap_or_default().to_string_lossy();
        println!("{name:<36} {:>8.1} MB  {}", form.bytes as f64 / 1e6, form.purpose);
    }
    if key.is_none() {
        println!("unsigned: --sign KEYFILE signs it with a key of minisign");
    }
    say(&format!(
        "write it to a stick with: sudo dd if={} of=/dev/sdX bs=4M conv=fsync",
        out.display()
    ));
    println!("{}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// `./x hardware`: writes the page.
pub fn hardware(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = artefacts::store(&tree, &mut options)?;
    let shipped = if options.flag("no-build") {
        shipped::of_the_tree(&tree)?
    } else {
        artefacts::ensure_programs(&tree, &store)?;
        shipped::of_the_tree(&tree)?
    };
    options.done()?;
    let (_, summary) = ensure_initramfs(&tree, &store, &shipped)?;
    let path = hardware_page(&tree);
    std::fs::write(&path, page(&summary)?).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// The page in the tree.
pub fn hardware_page(tree: &Tree) -> PathBuf {
    tree.root().join("docs/hardware.md")
}

/// What it must say of an image.
pub fn page(summary: &Summary) -> Result<String> {
    let inside = |name: &str| {
        let path = format!("{FIRMWARE}/{name}");
        summary.paths.binary_search(&path).is_ok()
    };
    initramfs::hardware::page(&summary.described, &inside)
}

/// What came of an image, beside the image.
#[derive(Debug)]
pub struct Made {
    /// What is in it.
    pub components: Vec<Component>,
    /// Its initramfs.
    pub summary: Summary,
    /// What else can be made of the same.
    pub parts: Parts,
}

/// Makes a stick with this `farmer.toml`.
pub fn make(tree: &Tree, store: &Store, shipped: &Shipped, farmer_toml: &str, path: &Path) -> Result<Made> {
    let boot = tree.artefact("image/boot");
    unpacked(store, &[Set::Boot], &boot)?;
    let base = artefacts::ensure_base(tree, store)?;
    let (_, vmlinuz) = artefacts::ensure_kernel(tree, store)?;
    let (initramfs, summary) = ensure_initramfs(tree, store, shipped)?;
    let first = initramfs::assemble::first_of(&plain_initramfs(tree));
    let components = bill::components(tree, store, shipped, &summary)?;
    image::stick::write(
        path,
        &image::stick::Stick {
            vmlinuz: &vmlinuz,
            initramfs: &initramfs,
            first: &first,
            base: &base.path,
            farmer_toml,
            bill: &image::bill::cyclonedx(VERSION, &components)?,
            licences: &image::bill::licences(VERSION, &components),
            boot: &boot,
            tools: &tree.artefact("image/tools"),
            sysroot: &tree.sysroot(),
        },
    )?;
    let parts = Parts {
        vmlinuz,
        initramfs,
        first,
        base: base.path,
        boot,
    };
    Ok(Made {
        components,
        summary,
        parts,
    })
}

/// zstd and minisign, unpacked.
pub fn release_tools(tree: &Tree, store: &Store) -> Result<PathBuf> {
    let tools = tree.artefact("image/release");
    unpacked(store, &[Set::Release], &tools)?;
    Ok(tools)
}

/// The initramfs of real machines as it is unpacked.
fn plain_initramfs(tree: &Tree) -> PathBuf {
    tree.artefact("image/initramfs-machines.cpio")
}

/// The same as it lies on the stick.
pub fn packed_initramfs(tree: &Tree) -> PathBuf {
    plain_initramfs(tree).with_extension("cpio.zst")
}

/// The initramfs of real machines, compressed; compressed anew only where its content has changed.
fn ensure_initramfs(tree: &Tree, store: &Store, shipped: &Shipped) -> Result<(PathBuf, Summary)> {
    let firmware = tree.artefact("image/firmware");
    unpacked(store, &[Set::Firmware], &firmware)?;
    artefacts::ensure_kernel(tree, store)?;
    let plain = plain_initramfs(tree);
    let with = (Choice::Machines, Some(firmware.as_path()));
    let summary = artefacts::assemble(tree, store, shipped, &[], with, &plain)?;
    let (packed, stamp) = (packed_initramfs(tree), plain.with_extension("stamp"));
    let digest = packages::store::sha256(&plain)?;
    if !packed.exists() || !std::fs::read_to_string(&stamp).is_ok_and(|have| have == digest) {
        let partial = packed.with_extension("partial");
        // The kernel's decompressor has a window of at most 128 MiB; modules are compressed already.
        run(
            pinned(&[&release_tools(tree, store)?, &tree.sysroot()], "usr/bin/zstd")?
                .args(["-q", "-f", "-T0", "-12", "-o"])
                .arg(&partial)
                .arg(&plain),
        )?;
        std::fs::rename(&partial, &packed)?;
        std::fs::write(&stamp, digest)?;
        say(&format!(
            "{}: {:.1} MB",
            packed.display(),
            packed.metadata()?.len() as f64 / 1e6
        ));
    }
    Ok((packed, summary))
}
