//! The same node from source: what `buildroot-config` holds is made here where it can be made, and checked.
//!
//! ```text
//! layout.toml ───────────────────▶ genimage.cfg ──┐
//! the stick's and initramfs' code ▶ grub.cfg, programs ├─▶ buildroot-config/board/…      ./x buildroot writes them
//! modules, kernel's sources ─────▶ modules.fragment ─┘
//! a release of Buildroot ────────▶ lists/symbols                          BUILDROOT=DIR ./x buildroot
//! ```
//!
//! Invariant: nothing that another file of this repository knows stands in `buildroot-config` typed by hand unchecked.
//! `./x test --buildroot` checks in a second what needs no Buildroot, and with `BUILDROOT=DIR` that the release takes it.

pub mod built;
mod fragment;
mod genimage;
mod kbuild;
mod kconfig;
mod kernel;
mod plain;
mod release;

use crate::artefacts;
use crate::options::Options;
use crate::tree::Tree;
use anyhow::{Context, Result, ensure};
use initramfs::Choice;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The external tree.
const FOLDER: &str = "buildroot-config";
/// Its configuration, below the tree.
const DEFCONFIG: &str = "configs/steading_x86_64_defconfig";
/// What belongs to the one board, below the tree.
const BOARD: &str = "board/steading/x86_64";
/// The fragments of the kernel's configuration, below the board; all but the first are written by hand.
const FRAGMENTS: [&str; 4] = [
    "linux/modules.fragment",
    "linux/node.fragment",
    "linux/hardening.fragment",
    "linux/without.fragment",
];
/// Symbols of the release, below the tree.
const SYMBOLS: &str = "lists/symbols";
/// Where an unpacked release is, for what needs one.
const BUILDROOT: &str = "BUILDROOT";

/// The external tree and what it is made from.
struct Source<'a> {
    tree: &'a Tree,
    folder: PathBuf,
}

/// The release that the tree is for, as the file RELEASE says.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    version: String,
    commit: String,
}

impl<'a> Source<'a> {
    fn of(tree: &'a Tree) -> Self {
        Self {
            tree,
            folder: tree.root().join(FOLDER),
        }
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    fn board(&self, name: &str) -> Result<String> {
        self.read(&format!("{BOARD}/{name}"))
    }

    /// The fragments that are written by hand, one behind the other.
    fn by_hand(&self) -> Result<String> {
        let texts = FRAGMENTS[1..].iter().map(|name| self.board(name));
        Ok(texts.collect::<Result<Vec<_>>>()?.concat())
    }

    fn release(&self) -> Result<Release> {
        Release::parse(&self.read("RELEASE")?)
    }
}

impl Release {
    fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            let found = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found
                .map(str::to_owned)
                .with_context(|| format!("RELEASE names no {key}"))
        };
        let release = Self {
            version: value("version")?,
            commit: value("commit")?,
        };
        let hex = release.commit.len() == 40 && release.commit.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(hex, "RELEASE: {} is no commit", release.commit);
        Ok(release)
    }
}

/// Files of the board that need nothing but this repository, with their text.
fn generated() -> [(&'static str, String); 3] {
    [
        ("genimage.cfg", genimage::text()),
        ("grub.cfg", image::stick::short_grub_cfg()),
        ("programs", plain::programs()),
    ]
}

/// The release that `BUILDROOT` names, if it is set.
fn unpacked() -> Option<PathBuf> {
    std::env::var_os(BUILDROOT).map(PathBuf::from)
}

/// `./x buildroot`: writes what is made from elsewhere; with `BUILDROOT=DIR` the list of that release's symbols too.
pub fn verb(mut options: Options) -> Result<ExitCode> {
    let tree = Tree::here();
    let store = artefacts::store(&tree, &mut options)?;
    options.done()?;
    let source = Source::of(&tree);
    let write = |name: &str, text: &str| -> Result<()> {
        let path = source.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        artefacts::say(&format!("wrote {}", path.display()));
        Ok(())
    };
    for (name, text) in generated() {
        write(&format!("{BOARD}/{name}"), &text)?;
    }
    let kernel = kernel::Locked::open(&tree, &store, Choice::Machines)?;
    let text = kernel.fragment(&store, &source.by_hand()?)?;
    write(&format!("{BOARD}/{}", FRAGMENTS[0]), &text)?;
    if let Some(buildroot) = unpacked() {
        write(SYMBOLS, &release::symbols(&buildroot, &source.release()?)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The stage of `./x test`.
pub fn check(tree: &Tree) -> Result<()> {
    let store = artefacts::store(tree, &mut Options::default())?;
    let source = Source::of(tree);
    let kernel = kernel::Locked::open(tree, &store, Choice::Machines)?;
    plain::check(&source, &kernel)?;
    release::target(&source)?;
    println!("buildroot-config is whole, as far as that can be seen without Buildroot");
    match unpacked() {
        Some(buildroot) => release::check(&source, &std::path::absolute(&buildroot)?, &kernel, &store),
        None => {
            println!("not tried against Buildroot itself: {BUILDROOT}=DIR names an unpacked release");
            Ok(())
        }
    }
}

/// Puts a list of complaints into one error.
fn none(what: &str, complaints: &[String]) -> Result<()> {
    ensure!(complaints.is_empty(), "{what}:\n  {}", complaints.join("\n  "));
    Ok(())
}

/// The path of a file of the board.
fn board_file(source: &Source, name: &str) -> PathBuf {
    Path::new(&source.folder).join(BOARD).join(name)
}
