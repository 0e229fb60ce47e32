//! The locked kernel, seen from the build from source: its modules, its configuration, its Kconfig and Makefiles.

use super::fragment::{self, Sources, Values};
use super::kbuild::Makefiles;
use super::{kconfig, none};
use crate::artefacts::{self, say};
use crate::tree::Tree;
use anyhow::{Context, Result, ensure};
use initramfs::Choice;
use packages::program::{command, run};
use packages::{Set, Store};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What Kconfig wants to know of the machine that the kernel is for.
const VARIABLES: [(&str, &str); 2] = [("SRCARCH", "x86"), ("HEADER_ARCH", "x86")];

/// Of the kernel's sources, what says how it is configured.
const CONFIGURATION: [&str; 5] = [
    "*/Makefile*",
    "*/Kbuild*",
    "*/Kconfig*",
    "linux-source-*/scripts/*",
    "*/arch/x86/configs/*",
];

/// The kernel of packages.lock.toml.
pub struct Locked<'a> {
    tree: &'a Tree,
    /// Its version, as in `/lib/modules`.
    pub version: String,
    /// The configuration that it was built with.
    pub values: Values,
    /// Modules of the initramfs, as in `drivers/net/veth`, and those that its list names and this kernel has built in.
    pub modules: BTreeSet<String>,
}

impl<'a> Locked<'a> {
    /// Unpacks it where it is not yet; `choice` says of which initramfs the modules are.
    pub fn open(tree: &'a Tree, store: &Store, choice: Choice) -> Result<Self> {
        artefacts::ensure_kernel(tree, store)?;
        let version = store.fetch(&[Set::Kernel], &say)?.kernel()?.to_owned();
        let unpacked = tree.artefact("image/kernel");
        let config = unpacked.join(format!("boot/config-{version}"));
        let text =
            std::fs::read_to_string(&config).with_context(|| format!("reading {}", config.display()))?;
        let mut chosen = initramfs::modules::chosen(&unpacked, &version, choice)?;
        // A kernel that is built need not have built them in by itself.
        chosen.extend(initramfs::modules::built_in(&unpacked, &version, choice)?);
        Ok(Self {
            tree,
            values: fragment::unique(&text, "CONFIG_")?,
            modules: chosen.iter().map(|path| plain_path(path)).collect(),
            version,
        })
    }

    /// The fragment of the modules. What the fragments `beside` it ask for gets what it depends on as well, and where
    /// they differ from the locked kernel they win.
    pub fn fragment(&self, store: &Store, beside: &str) -> Result<String> {
        let (sources, name) = self.sources(store)?;
        let beside = fragment::unique(beside, "CONFIG_")?;
        let mut values = self.values.clone();
        values.extend(beside.clone());
        fragment::make(Sources {
            modules: &self.modules,
            beside: &beside.into_keys().collect(),
            makefiles: Makefiles::new(&sources),
            symbols: &kconfig::read(&sources, &VARIABLES)?,
            locked: &values,
            source: name,
        })
    }

    /// Asks the kernel's own Kconfig whether it takes all of the fragments, on top of its default configuration.
    pub fn takes(&self, store: &Store, fragments: &[PathBuf]) -> Result<()> {
        let (sources, name) = self.sources(store)?;
        configure(&sources, &self.tree.artefact("image/kernel-config"), fragments)?;
        println!("the Kconfig of {name} takes all of the fragments");
        Ok(())
    }

    /// The part of the kernel's sources that configures it, and their name with version.
    fn sources(&self, store: &Store) -> Result<(PathBuf, String)> {
        let fetched = store.fetch(&[Set::Source], &say)?;
        let (package, deb) = fetched
            .debs
            .first()
            .context("the lock names no sources of the kernel")?;
        let name = format!("{} {}", package.name, package.version);
        let mut kernels = store.fetch(&[Set::Kernel], &say)?.debs.into_iter();
        ensure!(
            kernels.any(|(kernel, _)| kernel.version == package.version),
            "the lock has {name} beside a kernel of another version: run ./x fetch --update"
        );
        let folder = self.tree.artefact("image/kernel-sources");
        unpack(package, deb, &folder, &CONFIGURATION)?;
        Ok((folder, name))
    }

    /// The whole of the kernel's sources, unpacked, and their name with version.
    pub fn whole_sources(&self, store: &Store) -> Result<(PathBuf, String)> {
        let (_, name) = self.sources(store)?;
        let fetched = store.fetch(&[Set::Source], &say)?;
        let (package, deb) = fetched
            .debs
            .first()
            .context("the lock names no sources of the kernel")?;
        let folder = self.tree.artefact("image/built-kernel/sources");
        unpack(package, deb, &folder, &[])?;
        Ok((folder, name))
    }
}

/// Unpacks the archive inside the package of sources, or what of it `patterns` say, where that is not there yet.
fn unpack(package: &packages::Locked, deb: &Path, folder: &Path, patterns: &[&str]) -> Result<()> {
    let stamp = folder.join("made-of");
    if std::fs::read_to_string(&stamp).is_ok_and(|of| of == package.sha256) {
        return Ok(());
    }
    let what = if patterns.is_empty() {
        "all"
    } else {
        "Kconfig and Makefiles"
    };
    say(&format!(
        "unpacking {what} of {} {}",
        package.name, package.version
    ));
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let archive = folder.join("sources.tar.xz");
    let inside = format!("./usr/src/{}.tar.xz", package.name);
    let mut whole = command("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let tar = whole.stdout.take().context("no pipe")?;
    run(command("tar")
        .args(["-x", "-f", "-", "--strip-components=3", "-C"])
        .arg(folder)
        .arg(&inside)
        .stdin(tar))?;
    ensure!(whole.wait()?.success(), "dpkg-deb failed at {}", deb.display());
    std::fs::rename(folder.join(format!("{}.tar.xz", package.name)), &archive)?;
    run(command("tar")
        .arg("-xf")
        .arg(&archive)
        .args(["--strip-components=1", "--wildcards", "-C"])
        .arg(folder)
        .args(patterns))?;
    std::fs::remove_file(&archive)?;
    Ok(std::fs::write(stamp, &package.sha256)?)
}

/// Makes a configuration in `out` from the kernel's default one and the fragments. What Kconfig drops of them is an error
/// that names it.
pub fn configure(sources: &Path, out: &Path, fragments: &[PathBuf]) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let into = format!("O={}", out.display());
    let kernel = |target: &str| {
        run(command("make")
            .arg("-s")
            .arg("-C")
            .arg(sources)
            .args([&into, "ARCH=x86_64", target]))
    };
    kernel("x86_64_defconfig")?;
    let config = out.join(".config");
    run(command(sources.join("scripts/kconfig/merge_config.sh"))
        .current_dir(sources)
        .args(["-m", "-O"])
        .arg(out)
        .arg(&config)
        .args(fragments))?;
    kernel("olddefconfig")?;
    let have = std::fs::read_to_string(&config)?;
    let wanted = fragments.iter().map(std::fs::read_to_string);
    let wanted = wanted.collect::<std::io::Result<Vec<_>>>()?;
    kept(&wanted.concat(), &have).with_context(|| format!("configuring {}", sources.display()))
}

/// Every value of the fragments stands in the configuration.
fn kept(fragments: &str, config: &str) -> Result<()> {
    let (wanted, have) = (
        fragment::unique(fragments, "CONFIG_")?,
        fragment::unique(config, "CONFIG_")?,
    );
    none("Kconfig drops", &dropped(&wanted, &have))
}

/// `drivers/net/veth` of `kernel/drivers/net/veth.ko.xz`.
fn plain_path(path: &str) -> String {
    let path = path.strip_prefix("kernel/").unwrap_or(path);
    let end = path.find(".ko").unwrap_or(path.len());
    path[..end].to_owned()
}

/// What was asked for and is not there. Built in is as good as a module: something that is built in asked for it.
pub fn dropped(wanted: &Values, have: &Values) -> Vec<String> {
    let met = |name: &String, value: &String| match have.get(name).map(String::as_str) {
        Some(found) => found == value || (value == "m" && found == "y"),
        None => value == "n",
    };
    let lost = wanted.iter().filter(|(name, value)| !met(name, value));
    lost.map(|(name, value)| {
        format!(
            "{name}={value}: it has {}",
            have.get(name).map_or("none", |found| found)
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_was_dropped_is_named() -> Result<()> {
        let have = fragment::unique("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=\"x\"\n", "CONFIG_")?;
        let said = |wanted: &str| -> Result<Vec<String>> {
            Ok(dropped(&fragment::unique(wanted, "CONFIG_")?, &have))
        };
        assert!(said("CONFIG_A=m\nCONFIG_B=m\nCONFIG_C=\"x\"\n# CONFIG_D is not set\n")?.is_empty());
        assert_eq!(
            said("CONFIG_B=y\nCONFIG_E=y\n")?,
            ["B=y: it has m", "E=y: it has none"]
        );
        assert_eq!(said("# CONFIG_A is not set\n")?, ["A=n: it has y"]);
        let config = "CONFIG_A=y\n# CONFIG_B is not set\n";
        assert!(kept("CONFIG_A=y\n# CONFIG_B is not set\n", config).is_ok());
        let lost = kept("CONFIG_A=y\nCONFIG_B=m\nCONFIG_GONE=y\n", config).map_err(|error| error.to_string());
        assert!(
            lost.is_err_and(|error| error.contains("B=m")
                && error.contains("GONE=y")
                && !error.contains("A=y"))
        );
        assert_eq!(plain_path("kernel/drivers/net/veth.ko.xz"), "drivers/net/veth");
        Ok(())
    }
}
