//! The node's seat in the grid, as the agent needs it: nothing is offered, signed or redeemed before it is granted once in
//! this boot.
//!
//! ```text
//!   this boot's note (in memory, /run)   none ─────► dials, asks, waits as long as nobody answers ─► granted: noted, goes on
//!                                        granted ──► dials, asks, goes on at once: the agent alone was started again
//!                                        refused ──► does not dial: nothing is done for the node in this boot
//! ```
//!
//! Invariant: an instance is one boot of one machine. What was granted or refused in it holds for all agents of that boot,
//! and for none of another: after a power cut the seat is asked for anew, and nobody is left to answer for the old one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use grid::{JoinConfig, JoinError, Refused, Seat, SeatConfig};

use crate::sales::boot_ms;

/// Bytes that a note can have.
const MOST_NOTE_BYTES: usize = 64;

/// Who asks, and where this boot's note is.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The grid; its secret is not used.
    pub join: JoinConfig,
    /// The kernel's boot id.
    pub instance: [u8; 16],
    /// The note's file, in memory.
    pub note: PathBuf,
}

/// Why a node does not act for itself.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// Another machine does.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was refused earlier in this boot.
    #[error("another machine with this node's key was there first")]
    RefusedBefore,
    /// No endpoint could be made.
    #[error("the grid cannot be asked for this node's seat")]
    Join(#[from] JoinError),
    /// This boot could not be told from another.
    #[error("{path} could not be read or written", path = path.display())]
    Note {
        /// The note's file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What this boot knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    Nothing,
    /// Granted at this time of this boot, ms.
    Granted(u64),
    Refused,
}

/// A seat that is dialled for, asked for, or granted.
#[derive(Debug)]
pub struct Asked {
    seat: Seat,
    note: PathBuf,
    known: Note,
}

impl Asker {
    /// Dials who is asked: the node's key may still be on a disk that is being opened.
    ///
    /// # Errors
    /// [`SeatError`]; refused is what was refused earlier in this boot.
    pub async fn dial(self) -> Result<Asked, SeatError> {
        let known = read(&self.note)?;
        if known == Note::Refused {
            return Err(SeatError::RefusedBefore);
        }
        let config = SeatConfig {
            join: self.join,
            instance: self.instance,
        };
        Ok(Asked {
            seat: Seat::dial(config).await?,
            note: self.note,
            known,
        })
    }
}

impl Asked {
    /// The seat itself.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Asks for the node with this secret.
    pub fn ask(&self, secret: &[u8; 32]) {
        let held = match self.known {
            Note::Granted(since) => Some(Duration::from_millis(boot_ms().saturating_sub(since))),
            Note::Nothing | Note::Refused => None,
        };
        self.seat.ask(secret, held);
    }

    /// Waits until the node may act; at once where it could earlier in this boot.
    ///
    /// # Errors
    /// When another machine acts for it, or this cannot be noted.
    pub async fn granted(&mut self) -> Result<(), SeatError> {
        if self.known != Note::Nothing {
            return Ok(());
        }
        match self.seat.granted().await {
            Ok(()) => {
                self.known = Note::Granted(boot_ms());
                write(&self.note, self.known)
            }
            Err(refused) => Err(self.note_refused(refused)),
        }
    }

    /// Waits until another machine has it, for ever usually. What the node has begun must end then.
    pub async fn lost(&self) -> SeatError {
        let refused = self.seat.refused().await;
        self.note_refused(refused)
    }

    /// The note must stand before anybody acts on it; where it does not, that is why nothing is done.
    fn note_refused(&self, refused: Refused) -> SeatError {
        match write(&self.note, Note::Refused) {
            Ok(()) => refused.into(),
            Err(error) => error,
        }
    }
}

fn read(path: &Path) -> Result<Note, SeatError> {
    let failed = |source| SeatError::Note {
        path: path.to_owned(),
        source,
    };
    let text = match std::fs::read(path) {
        Ok(bytes) if bytes.len() <= MOST_NOTE_BYTES => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(_) => String::new(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Note::Nothing),
        Err(error) => return Err(failed(error)),
    };
    let since = text.strip_prefix("granted ").and_then(|since| since.parse().ok());
    Ok(match since {
        Some(since) => Note::Granted(since),
        // Half a note, or one that nobody here wrote: the seat is asked for.
        None if text != "refused" => Note::Nothing,
        None => Note::Refused,
    })
}

fn write(path: &Path, note: Note) -> Result<(), SeatError> {
    let text = match note {
        Note::Nothing => String::new(),
        Note::Granted(since) => format!("granted {since}"),
        Note::Refused => "refused".to_owned(),
    };
    let beside = path.with_extension("new");
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| SeatError::Note {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_half_of_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seat");
        assert_eq!(read(&path).unwrap(), Note::Nothing);
        for note in [Note::Granted(0), Note::Granted(u64::MAX), Note::Refused] {
            write(&path, note).unwrap();
            assert_eq!(read(&path).unwrap(), note);
        }
        for text in ["", "granted", "granted -1", "refuse", &"granted 1".repeat(40)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap(), Note::Nothing, "{text}");
        }
        assert!(read(folder.path()).is_err(), "a folder is no note");
    }
}
