//! Bounded, read-only access to the files below one root.
//!
//! Invariant: nothing outside the root is ever opened. Links are followed by
//! hand, an absolute one starts again at the root (as after `chroot`), `..`
//! stops there, and a chain of more than 40 ends. Only regular files are read,
//! so a pipe in a hostile tree blocks nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Longest text of a single value, in characters.
const LONGEST_TEXT: usize = 128;
/// Most entries that a directory is read for.
const MOST_ENTRIES: usize = 4096;
/// Most links followed in one path; the kernel's own limit.
const MOST_LINKS: usize = 40;
/// Bytes read of an ordinary file: a page, as sysfs gives at most.
const PAGE: u64 = 4096;

/// Something that was read, for a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Directory,
    Link(PathBuf),
    File(Vec<u8>),
}

/// The files below one root.
pub(crate) struct Tree {
    root: PathBuf,
    seen: Option<RefCell<Vec<(PathBuf, Seen)>>>,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            seen: None,
        }
    }

    /// A tree that remembers what was read from it.
    pub(crate) fn recording(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            seen: Some(RefCell::new(Vec::new())),
        }
    }

    /// What was read so far, paths relative to the root.
    pub(crate) fn into_seen(self) -> Vec<(PathBuf, Seen)> {
        self.seen.map(RefCell::into_inner).unwrap_or_default()
    }

    fn note(&self, path: &Path, seen: Seen) {
        if let Some(all) = &self.seen {
            all.borrow_mut().push((path.to_path_buf(), seen));
        }
    }

    /// The real place of `path`, relative to the root; `None` if it is not there.
    pub(crate) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut left: VecDeque<OsString> = parts(Path::new(path));
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let here = self.root.join(&next);
            let kind = fs::symlink_metadata(&here).ok()?.file_type();
            if !kind.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return None;
            }
            let target = fs::read_link(&here).ok()?;
            self.note(&next, Seen::Link(target.clone()));
            if target.is_absolute() {
                at = PathBuf::new();
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
        Some(at)
    }

    /// The last name of where `path` leads, e.g. the driver's for `…/driver`.
    pub(crate) fn leads_to(&self, path: &str) -> Option<String> {
        // A captured tree need not hold the target: the link's text is enough.
        let (parent, name) = path.rsplit_once('/')?;
        let place = self.resolve(parent)?.join(name);
        let target = fs::read_link(self.root.join(&place)).ok()?;
        self.note(&place, Seen::Link(target.clone()));
        clean(&target.file_name()?.to_string_lossy())
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        let Some(place) = self.resolve(path) else {
            return false;
        };
        if self.root.join(&place).is_dir() {
            self.note(&place, Seen::Directory);
        }
        true
    }

    /// The first `most` bytes of a regular file.
    pub(crate) fn bytes(&self, path: &str, most: u64) -> Option<Vec<u8>> {
        let place = self.resolve(path)?;
        let full = self.root.join(&place);
        if !fs::symlink_metadata(&full).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(&full).ok()?;
        file.take(most).read_to_end(&mut bytes).ok()?;
        self.note(&place, Seen::File(bytes.clone()));
        Some(bytes)
    }

    /// Up to `most` bytes of a file as text, lines kept.
    pub(crate) fn long_text(&self, path: &str, most: u64) -> Option<String> {
        Some(String::from_utf8_lossy(&self.bytes(path, most)?).into_owned())
    }

    /// One value: trimmed, printable, bounded; `None` where there is nothing to say.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        clean(&String::from_utf8_lossy(&self.bytes(path, PAGE)?))
    }

    /// One decimal number.
    pub(crate) fn number<N: std::str::FromStr>(&self, path: &str) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    /// A switch: `0` or `1`, anything else is not one.
    pub(crate) fn switch(&self, path: &str) -> Option<bool> {
        match self.text(path)?.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// A PCI or USB id such as `0x1af4`.
    pub(crate) fn id(&self, path: &str) -> Option<u32> {
        let text = self.text(path)?;
        u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    }

    /// The names in a directory, sorted, numbers as a person sorts them.
    pub(crate) fn names(&self, path: &str) -> Option<Vec<String>> {
        let place = self.resolve(path)?;
        let entries = fs::read_dir(self.root.join(&place)).ok()?;
        self.note(&place, Seen::Directory);
        let mut names: Vec<String> = entries
            .take(MOST_ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.is_empty() && !name.contains(char::is_control))
            .collect();
        names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        Some(names)
    }
}

/// The parts of a path that mean something: names and `..`.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

/// Printable, single-spaced, bounded; nothing is `None`.
pub(crate) fn clean(text: &str) -> Option<String> {
    let printable: String = text
        .chars()
        .map(|c| if c.is_control() || c == '\u{fffd}' { ' ' } else { c })
        .collect();
    let mut words = String::new();
    for word in printable.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    let bounded: String = words.chars().take(LONGEST_TEXT).collect();
    (!bounded.is_empty()).then_some(bounded)
}
