//! `packages.lock.toml`: each package with its version, its hash and its place below the archive's root.

use crate::sets::Set;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which of the two archives a path is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// The main archive.
    Debian,
    /// The archive of security updates.
    Security,
}

/// One pinned package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Name of the binary package.
    pub name: String,
    /// Its full version, with epoch.
    pub version: String,
    /// SHA-256 of the .deb, 64 hex digits.
    pub sha256: String,
    /// Path below the archive's root.
    pub path: String,
    /// The archive.
    pub archive: Archive,
    /// Who needs it.
    pub sets: Vec<Set>,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// All packages, sorted by name.
    #[serde(default, rename = "package")]
    pub packages: Vec<Locked>,
}

impl Lock {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let lock: Self = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        for package in &lock.packages {
            let hex = package.sha256.len() == 64 && package.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            let below =
                package.path.starts_with("pool/") && !package.path.split('/').any(|part| part == "..");
            if !hex || !below {
                bail!(
                    "{}: the entry of {} has a bad hash or path",
                    path.display(),
                    package.name
                );
            }
        }
        Ok(lock)
    }

    /// Writes the file, sorted, so that a change reads well in a diff.
    pub fn write(&mut self, path: &Path) -> Result<()> {
        self.packages.sort_by(|a, b| a.name.cmp(&b.name));
        let text = format!(
            "# Made by `./x fetch --update`. Debian packages of the image: what was built once can be built again.\n\n{}",
            toml::to_string(self)?
        );
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The packages of one set.
    pub fn of(&self, set: Set) -> impl Iterator<Item = &Locked> {
        self.packages
            .iter()
            .filter(move |package| package.sets.contains(&set))
    }

    /// The version of the kernel, as in `/lib/modules`.
    pub fn kernel(&self) -> Result<&str> {
        self.of(Set::Kernel)
            .find_map(|package| package.name.strip_prefix("linux-image-"))
            .context("the lock names no kernel: run ./x fetch --update")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_points_elsewhere_is_refused() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let mut lock = Lock {
            packages: vec![Locked {
                name: "linux-image-6.12.1+deb13-amd64".into(),
                version: "6.12.1-1".into(),
                sha256: "ab".repeat(32),
                path: "pool/main/l/linux/x.deb".into(),
                archive: Archive::Debian,
                sets: vec![Set::Kernel],
            }],
        };
        lock.write(file.path())?;
        assert_eq!(Lock::read(file.path())?, lock);
        assert_eq!(lock.kernel()?, "6.12.1+deb13-amd64");
        for path in ["/etc/passwd", "pool/../../x", "http://other.invalid/x"] {
            lock.packages[0].path = path.into();
            lock.write(file.path())?;
            assert!(Lock::read(file.path()).is_err(), "{path}");
        }
        Ok(())
    }
}
