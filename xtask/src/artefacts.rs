//! The verbs that make artefacts, each from those before it: packages → sysroot → initramfs, base → image.

use crate::options::Options;
use crate::tree::Tree;
use anyhow::Result;
use packages::{Set, Store};
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

/// The sysroot is there and is made of the pinned packages.
pub fn ensure_sysroot(tree: &Tree, store: &Store) -> Result<()> {
    let fetched = store.fetch(&[Set::Sysroot], &say)?;
    if packages::unpack::unpack(&fetched, &tree.sysroot())? {
        say(&format!(
            "unpacked {} packages to {}",
            fetched.debs.len(),
            tree.sysroot().display()
        ));
    }
    Ok(())
}
