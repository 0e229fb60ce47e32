//! Collects what is in an image: Debian packages by the files that went in, crates by what cargo links into our programs.
//!
//! Invariant: a file of the initramfs that belongs to no package and is not ours is an error, so the bill is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use image::bill::{Component, Licence, Origin};
use initramfs::Summary;
use packages::{Described, Locked, Set, Store};
use serde::Deserialize;

use crate::artefacts::say;
use crate::build;
use crate::shipped::Shipped;
use crate::tree::Tree;

/// All components of an image whose initramfs came out as `summary`.
pub fn components(
    tree: &Tree,
    store: &Store,
    shipped: &Shipped,
    summary: &Summary,
) -> Result<Vec<Component>> {
    let mut all = debian(tree, store, shipped, summary)?;
    all.extend(crates(tree)?);
    Ok(all)
}

fn debian(tree: &Tree, store: &Store, shipped: &Shipped, summary: &Summary) -> Result<Vec<Component>> {
    let cache = tree.artefact("packages/described");
    std::fs::create_dir_all(&cache)?;
    let quiet = |_: &str| ();
    let mut known: BTreeMap<String, (Locked, Described)> = BTreeMap::new();
    let mut of = |sets: &[Set]| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (package, deb) in store.fetch(sets, &quiet)?.debs {
            names.push(package.name.clone());
            if !known.contains_key(&package.name) {
                let described = packages::described::describe(&package, &deb, &cache)?;
                known.insert(package.name.clone(), (package, described));
            }
        }
        Ok(names)
    };
    say("describing the packages");
    let mut inside: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for name in of(&[Set::Base])? {
        inside.entry(name).or_default().insert("base");
    }
    for name in of(&[Set::Boot])? {
        inside.entry(name).or_default().insert("boot");
    }
    let kernel = of(&[Set::Kernel])?;
    let owners = of(&[Set::Programs, Set::Sysroot, Set::Firmware])?;
    for name in &kernel {
        inside
            .entry(name.clone())
            .or_default()
            .extend(["boot", "initramfs"]);
    }
    for name in owners_of(tree, shipped, summary, &owners, &kernel, &known)? {
        inside.entry(name).or_default().insert("initramfs");
    }
    inside
        .into_iter()
        .map(|(name, parts)| component(&name, parts, &known))
        .collect()
}

/// The packages that the files of the initramfs come from.
fn owners_of(
    tree: &Tree,
    shipped: &Shipped,
    summary: &Summary,
    packages: &[String],
    kernel: &[String],
    known: &BTreeMap<String, (Locked, Described)>,
) -> Result<BTreeSet<String>> {
    let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
    for name in packages.iter().chain(kernel) {
        let files = known.get(name).map(|(_, described)| &described.files);
        owner.extend(
            files
                .into_iter()
                .flatten()
                .map(|file| (file.as_str(), name.as_str())),
        );
    }
    let trees = ["image/programs", "image/firmware", "image/kernel", "sysroot"]
        .map(|name| tree.artefact(name))
        .into_iter()
        .map(|path| {
            path.canonicalize()
                .with_context(|| format!("no {}", path.display()))
        })
        .collect::<Result<Vec<PathBuf>>>()?;
    let scratch = tree.artefact("image/scratch").canonicalize()?;
    let mut owners = BTreeSet::new();
    for (inside, from) in &summary.files {
        let from = from.canonicalize()?;
        let is_ours = [&shipped.init, &shipped.agent]
            .iter()
            .any(|program| program.canonicalize().is_ok_and(|path| path == from));
        if is_ours || from.starts_with(&scratch) {
            continue;
        }
        let below = trees.iter().find_map(|tree| from.strip_prefix(tree).ok());
        let name = below.and_then(Path::to_str).and_then(|below| owner.get(below));
        match name {
            Some(name) => owners.insert((*name).to_owned()),
            None => bail!("/{inside} comes from {}, which is of no package", from.display()),
        };
    }
    Ok(owners)
}

fn component(
    name: &str,
    parts: BTreeSet<&'static str>,
    known: &BTreeMap<String, (Locked, Described)>,
) -> Result<Component> {
    let (package, own) = known
        .get(name)
        .with_context(|| format!("nobody described {name}"))?;
    let text_of = own
        .same_as()
        .and_then(|other| known.get(other))
        .map_or(own, |(_, other)| other);
    let licences: Vec<String> = text_of.licences().into_iter().collect();
    let file = format!("as in /usr/share/doc/{name}/copyright");
    Ok(Component {
        origin: Origin::Debian,
        kind: kind(name),
        name: name.to_owned(),
        version: package.version.clone(),
        sha256: Some(package.sha256.clone()),
        licence: Licence::Names(if licences.is_empty() { vec![file] } else { licences }),
        source: Some((own.source.clone(), own.source_version.clone())),
        inside: parts.into_iter().collect(),
        texts: vec![text_of.copyright.clone()],
    })
}

fn kind(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("linux-image-") => "operating-system",
        _ if name.starts_with("firmware-") => "firmware",
        _ if name.starts_with("lib") => "library",
        _ => "application",
    }
}

/// What `cargo metadata` says of a crate.
#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct CargoLock {
    package: Vec<LockedCrate>,
}

#[derive(Deserialize)]
struct LockedCrate {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The crates in our programs: what cargo links into the agent for the one target, without what runs while it compiles.
fn crates(tree: &Tree) -> Result<Vec<Component>> {
    let cargo = |words: &[&str]| packages::program::text(build::cargo(tree).args(words));
    let listed = cargo(&[
        "tree",
        "--locked",
        "--package",
        "agent",
        "--target",
        build::TARGET,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    // `name v1.2.3 (/path)`, and ` (*)` behind what was listed before.
    let linked: BTreeSet<(&str, &str)> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata: Metadata =
        serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version", "1"])?)?;
    let path = tree.root().join("Cargo.lock");
    let lock: CargoLock = toml::from_str(&std::fs::read_to_string(&path)?).context("reading Cargo.lock")?;
    let sums: BTreeMap<(&str, &str), &str> = lock
        .package
        .iter()
        .filter_map(|one| {
            Some((
                (one.name.as_str(), one.version.as_str()),
                one.checksum.as_deref()?,
            ))
        })
        .collect();
    let mut found = vec![standard_library()?];
    for one in &metadata.packages {
        let id = (one.name.as_str(), one.version.as_str());
        if !linked.contains(&id) {
            continue;
        }
        let origin = if one.source.is_some() {
            Origin::Crate
        } else {
            Origin::Own
        };
        let folder = one
            .manifest_path
            .parent()
            .context("a manifest lies in a folder")?;
        let licence = one
            .license
            .as_deref()
            .with_context(|| format!("{} {} names no licence", id.0, id.1))?;
        found.push(Component {
            origin,
            kind: "library",
            name: one.name.clone(),
            version: one.version.clone(),
            sha256: sums.get(&id).map(|sum| (*sum).to_owned()),
            // `MIT/Apache-2.0` is how it was written before expressions were.
            licence: Licence::Expression(licence.replace('/', " OR ")),
            source: None,
            inside: vec!["initramfs"],
            texts: if origin == Origin::Crate {
                texts(folder)?
            } else {
                vec![]
            },
        });
    }
    if found.len() != linked.len() + 1 {
        bail!(
            "cargo links {} crates, and describes {}",
            linked.len(),
            found.len() - 1
        );
    }
    Ok(found)
}

/// Rust's own, which every program of ours has in it.
fn standard_library() -> Result<Component> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = packages::program::text(Command::new(rustc).arg("--version"))?;
    let version = said.split(' ').nth(1).context("rustc does not say its version")?;
    Ok(Component {
        origin: Origin::Own,
        kind: "library",
        name: "rust-std".into(),
        version: version.into(),
        sha256: None,
        licence: Licence::Expression("MIT OR Apache-2.0".into()),
        source: None,
        inside: vec!["initramfs"],
        texts: vec![],
    })
}

/// The licence files in a crate's folder.
fn texts(folder: &Path) -> Result<Vec<String>> {
    const NAMES: [&str; 6] = [
        "LICENSE",
        "LICENCE",
        "COPYING",
        "COPYRIGHT",
        "UNLICENSE",
        "NOTICE",
    ];
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        if path.is_file() && NAMES.iter().any(|start| name.starts_with(start)) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| Ok(String::from_utf8_lossy(&std::fs::read(path)?).replace("\r\n", "\n")))
        .collect()
}
