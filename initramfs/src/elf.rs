//! What an ELF file asks of others: interpreter, libraries, symbol versions. A reader of the dynamic section only, for
//! 64-bit little-endian files (System V ABI, chapter 5; the version tables are in the Linux Standard Base).

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// What the dynamic section says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// The program that loads it; none in a library.
    pub interpreter: Option<String>,
    /// Names of libraries, in order.
    pub needed: Vec<String>,
    /// Symbol versions that it needs, by library.
    pub versions_needed: BTreeMap<String, Vec<String>>,
    /// Symbol versions that it provides.
    pub versions_defined: Vec<String>,
}

const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;
const DT_VERNEED: u64 = 0x6fff_fffe;
const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

impl Elf {
    /// Reads a file; `None` where it is no ELF file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        if bytes.starts_with(b"\x7fELF") {
            Self::parse(&bytes)
                .map(Some)
                .with_context(|| format!("in {}", path.display()))
        } else {
            Ok(None)
        }
    }

    /// Reads bytes that begin with the magic number.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.get(4..6) != Some(&[2, 1]) {
            bail!("not a 64-bit little-endian ELF file");
        }
        let file = Bytes(bytes);
        let (table, size, count) = (file.u64(32)?, u64::from(file.u16(54)?), u64::from(file.u16(56)?));
        let mut elf = Self::default();
        let mut loads = Vec::new();
        let mut dynamic = None;
        for index in 0..count {
            let at = table
                .checked_add(index * size)
                .context("program header out of range")?;
            let (kind, offset, address, length) = (
                file.u32(at)?,
                file.u64(at + 8)?,
                file.u64(at + 16)?,
                file.u64(at + 32)?,
            );
            match kind {
                1 => loads.push((address, offset, length)),
                2 => dynamic = Some((offset, length)),
                3 => elf.interpreter = Some(file.text(offset)?),
                _ => {}
            }
        }
        let Some((dynamic, length)) = dynamic else {
            return Ok(elf);
        };
        let place = |address: u64| {
            loads
                .iter()
                .find(|(from, _, length)| (*from..from.saturating_add(*length)).contains(&address))
                .map(|(from, offset, _)| address - from + offset)
                .context("address in no segment")
        };
        let mut tags = Vec::new();
        for at in (dynamic..dynamic.saturating_add(length)).step_by(16) {
            match file.u64(at)? {
                0 => break,
                tag => tags.push((tag, file.u64(at + 8)?)),
            }
        }
        let tag = |wanted: u64| {
            tags.iter()
                .find(|(tag, _)| *tag == wanted)
                .map(|(_, value)| *value)
        };
        let strings = place(tag(DT_STRTAB).context("no string table")?)?;
        let text = |offset: u64| file.text(strings.saturating_add(offset));
        for (_, offset) in tags.iter().filter(|(tag, _)| *tag == DT_NEEDED) {
            elf.needed.push(text(*offset)?);
        }
        if let (Some(at), Some(count)) = (tag(DT_VERNEED), tag(DT_VERNEEDNUM)) {
            let mut at = place(at)?;
            for _ in 0..count {
                let names = elf
                    .versions_needed
                    .entry(text(u64::from(file.u32(at + 4)?))?)
                    .or_default();
                let mut auxiliary = at + u64::from(file.u32(at + 8)?);
                for _ in 0..file.u16(at + 2)? {
                    // A weak reference (flag 2) may stay open.
                    if file.u16(auxiliary + 4)? & 2 == 0 {
                        names.push(text(u64::from(file.u32(auxiliary + 8)?))?);
                    }
                    auxiliary += u64::from(file.u32(auxiliary + 12)?);
                }
                at += u64::from(file.u32(at + 12)?);
            }
        }
        if let (Some(at), Some(count)) = (tag(DT_VERDEF), tag(DT_VERDEFNUM)) {
            let mut at = place(at)?;
            for _ in 0..count {
                let auxiliary = at + u64::from(file.u32(at + 12)?);
                elf.versions_defined.push(text(u64::from(file.u32(auxiliary)?))?);
                at += u64::from(file.u32(at + 16)?);
            }
        }
        Ok(elf)
    }
}

/// Reads that cannot leave the file.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let at = usize::try_from(at)?;
        let slice = at
            .checked_add(N)
            .and_then(|end| self.0.get(at..end))
            .context("the file is cut off")?;
        Ok(slice.try_into()?)
    }

    fn u16(&self, at: u64) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(&self, at: u64) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: u64) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn text(&self, at: u64) -> Result<String> {
        let rest = self
            .0
            .get(usize::try_from(at)?..)
            .context("the file is cut off")?;
        let end = rest
            .iter()
            .take(4096)
            .position(|byte| *byte == 0)
            .context("a name without an end")?;
        Ok(String::from_utf8(rest[..end].to_vec())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_libc() -> Result<()> {
        let elf = Elf::read(&std::env::current_exe()?)?.context("a test is an ELF file")?;
        assert!(elf.needed.iter().any(|name| name == "libc.so.6"), "{elf:?}");
        assert!(
            elf.interpreter
                .is_some_and(|path| path.ends_with("ld-linux-x86-64.so.2"))
        );
        assert!(
            elf.versions_needed["libc.so.6"]
                .iter()
                .any(|version| version.starts_with("GLIBC_2."))
        );
        Ok(())
    }

    #[test]
    fn no_cut_makes_it_panic() -> Result<()> {
        let bytes = std::fs::read(std::env::current_exe()?)?;
        for length in (6..4096).chain([bytes.len() / 2]) {
            let _ = Elf::parse(&bytes[..length]);
        }
        Ok(())
    }
}
