//! The farmer's line that gives one disk: `<WWN, serial number or path>, <size>, <what was found>`.
//!
//! Invariant: a line is kept word for word and means one disk with one content. Whether a disk is that one is
//! decided where disks are looked at, in `provision::claim`.

use std::fmt;
use std::str::FromStr;

use market::quantity::Bytes;
use sha2::{Digest, Sha256};

/// Longest line.
const MAX_LINE: usize = 1000;

/// The hash under which a line is remembered as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsentHash(pub [u8; 32]);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// A WWN, `serial ` and a serial number, or a path below /dev.
    pub disk: String,
    /// The whole disk's size.
    pub size: Bytes,
    /// What was found on it, with UUIDs or the hash of the samples.
    pub found: String,
}

/// Why a line cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{line:?} is not `<path or WWN>, <size>, <what was found>` ({why}): copy the line that the console shows for the disk"
)]
pub struct ConsentError {
    /// The line, shortened.
    pub line: String,
    /// What is wrong.
    pub why: String,
}

impl FromStr for Consent {
    type Err = ConsentError;

    fn from_str(line: &str) -> Result<Self, ConsentError> {
        let error = |why: String| ConsentError {
            line: line.chars().take(80).collect(),
            why,
        };
        if line.len() > MAX_LINE {
            return Err(error("it is too long".to_owned()));
        }
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let [disk, size, found] = parts[..] else {
            return Err(error(format!("it has {} parts, not 3", parts.len())));
        };
        if disk.is_empty() || found.is_empty() {
            return Err(error("a part is empty".to_owned()));
        }
        let size = size.parse().map_err(|e| error(format!("{e}")))?;
        Ok(Self {
            disk: disk.to_owned(),
            size,
            found: found.to_owned(),
        })
    }
}

impl fmt::Display for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.disk, self.size, self.found)
    }
}

impl Consent {
    /// The hash of what it means, not of how it was typed.
    pub fn hash(&self) -> ConsentHash {
        ConsentHash(Sha256::digest(self.to_string()).into())
    }
}
