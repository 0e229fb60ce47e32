//! Whether the node's own volume was let go, read off its disk while the machine is off.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};

const SECTOR: u64 = 512;
/// Where LVM begins to give room: the state's volume is the first that a node makes.
const FIRST_EXTENT: u64 = 1 << 20;

/// Whether the ext4 of the state was unmounted: one that was not has to be recovered, and says so.
pub fn is_closed(disk: &Path) -> Result<bool> {
    let disk = File::open(disk)?;
    let read = |at: u64, bytes: &mut [u8]| disk.read_exact_at(bytes, at);
    // The first entry of the GPT, which lies in the third sector: where the partition begins.
    let mut begin = [0; 8];
    read(2 * SECTOR + 32, &mut begin)?;
    let block = u64::from_le_bytes(begin) * SECTOR + FIRST_EXTENT + 1024;
    let (mut magic, mut label, mut needs) = ([0; 2], [0; 14], [0; 4]);
    read(block + 56, &mut magic)?;
    read(block + 120, &mut label)?;
    read(block + 96, &mut needs)?;
    ensure!(
        magic == [0x53, 0xef] && &label == b"steading-state",
        "no ext4 of the state there: {magic:x?} {label:x?}"
    );
    const RECOVER: u32 = 0x4;
    Ok(u32::from_le_bytes(needs) & RECOVER == 0)
}
