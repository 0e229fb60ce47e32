//! Packages become a tree. A tree is whole or not there: it is made beside its place, then moved.

use crate::program::{command, run};
use crate::store::Fetched;
use anyhow::{Context, Result};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Name of the file in a tree that says of which packages it was made.
const STAMP: &str = ".packages";

/// One word for the packages of which `tree` was made; empty where it is no tree of ours.
pub fn made_of(tree: &Path) -> String {
    std::fs::read_to_string(tree.join(STAMP)).unwrap_or_default()
}

/// Unpacks all packages below `tree`, unless it already holds exactly these. True where it was made anew.
pub fn unpack(fetched: &Fetched, tree: &Path) -> Result<bool> {
    let digest = fetched.digest();
    if made_of(tree) == digest {
        return Ok(false);
    }
    let parent = tree.parent().context("a tree needs a parent folder")?;
    std::fs::create_dir_all(parent)?;
    let scratch = tree.with_extension("new");
    remove(&scratch)?;
    for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        std::fs::create_dir_all(scratch.join(folder))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), scratch.join(name))?;
    }
    for (package, deb) in &fetched.debs {
        run(command("dpkg-deb").arg("--extract").arg(deb).arg(&scratch))
            .with_context(|| format!("unpacking {}", package.name))?;
    }
    std::fs::write(scratch.join(STAMP), digest)?;
    remove(tree)?;
    std::fs::rename(&scratch, tree).with_context(|| format!("moving to {}", tree.display()))?;
    Ok(true)
}

fn remove(tree: &Path) -> Result<()> {
    match std::fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", tree.display()))
        }
        _ => Ok(()),
    }
}
