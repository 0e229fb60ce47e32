//! Compiles everything that runs on a node or as a client: one command line, one target, one sysroot, so that nothing
//! is compiled twice.
//!
//! Programs in the tree carry the sysroot's loader and library path, so they run as they are, whatever the build
//! machine's glibc; the initramfs sets the image's own back.

use crate::tree::Tree;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The one target.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Crates of the build machine: compiled for it, without the sysroot, as parts of xtask.
pub const OF_THE_BUILD_MACHINE: &[&str] = &["xtask", "packages", "initramfs", "image", "qemu", "stage"];

/// What cargo and its build scripts must know to compile against the sysroot.
pub fn environment(tree: &Tree) -> Vec<(&'static str, String)> {
    let sysroot = tree.sysroot().display().to_string();
    let libraries = format!("{sysroot}/usr/lib/x86_64-linux-gnu");
    let flags = [
        format!("-Clink-arg=--sysroot={sysroot}"),
        format!("-Clink-arg=-Wl,-rpath-link,{libraries}"),
        format!("-Clink-arg=-Wl,--dynamic-linker={sysroot}/usr/lib64/ld-linux-x86-64.so.2"),
        format!("-Clink-arg=-Wl,-rpath,{libraries}"),
    ];
    vec![
        ("CARGO_BUILD_TARGET", TARGET.to_owned()),
        ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags.join(" ")),
        ("PKG_CONFIG_ALLOW_CROSS", "1".to_owned()),
        ("PKG_CONFIG_SYSROOT_DIR", sysroot.clone()),
        (
            "PKG_CONFIG_LIBDIR",
            format!("{libraries}/pkgconfig:{sysroot}/usr/share/pkgconfig"),
        ),
        ("BINDGEN_EXTRA_CLANG_ARGS", format!("--sysroot={sysroot}")),
        ("CFLAGS_x86_64_unknown_linux_gnu", format!("--sysroot={sysroot}")),
    ]
}

/// cargo with that environment, in the checkout.
pub fn cargo(tree: &Tree) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree.root()).envs(environment(tree));
    cargo
}

/// `--workspace` without what belongs to the build machine.
pub fn everything() -> Vec<String> {
    let excluded = OF_THE_BUILD_MACHINE
        .iter()
        .flat_map(|name| ["--exclude".to_owned(), (*name).to_owned()]);
    std::iter::once("--workspace".to_owned())
        .chain(excluded)
        .collect()
}

/// Compiles all programs.
pub fn ensure(tree: &Tree) -> Result<()> {
    let status = cargo(tree)
        .arg("build")
        .args(everything())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed: its errors are above");
    }
    Ok(())
}

/// Compiles the guest's tests with the points at which steps go wrong: a call of its own, so that no other program has
/// them. [`ensure`] has made them without.
pub fn ensure_guest_tests(tree: &Tree) -> Result<()> {
    let status = cargo(tree)
        .arg("build")
        .args(everything())
        .args(["--bin", "guest-tests", "--features", "tests/fault-points"])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the build of the guest's tests failed: its errors are above");
    }
    Ok(())
}

/// Compiles all programs and says nothing unless it fails: what follows prints for somebody else.
pub fn ensure_quietly(tree: &Tree) -> Result<()> {
    let output = cargo(tree)
        .args(["build", "--quiet"])
        .args(everything())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A program that `ensure` made.
pub fn program(tree: &Tree, name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| tree.artefact(""));
    let path = folder.join(TARGET).join("debug").join(name);
    if !path.exists() {
        bail!("{} is not there after the build", path.display());
    }
    Ok(path)
}

/// What cargo asked us for in the place of rustc: rustc, with further flags for what is of the target. Build scripts and
/// the like are for this machine, and get none.
pub fn run_compiler(flags: impl IntoIterator<Item = String>) -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let mut rustc = Command::new(words.next()?);
    let words: Vec<_> = words.collect();
    if words.iter().any(|word| word == "--target") {
        rustc.args(flags);
    }
    let status = rustc.args(&words).status().ok()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Some(ExitCode::from(code.unwrap_or(1)))
}
