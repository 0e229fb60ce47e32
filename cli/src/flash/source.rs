//! The image: a file that is what its maker says, unpacked while it is written.
//!
//! ```text
//!  x.img.zst ──► SHA-256 ──► x.img.zst.sha256     ──► the same file, unpacked, a block at a time
//!           └──► minisign ─► x.img.zst.minisig, where there is one, by a key that was given or pinned
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};

use super::{Progress, Stage};
use crate::files::read_bounded;

/// Larger is no checksum, signature or key.
const MOST_BYTES: u64 = 64 << 10;
/// How a zstd file begins.
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Why an image is not written.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is another file than the one whose checksum lies beside it.
    #[error("{image} is not the file that {checksum} speaks of: it is damaged, or not whole")]
    Checksum {
        /// The image.
        image: PathBuf,
        /// The file with the sum.
        checksum: PathBuf,
    },
    /// The file beside it has no line for it.
    #[error("{0} has no checksum of this image")]
    NoSum(PathBuf),
    /// A key was given, and there is no signature.
    #[error("there is no signature at {0}, and one was asked for by the key")]
    NoSignature(PathBuf),
    /// What is no key.
    #[error("{0:?} is no minisign key")]
    Key(String),
    /// The signature is not by this key, or not of this file.
    #[error("the signature in {path} does not hold: {why}")]
    Signature {
        /// The file with the signature.
        path: PathBuf,
        /// What the check said.
        why: minisign_verify::Error,
    },
    /// It could be stopped here.
    #[error("stopped")]
    Stopped,
}

/// What is known of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It holds.
    Good,
    /// There is one, and no key to check it with.
    Unchecked,
    /// There is none.
    No,
}

/// An image that was looked at.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// The SHA-256 of the file as it is.
    pub sha256: String,
    /// Whether a checksum beside it agrees.
    pub has_sum: bool,
    /// What is known of its signature.
    pub signed: Signed,
    /// Length of what it holds, where that is known before it is unpacked.
    pub bytes: Option<u64>,
    is_packed: bool,
}

impl Source {
    /// Reads an image once, and holds it against what lies beside it.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub fn check(path: &Path, key: Option<&str>, progress: &Progress) -> Result<Source, SourceError> {
        let failed = |source| SourceError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let signature = beside(path, "minisig");
        let signature_text = text(&signature)?;
        let key = key.map(public_key).transpose()?;
        let (mut checker, signed) = (None, signature_text.as_ref());
        let decoded = signed.map(|text| Signature::decode(text)).transpose();
        let bad = |why| SourceError::Signature {
            path: signature.clone(),
            why,
        };
        let decoded = decoded.map_err(bad)?;
        let signed = match (&key, &decoded) {
            (Some(key), Some(decoded)) => {
                checker = Some(key.verify_stream(decoded).map_err(bad)?);
                Signed::Good
            }
            (Some(_), None) => return Err(SourceError::NoSignature(signature)),
            (None, Some(_)) => Signed::Unchecked,
            (None, None) => Signed::No,
        };
        progress.begin(Stage::Untouched, length);
        let mut hash = Sha256::new();
        let mut first = Vec::new();
        let mut block = vec![0; super::BLOCK];
        loop {
            let read = file.read(&mut block).map_err(failed)?;
            let part = block.get(..read).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            if first.is_empty() {
                first = part.get(..part.len().min(32)).unwrap_or_default().to_vec();
            }
            hash.update(part);
            if let Some(checker) = &mut checker {
                checker.update(part);
            }
            progress.add(read).map_err(|_| SourceError::Stopped)?;
        }
        if let Some(checker) = &mut checker {
            checker.finalize().map_err(bad)?;
        }
        let sha256 = data_encoding::HEXLOWER.encode(&hash.finalize());
        let sum = sum_beside(path)?;
        if let Some((file, sum)) = &sum
            && *sum != sha256
        {
            return Err(SourceError::Checksum {
                image: path.to_owned(),
                checksum: file.clone(),
            });
        }
        let is_packed = first.starts_with(&ZSTD);
        let bytes = if is_packed {
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            let known = decoder.init(first.as_slice()).is_ok();
            Some(decoder.content_size()).filter(|bytes| known && *bytes > 0)
        } else {
            Some(length)
        };
        Ok(Source {
            path: path.to_owned(),
            sha256,
            has_sum: sum.is_some(),
            signed,
            bytes,
            is_packed,
        })
    }

    /// Length of what it holds; unpacked once for it where its head does not say.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn length(&self) -> io::Result<u64> {
        match self.bytes {
            Some(bytes) => Ok(bytes),
            None => io::copy(&mut self.open()?, &mut io::sink()),
        }
    }

    /// Its content from the beginning.
    ///
    /// # Errors
    /// When it cannot be opened or is no zstd file after all.
    pub fn open(&self) -> io::Result<Box<dyn Read>> {
        let mut file = BufReader::with_capacity(1 << 17, File::open(&self.path)?);
        if !self.is_packed {
            return Ok(Box::new(file));
        }
        file.seek(SeekFrom::Start(0))?;
        Ok(Box::new(Unpacked {
            frame: Some(StreamingDecoder::new(file).map_err(io::Error::other)?),
        }))
    }
}

/// The frames of a zstd file, one behind the other.
struct Unpacked {
    frame: Option<StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>>,
}

impl Read for Unpacked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            let read = frame.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let Some(ended) = self.frame.take() else { break };
            let mut file = ended.into_inner();
            if !file.fill_buf()?.is_empty() {
                self.frame = Some(StreamingDecoder::new(file).map_err(io::Error::other)?);
            }
        }
        Ok(0)
    }
}

/// `x.img.zst` and `sha256` give `x.img.zst.sha256`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn text(path: &Path) -> Result<Option<String>, SourceError> {
    let failed = |source| SourceError::Read {
        path: path.to_owned(),
        source,
    };
    match read_bounded(path, MOST_BYTES) {
        Ok(Some(bytes)) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Ok(None) => Err(failed(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is too long for what it should be",
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The checksum that lies beside an image, as sha256sum writes it: alone, or in a line with the file's name.
fn sum_beside(path: &Path) -> Result<Option<(PathBuf, String)>, SourceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.trim_end_matches(".zst").trim_end_matches(".img");
    for file in [
        beside(path, "sha256"),
        path.with_file_name(format!("{stem}.sha256")),
    ] {
        let Some(text) = text(&file)? else { continue };
        return match sum_of(&text, &name) {
            Some(sum) => Ok(Some((file, sum))),
            None => Err(SourceError::NoSum(file)),
        };
    }
    Ok(None)
}

/// The sum of this name; of a text that is one sum alone, that.
pub fn sum_of(text: &str, name: &str) -> Option<String> {
    let is_sum = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.lines().find_map(|line| {
        let (sum, rest) = line.trim().split_once([' ', '\t']).unwrap_or((line.trim(), ""));
        let named = rest.trim_start().trim_start_matches('*');
        (is_sum(sum) && (named.is_empty() || named == name)).then(|| sum.to_ascii_lowercase())
    })
}

/// A key as its line, as its file's text, or as the path of that file.
fn public_key(given: &str) -> Result<PublicKey, SourceError> {
    let bad = || SourceError::Key(given.chars().take(80).collect());
    if let Ok(key) = PublicKey::from_base64(given.trim()) {
        return Ok(key);
    }
    let text = text(Path::new(given))?.ok_or_else(bad)?;
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    PublicKey::from_base64(line).map_err(|_| bad())
}
