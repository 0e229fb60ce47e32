//! A machine's tree as one text file: what [`crate::read`] read, and nothing else.
//!
//! ```text
//! dir  sys/class/net
//! link sys/block/vda ../devices/pci0000:00/…/block/vda
//! file sys/devices/…/vda/size
//! |20971520
//! data sys/firmware/efi/efivars/SecureBoot-…
//! |0600000001
//! ```
//!
//! `file` holds text, its lines after `|`, each with a newline at its end; `data`
//! holds hex. A capture carries serial numbers and hardware addresses: who sends
//! one away should know that.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use crate::tree::{Seen, Tree};

/// Why a capture could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A line is not in the form that [`capture`] writes.
    #[error("line {line} of the capture is not one of: dir, link, file, data, or | and content")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A path leaves the folder.
    #[error("line {line} of the capture names {path}, which is not below its root")]
    Path {
        /// Counted from 1.
        line: usize,
        /// The path as written.
        path: String,
    },
    /// The folder could not be written.
    #[error("writing {path}")]
    Write {
        /// What was being written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Reads the machine below `root` and writes down every file, link and folder used.
#[must_use]
pub fn capture(root: &Path) -> String {
    let tree = Tree::recording(root);
    let _inventory = crate::read_tree(&tree);
    let seen: BTreeMap<PathBuf, Seen> = tree.into_seen().into_iter().collect();
    let mut text = String::new();
    for (path, seen) in &seen {
        let path = path.display();
        match seen {
            Seen::Directory => text.push_str(&format!("dir  {path}\n")),
            Seen::Link(target) => text.push_str(&format!("link {path} {}\n", target.display())),
            Seen::File(bytes) => match as_lines(bytes) {
                Some(lines) => {
                    text.push_str(&format!("file {path}\n"));
                    for line in lines {
                        text.push_str(&format!("|{line}\n"));
                    }
                }
                None => {
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    text.push_str(&format!("data {path}\n|{hex}\n"));
                }
            },
        }
    }
    text
}

/// The lines of a text that ends in a newline; anything else is data.
fn as_lines(bytes: &[u8]) -> Option<Vec<&str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.chars()
        .all(plain)
        .then(|| text.strip_suffix('\n').map(|text| text.split('\n').collect()))?
}

/// Makes the tree of a capture in the folder `into`.
///
/// # Errors
/// When a line is malformed, a path leaves the folder, or writing fails.
pub fn unpack(capture: &str, into: &Path) -> Result<(), UnpackError> {
    let root = into.canonicalize().map_err(|source| UnpackError::Write {
        path: into.to_path_buf(),
        source,
    })?;
    let mut lines = capture.lines().enumerate().peekable();
    while let Some((index, text)) = lines.next() {
        let line = index + 1;
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (kind, rest) = text.split_once(' ').ok_or(UnpackError::Line { line })?;
        let mut words = rest.trim_start().splitn(2, ' ');
        let name = words.next().ok_or(UnpackError::Line { line })?;
        let path = below(into, name, line)?;
        let write = |source| UnpackError::Write {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(write)?;
            // A link made by an earlier line must not carry a later one outside.
            let real = parent.canonicalize().map_err(write)?;
            if !real.starts_with(&root) {
                let path = name.to_owned();
                return Err(UnpackError::Path { line, path });
            }
        }
        let mut content = String::new();
        while let Some((_, text)) = lines.next_if(|(_, text)| text.starts_with('|')) {
            content.push_str(&text[1..]);
            content.push('\n');
        }
        match kind {
            "dir" => fs::create_dir_all(&path).map_err(write)?,
            "link" => {
                let target = words.next().ok_or(UnpackError::Line { line })?;
                symlink(target, &path).map_err(write)?;
            }
            "file" => fs::write(&path, content).map_err(write)?,
            "data" => {
                let bytes = from_hex(content.trim()).ok_or(UnpackError::Line { line: line + 1 })?;
                fs::write(&path, bytes).map_err(write)?;
            }
            _ => return Err(UnpackError::Line { line }),
        }
    }
    Ok(())
}

fn below(into: &Path, name: &str, line: usize) -> Result<PathBuf, UnpackError> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain {
        return Err(UnpackError::Path {
            line,
            path: name.to_owned(),
        });
    }
    Ok(into.join(path))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
