//! The system partition: FAT32, made in memory. Times are fixed, so the same files give the same bytes.

use crate::layout::{FAT_SERIAL, LABEL};
use anyhow::{Context, Result};
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time};
use std::io::{Cursor, Write};
use std::path::PathBuf;

/// Where a file's bytes come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// These.
    Bytes(Vec<u8>),
    /// Those of a file here.
    File(PathBuf),
}

/// FAT knows local times without a zone; ours is the first of 2026.
#[derive(Debug)]
struct FixedTime;

static FIXED_TIME: FixedTime = FixedTime;
const DATE: Date = Date {
    year: 2026,
    month: 1,
    day: 1,
};

impl fatfs::TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        DATE
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime {
            date: DATE,
            time: Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

/// A file system of `length` bytes with `files` (path with `/`, content).
pub fn build(length: u64, cluster_bytes: u64, files: &[(&str, Content)]) -> Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0u8; usize::try_from(length)?]);
    let mut label = [b' '; 11];
    label[..LABEL.len()].copy_from_slice(LABEL.as_bytes());
    let format = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(u32::try_from(cluster_bytes)?)
        .volume_id(u32::from_str_radix(FAT_SERIAL, 16)?)
        .volume_label(label);
    fatfs::format_volume(&mut disk, format).context("formatting the system partition")?;
    let system = FileSystem::new(&mut disk, FsOptions::new().time_provider(&FIXED_TIME))?;
    for (path, content) in files {
        put(&system, path, content).with_context(|| format!("writing {path} to the system partition"))?;
    }
    system.unmount()?;
    Ok(disk.into_inner())
}

/// Puts a file into the first folder of a file system, in the place of `instead`.
pub fn put_file(system: Vec<u8>, instead: &str, name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut disk = Cursor::new(system);
    let system = FileSystem::new(&mut disk, FsOptions::new())?;
    let root = system.root_dir();
    root.remove(instead)
        .with_context(|| format!("removing {instead}"))?;
    let mut file = root.create_file(name)?;
    file.write_all(bytes)?;
    file.flush()?;
    drop((file, root));
    system.unmount()?;
    Ok(disk.into_inner())
}

fn put(system: &FileSystem<&mut Cursor<Vec<u8>>>, path: &str, content: &Content) -> Result<()> {
    let mut above = 0;
    while let Some(slash) = path[above..].find('/') {
        above += slash + 1;
        system.root_dir().create_dir(&path[..above - 1])?;
    }
    let mut file = system.root_dir().create_file(path)?;
    match content {
        Content::Bytes(bytes) => file.write_all(bytes)?,
        Content::File(from) => {
            std::io::copy(
                &mut std::fs::File::open(from).with_context(|| format!("opening {}", from.display()))?,
                &mut file,
            )?;
        }
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_written_is_read_and_the_same_each_time() -> Result<()> {
        let long = "steading/a/a name that has more than eight letters";
        let files = [
            ("farmer.toml", Content::Bytes(b"# nothing\n".to_vec())),
            (long, Content::Bytes(vec![7; 100_000])),
            ("steading/a/second", Content::Bytes(vec![])),
        ];
        let one = build(crate::layout::SMALL_ESP_BYTES, 512, &files)?;
        assert_eq!(one, build(crate::layout::SMALL_ESP_BYTES, 512, &files)?);
        let system = FileSystem::new(Cursor::new(one), FsOptions::new())?;
        assert_eq!(system.fat_type(), FatType::Fat32);
        assert_eq!(system.volume_label(), "STEADING");
        let mut back = Vec::new();
        system.root_dir().open_file(long)?.read_to_end(&mut back)?;
        assert_eq!(back, vec![7; 100_000]);
        Ok(())
    }

    #[test]
    fn a_file_is_put_in_the_place_of_another() -> Result<()> {
        let files = [("farmer.toml", Content::Bytes(vec![b'#'; 3000]))];
        let before = build(crate::layout::SMALL_ESP_BYTES, 512, &files)?;
        let after = put_file(before, "farmer.toml", "farmer.toml.txt", b"price")?;
        let system = FileSystem::new(Cursor::new(after), FsOptions::new())?;
        assert!(system.root_dir().open_file("farmer.toml").is_err());
        let mut text = String::new();
        system
            .root_dir()
            .open_file("farmer.toml.txt")?
            .read_to_string(&mut text)?;
        assert_eq!(text, "price");
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let files = [("big", Content::Bytes(vec![1; 40 << 20]))];
        assert!(build(crate::layout::SMALL_ESP_BYTES, 512, &files).is_err());
    }
}
