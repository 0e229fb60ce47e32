//! Writes a medium: GPT, system partition, base. One code for the small one that QEMU gets beside kernel and initramfs,
//! and for the stick, so what is tested with the one holds for the other.

use crate::cd;
use crate::fat::{self, Content};
use crate::layout::{
    ALIGNMENT_BYTES, BASE_ID, BASE_NAME, BASE_TYPE, DISK_ID, ESP_ID, ESP_TYPE, LABEL, SECTOR_BYTES,
    SMALL_CLUSTER_BYTES, SMALL_ESP_BYTES,
};
use anyhow::{Context, Result};
use gpt::GptConfig;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::{Partition, PartitionAttributes};
use gpt::partition_types::{OperatingSystem, Type};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What a medium is made of.
#[derive(Debug)]
pub struct Medium<'a> {
    /// Length of the system partition.
    pub esp_bytes: u64,
    /// Length of a FAT cluster; FAT32 wants at least 65525 of them.
    pub cluster_bytes: u64,
    /// Files of the system partition.
    pub files: Vec<(&'a str, Content)>,
    /// The base.
    pub base: &'a Path,
    /// How it starts, where it does.
    pub starts: Option<Starts>,
}

/// What a medium that starts has before its first partition.
#[derive(Debug)]
pub struct Starts {
    /// Code of the first sector, for BIOS.
    pub code: [u8; 440],
    /// The loader that it loads, [`crate::grub`].
    pub loader: Vec<u8>,
    /// Configuration of the loader for UEFI that comes from a CD.
    pub config: Vec<u8>,
}

/// The medium that a machine of QEMU gets: `farmer.toml` and the base.
pub fn medium(path: &Path, farmer_toml: &str, base: &Path) -> Result<()> {
    write(
        path,
        &Medium {
            esp_bytes: SMALL_ESP_BYTES,
            cluster_bytes: SMALL_CLUSTER_BYTES,
            files: vec![("farmer.toml", Content::Bytes(farmer_toml.as_bytes().to_vec()))],
            base,
            starts: None,
        },
    )
}

/// Where the system partition begins.
pub const ESP_START_BYTES: u64 = ALIGNMENT_BYTES;

/// Writes `medium` to `path`, as a sparse file.
pub fn write(path: &Path, medium: &Medium) -> Result<()> {
    let base_bytes = medium
        .base
        .metadata()
        .with_context(|| format!("no base at {}", medium.base.display()))?
        .len();
    let base_start = ESP_START_BYTES + medium.esp_bytes;
    let base_length = base_bytes.next_multiple_of(ALIGNMENT_BYTES);
    let _ = std::fs::remove_file(path);
    let mut file = File::options().read(true).write(true).create_new(true).open(path);
    let file = file
        .as_mut()
        .map_err(|error| anyhow::anyhow!("creating {}: {error}", path.display()))?;
    let bytes = base_start + base_length + ALIGNMENT_BYTES;
    file.set_len(bytes)?;
    write_table(file, medium, base_start, base_length)?;
    if let Some(starts) = &medium.starts {
        let cd = cd::build(&starts.loader, &starts.config, bytes)?;
        write_sparse(file, cd::start(), &cd)?;
    }
    let esp = fat::build(medium.esp_bytes, medium.cluster_bytes, &medium.files)?;
    write_sparse(file, ESP_START_BYTES, &esp)?;
    file.seek(SeekFrom::Start(base_start))?;
    std::io::copy(&mut File::open(medium.base)?, file).context("copying the base")?;
    Ok(())
}

fn write_table(file: &mut File, medium: &Medium, base_start: u64, base_length: u64) -> Result<()> {
    let sectors = u32::try_from((file.metadata()?.len() / SECTOR_BYTES) - 1).unwrap_or(u32::MAX);
    let mut mbr = ProtectiveMBR::with_lb_size(sectors);
    if let Some(starts) = &medium.starts {
        mbr.set_bootcode(starts.code);
    }
    mbr.overwrite_lba0(file)?;
    let partition =
        |kind: &str, id: &str, name: &str, start: u64, length: u64, flags: u64| -> Result<Partition> {
            Ok(Partition {
                part_type_guid: Type {
                    guid: kind.parse()?,
                    os: OperatingSystem::None,
                },
                part_guid: id.parse()?,
                first_lba: start / SECTOR_BYTES,
                last_lba: (start + length) / SECTOR_BYTES - 1,
                flags,
                name: name.to_owned(),
            })
        };
    // Some old firmware looks for the bit before it starts a disk; what knows GPT does not mind it.
    let flags = if medium.starts.is_some() {
        PartitionAttributes::BOOTABLE.bits()
    } else {
        0
    };
    let esp = partition(ESP_TYPE, ESP_ID, LABEL, ESP_START_BYTES, medium.esp_bytes, flags)?;
    let base = partition(BASE_TYPE, BASE_ID, BASE_NAME, base_start, base_length, 0)?;
    let mut table = GptConfig::new()
        .writable(true)
        .create_from_device(file, Some(DISK_ID.parse()?))?;
    table.update_partitions(BTreeMap::from([(1, esp), (2, base)]))?;
    table.write().context("writing the partition table")?;
    Ok(())
}

/// Puts a file into the first folder of a medium's system partition in the place of `instead`, as a person does in whose
/// computer the medium is.
pub fn put_file(path: &Path, instead: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let (_, partitions) = partitions(path)?;
    let system = partitions
        .iter()
        .find(|partition| partition.kind.eq_ignore_ascii_case(ESP_TYPE))
        .with_context(|| format!("{} has no system partition", path.display()))?;
    let start = system.sectors.0 * SECTOR_BYTES;
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut bytes_of = vec![0; ((system.sectors.1 + 1) * SECTOR_BYTES - start) as usize];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut bytes_of)?;
    file.seek(SeekFrom::Start(start))?;
    file.write_all(&fat::put_file(bytes_of, instead, name, bytes)?)?;
    Ok(file.sync_all()?)
}

/// A partition as a table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its kind, in capitals.
    pub kind: String,
    /// Its id, in capitals.
    pub id: String,
    /// First and last sector.
    pub sectors: (u64, u64),
    /// Its attributes.
    pub flags: u64,
}

/// What the table of the medium at `path` says, with the id of the medium first.
pub fn partitions(path: &Path) -> Result<(String, Vec<Written>)> {
    let disk = GptConfig::new()
        .open(path)
        .with_context(|| format!("reading the table of {}", path.display()))?;
    let capitals = |id: &dyn std::fmt::Display| id.to_string().to_uppercase();
    let written = disk.partitions().iter().map(|(number, partition)| Written {
        number: *number,
        name: partition.name.clone(),
        kind: capitals(&partition.part_type_guid.guid),
        id: capitals(&partition.part_guid),
        sectors: (partition.first_lba, partition.last_lba),
        flags: partition.flags,
    });
    Ok((capitals(disk.guid()), written.collect()))
}

/// Writes `bytes` at `start`, leaving out blocks of zeros: the file has them already.
fn write_sparse(file: &mut File, start: u64, bytes: &[u8]) -> Result<()> {
    const BLOCK: usize = 64 << 10;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(start + (index * BLOCK) as u64))?;
            file.write_all(block)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_medium_has_its_partitions_and_their_content() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let base = scratch.path().join("base");
        std::fs::write(&base, vec![9u8; 1_500_000])?;
        let path = scratch.path().join("medium.raw");
        medium(&path, "name = \"barn\"\n", &base)?;

        let table = GptConfig::new().open(&path)?;
        assert!(table.primary_header().is_ok() && table.backup_header().is_ok());
        let partitions: Vec<&Partition> = table.partitions().values().collect();
        assert_eq!(partitions.len(), 2);
        assert_eq!(partitions[0].name, "STEADING");
        assert_eq!(
            partitions[0].part_type_guid.guid.to_string().to_uppercase(),
            ESP_TYPE
        );
        assert_eq!(
            partitions[1].part_type_guid.guid.to_string().to_uppercase(),
            BASE_TYPE
        );
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(partitions[1].first_lba * SECTOR_BYTES))?;
        let mut content = vec![0; 1_500_000];
        file.read_exact(&mut content)?;
        assert!(content.iter().all(|byte| *byte == 9));

        let esp = partitions[0].first_lba * SECTOR_BYTES;
        let mut fat = vec![0; usize::try_from(SMALL_ESP_BYTES)?];
        file.seek(SeekFrom::Start(esp))?;
        file.read_exact(&mut fat)?;
        let system = fatfs::FileSystem::new(std::io::Cursor::new(fat), fatfs::FsOptions::new())?;
        let mut text = String::new();
        system
            .root_dir()
            .open_file("farmer.toml")?
            .read_to_string(&mut text)?;
        assert_eq!(text, "name = \"barn\"\n");

        let again = scratch.path().join("again.raw");
        medium(&again, "name = \"barn\"\n", &base)?;
        assert_eq!(
            std::fs::read(&path)?,
            std::fs::read(&again)?,
            "the same input, the same bytes"
        );
        Ok(())
    }

    /// A file system that believes itself longer than its partition would write over the base, or the table's copy.
    #[test]
    fn a_filled_system_partition_leaves_table_and_base_alone() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let base = scratch.path().join("base");
        std::fs::write(&base, vec![9u8; 1_500_000])?;
        let path = scratch.path().join("medium.raw");
        medium(&path, "name = \"barn\"\n", &base)?;
        let before = std::fs::read(&path)?;
        let start = usize::try_from(ESP_START_BYTES)?;
        let end = start + usize::try_from(SMALL_ESP_BYTES)?;

        // The whole rest of the disk is given to it, as nothing keeps a computer's driver inside but the file system's own figures.
        let mut disk = before.clone();
        let system =
            fatfs::FileSystem::new(std::io::Cursor::new(&mut disk[start..]), fatfs::FsOptions::new())?;
        let mut filler = system.root_dir().create_file("filler")?;
        let block = vec![0xA5; 64 << 10];
        let mut written = 0;
        while let Ok(more) = filler.write(&block) {
            if more == 0 {
                break;
            }
            written += more;
        }
        filler.flush()?;
        drop(filler);
        system.unmount()?;
        assert!(written > end - start - (2 << 20), "it was not filled: {written}");
        assert_ne!(disk[start..end], before[start..end]);
        assert!(disk[..start] == before[..start], "the table was written over");
        assert!(
            disk[end..] == before[end..],
            "base or copy of the table were written over"
        );
        std::fs::write(&path, &disk)?;
        let table = GptConfig::new().open(&path)?;
        assert!(table.primary_header().is_ok() && table.backup_header().is_ok());
        Ok(())
    }
}
