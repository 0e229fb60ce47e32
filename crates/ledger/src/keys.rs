//! The ledger's two keys in its folder, mode 0600, each for one thing.
//!
//! `ledger.key` names the ledger and signs its answers; `operator.key` issues
//! play money. Each file holds the 32-byte seed in hex and a newline.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

/// Signs answers.
pub const LEDGER_KEY: &str = "ledger.key";
/// Issues play money.
pub const OPERATOR_KEY: &str = "operator.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system says no.
    #[error("the key file {path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not 64 hex digits.
    #[error("the key file {path} does not hold 64 hex digits; restore it from a backup")]
    Content {
        /// Which.
        path: PathBuf,
    },
    /// Others can read it.
    #[error("the key file {path} can be read by others; run chmod 600 on it")]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// The kernel has no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Makes the folder (0700) if it is not there.
pub fn ensure_folder(dir: &Path) -> Result<(), KeyError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| KeyError::File {
            path: dir.to_owned(),
            source,
        })
}

/// Reads the key `name` of `dir`, and makes it first if it is not there.
pub fn read_or_create(dir: &Path, name: &str) -> Result<SigningKey, KeyError> {
    match read(dir, name) {
        Err(KeyError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            create(dir, name)?;
            read(dir, name)
        }
        other => other,
    }
}

/// Reads the key `name` of `dir`.
pub fn read(dir: &Path, name: &str) -> Result<SigningKey, KeyError> {
    let path = dir.join(name);
    let file_error = |source| KeyError::File {
        path: path.clone(),
        source,
    };
    let file = File::open(&path).map_err(file_error)?;
    if file.metadata().map_err(file_error)?.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::Open { path });
    }
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).map_err(file_error)?;
    let seed = crate::hex::decode::<32>(text.trim_end()).ok_or(KeyError::Content { path })?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Whole or not at all: written beside, synced, renamed.
fn create(dir: &Path, name: &str) -> Result<(), KeyError> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(KeyError::Random)?;
    let (path, draft) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        writeln!(file, "{}", crate::hex::encode(&seed))?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| KeyError::File {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_and_is_refused_once_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = read_or_create(dir.path(), LEDGER_KEY).unwrap();
        let again = read_or_create(dir.path(), LEDGER_KEY).unwrap();
        assert_eq!(first.to_bytes(), again.to_bytes());
        let other = read_or_create(dir.path(), OPERATOR_KEY).unwrap();
        assert_ne!(first.to_bytes(), other.to_bytes());
        let path = dir.path().join(LEDGER_KEY);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read_or_create(dir.path(), LEDGER_KEY),
            Err(KeyError::Open { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "not hex").unwrap();
        assert!(matches!(
            read_or_create(dir.path(), LEDGER_KEY),
            Err(KeyError::Content { .. })
        ));
    }
}
