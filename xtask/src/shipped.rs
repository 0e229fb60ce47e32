//! The programs that an image ships: compiled apart from those of the tree, so that the same commit gives the same bytes,
//! whoever compiles it wherever.
//!
//! ```text
//! cargo build --profile image ──► xtask (RUSTC_WRAPPER) ──► rustc + what names a folder: sysroot, prefixes to be replaced
//! ```
//!
//! Invariant: no flag that cargo sees names a folder, or its hashes, which name folders themselves, would differ; and no
//! path of the builder is in what comes out: [`ensure`] looks.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::tree::Tree;

/// What tells xtask that cargo calls it in the place of rustc: the flags, one a line.
const FLAGS: &str = "STEADING_SHIPPED_FLAGS";
/// What is shipped.
const PROGRAMS: [&str; 2] = ["agent", "init"];

/// PID 1 and the agent, as an image ships them.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// PID 1.
    pub init: PathBuf,
    /// The agent.
    pub agent: PathBuf,
}

/// Where cargo calls us in the place of rustc: rustc with the flags that name folders. None elsewhere.
pub fn as_compiler() -> Option<ExitCode> {
    let flags = std::env::var(FLAGS).ok()?;
    build::run_compiler(flags.lines().map(str::to_owned))
}

/// Compiles what is shipped, and checks that it names no folder of this machine.
pub fn ensure(tree: &Tree) -> Result<Shipped> {
    let target = std::path::absolute(tree.artefact("shipped"))?;
    let sysroot = std::path::absolute(tree.sysroot())?;
    let folders = Folders::here(tree, &target)?;
    let mut cargo = build::cargo(tree);
    cargo
        .args(["build", "--locked", "--profile", "image", "--package", "agent"])
        .args(PROGRAMS.iter().flat_map(|name| ["--bin", name]))
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_INCREMENTAL", "0")
        .env("RUSTC_WRAPPER", std::env::current_exe()?)
        .env(FLAGS, flags(&folders, &sysroot).join("\n"))
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "");
    let c = folders
        .replaced
        .iter()
        .map(|(from, to)| format!(" -ffile-prefix-map={}={to}", from.display()));
    let c = format!("--sysroot={}{}", sysroot.display(), c.collect::<String>());
    cargo.env("CFLAGS_x86_64_unknown_linux_gnu", c);
    for from_outside in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(from_outside);
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(
        status.success(),
        "the build of the image's programs failed: its errors are above"
    );
    let program = |name: &str| target.join(build::TARGET).join("image").join(name);
    for name in PROGRAMS {
        folders.are_absent_from(&program(name))?;
    }
    Ok(Shipped {
        init: program("init"),
        agent: program("agent"),
    })
}

/// Those of the tree, for tests: the same code, compiled for this machine alone.
pub fn of_the_tree(tree: &Tree) -> Result<Shipped> {
    Ok(Shipped {
        init: build::program(tree, "init")?,
        agent: build::program(tree, "agent")?,
    })
}

fn flags(folders: &Folders, sysroot: &Path) -> Vec<String> {
    let libraries = sysroot.join("usr/lib/x86_64-linux-gnu");
    let mut flags = vec![
        format!("-Clink-arg=--sysroot={}", sysroot.display()),
        format!("-Clink-arg=-Wl,-rpath-link,{}", libraries.display()),
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
    ];
    let replaced = folders.replaced.iter();
    flags.extend(replaced.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    flags
}

/// Folders of this machine that compilers write into what they make, and what stands for each.
struct Folders {
    /// The last that fits is taken by rustc: the more exact ones stand behind.
    replaced: Vec<(PathBuf, String)>,
}

impl Folders {
    fn here(tree: &Tree, target: &Path) -> Result<Self> {
        let home = |name: &str, below: &str| -> Result<PathBuf> {
            let set = std::env::var_os(name).map(PathBuf::from);
            let path = match (set, std::env::var_os("HOME")) {
                (Some(path), _) => path,
                (None, Some(home)) => Path::new(&home).join(below),
                (None, None) => bail!("neither {name} nor HOME is set"),
            };
            Ok(std::path::absolute(path)?)
        };
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let said = |words: &[&str]| packages::program::text(Command::new(&rustc).args(words));
        let library = Path::new(said(&["--print", "sysroot"])?.trim()).join("lib/rustlib/src/rust");
        let version = said(&["-vV"])?;
        let commit = version
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "))
            .context("rustc does not say its commit")?
            .to_owned();
        Ok(Self {
            replaced: vec![
                (std::path::absolute(tree.root())?, "/steading".to_owned()),
                (target.to_owned(), "/build".to_owned()),
                (std::path::absolute(tree.sysroot())?, "/sysroot".to_owned()),
                (home("CARGO_HOME", ".cargo")?, "/cargo".to_owned()),
                (library, format!("/rustc/{commit}")),
            ],
        })
    }

    /// Fails with the first of them that `program` names.
    fn are_absent_from(&self, program: &Path) -> Result<()> {
        let bytes = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        for (folder, _) in &self.replaced {
            let name = folder.as_os_str().as_encoded_bytes();
            if bytes.windows(name.len()).any(|window| window == name) {
                bail!(
                    "{} names {}: another folder would give other bytes",
                    program.display(),
                    folder.display()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_names_a_folder_of_its_builder_is_refused() -> Result<()> {
        // This very program is of the tree: it names the checkout, in the constant of its manifest's folder.
        let folders = |path: &Path| Folders {
            replaced: vec![(path.to_owned(), "/steading".to_owned())],
        };
        let checkout = Tree::here();
        let own = std::env::current_exe()?;
        let said = folders(checkout.root()).are_absent_from(&own);
        assert!(said.is_err_and(|error| {
            error
                .to_string()
                .contains("another folder would give other bytes")
        }));
        let nowhere = format!("/nowhere/{}", std::process::id());
        folders(Path::new(&nowhere)).are_absent_from(&own)
    }
}
