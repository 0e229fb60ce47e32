//! The keys of a node and the generation of a disk, as files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use market::id::NodeId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{StateError, volumes};

/// The node's key: its id, its endpoint, its signature.
pub(super) const NODE_KEY: &str = "node.key";
/// Signs give-backs.
pub(super) const GIVE_BACK_KEY: &str = "give-back.key";
const NODE_JSON: &str = "node.json";
/// Longest `node.json`.
const MAX_JSON: u64 = 64 << 10;

type Seed = Arc<Zeroizing<[u8; 32]>>;

/// The keys of a node, in memory between finding and claiming.
pub(super) struct Identity {
    node: Seed,
    give_back: Seed,
}

/// What a disk says beside the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disk {
    /// The highest leads.
    pub(super) generation: u64,
    /// All groups of this node that the leader knew.
    pub(super) groups: BTreeSet<String>,
}

impl Identity {
    /// New keys.
    pub(super) fn fresh() -> Result<Self, StateError> {
        let seed = || {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(|error| StateError::Random(error.to_string()))?;
            Ok::<_, StateError>(Arc::new(seed))
        };
        Ok(Self {
            node: seed()?,
            give_back: seed()?,
        })
    }

    pub(super) fn another_handle(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            give_back: Arc::clone(&self.give_back),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId::from(SigningKey::from_bytes(&self.node).verifying_key().to_bytes())
    }

    /// Reads a complete identity; `None` where `node.json` was never written.
    pub(super) fn read(group: &str) -> Result<Option<(Self, Disk)>, StateError> {
        let Some(disk) = read_generation(group)? else {
            return Ok(None);
        };
        let node = Arc::new(read_key(group, NODE_KEY)?);
        let give_back = Arc::new(read_key(group, GIVE_BACK_KEY)?);
        Ok(Some((Self { node, give_back }, disk)))
    }

    /// Writes the keys where they are not the same already.
    pub(super) fn write_keys(&self, group: &str) -> Result<(), StateError> {
        for (name, seed) in [(NODE_KEY, &self.node), (GIVE_BACK_KEY, &self.give_back)] {
            if read_key(group, name).is_ok_and(|there| *there == ***seed) {
                continue;
            }
            replace(&volumes::path(group, name), seed.as_slice(), 0o600)?;
        }
        Ok(())
    }
}

/// Opens one key.
pub(super) fn read_key(group: &str, name: &str) -> Result<Zeroizing<[u8; 32]>, StateError> {
    let path = volumes::path(group, name);
    let mut seed = Zeroizing::new([0; 32]);
    let read = File::open(&path).and_then(|mut file| {
        file.read_exact(seed.as_mut_slice())?;
        Ok(file.read(&mut [0])? == 0)
    });
    match read {
        Ok(true) => Ok(seed),
        Ok(false) => Err(StateError::Damaged {
            path,
            why: "it is longer than a key".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(StateError::Damaged {
            path,
            why: "it is shorter than a key".to_owned(),
        }),
        Err(source) => Err(StateError::File { path, source }),
    }
}

fn read_generation(group: &str) -> Result<Option<Disk>, StateError> {
    let path = volumes::path(group, NODE_JSON);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { path, source }),
    };
    let mut text = Vec::new();
    if let Err(source) = file.take(MAX_JSON).read_to_end(&mut text) {
        return Err(StateError::File { path, source });
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| StateError::Damaged {
            path,
            why: error.to_string(),
        })
}

/// Writes `node.json`, which makes an identity complete.
pub(super) fn write_generation(
    group: &str,
    generation: u64,
    groups: &BTreeSet<String>,
) -> Result<(), StateError> {
    let path = volumes::path(group, NODE_JSON);
    let disk = Disk {
        generation,
        groups: groups.clone(),
    };
    let text = serde_json::to_vec(&disk).map_err(|error| StateError::Damaged {
        path: path.clone(),
        why: error.to_string(),
    })?;
    replace(&path, &text, 0o644)
}

/// Replaces a file whole: after a cut the old bytes are there, or the new ones.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let new = path.with_extension("new");
    let work = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    };
    work().map_err(|source| StateError::File {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// `node.json`, for its fuzz target.
#[cfg(fuzzing)]
pub fn fuzz_node_json(text: &[u8]) -> bool {
    serde_json::from_slice::<Disk>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        fs::write(path.with_extension("new"), "left by a cut").unwrap();
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_nodes_are_two() {
        let (one, two) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
        assert_ne!(one.node(), two.node());
        assert_eq!(one.node(), one.another_handle().node());
        assert_ne!(*one.node, *one.give_back);
    }
}
