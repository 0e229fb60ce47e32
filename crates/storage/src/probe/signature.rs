//! Signatures, as libblkid finds them.

use std::fs::File;
use std::os::fd::AsRawFd;

use libblkid_rs::{BlkidProbe, BlkidProbeRet, BlkidSublks, BlkidSublksFlags};

/// A disk can carry a handful; more is noise that somebody made.
const MAX_SIGNATURES: usize = 16;
/// Longest text taken from a disk.
const MAX_TEXT: usize = 64;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A file system.
    FileSystem,
    /// A member of an array or a volume group.
    Raid,
    /// Encrypted.
    Crypto,
    /// Swap and the like.
    Other,
    /// A table of partitions.
    PartitionTable {
        /// How many it lists.
        partitions: u32,
    },
}

/// One signature. Its texts stood on the disk; they are cleaned and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// libblkid's name of the type: `ext4`, `ntfs`, `crypto_LUKS`, `gpt`.
    pub kind: String,
    /// The label.
    pub label: Option<String>,
    /// The UUID or serial, as libblkid writes it.
    pub uuid: Option<String>,
    /// What it is for.
    pub usage: Usage,
}

impl Signature {
    /// In plain words.
    pub fn words(&self) -> String {
        let kind = match self.kind.as_str() {
            "ntfs" => "NTFS",
            "vfat" => "FAT",
            "crypto_LUKS" => "LUKS",
            "LVM2_member" => "LVM",
            "linux_raid_member" => "Linux RAID",
            "isw_raid_member" => "Intel RAID",
            "ddf_raid_member" => "DDF RAID",
            "zfs_member" => "ZFS",
            "BitLocker" => "BitLocker",
            other => other,
        };
        if self.kind == "PMBR" {
            return "the protective entry of a partition table (gpt) that is gone".to_owned();
        }
        if let Usage::PartitionTable { partitions } = self.usage {
            let plural = if partitions == 1 { "" } else { "s" };
            return format!("a partition table ({kind}) with {partitions} partition{plural}");
        }
        match &self.label {
            Some(label) => format!("{kind} \"{label}\""),
            None => kind.to_owned(),
        }
    }
}

/// All signatures. The error is libblkid's, in words: the disk could not be read.
pub(super) fn find(file: &File, size: u64) -> Result<Vec<Signature>, String> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let words = |error: libblkid_rs::BlkidErr| format!("libblkid: {error}");
    let mut probe = BlkidProbe::new().map_err(words)?;
    let length = i64::try_from(size).map_err(|_| "it is too large".to_owned())?;
    probe.set_device(file.as_raw_fd(), 0, length).map_err(words)?;
    probe.enable_superblocks(true).map_err(words)?;
    probe
        .set_superblock_flags(BlkidSublksFlags::new(vec![
            BlkidSublks::Label,
            BlkidSublks::Uuid,
            BlkidSublks::Type,
            BlkidSublks::Usage,
            BlkidSublks::Magic,
            // A superblock with a wrong checksum is still somebody's.
            BlkidSublks::Badcsum,
        ]))
        .map_err(words)?;
    probe.enable_partitions(true).map_err(words)?;
    let mut signatures = Vec::new();
    // Each call finds the next signature of the next chain, until there is none.
    while signatures.len() < MAX_SIGNATURES && probe.do_probe().map_err(words)? == BlkidProbeRet::Success {
        if let Some(signature) = read(&mut probe) {
            signatures.push(signature);
        }
    }
    // The list of partitions needs a probe of its own: asking for it resets the chain.
    let count = super::partitions::list(file, size).map_or(0, |list| list.len() as u32);
    for signature in &mut signatures {
        if let Usage::PartitionTable { partitions } = &mut signature.usage {
            *partitions = count;
        }
    }
    Ok(signatures)
}

fn read(probe: &mut BlkidProbe) -> Option<Signature> {
    let value = |name: &str| probe.lookup_value(name).ok().and_then(|text| clean(&text));
    if let Some(kind) = value("TYPE") {
        let usage = match value("USAGE").as_deref() {
            Some("filesystem") => Usage::FileSystem,
            Some("raid") => Usage::Raid,
            Some("crypto") => Usage::Crypto,
            _ => Usage::Other,
        };
        return Some(Signature {
            kind,
            label: value("LABEL"),
            uuid: value("UUID"),
            usage,
        });
    }
    let kind = value("PTTYPE")?;
    let usage = Usage::PartitionTable { partitions: 0 };
    Some(Signature {
        kind,
        label: None,
        uuid: value("PTUUID"),
        usage,
    })
}

/// Text from a disk, fit for a console and for a quoted string: printable, short, without quotes,
/// commas and backslashes. Nothing left: `None`.
pub(super) fn clean(text: &str) -> Option<String> {
    let fits = |c: char| {
        if c.is_control() || "\"'\\,".contains(c) || !is_shown(c) {
            '_'
        } else {
            c
        }
    };
    let text: String = text.trim().chars().take(MAX_TEXT).map(fits).collect();
    (!text.is_empty()).then_some(text)
}

/// Not a direction mark, joiner or private character, which would show something else than is there.
fn is_shown(c: char) -> bool {
    !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_disk_cannot_draw_on_the_console() {
        assert_eq!(clean("\u{1b}[31mred\n"), Some("_[31mred".into()));
        assert_eq!(clean("a\", \"b\\"), Some("a__ _b_".into()));
        assert_eq!(clean("abc\u{202e}def"), Some("abc_def".into()));
        assert_eq!(clean("  "), None);
        assert_eq!(clean(&"x".repeat(500)).map(|t| t.len()), Some(MAX_TEXT));
    }
}
