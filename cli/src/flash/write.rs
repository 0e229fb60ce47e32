//! The writing itself.
//!
//! ```text
//!  marks over the whole claimed size, read back        a stick that lies is found out before an hour is lost
//!  the image, but for its first block                  a hash for each block
//!  marks read back again, taken away                   what only a cache held is gone by now
//!  patches: settings, end of the table                 made in memory, then written
//!  every block read back from the medium               to the end of the image, and the end of the stick
//!  the first block, read back                          from here on it starts a machine
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};

use farmer::Reading;
use farmer::edit::EditError;
use market::quantity::Bytes;
use sha2::{Digest, Sha256};

use super::medium::Medium;
use super::patch::Patches;
use super::settings::{self, SECTOR_BYTES, SettingsError};
use super::{BLOCK, Progress, Stage};

/// Written so much at once, what is written reaches the medium: the line that moves tells the truth.
const SETTLE_EVERY: usize = 32;
/// Marks over the claimed size, evenly; more lie at powers of two, where sticks that lie begin anew.
const EVEN_MARKS: u64 = 64;
/// Length of a mark.
const MARK: usize = 4096;

/// Why a medium was not flashed.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// The image cannot be read or unpacked.
    #[error("the image cannot be read")]
    Image(#[source] io::Error),
    /// The image is none of ours.
    #[error("the image is no Steading stick")]
    NotOurs,
    /// It does not fit.
    #[error("it is too small: the image has {image}, and it has {medium}", image = Bytes(*.image).human(), medium = Bytes(*.medium).human())]
    TooSmall {
        /// What the image has.
        image: u64,
        /// What the medium has.
        medium: u64,
    },
    /// It claims more than it has.
    #[error(
        "it claims {claimed} and does not have them: what was written near {at} did not come back",
        claimed = Bytes(*.claimed).human(), at = Bytes(*.at).human()
    )]
    Lies {
        /// What it claims.
        claimed: u64,
        /// The first place that was not there.
        at: u64,
    },
    /// What came back is not what was written.
    #[error("what was read back {at} from its beginning is not what was written", at = Bytes(*.at).human())]
    Differs {
        /// Where.
        at: u64,
    },
    /// It cannot be written.
    #[error("it cannot be {doing}")]
    Medium {
        /// Written or read.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The settings will not do.
    #[error(transparent)]
    Settings(SettingsError),
}

/// What was done.
#[derive(Debug)]
pub struct Flashed {
    /// Length of the image.
    pub image_bytes: u64,
    /// What `farmer.toml` on it says.
    pub reading: Reading,
}

fn writing(source: io::Error) -> FlashError {
    FlashError::Medium {
        doing: "written",
        source,
    }
}

fn reading(source: io::Error) -> FlashError {
    FlashError::Medium {
        doing: "read",
        source,
    }
}

/// Writes an image, sets `keys`, and reads all of it back.
///
/// # Errors
/// When the medium lies, is too small, or does not give back what it was given; [`Progress::words`] says how it stands then.
pub fn flash(
    medium: &mut impl Medium,
    image: &mut dyn Read,
    image_bytes: Option<u64>,
    keys: &[(String, String)],
    progress: &Progress,
) -> Result<Flashed, FlashError> {
    if let Some(image) = image_bytes.filter(|image| *image > medium.bytes()) {
        return Err(FlashError::TooSmall {
            image,
            medium: medium.bytes(),
        });
    }
    // The first block is looked at before anything is written: what is no image of ours destroys nothing.
    let first = next_block(image)?;
    if !settings::is_ours(&first) {
        return Err(FlashError::NotOurs);
    }
    would_take(keys).map_err(|error| FlashError::Settings(error.into()))?;
    progress.begin(Stage::Marks, medium.bytes());
    // The beginning and the end go first, so that nothing half written starts a machine or looks like what was there.
    write_at(medium, 0, &vec![0; BLOCK])?;
    let mut marks = if medium.may_lie() {
        mark(medium, progress)?
    } else {
        Vec::new()
    };

    progress.begin(Stage::Image, image_bytes.unwrap_or(0));
    let mut hashes = vec![hash(&first)];
    let mut length = first.len() as u64;
    progress.add(first.len())?;
    loop {
        let block = next_block(image)?;
        if block.is_empty() {
            break;
        }
        let at = hashes.len() as u64 * BLOCK as u64;
        length = at + block.len() as u64;
        if length > medium.bytes() {
            return Err(FlashError::TooSmall {
                image: length,
                medium: medium.bytes(),
            });
        }
        if !(medium.is_blank() && block.iter().all(|byte| *byte == 0)) {
            medium.write(at, &block).map_err(writing)?;
        }
        hashes.push(hash(&block));
        if hashes.len().is_multiple_of(SETTLE_EVERY) {
            medium.settle().map_err(writing)?;
        }
        progress.add(block.len())?;
    }
    medium.settle().map_err(writing)?;
    // The image lies over the others now.
    marks.retain(|mark| mark.at >= length);
    look_for(medium, &marks)?;
    for mark in &marks {
        medium.write(mark.at, &[0; MARK]).map_err(writing)?;
    }

    let mut patches = Patches::new(medium, BTreeMap::from([(0, first)]));
    let sectors = patches.bytes() / SECTOR_BYTES;
    farmer::table::fit(&mut patches.window(0, u64::MAX), sectors).map_err(FlashError::Image)?;
    let said = settings::set(&mut patches, keys).map_err(FlashError::Settings)?;
    let mut changed = patches.into_blocks();
    let first = changed.remove(&0).unwrap_or_default();
    let mut expected: BTreeMap<u64, [u8; 32]> = (0..).zip(hashes).skip(1).collect();
    let mut lengths: BTreeMap<u64, usize> = BTreeMap::new();
    for (number, block) in &changed {
        medium.write(number * BLOCK as u64, block).map_err(writing)?;
        expected.insert(*number, hash(block));
        lengths.insert(*number, block.len());
    }
    medium.settle().map_err(writing)?;

    let length_of = |number: u64| -> usize {
        let rest = length.saturating_sub(number * BLOCK as u64).min(BLOCK as u64);
        lengths
            .get(&number)
            .copied()
            .unwrap_or_else(|| usize::try_from(rest).unwrap_or(BLOCK))
    };
    progress.begin(Stage::ReadBack, expected.len() as u64 * BLOCK as u64);
    for (number, hash) in &expected {
        check(medium, number * BLOCK as u64, length_of(*number), hash)?;
        progress.add(BLOCK)?;
    }
    progress.begin(Stage::Last, 0);
    let wanted = hash(&first);
    write_at(medium, 0, &first)?;
    check(medium, 0, first.len(), &wanted)?;
    progress.begin(Stage::Whole, 0);
    Ok(Flashed {
        image_bytes: length,
        reading: said,
    })
}

/// Sets `keys` on a stick or an image that is there, and reads back what was changed. Without keys it only reads.
///
/// # Errors
/// When it is none of ours, when a value will not do, or when it does not give back what it was given.
pub fn change(medium: &mut impl Medium, keys: &[(String, String)]) -> Result<Reading, FlashError> {
    let mut patches = Patches::new(medium, BTreeMap::new());
    let said = settings::set(&mut patches, keys).map_err(FlashError::Settings)?;
    let changed = patches.into_blocks();
    for (number, block) in &changed {
        medium.write(number * BLOCK as u64, block).map_err(writing)?;
    }
    if !changed.is_empty() {
        medium.settle().map_err(writing)?;
    }
    for (number, block) in &changed {
        check(medium, number * BLOCK as u64, block.len(), &hash(block))?;
    }
    Ok(said)
}

/// Whether every value would be taken, before anything is touched.
///
/// # Errors
/// As a node would refuse it.
pub fn would_take(keys: &[(String, String)]) -> Result<(), EditError> {
    farmer::edit::set(b"", keys).map(drop)
}

/// Writes and waits until it is there.
fn write_at(medium: &mut impl Medium, at: u64, bytes: &[u8]) -> Result<(), FlashError> {
    medium.write(at, bytes).map_err(writing)?;
    medium.settle().map_err(writing)
}

fn check(medium: &mut impl Medium, at: u64, length: usize, wanted: &[u8; 32]) -> Result<(), FlashError> {
    let mut block = vec![0; length];
    medium.read_back(at, &mut block).map_err(reading)?;
    if hash(&block) == *wanted {
        Ok(())
    } else {
        Err(FlashError::Differs { at })
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The next block of the image, whole but for the last one.
fn next_block(image: &mut dyn Read) -> Result<Vec<u8>, FlashError> {
    let mut block = Vec::with_capacity(BLOCK);
    image
        .take(BLOCK as u64)
        .read_to_end(&mut block)
        .map_err(FlashError::Image)?;
    Ok(block)
}

/// A piece of the medium that holds what only this run wrote there.
struct Mark {
    at: u64,
    bytes: Vec<u8>,
}

/// Writes marks over the whole claimed size and looks whether they stay.
fn mark(medium: &mut impl Medium, progress: &Progress) -> Result<Vec<Mark>, FlashError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| writing(io::Error::other(error.to_string())))?;
    let all = medium.bytes();
    let places = places(all);
    let mut marks = Vec::new();
    for at in places {
        let seed = Sha256::new().chain_update(nonce).chain_update(at.to_le_bytes());
        let bytes: Vec<u8> = seed.finalize().iter().copied().cycle().take(MARK).collect();
        medium.write(at, &bytes).map_err(writing)?;
        marks.push(Mark { at, bytes });
        progress.add(MARK)?;
    }
    medium.settle().map_err(writing)?;
    look_for(medium, &marks)?;
    Ok(marks)
}

fn look_for(medium: &mut impl Medium, marks: &[Mark]) -> Result<(), FlashError> {
    let mut found = vec![0; MARK];
    for mark in marks {
        let lies = FlashError::Lies {
            claimed: medium.bytes(),
            at: mark.at,
        };
        match medium.read_back(mark.at, &mut found) {
            Ok(()) if found == mark.bytes => {}
            Ok(()) | Err(_) => return Err(lies),
        }
    }
    Ok(())
}

/// Where marks are written: evenly to the end, and so far behind the first one as a stick that begins anew at a power
/// of two would write over it.
pub fn places(all: u64) -> Vec<u64> {
    let aligned = |at: u64| at / MARK as u64 * MARK as u64;
    let first = BLOCK as u64;
    let Some(last) = all
        .checked_sub(MARK as u64)
        .map(aligned)
        .filter(|last| *last > first)
    else {
        return Vec::new();
    };
    let mut places: Vec<u64> = (0..=EVEN_MARKS)
        .map(|number| aligned(first + (last - first) / EVEN_MARKS * number))
        .chain([last])
        .chain(
            (20..63)
                .map(|power| first + (1_u64 << power))
                .filter(|at| *at <= last),
        )
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}
