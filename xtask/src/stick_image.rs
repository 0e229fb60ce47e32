//! `./x image`: the stick image, from the product's parts with the modules and firmware of real machines.

use crate::artefacts::{self, say, unpacked};
use crate::build;
use crate::options::Options;
use crate::tree::Tree;
use anyhow::{Context, Result};
use initramfs::Choice;
use packages::program::{command, run};
use packages::{Set, Store};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `./x image [--locked] [--mirror URL] [--farmer FILE] [--out FILE]`
pub fn verb(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = artefacts::store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let farmer = options.value("farmer")?;
    let out = options
        .value("out")?
        .map_or_else(|| tree.artefact("image/steading.img"), PathBuf::from);
    options.done()?;
    let text = match &farmer {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?,
        None => image::stick::FARMER_TOML.to_owned(),
    };
    if build {
        artefacts::ensure_programs(&tree, &store)?;
    }
    make(&tree, &store, &text, &out)?;
    if !store.is_as_locked() {
        say("not the locked image: the archive no longer had all pinned packages");
    }
    let bytes = out.metadata()?.len();
    say(&format!(
        "{}: {:.0} MB; write it to a stick with: sudo dd if={0} of=/dev/sdX bs=4M conv=fsync",
        out.display(),
        bytes as f64 / 1e6
    ));
    println!("{}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes a stick with this `farmer.toml`.
pub fn make(tree: &Tree, store: &Store, farmer_toml: &str, path: &Path) -> Result<()> {
    let boot = tree.artefact("image/boot");
    unpacked(store, &[Set::Boot], &boot)?;
    let base = artefacts::ensure_base(tree, store)?;
    let (_, vmlinuz) = artefacts::ensure_kernel(tree, store)?;
    let initramfs = ensure_initramfs(tree, store)?;
    image::stick::write(
        path,
        &image::stick::Stick {
            vmlinuz: &vmlinuz,
            initramfs: &initramfs,
            base: &base.path,
            farmer_toml,
            boot: &boot,
            tools: &tree.artefact("image/tools"),
            sysroot: &tree.sysroot(),
        },
    )
}

/// The initramfs of real machines, compressed; compressed anew only where its content has changed.
fn ensure_initramfs(tree: &Tree, store: &Store) -> Result<PathBuf> {
    let firmware = tree.artefact("image/firmware");
    unpacked(store, &[Set::Firmware], &firmware)?;
    let plain = tree.artefact("image/initramfs-machines.cpio");
    let agent = build::program(tree, "agent")?;
    artefacts::assemble(
        tree,
        store,
        &agent,
        &[],
        (Choice::Machines, Some(&firmware)),
        &plain,
    )?;
    let (packed, stamp) = (plain.with_extension("cpio.zst"), plain.with_extension("stamp"));
    let digest = packages::store::sha256(&plain)?;
    if !packed.exists() || !std::fs::read_to_string(&stamp).is_ok_and(|have| have == digest) {
        let partial = packed.with_extension("partial");
        // The kernel's decompressor has a window of at most 128 MiB; modules are compressed already.
        run(command("zstd")
            .args(["-q", "-f", "-T0", "-12", "-o"])
            .arg(&partial)
            .arg(&plain))?;
        std::fs::rename(&partial, &packed)?;
        std::fs::write(&stamp, digest)?;
        say(&format!(
            "{}: {:.1} MB",
            packed.display(),
            packed.metadata()?.len() as f64 / 1e6
        ));
    }
    Ok(packed)
}
