//! What the node writes into a space's volume before it starts: step `files`.
//!
//! ```text
//!   <volume>/
//!     steading/ssh_host_ed25519_key       kept here: no path inside leads to it
//!     upper/etc/ssh/ssh_host_ed25519_key  0600, written from it at every start
//!     upper/root/.ssh/authorized_keys     0600, lines are added, the user's stay
//!     upper/etc/{hostname,hosts,resolv.conf,machine-id}
//! ```
//!
//! Everything goes through the unmapped volume, so the ids on the disk are 0.
//!
//! Invariant: from the second start on, the tree below `upper` was written by the user, who may
//! have put a symlink anywhere to lead us into the node. No path is followed through a symlink, no
//! file that stands is opened for writing (a new one is renamed over it), and what stands in the
//! way of a folder is removed by its name alone.

mod host_key;
mod tree;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use host::names;
pub use host_key::{host_public_key, openssh_private_key};
use market::id::SaleId;
use tree::Tree;
use zeroize::Zeroizing;

use crate::step::{Cause, Step};

/// Keys that may log in, at most.
const MAX_KEYS: usize = 64;
/// Longest line of a key.
const MAX_KEY_LINE: usize = 8 << 10;
/// Longest `authorized_keys` that is read back.
const MAX_AUTHORIZED: u64 = 256 << 10;
/// The first line of a resolv.conf of ours: one that the user wrote is left alone.
const RESOLV_MARK: &str = "# Written by the node at each start; remove this line to keep your own.";
const KEPT_KEY: &str = "steading/ssh_host_ed25519_key";
const HOST_KEY: &str = "upper/etc/ssh/ssh_host_ed25519_key";
const AUTHORIZED: &str = "upper/root/.ssh/authorized_keys";

/// What is written.
pub struct SpaceFiles {
    /// The seed of the SSH host key: at the build. At an unlock, `None`: the kept one stays.
    pub host_key_seed: Option<Zeroizing<[u8; 32]>>,
    /// Lines for `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// The name of the machine inside.
    pub hostname: String,
    /// Name servers, in order.
    pub resolvers: Vec<IpAddr>,
    /// The machine's id inside.
    pub machine_id: [u8; 16],
}

/// What this step needs to know.
pub trait FilesContext: Sync {
    /// What is to be written; undoing needs nothing.
    fn files(&self) -> Option<&SpaceFiles>;
}

/// Why the files were not written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Nothing to write is at hand.
    #[error("there is nothing to write into the volume")]
    Nothing,
    /// A line cannot stand in `authorized_keys`.
    #[error("SSH key {number} of {count} cannot be used: {why}")]
    Key {
        /// Which, from 1.
        number: usize,
        /// How many.
        count: usize,
        /// Why.
        why: &'static str,
    },
    /// The name cannot be a host's.
    #[error("{0:?} cannot be a host name")]
    Hostname(String),
    /// A file or folder.
    #[error("cannot write {path} in the volume")]
    Write {
        /// Within the volume.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The blocking task ended without an answer.
    #[error("the writing was cut off")]
    Cut,
}

/// Step `files`. What it writes goes with the volume, so undoing it is nothing.
pub struct FilesStep;

#[async_trait]
impl<C: FilesContext + ?Sized> Step<C> for FilesStep {
    fn name(&self) -> &'static str {
        "files"
    }

    fn after(&self) -> Option<&'static [&'static str]> {
        Some(&["mount"])
    }

    async fn ensure(&self, sale: &SaleId, context: &C) -> Result<(), Cause> {
        let files = context.files().ok_or(FilesError::Nothing)?.copy();
        let volume = names::volume_mount(sale.as_bytes());
        let task = tokio::task::spawn_blocking(move || files.write(&volume));
        Ok(task.await.map_err(|_| FilesError::Cut)??)
    }

    async fn ensure_absent(&self, _: &SaleId, _: &C) -> Result<(), Cause> {
        Ok(())
    }
}

impl SpaceFiles {
    fn copy(&self) -> Self {
        Self {
            host_key_seed: self.host_key_seed.clone(),
            authorized_keys: self.authorized_keys.clone(),
            hostname: self.hostname.clone(),
            resolvers: self.resolvers.clone(),
            machine_id: self.machine_id,
        }
    }

    /// Writes all of it below `volume`, and returns when it is on the disk.
    ///
    /// # Errors
    /// When a value cannot be used (nothing is written then), or a file cannot be written.
    pub fn write(&self, volume: &Path) -> Result<(), FilesError> {
        self.check()?;
        let error = |path: &'static str| {
            move |source| FilesError::Write {
                path: path.into(),
                source,
            }
        };
        let building = self.host_key_seed.is_some();
        // A new volume is worth nothing before all of this is there; in an old one each file replaces the user's.
        let tree = Tree::open(volume, !building).map_err(error(""))?;

        tree.ensure_folder("steading", 0o700).map_err(error("steading"))?;
        if let Some(seed) = &self.host_key_seed {
            let key = openssh_private_key(seed).map_err(error(KEPT_KEY))?;
            tree.write(KEPT_KEY, key.as_bytes(), 0o600)
                .map_err(error(KEPT_KEY))?;
        }
        let kept = tree.read(KEPT_KEY, 4096).map_err(error(KEPT_KEY))?;
        let kept = Zeroizing::new(kept.ok_or_else(|| error(KEPT_KEY)(io::ErrorKind::NotFound.into()))?);

        for (folder, mode) in [
            ("upper", 0o755),
            ("work", 0o755),
            ("data", 0o755),
            ("upper/etc", 0o755),
            ("upper/etc/ssh", 0o755),
            ("upper/root", 0o700),
            ("upper/root/.ssh", 0o700),
        ] {
            tree.ensure_folder(folder, mode).map_err(error(folder))?;
        }
        // A volume that the user filled must open again: what is there already needs no room.
        let put = |path: &'static str, bytes: &[u8], mode| match tree.write(path, bytes, mode) {
            Err(full)
                if matches!(full.kind(), io::ErrorKind::StorageFull)
                    && tree
                        .read(path, bytes.len() as u64 + 1)
                        .is_ok_and(|old| old.as_deref() == Some(bytes)) =>
            {
                Ok(())
            }
            result => result.map_err(error(path)),
        };
        put(HOST_KEY, &kept, 0o600)?;
        let before = if building {
            None
        } else {
            tree.read(AUTHORIZED, MAX_AUTHORIZED).map_err(error(AUTHORIZED))?
        };
        let keys = add_lines(&before.unwrap_or_default(), &self.authorized_keys);
        put(AUTHORIZED, &keys, 0o600)?;

        let machine_id = data_encoding::HEXLOWER.encode(&self.machine_id) + "\n";
        for (path, text) in [
            ("upper/etc/hostname", format!("{}\n", self.hostname)),
            ("upper/etc/hosts", hosts(&self.hostname)),
            ("upper/etc/machine-id", machine_id),
        ] {
            if building || !tree.exists(path).map_err(error(path))? {
                tree.write(path, text.as_bytes(), 0o644).map_err(error(path))?;
            }
        }
        const RESOLV: &str = "upper/etc/resolv.conf";
        let theirs = tree.read(RESOLV, MAX_AUTHORIZED).map_err(error(RESOLV))?;
        if building || theirs.is_none_or(|text| text.starts_with(RESOLV_MARK.as_bytes())) {
            put(RESOLV, resolv(&self.resolvers).as_bytes(), 0o644)?;
        }
        tree.sync().map_err(error(""))
    }

    fn check(&self) -> Result<(), FilesError> {
        let count = self.authorized_keys.len();
        for (index, line) in self.authorized_keys.iter().enumerate() {
            let refuse = |why| {
                Err(FilesError::Key {
                    number: index + 1,
                    count,
                    why,
                })
            };
            if index >= MAX_KEYS {
                return refuse("there are too many");
            }
            if line.len() > MAX_KEY_LINE {
                return refuse("it is too long");
            }
            if line.trim().is_empty() || line.chars().any(|c| c.is_control() && c != '\t') {
                return refuse("it is not one line of text");
            }
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &self.hostname;
        if name.is_empty() || name.len() > 63 || name.starts_with('-') || !name.chars().all(fits) {
            return Err(FilesError::Hostname(name.chars().take(80).collect()));
        }
        Ok(())
    }
}

/// `before` with those of `lines` that it lacks.
fn add_lines(before: &[u8], lines: &[String]) -> Vec<u8> {
    let mut text = before.to_vec();
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    for line in lines {
        let line = line.trim();
        if !text
            .split(|byte| *byte == b'\n')
            .any(|there| there.trim_ascii() == line.as_bytes())
        {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
    }
    text
}

/// The name must resolve, or sudo complains at every call.
fn hosts(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

fn resolv(resolvers: &[IpAddr]) -> String {
    let lines: String = resolvers
        .iter()
        .map(|address| format!("nameserver {address}\n"))
        .collect();
    format!("{RESOLV_MARK}\n{lines}")
}

#[cfg(test)]
mod tests;
