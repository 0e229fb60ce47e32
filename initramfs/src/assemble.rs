//! From programs, trees of packages and a choice of modules to the file.

use crate::closure::{Closure, LIBRARIES};
use crate::cpio::{Archive, Node};
use crate::elf::Elf;
use crate::hardware::{self, Module};
use crate::modules::{self, Choice};
use anyhow::{Context, Result, bail, ensure};
use packages::program::{command, run};
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

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
    /// Where its file system ends and its tree of hashes begins.
    pub base_data_bytes: u64,
    /// The root of that tree, in hex.
    pub base_root: String,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the file.
    pub bytes: u64,
    /// The modules, by their path below the version's folder.
    pub modules: Vec<String>,
    /// What they say of themselves; empty where no firmware was asked for.
    pub described: Vec<Module>,
    /// How many libraries.
    pub libraries: usize,
    /// All paths inside, sorted, without the leading `/`.
    pub paths: Vec<String>,
    /// Every file that went in: path inside, and where it came from.
    pub files: Vec<(String, PathBuf)>,
}

/// Programs of packages and what they open at run time, by their path in the tree.
pub const PROGRAMS: &[&str] = &[
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

/// Writes the initramfs to `out`, uncompressed, and PID 1 alone beside it ([`first_of`]).
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
        "/medium",
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
    for library in UNDER_INIT {
        archive.unpack_first(&format!("/{LIBRARIES}/{library}"));
    }
    for path in [
        "/init",
        "/dev/console",
        "/lib",
        "/lib64",
        "/usr/lib64/ld-linux-x86-64.so.2",
        "/proc",
        "/sys",
    ] {
        archive.unpack_first(path);
    }
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
    let mut described = Vec::new();
    if let Some(tree) = recipe.firmware {
        let folder = recipe.kernel_tree.join("usr/lib/modules").join(version);
        described = hardware::describe(&folder, &modules)?;
        let wanted = described.iter().flat_map(|module| &module.firmware);
        put_firmware(&mut archive, tree, wanted)?;
    }
    archive.put(
        "/etc/steading/image.json",
        Node::Bytes(serde_json::to_vec_pretty(&recipe.facts)?, 0o644),
    )?;
    archive.put(WHOLE, Node::Bytes(Vec::new(), 0o444))?;
    ensure!(
        archive.paths().last() == WHOLE.strip_prefix('/'),
        "{WHOLE} is not what the kernel unpacks last"
    );
    let partial = out.with_extension("partial");
    let bytes = archive.write(&partial)?;
    std::fs::rename(&partial, out)?;
    archive.write_first(&first_of(out))?;
    let files = archive
        .files()
        .map(|(inside, from)| (inside.to_owned(), from.to_owned()))
        .collect();
    Ok(Summary {
        bytes,
        modules,
        described,
        libraries,
        paths: archive.paths().map(str::to_owned).collect(),
        files,
    })
}

/// What the kernel unpacks last: PID 1 sees by it that all the rest is there.
const WHOLE: &str = "/whole";

/// Where PID 1 lies alone, beside the initramfs `out`: for a loader that finds no room for the whole, or cannot read it.
pub fn first_of(out: &Path) -> PathBuf {
    out.with_extension("first.cpio")
}

/// All that PID 1 may stand on: nothing that could fail takes the machine with it. It is unpacked before all else, so that a
/// machine with too little memory for the rest can say so.
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

/// A program of ours as it goes in. One that was compiled for an image goes as it is; in the tree they run with loader and
/// library path of the sysroot, and a copy gets the image's.
fn for_the_image(program: &Path, scratch: &Path) -> Result<PathBuf> {
    if Elf::read(program)?.is_some_and(|elf| elf.interpreter.as_deref() == Some(LOADER)) {
        return Ok(program.to_owned());
    }
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

/// Where the kernel looks for firmware.
pub const FIRMWARE: &str = "usr/lib/firmware";

/// The firmware that modules name, as far as the packages have it: links, and what they lead to.
fn put_firmware<'a>(
    archive: &mut Archive,
    tree: &Path,
    wanted: impl Iterator<Item = &'a String>,
) -> Result<()> {
    let root = tree.join(FIRMWARE);
    for name in wanted {
        let mut below = PathBuf::from(name);
        // A link may lead to a link; one that leads in a circle is no firmware.
        for _ in 0..8 {
            let path = root.join(&below);
            let inside = format!("/{FIRMWARE}/{}", below.display());
            let Ok(kind) = path.symlink_metadata() else { break };
            if !kind.is_symlink() {
                if kind.is_file() {
                    archive.put(&inside, Node::File(path, 0o644))?;
                }
                break;
            }
            let target = std::fs::read_link(&path)?;
            let text = target.to_str().context("a link that is not UTF-8")?.to_owned();
            archive.put(&inside, Node::Link(text))?;
            below = beside(&below, &target)?;
        }
    }
    Ok(())
}

/// Where a link at `from` leads, both below the same root.
fn beside(from: &Path, target: &Path) -> Result<PathBuf> {
    let mut path = from.parent().unwrap_or(Path::new("")).to_owned();
    for part in target.components() {
        match part {
            Component::ParentDir if path.pop() => {}
            Component::Normal(name) => path.push(name),
            _ => bail!(
                "{} leads out of the firmware: {}",
                from.display(),
                target.display()
            ),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_comes_with_what_its_links_lead_to() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let root = scratch.path().join(FIRMWARE);
        std::fs::create_dir_all(root.join("ice/ddp"))?;
        std::fs::write(root.join("ice/ddp/ice-1.pkg"), "1")?;
        std::os::unix::fs::symlink("../ddp/ice-1.pkg", root.join("ice/ddp/ice.pkg"))?;
        std::os::unix::fs::symlink("../../../etc/passwd", root.join("out"))?;
        let mut archive = Archive::default();
        let wanted = ["ice/ddp/ice.pkg", "not/there"].map(str::to_owned);
        put_firmware(&mut archive, scratch.path(), wanted.iter())?;
        assert!(archive.has("/usr/lib/firmware/ice/ddp/ice.pkg"));
        assert!(archive.has("/usr/lib/firmware/ice/ddp/ice-1.pkg"));
        assert!(!archive.has("/usr/lib/firmware/not/there"));
        assert!(put_firmware(&mut archive, scratch.path(), ["out".to_owned()].iter()).is_err());
        Ok(())
    }

    #[test]
    fn an_init_on_more_than_libc_is_refused() -> Result<()> {
        check_init(&std::env::current_exe()?)?;
        // The build machine's bash stands on a terminal library.
        let said = check_init(Path::new("/bin/bash")).map_err(|error| error.to_string());
        assert!(said.is_err_and(|error| error.starts_with("init is linked against libtinfo")));
        Ok(())
    }
}
