//! One encrypted file of an export: written whole, with its digests; read against them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use market::id::Digest;
use sha2::{Digest as _, Sha256};

use super::age::{AgeError, Fresh, Identity, Opener, Sealer};
use super::manifest::Piece;

/// Why a file is not the one that was written.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    /// Not there.
    #[error("is missing")]
    Missing,
    /// Shorter or longer.
    #[error("has {has} bytes, {wrote} were written")]
    Length {
        /// Now.
        has: u64,
        /// Then.
        wrote: u64,
    },
    /// Another digest.
    #[error("is not what was written: {0}")]
    Other(Digest),
    /// It does not open, or holds something else.
    #[error("cannot be opened")]
    Age(#[from] AgeError),
    /// It opens, and holds something else.
    #[error("holds something else than was taken")]
    Plain,
    /// The disk.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
}

/// Counts and digests what passes.
struct Counted<T> {
    inner: T,
    bytes: u64,
    digest: Sha256,
}

impl<T> Counted<T> {
    fn new(inner: T) -> Counted<T> {
        Counted {
            inner,
            bytes: 0,
            digest: Sha256::new(),
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.digest.update(bytes);
    }

    fn digest(self) -> Digest {
        Digest(self.digest.finalize().into())
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.pass(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }
}

/// A piece that is being written: it has its name once it is whole.
pub struct Draft {
    path: PathBuf,
    name: String,
    sealer: Sealer<Counted<File>>,
    plain: Counted<()>,
}

impl Draft {
    /// Begins the piece of that name.
    pub fn begin(folder: &Path, name: &str, identity: &Identity) -> anyhow::Result<Draft> {
        let path = folder.join(name);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path.with_extension("new"))?;
        Ok(Draft {
            sealer: Sealer::new(Counted::new(file), identity, &Fresh::from_kernel()?)?,
            path,
            name: name.to_owned(),
            plain: Counted::new(()),
        })
    }

    /// Bytes inside so far.
    pub fn plain_bytes(&self) -> u64 {
        self.plain.bytes
    }

    /// Takes more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), AgeError> {
        self.plain.pass(bytes);
        self.sealer.write(bytes)
    }

    /// Seals it, has it on the disk, gives it its name.
    pub fn finish(self) -> anyhow::Result<Piece> {
        let file = self.sealer.finish()?;
        file.inner.sync_all()?;
        std::fs::rename(self.path.with_extension("new"), &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Piece {
            file: self.name,
            plain_bytes: self.plain.bytes,
            plain_sha256: self.plain.digest(),
            file_bytes: file.bytes,
            file_sha256: file.digest(),
        })
    }
}

/// Whether the file is there with its length.
pub fn is_there(folder: &Path, piece: &Piece) -> bool {
    std::fs::metadata(folder.join(&piece.file))
        .is_ok_and(|found| found.is_file() && found.len() == piece.file_bytes)
}

/// Holds a file against its digests, outside and inside.
pub fn check(folder: &Path, piece: &Piece, identity: &Identity) -> Result<(), PieceError> {
    let path = folder.join(&piece.file);
    let found = match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => found,
        Ok(_) => return Err(PieceError::Missing),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(PieceError::Missing),
        Err(error) => return Err(error.into()),
    };
    if found.len() != piece.file_bytes {
        return Err(PieceError::Length {
            has: found.len(),
            wrote: piece.file_bytes,
        });
    }
    let mut file = Counted::new(File::open(&path)?.take(piece.file_bytes));
    std::io::copy(&mut file, &mut std::io::sink())?;
    let digest = file.digest();
    if digest != piece.file_sha256 {
        return Err(PieceError::Other(digest));
    }
    let mut plain = Counted::new(());
    let mut opener = open(folder, piece, identity)?;
    while let Some(bytes) = opener.next()? {
        plain.pass(&bytes);
    }
    if plain.bytes != piece.plain_bytes || plain.digest() != piece.plain_sha256 {
        return Err(PieceError::Plain);
    }
    Ok(())
}

/// Opens a file for reading what is inside.
pub fn open(
    folder: &Path,
    piece: &Piece,
    identity: &Identity,
) -> Result<Opener<impl Read + use<>>, AgeError> {
    let file = File::open(folder.join(&piece.file))?.take(piece.file_bytes);
    Opener::new(std::io::BufReader::with_capacity(128 << 10, file), identity)
}
