//! What a snapshot keeps of a volume, and putting it back.
//!
//! The kernel (dm-snapshot) copies a chunk of the volume into the snapshot's store before the volume is first written
//! there. The store, persistent, version 1, as `drivers/md/dm-snap-persistent.c` writes it:
//!
//! ```text
//!   chunk 0    "SnAp", valid, version, sectors of a chunk            4 × u32, little endian
//!   chunk 1    area: pairs (chunk of the volume, chunk of the store)  2 × u64 each; the first pair with 0 as its
//!   …          as many chunks of data as an area has pairs            second ends the list
//!   chunk n    the next area, its data, …
//! ```
//!
//! Putting back reads the kept chunks through the snapshot and writes them into the volume. The snapshot does not
//! change by it, for each of these chunks is in the store already: it can be repeated from its start after a power
//! cut, and the volume can be put back again later.
//!
//! The store is read past the page cache: the kernel writes it past that too, and holds the device open, so a page read
//! before would stay what it was.
//!
//! Invariants: a pair that points out of the volume is refused before anything of its area is written; what is not in
//! the list is not touched; it is on the disk when the call returns.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::direct::{ALIGNED, Direct};

/// What is copied at once, and what a changed byte costs in the store. Smaller chunks need more of the kernel's memory
/// (32 bytes each), larger ones more copying for a small write.
pub const CHUNK_BYTES: u64 = 64 << 10;
const PAIR_BYTES: u64 = 16;
const MAGIC: u32 = 0x7041_6e53;
/// Read and written at once.
const MOST_AT_ONCE: u64 = 1 << 20;
/// Written before it is waited for the disk: what is in memory for it is bounded, and the last wait is short.
const FLUSH_EVERY: u64 = 64 << 20;

/// Why a volume was not put back.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The kernel gave the snapshot up: its store could not be written.
    #[error("the snapshot is broken: the kernel could not write into its store")]
    Broken,
    /// The store is not what the kernel writes.
    #[error("the snapshot's store cannot be read: {0}")]
    Store(&'static str),
    /// A device.
    #[error("{path}")]
    Device {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The bytes of a store that holds every chunk of a volume of `volume` bytes: such a snapshot never runs full.
/// `None` where no disk could have that size.
pub fn store_bytes(volume: u64) -> Option<u64> {
    let chunks = volume.div_ceil(CHUNK_BYTES);
    // One more than needed where the last area is full: the pair that ends the list stands in it.
    let areas = chunks / (CHUNK_BYTES / PAIR_BYTES) + 1;
    chunks
        .checked_add(areas)?
        .checked_add(1)?
        .checked_mul(CHUNK_BYTES)
}

/// Sizes of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Store {
    chunk_bytes: u64,
}

impl Store {
    fn read(header: &[u8; 16]) -> Result<Self, SnapshotError> {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(0) != MAGIC || word(8) != 1 {
            return Err(SnapshotError::Store("it has another header"));
        }
        if word(4) != 1 {
            return Err(SnapshotError::Broken);
        }
        let sectors = word(12);
        // What LVM can make: 4 to 512 KiB.
        if !sectors.is_power_of_two() || !(8..=1024).contains(&sectors) {
            return Err(SnapshotError::Store("its chunks have an impossible size"));
        }
        Ok(Self {
            chunk_bytes: u64::from(sectors) * 512,
        })
    }

    /// Where an area begins; none beyond what any disk has.
    fn area_at(self, number: u64) -> Option<u64> {
        let stride = self.chunk_bytes / PAIR_BYTES + 1;
        number
            .checked_mul(stride)?
            .checked_add(1)?
            .checked_mul(self.chunk_bytes)
    }
}

/// The volume's chunks in one area, in order; whether the list ends in it.
fn chunks_in(area: &[u8], volume_chunks: u64) -> Result<(Vec<u64>, bool), SnapshotError> {
    let (mut chunks, mut ends) = (Vec::new(), false);
    for pair in area.chunks_exact(PAIR_BYTES as usize) {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&pair[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        if word(8) == 0 {
            ends = true;
            break;
        }
        if word(0) >= volume_chunks {
            return Err(SnapshotError::Store(
                "it names a chunk that the volume does not have",
            ));
        }
        chunks.push(word(0));
    }
    chunks.sort_unstable();
    chunks.dedup();
    Ok((chunks, ends))
}

/// Chunks that follow each other, as (first, how many), none longer than `most`.
fn runs(chunks: &[u64], most: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for chunk in chunks {
        match runs.last_mut() {
            Some((first, many)) if *first + *many == *chunk && *many < most => *many += 1,
            _ => runs.push((*chunk, 1)),
        }
    }
    runs
}

/// A snapshot, the store below it, and the volume of which it is one.
#[derive(Debug, Clone)]
pub struct Devices {
    /// The snapshot.
    pub snapshot: PathBuf,
    /// Its store.
    pub store: PathBuf,
    /// The volume.
    pub volume: PathBuf,
}

impl Devices {
    /// Whether the snapshot holds: the kernel has not given it up.
    ///
    /// # Errors
    /// When it does not, or cannot be read.
    pub fn check(&self) -> Result<(), SnapshotError> {
        StoreFile::open(&self.store)?.header().map(drop)
    }

    /// Puts every kept chunk back into the volume, which nobody may have open, so many bytes a second at most: others
    /// share the disk. Tells `passed` after each part; its error stops it. Returns the bytes that were put back.
    ///
    /// # Errors
    /// When a device fails or the store is not what the kernel writes; then the volume may hold some of both.
    pub fn put_back<E: From<SnapshotError>>(
        &self,
        bytes_per_second: u64,
        mut passed: impl FnMut() -> Result<(), E>,
    ) -> Result<u64, E> {
        let began = Instant::now();
        let mut store = StoreFile::open(&self.store)?;
        let shape = store.header()?;
        let snapshot = open(&self.snapshot, false)?;
        let volume = open(&self.volume, true)?;
        let volume_chunks = size(&volume, &self.volume)? / shape.chunk_bytes;
        let store_bytes = size(store.direct.file(), &self.store)?;
        let mut buffer = vec![0; MOST_AT_ONCE as usize];
        let (mut bytes, mut flushed_at) = (0, 0);
        for number in 0.. {
            let at = shape.area_at(number);
            let Some(at) = at.filter(|at| at.saturating_add(shape.chunk_bytes) <= store_bytes) else {
                break;
            };
            let (chunks, ends) = chunks_in(store.read(at, shape.chunk_bytes as usize)?, volume_chunks)?;
            for (first, many) in runs(&chunks, MOST_AT_ONCE / shape.chunk_bytes) {
                let part = &mut buffer[..(many * shape.chunk_bytes) as usize];
                let offset = first * shape.chunk_bytes;
                let read = snapshot.read_exact_at(part, offset);
                read.map_err(|source| device(&self.snapshot, source))?;
                let written = volume.write_all_at(part, offset);
                written.map_err(|source| device(&self.volume, source))?;
                bytes += part.len() as u64;
                if bytes - flushed_at >= FLUSH_EVERY {
                    let flushed = volume.sync_data();
                    flushed.map_err(|source| device(&self.volume, source))?;
                    flushed_at = bytes;
                }
                std::thread::sleep(due(bytes, bytes_per_second).saturating_sub(began.elapsed()));
                passed()?;
            }
            if ends {
                break;
            }
        }
        let flushed = volume.sync_all();
        flushed.map_err(|source| device(&self.volume, source))?;
        // What could not be read while it was copied would have failed; a snapshot that was given up meanwhile is told.
        store.header()?;
        Ok(bytes)
    }
}

/// How long so many bytes take at that rate.
fn due(bytes: u64, bytes_per_second: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The store's device, read past the page cache.
struct StoreFile<'a> {
    path: &'a Path,
    direct: Direct,
}

impl<'a> StoreFile<'a> {
    fn open(path: &'a Path) -> Result<Self, SnapshotError> {
        let direct = Direct::open(path).map_err(|source| device(path, source))?;
        Ok(Self { path, direct })
    }

    fn read(&mut self, at: u64, bytes: usize) -> Result<&[u8], SnapshotError> {
        let path = self.path;
        self.direct.read(at, bytes).map_err(|source| device(path, source))
    }

    fn header(&mut self) -> Result<Store, SnapshotError> {
        let first = self.read(0, ALIGNED)?;
        let header = first.first_chunk::<16>();
        Store::read(header.ok_or(SnapshotError::Store("it is too short"))?)
    }
}

fn open(path: &Path, write: bool) -> Result<File, SnapshotError> {
    let opened = File::options().read(true).write(write).open(path);
    opened.map_err(|source| device(path, source))
}

fn size(file: &File, path: &Path) -> Result<u64, SnapshotError> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0)).map_err(|source| device(path, source))
}

fn device(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Device {
        path: path.to_owned(),
        source,
    }
}

/// A header and an area, for the fuzz target: whether both are read.
#[cfg(fuzzing)]
pub fn fuzz_store(bytes: &[u8]) -> bool {
    let Some((header, area)) = bytes.split_first_chunk::<16>() else {
        return false;
    };
    let Ok(store) = Store::read(header) else {
        return false;
    };
    let volume_chunks = 1 << 20;
    let Ok((chunks, _)) = chunks_in(area, volume_chunks) else {
        return false;
    };
    let most = MOST_AT_ONCE / store.chunk_bytes;
    let runs = runs(&chunks, most);
    assert!(
        runs.iter()
            .all(|(first, many)| first + many <= volume_chunks && *many <= most)
    );
    assert_eq!(
        runs.iter().map(|(_, many)| *many).sum::<u64>(),
        chunks.len() as u64
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 4096;

    fn pair(volume: u64, store: u64) -> Vec<u8> {
        [volume.to_le_bytes(), store.to_le_bytes()].concat()
    }

    fn store_header(valid: u32, sectors: u32) -> Vec<u8> {
        [MAGIC, valid, 1, sectors]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    /// A store of chunks of 4 KiB with these pairs, and as many areas as they need.
    fn store(pairs: &[(u64, u64)], valid: u32) -> Vec<u8> {
        let mut bytes = store_header(valid, 8);
        let in_area = CHUNK / PAIR_BYTES as usize;
        for (number, area) in pairs.chunks(in_area).chain([&[][..]]).enumerate() {
            bytes.resize((1 + number * (in_area + 1)) * CHUNK, 0);
            bytes.extend(area.iter().flat_map(|(volume, store)| pair(*volume, *store)));
            bytes.resize(bytes.len().next_multiple_of(CHUNK), 0);
        }
        bytes.resize(bytes.len() + CHUNK, 0);
        bytes
    }

    fn devices(folder: &Path, store: &[u8], snapshot: &[u8], volume: &[u8]) -> Devices {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        Devices {
            snapshot: write("snapshot", snapshot),
            store: write("store", store),
            volume: write("volume", volume),
        }
    }

    #[test]
    fn the_chunks_in_the_store_are_put_back_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let chunks = 600;
        let old: Vec<u8> = (0..chunks).flat_map(|n| [(n % 251) as u8; CHUNK]).collect();
        let mut new = old.clone();
        let changed: Vec<u64> = (0..chunks as u64)
            .rev()
            .filter(|n| n % 2 == 0 || *n > 300)
            .collect();
        for chunk in &changed {
            new[*chunk as usize * CHUNK..][..CHUNK].fill(0xfe);
        }
        // A chunk that the list does not name stays, whatever it holds.
        new[CHUNK..2 * CHUNK].fill(0xfd);
        let pairs: Vec<(u64, u64)> = changed.iter().zip(2..).map(|(chunk, at)| (*chunk, at)).collect();
        assert!(pairs.len() > CHUNK / 16, "one area would do");
        let devices = devices(folder.path(), &store(&pairs, 1), &old, &new);
        devices.check().unwrap();
        let mut parts = 0;
        let bytes = devices
            .put_back::<SnapshotError>(u64::MAX, || {
                parts += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(bytes, (changed.len() * CHUNK) as u64);
        assert!(parts > 1, "{parts}");
        let mut wanted = old;
        wanted[CHUNK..2 * CHUNK].fill(0xfd);
        assert!(std::fs::read(&devices.volume).unwrap() == wanted);
    }

    #[test]
    fn it_stops_where_it_is_told_and_goes_on_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (vec![1; 8 * CHUNK], vec![2; 8 * CHUNK]);
        let devices = devices(folder.path(), &store(&[(6, 2), (2, 3)], 1), &old, &new);
        let stopped = devices.put_back(u64::MAX, || Err(SnapshotError::Store("a test")));
        assert!(stopped.is_err());
        let half = std::fs::read(&devices.volume).unwrap();
        assert!(half[2 * CHUNK] == 1 && half[6 * CHUNK] == 2);
        assert_eq!(
            devices.put_back::<SnapshotError>(u64::MAX, || Ok(())).unwrap(),
            2 * CHUNK as u64
        );
        assert_eq!(std::fs::read(&devices.volume).unwrap()[6 * CHUNK], 1);
    }

    #[test]
    fn a_store_that_lies_or_was_given_up_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (vec![1; 8 * CHUNK], vec![2; 8 * CHUNK]);
        let put_back = |store: &[u8]| {
            let devices = devices(folder.path(), store, &old, &new);
            let result = devices.put_back::<SnapshotError>(u64::MAX, || Ok(()));
            assert_eq!(std::fs::read(&devices.volume).unwrap(), new);
            result.unwrap_err()
        };
        assert!(matches!(put_back(&store(&[(2, 2)], 0)), SnapshotError::Broken));
        assert!(matches!(
            put_back(&store(&[(1, 2), (8, 3)], 1)),
            SnapshotError::Store(_)
        ));
        assert!(matches!(put_back(&[0; 8192]), SnapshotError::Store(_)));
        for sectors in [0, 7, 9, 2048] {
            let mut lying = store(&[(2, 2)], 1);
            lying[..16].copy_from_slice(&store_header(1, sectors));
            assert!(matches!(put_back(&lying), SnapshotError::Store(_)), "{sectors}");
        }
    }

    #[test]
    fn it_writes_no_faster_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (vec![1; 8 * CHUNK], vec![2; 8 * CHUNK]);
        let devices = devices(folder.path(), &store(&[(6, 2), (2, 3)], 1), &old, &new);
        let takes = |bytes_per_second: u64| {
            let began = Instant::now();
            let put_back = devices.put_back::<SnapshotError>(bytes_per_second, || Ok(()));
            assert_eq!(put_back.unwrap(), 2 * CHUNK as u64);
            began.elapsed()
        };
        // Long beside what the disk takes for two flushes while others write.
        let slow = Duration::from_secs(2);
        assert!(takes(CHUNK as u64) >= slow);
        assert!(takes(u64::MAX) < slow, "the control");
    }

    #[test]
    fn a_whole_store_is_a_little_larger_than_the_volume() {
        for volume in [CHUNK_BYTES, 260 << 20, 256 << 20, 10 << 30, 1 << 40] {
            let bytes = store_bytes(volume).unwrap();
            assert!(
                bytes > volume && bytes <= volume + volume / 2048 + 4 * CHUNK_BYTES,
                "{volume}"
            );
        }
        assert_eq!(store_bytes(u64::MAX), None);
    }
}
