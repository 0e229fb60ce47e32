//! What of the external tree can be checked without Buildroot.

use super::fragment::{self, Values};
use super::kernel::Locked;
use super::{BOARD, DEFCONFIG, FRAGMENTS, Release, SYMBOLS, Source, generated, none};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

/// Programs of the target, one a line: those of our initramfs, and our own two names.
pub fn programs() -> String {
    let ours = ["usr/sbin/agent", "usr/sbin/modprobe"];
    let packaged = initramfs::assemble::PROGRAMS.iter().copied();
    let mut lines: Vec<&str> = packaged
        .filter(|path| path.contains("bin/"))
        .chain(ours)
        .collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

/// All of it.
pub fn check(source: &Source, kernel: &Locked) -> Result<()> {
    let (defconfig, release) = (source.read(DEFCONFIG)?, source.release()?);
    for (name, text) in generated() {
        ensure!(
            source.board(name)? == text,
            "{name} is not what `./x buildroot` writes"
        );
    }
    let list = source.read(SYMBOLS)?;
    let known = listed(&list, &release)?;
    let ours = [
        "Config.in",
        "package/lxcfs/Config.in",
        "package/steading-agent/Config.in",
    ]
    .map(|name| source.read(name))
    .into_iter()
    .collect::<Result<Vec<String>>>()?;
    none(
        "neither Buildroot nor this tree has",
        &unknown(&defconfig, &ours, &known)?,
    )?;

    let texts = FRAGMENTS
        .map(|name| source.board(name))
        .into_iter()
        .collect::<Result<Vec<String>>>()?;
    for (name, text) in FRAGMENTS.iter().zip(&texts) {
        fragment::unique(text, "CONFIG_").with_context(|| (*name).to_owned())?;
        let path = format!("$(BR2_EXTERNAL_STEADING_PATH)/{BOARD}/{name}");
        ensure!(defconfig.contains(&path), "{DEFCONFIG} does not name {name}");
    }
    fragment::unique(&texts.concat(), "CONFIG_").context("the fragments together")?;
    let [modules, node] = [0, 1].map(|at| fragment::unique(&texts[at], "CONFIG_"));
    let (modules, node) = (modules?, node?);
    none(
        "other values than in the locked kernel",
        &[others(&modules, kernel), others(&node, kernel)].concat(),
    )?;
    let by_hand = fragment::unique(&texts[2..].concat(), "CONFIG_")?;
    let strange = by_hand.keys().filter(|name| !kernel.values.contains_key(*name));
    none(
        "the locked kernel's configuration does not know",
        &strange.cloned().collect::<Vec<_>>(),
    )?;
    none(
        "modules.fragment is not what `./x buildroot` writes",
        &differences(&fragment::modules(&texts[0]), &kernel.modules),
    )?;

    let version = fragment::unique(&defconfig, "BR2_")?
        .remove("LINUX_KERNEL_CUSTOM_VERSION_VALUE")
        .context("the defconfig names no kernel")?;
    let version = version.trim_matches('"');
    ensure!(
        series(version) == series(&kernel.version),
        "kernel {version} is not of the series of {}",
        kernel.version
    );
    let hashes = source.board("patches/linux/linux.hash")?;
    ensure!(
        hashes.contains(&format!("  linux-{version}.tar.xz\n")),
        "linux.hash has no hash of {version}"
    );
    Ok(())
}

/// `6.12` of `6.12.92` and of `6.12.118+deb13-amd64`.
fn series(version: &str) -> Vec<&str> {
    version.split('.').take(2).collect()
}

/// The names of the kept list, which says of which release they are.
fn listed(list: &str, release: &Release) -> Result<BTreeSet<String>> {
    let first = list.lines().next().unwrap_or_default();
    ensure!(
        first.contains(&release.version) && first.contains(&release.commit),
        "{SYMBOLS} is of another release than RELEASE: {first}"
    );
    let names = list.lines().filter(|line| !line.starts_with('#'));
    Ok(names.map(str::to_owned).collect())
}

/// Symbols that the defconfig sets or that our own Config.in name, and that nobody defines.
fn unknown(defconfig: &str, ours: &[String], known: &BTreeSet<String>) -> Result<Vec<String>> {
    let set = fragment::unique(defconfig, "BR2_").context(DEFCONFIG)?;
    let own: BTreeSet<&str> = ours
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("config "))
        .collect();
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let code = ours
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split('#').next());
    let code = code.filter(|line| !line.contains("source \"") && !line.contains("default \""));
    let named = code
        .flat_map(|line| line.split(word))
        .filter(|name| name.starts_with("BR2_"));
    let all: BTreeSet<String> = set
        .keys()
        .map(|name| format!("BR2_{name}"))
        .chain(named.map(str::to_owned))
        .collect();
    Ok(all
        .into_iter()
        .filter(|name| !known.contains(name) && !own.contains(name.as_str()))
        .collect())
}

/// Options whose value is not that of the locked kernel.
fn others(values: &Values, kernel: &Locked) -> Vec<String> {
    let differs = values
        .iter()
        .filter(|(name, value)| kernel.values.get(*name) != Some(*value));
    differs
        .map(|(name, value)| format!("CONFIG_{name}={value}"))
        .collect()
}

fn differences(have: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Vec<String> {
    let lacks = wanted.difference(have).map(|module| format!("lacks {module}"));
    let more = have
        .difference(wanted)
        .map(|module| format!("still has {module}"));
    lacks.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_nobody_has_is_named() -> Result<()> {
        let known = ["BR2_x86_64", "BR2_USE_MMU"].map(str::to_owned).into();
        let ours = ["config BR2_OURS\n\tbool \"ours\" # BR2_NOT_CODE\n\tdepends on BR2_USE_MMU\n".to_owned()];
        let defconfig = "BR2_x86_64=y\nBR2_OURS=y\n";
        assert!(unknown(defconfig, &ours, &known)?.is_empty());
        let said = unknown("BR2_x86_64=y\n# BR2_GONE is not set\n", &ours, &known)?;
        assert_eq!(said, ["BR2_GONE"]);
        let ours = ["config BR2_OURS\n\tselect BR2_MOVED\n".to_owned()];
        assert_eq!(unknown(defconfig, &ours, &known)?, ["BR2_MOVED",]);
        assert!(unknown("BR2_x86_64=y\nBR2_x86_64=y\n", &ours, &known).is_err());
        Ok(())
    }

    #[test]
    fn a_list_of_another_release_is_refused() -> Result<()> {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let release = Release::parse(&format!("version=2026.05.1\ncommit={commit}\n"))?;
        let list = format!("# Symbols of Buildroot 2026.05.1, {commit}\nBR2_x86_64\n");
        assert!(listed(&list, &release)?.contains("BR2_x86_64"));
        assert!(listed(&list.replace("2026.05.1", "2026.02"), &release).is_err());
        assert!(Release::parse("version=2026.05.1\ncommit=main\n").is_err());
        Ok(())
    }

    #[test]
    fn a_module_that_came_or_went_is_named() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert!(differences(&set(&["a"]), &set(&["a"])).is_empty());
        assert_eq!(
            differences(&set(&["a", "b"]), &set(&["b", "c"])),
            ["lacks c", "still has a"]
        );
        assert_eq!(series("6.12.92"), series("6.12.118+deb13-amd64"));
        assert_ne!(series("6.1.92"), series("6.12.92"));
    }
}
