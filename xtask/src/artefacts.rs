//! The verbs that make artefacts, each from those before it: packages → sysroot → base → initramfs → image.

use crate::build;
use crate::options::Options;
use crate::shipped::Shipped;
use crate::tree::Tree;
use anyhow::{Context, Result};
use image::base::Base;
use initramfs::{Choice, ImageFacts, Recipe, Summary};
use packages::{Set, Store};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Says what goes on, on stderr, so that stdout stays for answers.
pub fn say(line: &str) {
    eprintln!("x: {line}");
}

/// The store, as the options say.
pub fn store(tree: &Tree, options: &mut Options) -> Result<Store> {
    let how = packages::store::Options {
        mirror: options.value("mirror")?,
        security_mirror: options.value("security-mirror")?,
        locked: options.flag("locked"),
    };
    Store::open(&tree.artefact("packages"), &tree.lock(), how)
}

/// `./x fetch [--update]`
pub fn fetch(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let mut store = store(&tree, &mut options)?;
    let update = options.flag("update");
    options.done()?;
    if update {
        say("resolving all packages anew");
        store.update()?;
    }
    let fetched = store.fetch(&Set::ALL, &say)?;
    say(&format!(
        "{} packages, kernel {}",
        fetched.debs.len(),
        fetched.kernel()?
    ));
    Ok(ExitCode::SUCCESS)
}

/// `./x sysroot`
pub fn sysroot(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    options.done()?;
    ensure_sysroot(&tree, &store)?;
    Ok(ExitCode::SUCCESS)
}

/// `./x base`
pub fn base(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    options.done()?;
    let base = ensure_base(&tree, &store)?;
    say(&format!(
        "{}: {:.1} MB",
        base.path.display(),
        base.bytes as f64 / 1e6
    ));
    println!("{}\n{}", base.path.display(), base.digest);
    Ok(ExitCode::SUCCESS)
}

/// `./x initramfs`
pub fn initramfs(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    let build = !options.flag("no-build");
    let agent = options.value("agent")?.map(PathBuf::from);
    let out = options.value("out")?.map(PathBuf::from);
    options.done()?;
    if build {
        ensure_programs(&tree, &store)?;
    }
    let (vmlinux, _) = ensure_kernel(&tree, &store)?;
    let agent = agent.map_or_else(|| build::program(&tree, "agent"), Ok)?;
    let out = out.unwrap_or_else(|| tree.artefact("image/initramfs.cpio"));
    assemble_initramfs(&tree, &store, &agent, &[], &out)?;
    println!("{}\n{}", vmlinux.display(), out.display());
    Ok(ExitCode::SUCCESS)
}

/// `./x medium --farmer FILE --out FILE`
pub fn medium(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = store(&tree, &mut options)?;
    let farmer = options
        .value("farmer")?
        .context("--farmer FILE: the farmer.toml to put in")?;
    let out = options
        .value("out")?
        .context("--out FILE: where the medium goes")?;
    options.done()?;
    let text = std::fs::read_to_string(&farmer).with_context(|| format!("reading {farmer}"))?;
    image::disk::medium(Path::new(&out), &text, &ensure_base(&tree, &store)?.path)?;
    Ok(ExitCode::SUCCESS)
}

/// What a machine starts from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel as an ELF file, for QEMU.
    pub vmlinux: PathBuf,
    /// The initramfs of the product, with the modules of virtual machines.
    pub initramfs: PathBuf,
    /// The base that belongs to it.
    pub base: Base,
}

/// The sysroot is there and is made of the pinned packages.
pub fn ensure_sysroot(tree: &Tree, store: &Store) -> Result<()> {
    unpacked(store, &[Set::Sysroot], &tree.sysroot()).map(|_| ())
}

/// Our programs are there and are up to date.
pub fn ensure_programs(tree: &Tree, store: &Store) -> Result<()> {
    ensure_sysroot(tree, store)?;
    build::ensure(tree)
}

/// Kernel and initramfs are there and are up to date with the programs.
pub fn ensure_boot(tree: &Tree, store: &Store) -> Result<Boot> {
    let (vmlinux, _) = ensure_kernel(tree, store)?;
    let initramfs = tree.artefact("image/initramfs.cpio");
    assemble_initramfs(tree, store, &build::program(tree, "agent")?, &[], &initramfs)?;
    let base = ensure_base(tree, store)?;
    Ok(Boot {
        vmlinux,
        initramfs,
        base,
    })
}

/// The base is there and is made of the pinned packages.
pub fn ensure_base(tree: &Tree, store: &Store) -> Result<Base> {
    ensure_sysroot(tree, store)?;
    let tools = tree.artefact("image/tools");
    unpacked(store, &[Set::Tools], &tools)?;
    let names: Vec<&str> = Set::Base
        .names()
        .iter()
        .copied()
        .filter(|name| !name.starts_with('?'))
        .collect();
    let recipe = image::base::Recipe {
        packages: &store.fetch(&[Set::Base], &say)?,
        names: &names,
        tools: &tools,
        sysroot: &tree.sysroot(),
        version: env!("CARGO_PKG_VERSION"),
    };
    image::base::ensure(&recipe, &tree.artefact("image/base.erofs"), &say)
}

/// `(vmlinux, vmlinuz)` under `target/image`.
pub fn ensure_kernel(tree: &Tree, store: &Store) -> Result<(PathBuf, PathBuf)> {
    let kernel = tree.artefact("image/kernel");
    let (vmlinux, vmlinuz) = (tree.artefact("image/vmlinux"), tree.artefact("image/vmlinuz"));
    let fetched = store.fetch(&[Set::Kernel], &say)?;
    let anew = unpacked(store, &[Set::Kernel], &kernel)?;
    if anew || !vmlinux.exists() || !vmlinuz.exists() {
        std::fs::copy(
            kernel.join(format!("boot/vmlinuz-{}", fetched.kernel()?)),
            &vmlinuz,
        )?;
        initramfs::kernel::extract(&vmlinuz, &vmlinux)?;
    }
    Ok((vmlinux, vmlinuz))
}

/// An initramfs with `agent` at `/sbin/agent` and further files (absolute path inside, file here).
pub fn assemble_initramfs(
    tree: &Tree,
    store: &Store,
    agent: &Path,
    extra: &[(String, PathBuf)],
    out: &Path,
) -> Result<()> {
    let programs = Shipped {
        init: build::program(tree, "init")?,
        agent: agent.to_owned(),
    };
    assemble(tree, store, &programs, extra, (Choice::Qemu, None), out).map(|_| ())
}

/// The same for other machines: which modules, and the unpacked firmware.
pub fn assemble(
    tree: &Tree,
    store: &Store,
    shipped: &Shipped,
    extra: &[(String, PathBuf)],
    choice: (Choice, Option<&Path>),
    out: &Path,
) -> Result<Summary> {
    let kernel = store.fetch(&[Set::Kernel], &say)?;
    let locked = Kernel {
        folder: tree.artefact("image/kernel"),
        version: kernel.kernel()?.to_owned(),
        locked: kernel.locked,
    };
    assemble_for(&locked, tree, store, shipped, extra, choice, out)
}

/// Whose modules go into an initramfs.
pub struct Kernel {
    /// Where its `usr/lib/modules` is.
    pub folder: PathBuf,
    /// Its version, as in `/lib/modules`.
    pub version: String,
    /// It is the one of the lock.
    pub locked: bool,
}

/// The same with the modules of any kernel.
pub fn assemble_for(
    kernel: &Kernel,
    tree: &Tree,
    store: &Store,
    shipped: &Shipped,
    extra: &[(String, PathBuf)],
    (modules, firmware): (Choice, Option<&Path>),
    out: &Path,
) -> Result<Summary> {
    let programs = tree.artefact("image/programs");
    unpacked(store, &[Set::Programs], &programs)?;
    let base = ensure_base(tree, store)?;
    let name = out.file_stem().context("the initramfs needs a file name")?;
    let summary = initramfs::assemble(
        &Recipe {
            init: &shipped.init,
            agent: &shipped.agent,
            trees: &[programs, tree.sysroot()],
            kernel_tree: &kernel.folder,
            modules,
            extra,
            firmware,
            facts: ImageFacts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                kernel: kernel.version.clone(),
                base_digest: base.digest,
                base_bytes: base.bytes,
                base_data_bytes: base.seal.data_bytes,
                base_root: base.seal.root,
                locked: kernel.locked && base.locked,
                seccomp: None,
            },
            scratch: &tree.artefact("image/scratch").join(name),
        },
        out,
    )?;
    say(&format!(
        "{}: {:.1} MB, {} modules, {} libraries",
        out.display(),
        summary.bytes as f64 / 1e6,
        summary.modules.len(),
        summary.libraries
    ));
    Ok(summary)
}

/// Unpacks packages to a tree where it does not hold them yet; true where it was made anew.
pub fn unpacked(store: &Store, sets: &[Set], path: &Path) -> Result<bool> {
    let fetched = store.fetch(sets, &say)?;
    let anew = packages::unpack::unpack(&fetched, path)?;
    if anew {
        say(&format!(
            "unpacked {} packages to {}",
            fetched.debs.len(),
            path.display()
        ));
    }
    Ok(anew)
}

/// A folder at `path` that apt takes for an archive of a set's packages, unless it is that already.
pub fn archive(store: &Store, set: Set, path: &Path) -> Result<()> {
    let fetched = store.fetch(&[set], &say)?;
    let stamp = path.join("made-of");
    let digest = fetched.digest();
    if std::fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == digest) {
        return Ok(());
    }
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    image::base::repository::make(&fetched, path)?;
    Ok(std::fs::write(stamp, digest)?)
}
