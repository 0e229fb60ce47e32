//! From an image to a stick that starts a farmer's machine.
//!
//! ```text
//!  disks    who is there, what it holds, who may be written        (sysfs, mountinfo, udev's notes)
//!  source   the image: checksum, signature, unpacked as it goes
//!  medium   a stick or a file: written, settled, read past the kernel's memory
//!  patch    the image's blocks that this stick has otherwise: settings, the end of its table
//!  settings farmer.toml in its FAT
//!  write    marks ─► image ─► patches ─► read back ─► first block last
//! ```
//!
//! Invariant: the first MiB is written last, after all the rest was read back from the medium. What was stopped
//! halfway starts on no machine, and `Progress::words` says at any moment how far it is.

pub mod disks;
pub mod medium;
pub mod patch;
pub mod settings;
pub mod source;
pub mod write;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// How much is written, hashed and read back at once.
pub const BLOCK: usize = 1 << 20;

/// What is done to a medium, and how far it is; shared with who shows it and who stops it.
#[derive(Debug, Default)]
pub struct Progress {
    stop: AtomicBool,
    stage: AtomicU8,
    done: AtomicU64,
    all: AtomicU64,
}

/// How far a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Nothing was written.
    Untouched,
    /// Its size is tried: what was on it is lost.
    Marks,
    /// The image goes onto it.
    Image,
    /// All but the first block is there, and is read back.
    ReadBack,
    /// The first block is written.
    Last,
    /// All is there and was read back.
    Whole,
}

impl Progress {
    /// A stage begins, of `all` bytes.
    pub fn begin(&self, stage: Stage, all: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// So many bytes more are done.
    ///
    /// # Errors
    /// [`write::FlashError::Stopped`] where it was to stop.
    pub fn add(&self, bytes: usize) -> Result<(), write::FlashError> {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) {
            return Err(write::FlashError::Stopped);
        }
        Ok(())
    }

    /// Asks the work to stop at the next block.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The stage.
    pub fn stage(&self) -> Stage {
        let stages = [
            Stage::Untouched,
            Stage::Marks,
            Stage::Image,
            Stage::ReadBack,
            Stage::Last,
        ];
        let now = self.stage.load(Ordering::Relaxed);
        stages
            .into_iter()
            .find(|stage| *stage as u8 == now)
            .unwrap_or(Stage::Whole)
    }

    /// What is being done, with its share.
    pub fn doing(&self) -> (&'static str, String) {
        let (done, all) = (
            self.done.load(Ordering::Relaxed),
            self.all.load(Ordering::Relaxed),
        );
        let human = |bytes| market::quantity::Bytes(bytes).human();
        let share = match all {
            0 => human(done),
            all => format!("{} of {}", human(done.min(all)), human(all)),
        };
        match self.stage() {
            Stage::Untouched => ("checking", share),
            Stage::Marks => ("trying", "its size, from one end to the other".to_owned()),
            Stage::Image => ("writing", share),
            Stage::ReadBack => ("reading", format!("{share} back")),
            Stage::Last | Stage::Whole => ("ending", "the first block".to_owned()),
        }
    }

    /// In what state the medium is, for who stopped or lost it.
    pub fn words(&self) -> &'static str {
        match self.stage() {
            Stage::Untouched => "nothing was written to it",
            Stage::Marks | Stage::Image => {
                "it is half written: what was on it is lost, and it starts on no machine until it is flashed anew"
            }
            Stage::ReadBack | Stage::Last => {
                "all but its first block is written: it starts on no machine until it is flashed anew"
            }
            Stage::Whole => "it is whole",
        }
    }
}
