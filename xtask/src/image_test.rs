//! What is promised of an image and needs no boot: the same bytes each time, forms that can be checked, a bill that is whole,
//! a page of hardware that tells the truth. Each trial has a control in which what it looks for is wrong.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image::forms::{self, Recipe};
use packages::Store;
use packages::program::pinned;

use crate::show::Step;
use crate::stick_image::{self, Made};
use crate::tree::Tree;

/// All of them, for an image that was made at `path` with the settings `farmer_toml`.
pub fn all(tree: &Tree, store: &Store, made: &Made, farmer_toml: &str, path: &Path) -> Result<()> {
    let step = Step::start("made again elsewhere, the image is the same");
    same_again(tree, farmer_toml, path)?;
    step.done();
    let step = Step::start("packed, summed and signed, it can be checked");
    forms_can_be_checked(tree, store, path)?;
    step.done();
    bill_is_whole(made)?;
    if store.is_as_locked() {
        hardware_is_true(tree, made)?;
    }
    Ok(())
}

/// Another process with another time zone, umask and folder, which packs the initramfs anew, makes the same bytes. Other
/// settings make others.
fn same_again(tree: &Tree, farmer_toml: &str, path: &Path) -> Result<()> {
    let again = |name: &str, text: &str| -> Result<String> {
        let farmer = path.with_extension(format!("{name}.toml"));
        std::fs::write(&farmer, text)?;
        let out = path.with_extension(format!("{name}.img"));
        let mut sh = Command::new("sh");
        sh.args(["-c", "umask 027; exec \"$@\"", "sh"]);
        sh.arg(std::env::current_exe()?)
            .args(["image", "--no-build", "--bare", "--farmer"]);
        sh.arg(std::path::absolute(&farmer)?)
            .arg("--out")
            .arg(std::path::absolute(&out)?);
        sh.env("TZ", "Pacific/Chatham")
            .env("LANG", "tr_TR.UTF-8")
            .env("STEADING_ROOT", std::path::absolute(tree.root())?)
            .env("STEADING_ARTEFACTS", std::path::absolute(tree.artefact(""))?)
            .current_dir("/");
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            sh.env("CARGO_TARGET_DIR", std::path::absolute(target)?);
        }
        let said = sh.output().context("cannot start sh")?;
        ensure!(
            said.status.success(),
            "the second image was not made: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        let digest = packages::store::sha256(&out)?;
        std::fs::remove_file(&out)?;
        Ok(digest)
    };
    let first = packages::store::sha256(path)?;
    // Without it, the initramfs is packed anew.
    std::fs::remove_file(tree.artefact("image/initramfs-machines.stamp"))?;
    ensure!(
        again("again", farmer_toml)? == first,
        "two images of one tree differ"
    );
    let other = format!("{farmer_toml}#\n");
    ensure!(
        again("other", &other)? != first,
        "images with other settings do not differ"
    );
    Ok(())
}

/// Signs a small image with a new key; stock minisign takes it, and takes nothing else.
fn forms_can_be_checked(tree: &Tree, store: &Store, path: &Path) -> Result<()> {
    let folder = path.with_extension("forms");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let image = folder.join("small.img");
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    std::fs::write(&image, content)?;
    let (tools, sysroot) = (stick_image::release_tools(tree, store)?, tree.sysroot());
    let trees = [tools.as_path(), sysroot.as_path()];
    let (public, secret) = (folder.join("key.pub"), folder.join("key.sec"));
    let minisign = || pinned(&trees, "usr/bin/minisign");
    let mut make_key = minisign()?;
    make_key
        .args(["-G", "-W", "-p"])
        .arg(&public)
        .arg("-s")
        .arg(&secret);
    packages::program::run(&mut make_key)?;
    let recipe = |key, most_packed_bytes| Recipe {
        image: &image,
        bill: "{}\n",
        version: "0",
        key,
        trees: &trees,
        most_packed_bytes,
    };
    let small = forms::write(&recipe(None, 1000))
        .map(|_| ())
        .map_err(|error| error.to_string());
    ensure!(
        small.is_err_and(|error| error.contains("leave out modules, firmware or packages")),
        "an image larger than its bound is handed on"
    );
    let written = forms::write(&recipe(Some(&secret), forms::MOST_PACKED_BYTES))?;
    let packed = folder.join("small.img.zst");
    ensure!(written.iter().any(|form| form.path == packed), "{written:?}");
    let is_signed = || -> Result<bool> {
        let mut check = minisign()?;
        check.arg("-V").arg("-m").arg(&packed).arg("-p").arg(&public);
        Ok(packages::program::run(&mut check).is_ok())
    };
    let is_summed = || -> Result<bool> {
        let mut sums = packages::program::command("sha256sum");
        sums.args(["--check", "--strict", "small.sha256"])
            .current_dir(&folder);
        Ok(packages::program::run(&mut sums).is_ok())
    };
    ensure!(
        is_signed()? && is_summed()?,
        "what was just signed and summed is refused"
    );
    let mut bytes = std::fs::read(&packed)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&packed, &bytes)?;
    ensure!(!is_signed()? && !is_summed()?, "a flipped bit is not found");
    // The next image is not signed: what was signed before is no longer beside it.
    forms::write(&recipe(None, forms::MOST_PACKED_BYTES))?;
    ensure!(
        !folder.join("small.img.zst.minisig").exists(),
        "an old signature stays"
    );
    Ok(std::fs::remove_dir_all(&folder)?)
}

/// The bill names something of every kind that is in the image; [`image::bill::cyclonedx`] has checked its form.
fn bill_is_whole(made: &Made) -> Result<()> {
    let find = |name: &str, inside: &str| {
        let mut all = made.components.iter();
        all.any(|one| one.name == name && one.inside.contains(&inside))
    };
    for (name, inside) in [
        ("openssh-server", "base"),
        ("libc6", "initramfs"),
        ("firmware-realtek", "initramfs"),
        ("shim-signed", "boot"),
        ("grub-pc-bin", "boot"),
        ("tokio", "initramfs"),
        ("agent", "initramfs"),
    ] {
        ensure!(find(name, inside), "the bill lacks {name} in {inside}");
    }
    let kernel = made
        .components
        .iter()
        .any(|one| one.name.starts_with("linux-image-"));
    ensure!(kernel, "the bill lacks the kernel");
    // What runs in build scripts and what only tests use is in no program.
    ensure!(
        !find("cc", "initramfs") && !find("proptest", "initramfs"),
        "the bill has what is not shipped"
    );
    Ok(())
}

/// The page in the tree is the one that this image would make.
fn hardware_is_true(tree: &Tree, made: &Made) -> Result<()> {
    let path: PathBuf = stick_image::hardware_page(tree);
    let have = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let right = stick_image::page(&made.summary)?;
    let line = have
        .lines()
        .zip(right.lines())
        .find(|(have, right)| have != right);
    ensure!(
        have == right,
        "docs/hardware.md is not what the image says; ./x hardware writes it anew. First line that differs: {line:?}"
    );
    Ok(())
}
