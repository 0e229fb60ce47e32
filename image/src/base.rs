//! The base: a small Debian on which every space stands, read-only, as one erofs file.
//!
//! mmdebstrap installs the pinned packages out of a folder made for it, as root or in a user namespace; owners come
//! from its archive, never from the builder. mkfs.erofs is itself a pinned package. The same builder makes the same bytes
//! each time; releases of mmdebstrap and apt differ in the order of a few lines that they write.
//!
//! Behind the file system stands the tree by which nodes check each block as they read it ([`crate::verity`]); both together
//! are the base.
//!
//! Invariant: a base is named by its content; one that was made from the same packages and files is not made again.

mod files;
pub mod repository;

use crate::verity::{self, Seal};
use anyhow::{Context, Result};
use packages::program::{command, pinned, run};
use packages::store::{hex, sha256};
use packages::{Fetched, Mirror};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Time of every file that has none of its own: makes two builds equal.
const EPOCH: &str = "1767225600";

/// What the base is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The packages, all of them.
    pub packages: &'a Fetched,
    /// Names to be installed; the others come as their dependencies.
    pub names: &'a [&'a str],
    /// Unpacked tools, and the sysroot whose loader starts them.
    pub tools: &'a Path,
    /// The sysroot.
    pub sysroot: &'a Path,
    /// Steading's version, for `/etc/steading-base`.
    pub version: &'a str,
}

/// A base on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The erofs file.
    pub path: PathBuf,
    /// Its SHA-256 in hex: the name under which nodes keep it.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
    /// What opens it block by block.
    pub seal: Seal,
    /// False where a package was not the pinned one.
    pub locked: bool,
}

/// Makes the base at `out`, unless it is there from the same recipe. `say` hears of each wait.
pub fn ensure(recipe: &Recipe, out: &Path, say: &dyn Fn(&str)) -> Result<Base> {
    let mirror = Mirror::public()?;
    let files = files::all(recipe.version, &mirror);
    let key = key(recipe, &files);
    let stamp = out.with_extension("stamp");
    if out.exists()
        && let Ok(text) = std::fs::read_to_string(&stamp)
        && let [made_of, digest, data_bytes, root] = text.split_whitespace().collect::<Vec<_>>()[..]
        && made_of == key
    {
        let bytes = out.metadata()?.len();
        return Ok(Base {
            path: out.to_owned(),
            digest: digest.to_owned(),
            bytes,
            seal: Seal {
                data_bytes: data_bytes.parse()?,
                root: root.to_owned(),
            },
            locked: recipe.packages.locked,
        });
    }
    std::fs::create_dir_all(out.parent().context("the base needs a folder")?)?;
    // In a user namespace the builder is somebody else, who may not enter a home: work where everybody may.
    let work = Scratch::new()?;
    say(&format!(
        "building the base from {} packages with mmdebstrap",
        recipe.packages.debs.len()
    ));
    let tar = work.0.join("base.tar");
    bootstrap(recipe, &files, &work.0, &tar)?;
    say("packing the base");
    let partial = out.with_extension("partial");
    pack(recipe, &tar, &partial)?;
    let seal = verity::append(&partial)?;
    let digest = sha256(&partial)?;
    std::fs::rename(&partial, out)?;
    let made = format!("{key} {digest} {} {}\n", seal.data_bytes, seal.root);
    std::fs::write(&stamp, made)?;
    let bytes = out.metadata()?.len();
    Ok(Base {
        path: out.to_owned(),
        digest,
        bytes,
        seal,
        locked: recipe.packages.locked,
    })
}

/// One word for all that makes a difference.
fn key(recipe: &Recipe, files: &[files::File]) -> String {
    let mut hasher = Sha256::new();
    let mut word = |word: &str| {
        hasher.update((word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
    };
    word("sealed");
    word(&recipe.packages.digest());
    word(&packages::unpack::made_of(recipe.tools));
    recipe.names.iter().for_each(|name| word(name));
    for file in files {
        word(file.path);
        word(&file.text);
        word(&format!("{:o}", file.mode));
    }
    files::DROPPED
        .iter()
        .chain(files::CHANGES)
        .chain(PACKING)
        .chain(files::NOT_UNPACKED)
        .for_each(|line| word(line));
    hex(&hasher.finalize())
}

/// mmdebstrap: packages to a tar archive with the owners as they are inside.
fn bootstrap(recipe: &Recipe, files: &[files::File], work: &Path, tar: &Path) -> Result<()> {
    let repository = work.join("repository");
    repository::make(recipe.packages, &repository)?;
    let overlay = work.join("files.tar");
    files::write_tar(files, work, &overlay)?;
    let mut mmdebstrap = command("mmdebstrap");
    mmdebstrap
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("TMPDIR", work)
        .arg("--quiet");
    mmdebstrap.args([
        "--variant=apt",
        "--format=tar",
        "--skip=check/qemu",
        "--architectures=amd64",
    ]);
    mmdebstrap.arg(format!("--include={}", recipe.names.join(",")));
    mmdebstrap.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=force-unsafe-io",
    ]);
    for pattern in files::NOT_UNPACKED {
        mmdebstrap.arg(format!("--dpkgopt={pattern}"));
    }
    mmdebstrap.arg(format!("--customize-hook=tar-in {} /", overlay.display()));
    for line in files::CHANGES {
        mmdebstrap.arg(format!("--customize-hook={line}"));
    }
    let dropped = files::DROPPED
        .iter()
        .map(|path| format!("\"$1\"{path}"))
        .collect::<Vec<_>>()
        .join(" ");
    mmdebstrap.arg(format!("--customize-hook=rm -rf {dropped}"));
    mmdebstrap.arg(packages::apt::SUITE).arg(tar);
    mmdebstrap.arg(format!("deb [trusted=yes] copy:{} ./", repository.display()));
    run(&mut mmdebstrap).context("building the base")
}

/// How the file system is packed: blocks of 4 KiB in clusters of at most 32, which a reader unpacks whole.
const PACKING: &[&str] = &[
    "-zlz4hc,9",
    "-C32768",
    "-U00000000-0000-4000-8000-000000000000",
    "--quiet",
];

/// tar to erofs, with the pinned mkfs.erofs under the pinned loader.
fn pack(recipe: &Recipe, tar: &Path, out: &Path) -> Result<()> {
    let _ = std::fs::remove_file(out);
    run(pinned(&[recipe.tools, recipe.sysroot], "usr/bin/mkfs.erofs")?
        .args(PACKING)
        .arg(format!("-T{EPOCH}"))
        .arg("--tar=f")
        .arg(out)
        .arg(tar))
    .context("packing the base")
}

/// A folder that everybody may enter, gone when done.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("steading-base-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
