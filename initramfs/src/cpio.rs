//! The archive that the kernel unpacks: cpio, format newc (the kernel's Documentation/driver-api/early-userspace/
//! buffer-format.rst). What is to be unpacked first, then the rest, each sorted, without times and owners of the builder, so the same
//! content gives the same bytes.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file with this content.
    Bytes(Vec<u8>, u32),
    /// A file with the content of a file here, and its permission bits.
    File(PathBuf, u32),
    /// A symbolic link.
    Link(String),
    /// A character device: major, minor.
    Device(u32, u32),
}

/// The tree to be written. Folders above a path come by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
    first: BTreeSet<String>,
}

impl Archive {
    /// Puts a node at an absolute path; a second one at the same path replaces the first.
    pub fn put(&mut self, path: &str, node: Node) -> Result<()> {
        let Some(relative) = path
            .strip_prefix('/')
            .filter(|p| !p.is_empty() && !p.ends_with('/'))
        else {
            bail!("{path}: not an absolute path of a file");
        };
        let mut above = relative;
        while let Some((folder, _)) = above.rsplit_once('/') {
            match self.nodes.get(folder) {
                Some(Node::Folder) => break,
                Some(_) => bail!("{path}: /{folder} is not a folder"),
                None => self.nodes.insert(folder.to_owned(), Node::Folder),
            };
            above = folder;
        }
        self.nodes.insert(relative.to_owned(), node);
        Ok(())
    }

    /// Has the kernel unpack what lies at an absolute path, and the folders above it, before all else: where memory ends
    /// while it unpacks, this much is there.
    pub fn unpack_first(&mut self, path: &str) {
        let mut above = path.trim_start_matches('/');
        loop {
            self.first.insert(above.to_owned());
            match above.rsplit_once('/') {
                Some((folder, _)) => above = folder,
                None => return,
            }
        }
    }

    /// Whether something lies there.
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_start_matches('/'))
    }

    /// All paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The files here whose content goes in: path inside, path here.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(from, _) => Some((path.as_str(), from.as_path())),
            _ => None,
        })
    }

    /// Writes the archive; returns its length in bytes.
    pub fn write(&self, path: &Path) -> Result<u64> {
        let is_first = |(name, _): &(&String, &Node)| self.first.contains(*name);
        let first = self.nodes.iter().filter(is_first);
        let rest = self.nodes.iter().filter(|entry| !is_first(entry));
        write_nodes(path, first.chain(rest))
    }

    /// Writes an archive of what is unpacked first and nothing else; returns its length in bytes.
    pub fn write_first(&self, path: &Path) -> Result<u64> {
        let first = self.nodes.iter().filter(|(name, _)| self.first.contains(*name));
        write_nodes(path, first)
    }
}

fn write_nodes<'a>(path: &Path, nodes: impl Iterator<Item = (&'a String, &'a Node)>) -> Result<u64> {
    let file = std::fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut out = Counted {
        out: BufWriter::with_capacity(1 << 20, file),
        written: 0,
    };
    for (index, (name, node)) in nodes.enumerate() {
        let index = u32::try_from(index)? + 1;
        match node {
            Node::Folder => out.entry(index, 0o040755, 2, (0, 0), name, &[])?,
            Node::Link(target) => out.entry(index, 0o120777, 1, (0, 0), name, target.as_bytes())?,
            Node::Device(major, minor) => out.entry(index, 0o020600, 1, (*major, *minor), name, &[])?,
            Node::Bytes(bytes, mode) => out.entry(index, 0o100000 | mode, 1, (0, 0), name, bytes)?,
            Node::File(from, mode) => {
                let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
                out.entry(index, 0o100000 | mode, 1, (0, 0), name, &bytes)?;
            }
        }
    }
    out.entry(0, 0, 1, (0, 0), "TRAILER!!!", &[])?;
    out.pad(512)?;
    out.out.flush()?;
    Ok(out.written)
}

struct Counted<W: Write> {
    out: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let more = (to - self.written % to) % to;
        self.bytes(&vec![0; usize::try_from(more)?])
    }

    fn entry(
        &mut self,
        inode: u32,
        mode: u32,
        links: u32,
        device: (u32, u32),
        name: &str,
        data: &[u8],
    ) -> Result<()> {
        let size = u32::try_from(data.len()).context("a file of 4 GiB does not fit the format")?;
        let name_size = u32::try_from(name.len())? + 1;
        let (major, minor) = device;
        // magic, inode, mode, uid, gid, links, mtime, size, device (two), special device (two), name's size, checksum
        let fields = [
            inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.bytes(header.as_bytes())?;
        self.bytes(name.as_bytes())?;
        self.bytes(&[0])?;
        self.pad(4)?;
        self.bytes(data)?;
        self.pad(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_it_back() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mut archive = Archive::default();
        archive.put("/a/b/file", Node::Bytes(b"seven!!".to_vec(), 0o755))?;
        archive.put("/link", Node::Link("a/b/file".into()))?;
        assert!(archive.put("/a/b/file/below", Node::Folder).is_err());
        assert!(archive.put("relative", Node::Folder).is_err());
        let file = scratch.path().join("x.cpio");
        let length = archive.write(&file)?;
        let bytes = std::fs::read(&file)?;
        assert_eq!(length, bytes.len() as u64);
        assert_eq!(length % 512, 0);
        // Every header begins at a multiple of four, and the name follows it.
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(names.len(), 5, "a, a/b, a/b/file, link, trailer");
        assert!(names.iter().all(|at| at % 4 == 0));
        assert!(
            text[names[2]..].starts_with("07070100000003000081ED"),
            "{}",
            &text[names[2]..names[2] + 30]
        );
        let again = scratch.path().join("y.cpio");
        archive.write(&again)?;
        assert_eq!(bytes, std::fs::read(&again)?);
        archive.put("/z/init", Node::Bytes(b"x".to_vec(), 0o755))?;
        archive.unpack_first("/z/init");
        archive.write(&again)?;
        let text = String::from_utf8_lossy(&std::fs::read(&again)?).into_owned();
        let names: Vec<usize> = ["z\0", "z/init\0", "a\0", "link\0"]
            .iter()
            .map(|name| text.find(name).unwrap_or(usize::MAX))
            .collect();
        assert!(names.is_sorted() && names[3] < text.len(), "{names:?}");
        archive.write_first(&again)?;
        let text = String::from_utf8_lossy(&std::fs::read(&again)?).into_owned();
        assert!(text.contains("z/init\0") && !text.contains("a/b/file"));
        Ok(())
    }
}
