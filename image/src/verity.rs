//! The tree of hashes behind a base, from which dm-verity checks each block as it is read. As `veritysetup format` writes it
//! (the kernel's Documentation/admin-guide/device-mapper/verity.rst, cryptsetup's lib/verity), without a salt.
//!
//! ```text
//! 0 ─ the file system, whole blocks ─┬─ superblock ─┬─ the top block ─ … ─ blocks with the hashes of the data ─ end
//!                                    data_bytes     + 4 KiB
//! ```
//!
//! Invariant: the root is the hash of the top block, and every byte before the superblock goes into it.

use anyhow::{Context, Result, ensure};
use packages::store::hex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of a block, of data and of hashes.
pub const BLOCK_BYTES: u64 = 4096;
/// Hashes in one block.
const HASHES: usize = BLOCK_BYTES as usize / 32;

/// What opens a base that carries its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Where the data ends and the superblock begins.
    pub data_bytes: u64,
    /// The root of the tree, in hex.
    pub root: String,
}

/// Appends the tree to a file of whole blocks.
pub fn append(path: &Path) -> Result<Seal> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    let data_bytes = file.metadata()?.len();
    ensure!(
        data_bytes > 0 && data_bytes.is_multiple_of(BLOCK_BYTES),
        "{} has {data_bytes} bytes: not whole blocks",
        path.display()
    );
    let mut levels = vec![hashes(&mut file)?];
    // A level of one block is the top.
    while let Some(level) = levels.last().filter(|level| level.len() > HASHES) {
        let next = blocks(level).map(|block| Sha256::digest(block).into()).collect();
        levels.push(next);
    }
    let root = levels
        .last()
        .and_then(|top| blocks(top).next())
        .context("no data")?;
    let root = hex(&Sha256::digest(root));
    file.seek(SeekFrom::Start(data_bytes))?;
    file.write_all(&superblock(data_bytes / BLOCK_BYTES))?;
    for level in levels.iter().rev() {
        for block in blocks(level) {
            file.write_all(&block)?;
        }
    }
    file.sync_all()?;
    Ok(Seal { data_bytes, root })
}

type Hash = [u8; 32];

/// The hash of each block of the data.
fn hashes(file: &mut File) -> Result<Vec<Hash>> {
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut found = Vec::new();
    loop {
        match reader.read_exact(&mut block) {
            Ok(()) => found.push(Sha256::digest(&block).into()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The blocks of a level, the last one filled with zeros.
fn blocks(level: &[Hash]) -> impl Iterator<Item = Vec<u8>> + '_ {
    level.chunks(HASHES).map(|hashes| {
        let mut block = hashes.concat();
        block.resize(BLOCK_BYTES as usize, 0);
        block
    })
}

/// `struct verity_sb` of cryptsetup, filled to a block. The agent does not read it: it has length and root from the image.
fn superblock(data_blocks: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"verity\0\0");
    put(8, &1u32.to_le_bytes());
    // Hashes of type 1: what is salted is salted in front.
    put(12, &1u32.to_le_bytes());
    put(16, b"steading-base\0\0\0");
    put(32, b"sha256");
    put(64, &(BLOCK_BYTES as u32).to_le_bytes());
    put(68, &(BLOCK_BYTES as u32).to_le_bytes());
    put(72, &data_blocks.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(blocks: u64, change: Option<usize>) -> Result<(Seal, Vec<u8>)> {
        let file = tempfile::NamedTempFile::new()?;
        let mut data: Vec<u8> = (0..blocks * BLOCK_BYTES)
            .map(|at| ((at * at) >> 9) as u8)
            .collect();
        if let Some(at) = change {
            data[at] ^= 1;
        }
        std::fs::write(file.path(), &data)?;
        let seal = append(file.path())?;
        Ok((seal, std::fs::read(file.path())?))
    }

    /// What the kernel does for one block: its hash is where the level says, and so on up to the root.
    fn reads(bytes: &[u8], seal: &Seal, index: usize) -> bool {
        let block = |at: usize| &bytes[at * 4096..(at + 1) * 4096];
        let data_blocks = seal.data_bytes as usize / 4096;
        let mut sizes = vec![data_blocks.div_ceil(HASHES)];
        while let Some(above) = sizes
            .last()
            .filter(|size| **size > 1)
            .map(|size| size.div_ceil(HASHES))
        {
            sizes.push(above);
        }
        let mut hash: Hash = Sha256::digest(block(index)).into();
        let mut at = index;
        for level in 0..sizes.len() {
            let start = data_blocks + 1 + sizes[level + 1..].iter().sum::<usize>();
            let holder = block(start + at / HASHES);
            if holder[at % HASHES * 32..][..32] != hash {
                return false;
            }
            hash = Sha256::digest(holder).into();
            at /= HASHES;
        }
        hex(&hash) == seal.root
    }

    #[test]
    fn every_block_leads_to_the_root() -> Result<()> {
        // One level; exactly one full level; two levels; three.
        for blocks in [1, 128, 129, 128 * 128 + 1] {
            let (seal, bytes) = sealed(blocks, None)?;
            assert_eq!(seal.data_bytes, blocks * BLOCK_BYTES);
            assert_eq!(&bytes[seal.data_bytes as usize..][..6], b"verity");
            for index in [0, blocks as usize / 2, blocks as usize - 1] {
                assert!(reads(&bytes, &seal, index), "block {index} of {blocks}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_flipped_byte_is_found_and_makes_another_root() -> Result<()> {
        let (seal, mut bytes) = sealed(300, None)?;
        bytes[200 * 4096 + 7] ^= 1;
        assert!(!reads(&bytes, &seal, 200) && reads(&bytes, &seal, 199));
        assert_ne!(sealed(300, Some(200 * 4096 + 7))?.0.root, seal.root);
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), [0; 100])?;
        assert!(append(file.path()).is_err(), "not whole blocks");
        Ok(())
    }
}
