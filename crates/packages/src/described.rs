//! What a package says of itself: its source, its files, and under which licences it may be handed on. Read from the .deb
//! once, then from beside the store's files.

use crate::lock::Locked;
use crate::program::{command, text};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

/// A package, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    /// The source package that it was built from.
    pub source: String,
    /// The version of that.
    pub source_version: String,
    /// Its regular files, without the leading `/`.
    pub files: Vec<String>,
    /// Debian's copyright file, whole.
    pub copyright: String,
}

/// Describes a package; `cache` is a folder that may not exist yet.
pub fn describe(package: &Locked, deb: &Path, cache: &Path) -> Result<Described> {
    let kept = cache.join(format!("{}.toml", package.sha256));
    if let Ok(text) = std::fs::read_to_string(&kept)
        && let Ok(described) = toml::from_str(&text)
    {
        return Ok(described);
    }
    let described = read(package, deb, cache).with_context(|| format!("describing {}", package.name))?;
    std::fs::write(&kept, toml::to_string(&described)?)
        .with_context(|| format!("writing {}", kept.display()))?;
    Ok(described)
}

fn read(package: &Locked, deb: &Path, cache: &Path) -> Result<Described> {
    let field = text(command("dpkg-deb").arg("--field").arg(deb).arg("Source"))?;
    let (source, source_version) = source(field.trim(), package);
    // What a package has none of it has no list of, and dpkg-deb then fails.
    let list = |name: &str| text(command("dpkg-deb").arg("--info").arg(deb).arg(name)).unwrap_or_default();
    let (sums, settings) = (list("md5sums"), list("conffiles"));
    let files = sums
        .lines()
        .filter_map(|line| Some(line.split_once("  ")?.1.to_owned()))
        .chain(
            settings
                .lines()
                .filter_map(|line| Some(line.trim().strip_prefix('/')?.to_owned())),
        )
        .collect();
    let scratch = cache.join(format!("{}.files", package.sha256));
    std::fs::create_dir_all(&scratch)?;
    let copyright = copyright(package, deb, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(Described {
        source,
        source_version,
        files,
        copyright: copyright?,
    })
}

/// `Source: name (version)`, of which each part may be missing: then it is the package's own.
fn source(field: &str, package: &Locked) -> (String, String) {
    let (name, version) = match field.split_once(" (") {
        Some((name, version)) => (name, version.trim_end_matches(')')),
        None => (field, package.version.as_str()),
    };
    let name = if name.is_empty() { &package.name } else { name };
    (name.to_owned(), version.to_owned())
}

/// `/usr/share/doc/NAME/copyright`; NAME may be a link to the folder of another package from the same source, whose text
/// then is in that package.
fn copyright(package: &Locked, deb: &Path, scratch: &Path) -> Result<String> {
    let mut unpacked = command("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let archive = unpacked.stdout.take().context("no pipe to dpkg-deb")?;
    let said = command("tar")
        .args(["--extract", "--file=-", "--wildcards", "--directory"])
        .arg(scratch)
        .arg(format!("./usr/share/doc/{}", package.name))
        .arg("./usr/share/doc/*/copyright")
        .stdin(archive)
        .output()
        .context("cannot start tar")?;
    unpacked.wait()?;
    let folder = scratch.join("usr/share/doc").join(&package.name);
    if let Ok(target) = std::fs::read_link(&folder) {
        return Ok(format!("{SEE}{}\n", target.display()));
    }
    match std::fs::read(folder.join("copyright")) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => bail!(
            "it has no copyright file: {}",
            String::from_utf8_lossy(&said.stderr).trim()
        ),
    }
}

/// What a copyright text begins with that is another package's.
const SEE: &str = "The same as for the package ";

impl Described {
    /// The package whose copyright text is this one's, too.
    pub fn same_as(&self) -> Option<&str> {
        self.copyright.strip_prefix(SEE).map(str::trim)
    }

    /// The licences, by the names that the copyright file gives them: those of its `License:` fields where it is written
    /// for machines, else those of Debian's common ones that it points to.
    pub fn licences(&self) -> BTreeSet<String> {
        let fields = self
            .copyright
            .lines()
            .filter_map(|line| line.strip_prefix("License:"));
        let named: BTreeSet<String> = fields
            .map(|name| name.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|name| !name.is_empty())
            .collect();
        if !named.is_empty() {
            return named;
        }
        const COMMON: &str = "/usr/share/common-licenses/";
        self.copyright
            .split(COMMON)
            .skip(1)
            .map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-._+".contains(c));
                rest[..end.unwrap_or(rest.len())].trim_end_matches('.').to_owned()
            })
            .filter(|name| !name.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Archive;

    fn with(copyright: &str) -> Described {
        Described {
            source: "s".into(),
            source_version: "1".into(),
            files: vec![],
            copyright: copyright.into(),
        }
    }

    #[test]
    fn licences_are_named_as_the_file_names_them() {
        let names = |text: &str| with(text).licences().into_iter().collect::<Vec<_>>();
        assert_eq!(
            names("Format: x\nFiles: *\nLicense: GPL-2+  and MIT\nLicense:\nLicense: BSD-3-clause\n ..."),
            ["BSD-3-clause", "GPL-2+ and MIT"]
        );
        assert_eq!(
            names("found in /usr/share/common-licenses/LGPL-2.1.\n`/usr/share/common-licenses/GPL-2'"),
            ["GPL-2", "LGPL-2.1"]
        );
        assert_eq!(names("All rights reserved."), Vec::<String>::new());
        assert_eq!(
            with(&format!("{SEE}gcc-14-base\n")).same_as(),
            Some("gcc-14-base")
        );
    }

    #[test]
    fn a_source_is_the_package_itself_where_none_is_named() {
        let package = Locked {
            name: "libfoo1".into(),
            version: "1:2-3+b1".into(),
            sha256: String::new(),
            path: String::new(),
            archive: Archive::Debian,
            sets: vec![],
        };
        let own = ("libfoo1".to_owned(), "1:2-3+b1".to_owned());
        assert_eq!(source("", &package), own);
        assert_eq!(source("foo", &package), ("foo".to_owned(), "1:2-3+b1".to_owned()));
        assert_eq!(
            source("foo (1:2-3)", &package),
            ("foo".to_owned(), "1:2-3".to_owned())
        );
    }
}
