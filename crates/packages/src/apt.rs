//! apt with a private configuration: its own lists and state, nobody's root. The machine's own options (proxies,
//! certificates, retries) still apply, because ours are read after them.

use crate::lock::{Archive, Locked};
use crate::mirror::Mirror;
use crate::program::{command, run, text};
use crate::sets::{Reach, Set};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release that everything comes from.
pub const SUITE: &str = "trixie";

/// A folder with the private configuration.
pub struct Apt {
    config: PathBuf,
    mirror: Mirror,
}

impl Apt {
    /// Lays the configuration below `folder`, which may exist.
    pub fn new(folder: &Path, mirror: Mirror) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        for below in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.join(below))?;
        }
        let at = |name: &str| folder.join(name).display().to_string();
        // An empty status file: apt then believes that nothing is installed, so a closure is whole.
        std::fs::write(folder.join("status"), "")?;
        let keyring = [
            "/usr/share/keyrings/debian-archive-keyring.gpg",
            "/usr/share/keyrings/debian-archive-keyring.pgp",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("no keyring of Debian's archive: install debian-archive-keyring")?;
        std::fs::write(
            folder.join("sources.list"),
            format!(
                "deb [arch=amd64 signed-by={keyring}] {} {SUITE} main non-free-firmware\n\
                 deb [arch=amd64 signed-by={keyring}] {} {SUITE}-security main non-free-firmware\n",
                mirror.debian, mirror.security
            ),
        )?;
        let config = folder.join("apt.conf");
        std::fs::write(
            &config,
            format!(
                "#clear APT::Update;\n#clear DPkg::Post-Invoke;\n#clear Acquire::IndexTargets::deb::DEP-11;\n\
                 Dir::State \"{}\";\nDir::State::status \"{}\";\nDir::Cache \"{}\";\nDir::Cache::pkgcache \"pkgcache.bin\";\n\
                 Dir::Cache::srcpkgcache \"srcpkgcache.bin\";\nDir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\nAPT::Default-Release \"\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\n\
                 APT::Install-Suggests \"false\";\nAPT::Sandbox::User \"{}\";\nAcquire::Languages \"none\";\n\
                 Debug::NoLocking \"true\";\nAcquire::Retries \"3\";\n",
                at("state"),
                at("status"),
                at("cache"),
                at("sources.list"),
                // As root apt would read and write as _apt, who may not enter the checkout.
                "root",
            ),
        )?;
        Ok(Self { config, mirror })
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = command(program);
        apt.arg("-c").arg(&self.config).arg("-q");
        apt
    }

    /// Reads the archive's indexes anew.
    pub fn update(&self) -> Result<()> {
        run(self
            .apt("apt-get")
            .args(["update", "-o", "APT::Update::Error-Mode=any"]))
        .or_else(|_| run(self.apt("apt-get").arg("update")))
        .context("reading the archive's indexes")
    }

    /// What `set` means today.
    pub fn resolve(&self, set: Set) -> Result<Vec<Locked>> {
        let names: Vec<String> = match set {
            Set::Kernel => vec![self.kernel()?],
            other => other.names().iter().map(|name| (*name).to_owned()).collect(),
        };
        let printed = match set.reach() {
            Reach::Closure => text(
                self.apt("apt-get")
                    .args(["install", "-y", "--print-uris"])
                    .args(&names),
            ),
            Reach::Exact => text(
                self.apt("apt-get")
                    .args(["download", "--print-uris"])
                    .args(&names),
            ),
        }
        .with_context(|| format!("resolving the set {set:?}"))?;
        let files: Vec<(Archive, String)> = printed.lines().filter_map(|line| self.place(line)).collect();
        if files.is_empty() {
            bail!("apt resolved the set {set:?} to nothing");
        }
        let names: Vec<&str> = files.iter().filter_map(|(_, path)| name_in(path)).collect();
        let known = self.records(&names)?;
        files
            .into_iter()
            .map(|(archive, path)| {
                let record = known
                    .get(&path)
                    .with_context(|| format!("apt-cache has no record of {path}"))?;
                Ok(Locked {
                    archive,
                    sets: vec![set],
                    ..record.clone()
                })
            })
            .collect()
    }

    /// The signed kernel behind the meta package.
    fn kernel(&self) -> Result<String> {
        let record = text(
            self.apt("apt-cache")
                .args(["show", "--no-all-versions", "linux-image-amd64"]),
        )?;
        field(&record, "Depends")
            .and_then(|depends| {
                depends
                    .split_whitespace()
                    .find(|word| word.starts_with("linux-image-"))
            })
            .map(str::to_owned)
            .context("linux-image-amd64 depends on no kernel")
    }

    /// `'URI' file size hash` → archive and path below its root. apt escapes the path; the records do not.
    fn place(&self, line: &str) -> Option<(Archive, String)> {
        let uri = line.strip_prefix('\'')?.split('\'').next()?;
        let below = |root: &str| uri.strip_prefix(root)?.strip_prefix('/').map(unescape);
        // The longer root first: one may be the beginning of the other.
        let (first, second) = (
            (Archive::Security, &self.mirror.security),
            (Archive::Debian, &self.mirror.debian),
        );
        let order = if self.mirror.security.len() >= self.mirror.debian.len() {
            [first, second]
        } else {
            [second, first]
        };
        order
            .into_iter()
            .find_map(|(archive, root)| Some((archive, below(root)?)))
    }

    /// apt-cache's records by path.
    fn records(&self, names: &[&str]) -> Result<BTreeMap<String, Locked>> {
        let shown = text(
            self.apt("apt-cache")
                .args(["show", "--no-all-versions"])
                .args(names),
        )?;
        let mut records = BTreeMap::new();
        for record in shown.split("\n\n") {
            let get = |name| field(record, name).map(str::to_owned);
            let (Some(name), Some(version), Some(sha256), Some(path)) =
                (get("Package"), get("Version"), get("SHA256"), get("Filename"))
            else {
                continue;
            };
            records.insert(
                path.clone(),
                Locked {
                    name,
                    version,
                    sha256,
                    path,
                    archive: Archive::Debian,
                    sets: vec![],
                },
            );
        }
        Ok(records)
    }

    /// Downloads each to its file, and lets apt check its SHA-256. True where the file came.
    pub fn download(&self, wanted: &[(&Locked, PathBuf)]) -> Result<()> {
        let mut helper = command("/usr/lib/apt/apt-helper");
        helper.arg("-c").arg(&self.config).args(["-q", "download-file"]);
        for (package, file) in wanted {
            let root = match package.archive {
                Archive::Debian => &self.mirror.debian,
                Archive::Security => &self.mirror.security,
            };
            helper
                .arg(format!("{root}/{}", escape(&package.path)))
                .arg(file)
                .arg(format!("SHA256:{}", package.sha256));
        }
        run(&mut helper)
    }
}

/// The value of a field that stands on one line.
fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// `pool/…/name_version_arch.deb` → name.
fn name_in(path: &str) -> Option<&str> {
    path.rsplit('/').next()?.split('_').next()
}

fn escape(path: &str) -> String {
    path.replace('%', "%25").replace('+', "%2b").replace('~', "%7e")
}

fn unescape(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mirror = Mirror {
            debian: "http://m.invalid/debian".into(),
            security: "http://m.invalid/debian-security".into(),
        };
        let apt = Apt::new(scratch.path(), mirror)?;
        let line =
            "'http://m.invalid/debian/pool/main/n/ncurses/libtinfo6_6.5%2b20250216-2_amd64.deb' x 1 MD5Sum:0";
        let path = "pool/main/n/ncurses/libtinfo6_6.5+20250216-2_amd64.deb".to_owned();
        assert_eq!(apt.place(line), Some((Archive::Debian, path.clone())));
        assert_eq!(name_in(&path), Some("libtinfo6"));
        let line = "'http://m.invalid/debian-security/pool/a_1_amd64.deb' x 1 MD5Sum:0";
        assert_eq!(
            apt.place(line),
            Some((Archive::Security, "pool/a_1_amd64.deb".into()))
        );
        assert_eq!(apt.place("Reading package lists..."), None);
        assert_eq!(unescape(&escape("pool/a+b~c%3a_1")), "pool/a+b~c%3a_1");
        Ok(())
    }
}
