//! From programs, trees of packages and a choice of modules to the file.

use crate::closure::{Closure, LIBRARIES};
use crate::cpio::{Archive, Node};
use crate::elf::Elf;
use crate::modules::{self, Choice};
use anyhow::{Context, Result, bail};
use packages::program::{command, run};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// `/etc/steading/image.json`: what image this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageFacts {
    /// Steading's version.
    pub version: String,
    /// The kernel's version, as in `/lib/modules`.
    pub kernel: String,
    /// SHA-256 of the base that belongs to this image, in hex.
    pub base_digest: String,
    /// Its length in bytes.
    pub base_bytes: u64,
    /// False where a package was no longer the pinned one.
    pub locked: bool,
    /// Path of the compiled seccomp filter of spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
}

/// All that goes in.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// PID 1.
    pub init: &'a Path,
    /// What lies at `/sbin/agent`.
    pub agent: &'a Path,
    /// Trees of packages, in the order in which libraries are looked for: programs, sysroot.
    pub trees: &'a [PathBuf],
    /// The unpacked kernel package.
    pub kernel_tree: &'a Path,
    /// Which modules.
    pub modules: Choice,
    /// Further files: absolute path inside, file here. ELF programs get their libraries too.
    pub extra: &'a [(String, PathBuf)],
    /// Unpacked firmware packages.
    pub firmware: Option<&'a Path>,
    /// What image this is.
    pub facts: ImageFacts,
    /// A folder for intermediate files; may exist.
    pub scratch: &'a Path,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the file.
    pub bytes: u64,
    /// How many modules.
    pub modules: usize,
    /// How many libraries.
    pub libraries: usize,
}

/// Programs of packages and what they open at run time, by their path in the tree.
const PROGRAMS: &[&str] = &[
    "usr/sbin/nft",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/e2fsck",
    "usr/sbin/resize2fs",
    "usr/bin/lxcfs",
    // lxcfs opens it by this very path.
    "usr/lib/x86_64-linux-gnu/lxcfs/liblxcfs.so",
];

/// glibc opens this one by itself, when a thread ends by cancellation or a backtrace is made.
const OPENED_AT_RUN_TIME: &[&str] = &["libgcc_s.so.1"];

/// The loader's name inside every program.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Writes the initramfs to `out`, uncompressed.
pub fn assemble(recipe: &Recipe, out: &Path) -> Result<Summary> {
    std::fs::create_dir_all(recipe.scratch)?;
    let mut archive = Archive::default();
    for folder in [
        "/dev",
        "/proc",
        "/sys",
        "/run",
        "/tmp",
        "/root",
        "/etc/steading",
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib64",
    ] {
        archive.put(folder, Node::Folder)?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        archive.put(&format!("/{name}"), Node::Link(format!("usr/{name}")))?;
    }
    archive.put("/dev/console", Node::Device(5, 1))?;
    archive.put("/dev/null", Node::Device(1, 3))?;

    check_init(recipe.init)?;
    let mut closure = Closure::default();
    for (path, program) in [("/init", recipe.init), ("/usr/sbin/agent", recipe.agent)] {
        closure.add(path, program, recipe.trees)?;
        archive.put(path, Node::File(for_the_image(program, recipe.scratch)?, 0o755))?;
    }
    archive.put("/usr/sbin/modprobe", Node::Link("/init".into()))?;
    for program in PROGRAMS {
        let found = recipe
            .trees
            .iter()
            .map(|tree| tree.join(program))
            .find(|path| path.exists());
        let found = found
            .with_context(|| format!("no package of the lock brings {program}"))?
            .canonicalize()?;
        closure.add(program, &found, recipe.trees)?;
        archive.put(&format!("/{program}"), Node::File(found, 0o755))?;
    }
    for (path, file) in recipe.extra {
        let program = Elf::read(file)?.is_some_and(|elf| elf.interpreter.is_some());
        if program {
            closure.add(path, file, recipe.trees)?;
            archive.put(path, Node::File(for_the_image(file, recipe.scratch)?, 0o755))?;
        } else {
            archive.put(path, Node::File(file.clone(), 0o644))?;
        }
    }
    for library in OPENED_AT_RUN_TIME {
        closure.add_library(library, recipe.trees)?;
    }
    closure.check_versions()?;
    let mut libraries = 0;
    for (name, file) in closure.libraries() {
        archive.put(
            &format!("/{LIBRARIES}/{name}"),
            Node::File(file.to_owned(), 0o755),
        )?;
        libraries += 1;
    }
    archive.put(
        "/usr/lib64/ld-linux-x86-64.so.2",
        Node::Link("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2".into()),
    )?;
    if let Some(conf) = recipe
        .trees
        .iter()
        .map(|tree| tree.join("etc/mke2fs.conf"))
        .find(|path| path.exists())
    {
        archive.put("/etc/mke2fs.conf", Node::File(conf, 0o644))?;
    }

    let version = &recipe.facts.kernel;
    let scratch = recipe.scratch.join("modules");
    let modules = modules::put(
        &mut archive,
        recipe.kernel_tree,
        version,
        recipe.modules,
        &scratch,
    )?;
    if let Some(tree) = recipe.firmware {
        put_firmware(&mut archive, tree)?;
    }
    archive.put(
        "/etc/steading/image.json",
        Node::Bytes(serde_json::to_vec_pretty(&recipe.facts)?, 0o644),
    )?;
    let partial = out.with_extension("partial");
    let bytes = archive.write(&partial)?;
    std::fs::rename(&partial, out)?;
    Ok(Summary {
        bytes,
        modules,
        libraries,
    })
}

/// All that PID 1 may stand on: nothing that could fail takes the machine with it.
const UNDER_INIT: &[&str] = &["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

fn check_init(init: &Path) -> Result<()> {
    let elf = Elf::read(init)?.with_context(|| format!("{} is not an ELF file", init.display()))?;
    match elf
        .needed
        .iter()
        .find(|library| !UNDER_INIT.contains(&library.as_str()))
    {
        Some(library) => bail!("init is linked against {library}; PID 1 stands on libc and libgcc_s alone"),
        None => Ok(()),
    }
}

/// A copy of one of our programs without symbols, with the loader and library path of the image: in the tree it runs
/// with those of the sysroot.
fn for_the_image(program: &Path, scratch: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("a program has a name")?;
    let copy = scratch.join(name);
    run(command("strip")
        .arg("--strip-all")
        .arg("-o")
        .arg(&copy)
        .arg(program))?;
    run(command("patchelf")
        .args(["--set-interpreter", LOADER, "--remove-rpath"])
        .arg(&copy))?;
    Ok(copy)
}

/// Firmware that the modules of the image may ask for.
fn put_firmware(archive: &mut Archive, tree: &Path) -> Result<()> {
    let root = tree.join("usr/lib/firmware");
    for wanted in FIRMWARE {
        put_below(archive, &root, &root.join(wanted))?;
    }
    Ok(())
}

fn put_below(archive: &mut Archive, root: &Path, path: &Path) -> Result<()> {
    let below = path
        .strip_prefix(root)?
        .to_str()
        .context("a name that is not UTF-8")?;
    let inside = format!("/usr/lib/firmware/{below}");
    let kind = path
        .symlink_metadata()
        .with_context(|| format!("no firmware {}", path.display()))?;
    if kind.is_symlink() {
        let target = std::fs::read_link(path)?;
        return archive.put(
            &inside,
            Node::Link(target.to_str().context("a link that is not UTF-8")?.to_owned()),
        );
    }
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            put_below(archive, root, &entry?.path())?;
        }
        return Ok(());
    }
    archive.put(&inside, Node::File(path.to_owned(), 0o644))
}

/// Folders and files below `/usr/lib/firmware`: network cards and disk controllers.
const FIRMWARE: &[&str] = &["bnx2", "bnx2x", "rtl_nic", "tigon"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_on_more_than_libc_is_refused() -> Result<()> {
        check_init(&std::env::current_exe()?)?;
        // The build machine's bash stands on a terminal library.
        let said = check_init(Path::new("/bin/bash")).map_err(|error| error.to_string());
        assert!(said.is_err_and(|error| error.starts_with("init is linked against libtinfo")));
        Ok(())
    }
}
