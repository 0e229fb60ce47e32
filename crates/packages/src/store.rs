//! The store: one file a hash. What the lock names comes from here, or is downloaded into it.
//!
//! An archive drops old versions, so a pinned file may be gone: then that package is resolved anew, the build says so,
//! and what it makes is not the locked image.

use crate::apt::Apt;
use crate::lock::{Lock, Locked};
use crate::mirror::Mirror;
use crate::sets::Set;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How to get packages.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Root of the main archive, in place of the machine's own.
    pub mirror: Option<String>,
    /// Root of the security archive, in place of the machine's own.
    pub security_mirror: Option<String>,
    /// Refuse what the lock does not name.
    pub locked: bool,
}

/// The packages of a set, on this disk.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Each package with its file.
    pub debs: Vec<(Locked, PathBuf)>,
    /// False where one of them is not the pinned one.
    pub locked: bool,
}

impl Fetched {
    /// One hash over all files, for caches: the same packages, the same words.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (package, _) in &self.debs {
            hasher.update(package.sha256.as_bytes());
        }
        hex(&hasher.finalize())
    }

    /// The version of the kernel among them, as in `/lib/modules`.
    pub fn kernel(&self) -> Result<&str> {
        self.debs
            .iter()
            .find_map(|(package, _)| package.name.strip_prefix("linux-image-"))
            .context("no kernel among the packages")
    }
}

/// Folder of downloaded packages, beside the lock that says which.
pub struct Store {
    folder: PathBuf,
    lock: Lock,
    lock_path: PathBuf,
    options: Options,
}

impl Store {
    /// `folder` holds downloads and apt's state; `lock` is the lock file.
    pub fn open(folder: &Path, lock: &Path, options: Options) -> Result<Self> {
        std::fs::create_dir_all(folder.join("debs"))?;
        let lock_path = lock.to_owned();
        let lock = if lock.exists() {
            Lock::read(lock)?
        } else {
            Lock::default()
        };
        Ok(Self {
            folder: folder.to_owned(),
            lock,
            lock_path,
            options,
        })
    }

    /// The lock as it is now.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    fn apt(&self) -> Result<Apt> {
        let mirror = Mirror::find(
            self.options.mirror.as_deref(),
            self.options.security_mirror.as_deref(),
        )?;
        Apt::new(&self.folder.join("apt"), mirror)
    }

    fn file(&self, package: &Locked) -> PathBuf {
        self.folder.join("debs").join(format!("{}.deb", package.sha256))
    }

    /// Resolves all sets anew and writes the lock.
    pub fn update(&mut self) -> Result<()> {
        let apt = self.apt()?;
        apt.update()?;
        let mut lock = Lock::default();
        for set in Set::ALL {
            for package in apt.resolve(set)? {
                match lock
                    .packages
                    .iter_mut()
                    .find(|have| have.sha256 == package.sha256)
                {
                    Some(have) => have.sets.extend(package.sets),
                    None => lock.packages.push(package),
                }
            }
        }
        lock.write(&self.lock_path)?;
        self.lock = lock;
        Ok(())
    }

    /// The packages of `sets`, downloaded where they are not here yet. `say` hears of each wait.
    pub fn fetch(&self, sets: &[Set], say: &dyn Fn(&str)) -> Result<Fetched> {
        let pinned = wanted(&self.lock, sets);
        if pinned.is_empty() {
            bail!("the lock has no packages for {sets:?}: run ./x fetch --update");
        }
        // What was replaced once stays replaced, until the lock file changes.
        let (lock, now) = match self.replaced() {
            Some(lock) if !self.options.locked => (lock.clone(), wanted(&lock, sets)),
            _ => (self.lock.clone(), pinned.clone()),
        };
        let gone = self.download(&now, say)?;
        if gone.is_empty() {
            let locked = now == pinned;
            return Ok(self.on_disk(now, locked));
        }
        let name = |package: &&Locked| format!("{} {}", package.name, package.version);
        let names = gone.iter().map(name).collect::<Vec<_>>().join(", ");
        if self.options.locked {
            bail!(
                "the archive no longer has {names}; --locked refuses others. \
                 --mirror URL may name an archive of snapshots"
            );
        }
        say(&format!(
            "the archive no longer has {names}: resolving anew; this is not the locked image"
        ));
        let mut lock = self.replace(lock, &gone)?;
        let now = wanted(&lock, sets);
        if let Some(package) = self.download(&now, say)?.first() {
            bail!(
                "the archive names {} {} but does not have it",
                package.name,
                package.version
            );
        }
        lock.write(&self.replaced_path()?)?;
        Ok(self.on_disk(now, false))
    }

    /// Whether nothing of this lock file had to be replaced so far.
    pub fn is_as_locked(&self) -> bool {
        self.options.locked || self.replaced().is_none()
    }

    /// Where it is kept what was replaced, for this very lock file.
    fn replaced_path(&self) -> Result<PathBuf> {
        let of = sha256(&self.lock_path)?;
        Ok(self.folder.join(format!("replaced-{}.toml", &of[..16])))
    }

    fn replaced(&self) -> Option<Lock> {
        Lock::read(&self.replaced_path().ok()?).ok()
    }

    fn on_disk(&self, packages: Vec<Locked>, locked: bool) -> Fetched {
        let debs = packages
            .into_iter()
            .map(|package| (self.file(&package), package))
            .map(|(f, p)| (p, f))
            .collect();
        Fetched { debs, locked }
    }

    /// Downloads what is missing; returns what did not come.
    fn download<'a>(&self, packages: &'a [Locked], say: &dyn Fn(&str)) -> Result<Vec<&'a Locked>> {
        let missing: Vec<&Locked> = packages
            .iter()
            .filter(|package| !self.file(package).exists())
            .collect();
        if missing.is_empty() {
            return Ok(missing);
        }
        say(&format!("downloading {} packages", missing.len()));
        let partial = self.folder.join("partial");
        std::fs::create_dir_all(&partial)?;
        let apt = self.apt()?;
        let target = |package: &Locked| partial.join(format!("{}.deb", package.sha256));
        let mut failure = None;
        for (at, chunk) in missing.chunks(40).enumerate() {
            if at > 0 {
                say(&format!("  {} of {}", at * 40, missing.len()));
            }
            let list: Vec<(&Locked, PathBuf)> =
                chunk.iter().map(|package| (*package, target(package))).collect();
            // One that is gone fails the whole call; the others come all the same, or come with the second.
            for _ in 0..2 {
                let left: Vec<(&Locked, PathBuf)> =
                    list.iter().filter(|(_, file)| !file.exists()).cloned().collect();
                match if left.is_empty() {
                    Ok(())
                } else {
                    apt.download(&left)
                } {
                    Ok(()) => break,
                    Err(error) => failure = Some(error),
                }
            }
        }
        let mut gone = Vec::new();
        for package in missing {
            let file = target(package);
            if file.exists() && sha256(&file)? == package.sha256 {
                std::fs::rename(&file, self.file(package))?;
            } else {
                let _ = std::fs::remove_file(&file);
                gone.push(package);
            }
        }
        match failure {
            // Nothing came at all: not a version that was dropped, but an archive that does not answer.
            Some(error) if gone.len() == packages.len() && gone.len() > 1 => Err(error),
            _ => Ok(gone),
        }
    }

    /// `lock` with what is gone replaced by what the suite has today. The lock file stays as it is.
    fn replace(&self, mut lock: Lock, gone: &[&Locked]) -> Result<Lock> {
        let apt = self.apt()?;
        apt.update()?;
        lock.packages
            .retain(|package| !gone.iter().any(|lost| lost.sha256 == package.sha256));
        let mut sets: Vec<Set> = gone.iter().flat_map(|package| package.sets.clone()).collect();
        sets.sort();
        sets.dedup();
        for set in sets {
            for package in apt.resolve(set)? {
                let same_name = lock.packages.iter_mut().find(|have| have.name == package.name);
                match same_name {
                    Some(have) if !have.sets.contains(&set) => have.sets.push(set),
                    Some(_) => {}
                    None => lock.packages.push(package),
                }
            }
        }
        lock.packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(lock)
    }
}

fn wanted(lock: &Lock, sets: &[Set]) -> Vec<Locked> {
    let serves = |package: &&Locked| package.sets.iter().any(|set| sets.contains(set));
    lock.packages.iter().filter(serves).cloned().collect()
}

/// SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    sha256_of(file).with_context(|| format!("reading {}", path.display()))
}

/// SHA-256 of all that comes, in hex.
pub fn sha256_of(mut from: impl Read) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Archive;

    /// An archive in a folder, with one package, and a lock that names it.
    fn archive(folder: &Path) -> Result<Lock> {
        std::fs::create_dir_all(folder.join("archive/pool"))?;
        let deb = folder.join("archive/pool/here+1~2.deb");
        std::fs::write(&deb, "content")?;
        let package = |name: &str, sha256: String, path: &str| Locked {
            name: name.into(),
            version: "1".into(),
            sha256,
            path: path.into(),
            archive: Archive::Debian,
            sets: vec![Set::Tools],
        };
        Ok(Lock {
            packages: vec![package("here", sha256(&deb)?, "pool/here+1~2.deb")],
        })
    }

    fn store(folder: &Path, lock: &mut Lock) -> Result<Store> {
        let file = folder.join("lock.toml");
        lock.write(&file)?;
        let root = format!("copy:{}/archive", folder.display());
        let options = Options {
            mirror: Some(root.clone()),
            security_mirror: Some(root),
            locked: true,
        };
        Store::open(&folder.join("store"), &file, options)
    }

    #[test]
    fn what_is_pinned_comes_once() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mut lock = archive(scratch.path())?;
        let store = store(scratch.path(), &mut lock)?;
        let fetched = store.fetch(&[Set::Tools], &|_| ())?;
        assert!(fetched.locked);
        assert_eq!(std::fs::read_to_string(&fetched.debs[0].1)?, "content");
        std::fs::remove_dir_all(scratch.path().join("archive"))?;
        store.fetch(&[Set::Tools], &|line| {
            assert!(line.is_empty(), "asked the archive again: {line}")
        })?;
        Ok(())
    }

    #[test]
    fn what_is_gone_or_is_something_else_is_refused_under_locked() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mut lock = archive(scratch.path())?;
        let mut gone = lock.packages[0].clone();
        (gone.name, gone.path, gone.sha256) = ("gone".into(), "pool/gone.deb".into(), "ab".repeat(32));
        let mut forged = lock.packages[0].clone();
        (forged.name, forged.sha256) = ("forged".into(), "cd".repeat(32));
        lock.packages.extend([gone, forged]);
        let said = store(scratch.path(), &mut lock)?.fetch(&[Set::Tools], &|_| ());
        let said = said.map(|_| ()).map_err(|error| error.to_string());
        assert!(said.is_err_and(|error| error.contains("no longer has forged 1, gone 1; --locked refuses")));
        Ok(())
    }
}
