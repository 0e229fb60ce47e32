//! What a space says that it holds, and how it is cut into groups.
//!
//! ```text
//! f 6 8 1700000000.0000000000 1700000000.1200000000 33:4711 1 /root/notes\0 …  end 0\0      as `find` prints it
//! 1 f 6 8 1700000000.0000000000 1700000000.1200000000 33:4711 1 /root/notes\0 …             as listing.age keeps it
//! ```
//! Folders come first, so that files find theirs with the right owner, and once more last, since a file that is put into a
//! folder changes its time.
//!
//! Invariant: every path is absolute, has no `.`, `..` or empty part, and lies below a path that was asked for; all names of
//! one file are in one group.

use std::collections::HashMap;

/// Entries that one export may have.
pub const MOST_ENTRIES: usize = 1_000_000;
/// Bytes of a listing.
pub const MOST_BYTES: usize = 256 << 20;
/// Entries of a group: its list is sent to the space each time.
const MOST_IN_GROUP: usize = 20_000;
/// As long as Linux takes a path.
const LONGEST_PATH: usize = 4096;
/// What tar writes for an entry beside its contents, at least.
const HEADER_BYTES: u64 = 1024;
const BLOCK: u64 = 512;

/// Left out: what belongs to the space itself rather than to who lives in it, written anew by each node.
const OF_THE_SPACE: [&str; 7] = [
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/machine-id",
    "/root/.ssh/authorized_keys",
];

/// Left out unless a path below is named: kernel, devices, and what may be lost at any time.
pub const PASSING: [&str; 8] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/cache",
    "/var/lib/apt/lists",
];

/// What an entry is; others (sockets, devices) cannot be taken and are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
}

impl Kind {
    fn of(letter: &str) -> Option<Kind> {
        match letter {
            "d" => Some(Kind::Folder),
            "f" => Some(Kind::File),
            "l" => Some(Kind::Link),
            "p" => Some(Kind::Pipe),
            _ => None,
        }
    }

    fn letter(self) -> char {
        match self {
            Kind::Folder => 'd',
            Kind::File => 'f',
            Kind::Link => 'l',
            Kind::Pipe => 'p',
        }
    }
}

/// One name in the space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its length, and how much of the disk it takes: less where it has holes.
    pub size: u64,
    blocks: u64,
    /// When it was written and when anything of it changed, in ten-billionths of a second.
    modified: i128,
    changed: i128,
    /// Device and number: the same for all names of one file.
    inode: (u64, u64),
    names: u32,
    /// Where it is, from `/`.
    pub path: Vec<u8>,
}

impl Entry {
    /// Bytes of it that travel, about.
    pub fn weight(&self) -> u64 {
        self.size.min(self.blocks.saturating_mul(BLOCK))
    }

    /// Whether nothing was done to it between the two looks.
    pub fn is_unchanged(&self, now: &Entry) -> bool {
        let of = |entry: &Entry| (entry.kind, entry.size, entry.modified, entry.changed, entry.inode);
        of(self) == of(now)
    }

    fn is_of_many(&self) -> bool {
        self.kind == Kind::File && self.names > 1
    }
}

/// Why a listing is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Too much.
    #[error("it lists more than {MOST_ENTRIES} files or {} MiB of names", MOST_BYTES >> 20)]
    TooMuch,
    /// Not what `find` prints.
    #[error("entry {0} of its list is none")]
    Entry(usize),
    /// A path that was not asked for, or that leads elsewhere.
    #[error("entry {0} of its list lies where nothing was asked for")]
    Elsewhere(usize),
    /// Cut off.
    #[error("its list has no end")]
    NoEnd,
}

/// What was found below the paths that were asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of their paths.
    pub entries: Vec<Entry>,
    /// Sockets, devices: what no export can hold.
    pub left_out: usize,
    /// Whether some of it could not be read.
    pub is_partial: bool,
}

/// Reads what `find` printed about what lies below `asked`.
pub fn read(printed: &[u8], asked: &[Vec<u8>]) -> Result<Found, ListingError> {
    if printed.len() > MOST_BYTES {
        return Err(ListingError::TooMuch);
    }
    let body = printed.strip_suffix(b"\0").ok_or(ListingError::NoEnd)?;
    let mut records: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
    let end = records.pop().and_then(|end| end.strip_prefix(b"end "));
    let is_partial = end.ok_or(ListingError::NoEnd)? != b"0";
    if records.len() > MOST_ENTRIES {
        return Err(ListingError::TooMuch);
    }
    let mut found = Found {
        is_partial,
        ..Found::default()
    };
    for (number, record) in records.into_iter().enumerate() {
        let (fields, path) = fields::<7>(record).ok_or(ListingError::Entry(number + 1))?;
        if !asked.iter().any(|asked| is_below(&path, asked)) {
            return Err(ListingError::Elsewhere(number + 1));
        }
        if Kind::of(fields[0]).is_none() {
            found.left_out += 1;
            continue;
        }
        let entry = entry(&fields, path).ok_or(ListingError::Entry(number + 1))?;
        if !is_of_the_space(&entry.path) {
            found.entries.push(entry);
        }
    }
    found.entries.sort_by(|a, b| a.path.cmp(&b.path));
    found.entries.dedup_by(|a, b| a.path == b.path);
    Ok(found)
}

/// So many words, and what is left: the path, which may hold anything but a zero.
fn fields<const N: usize>(record: &[u8]) -> Option<([&str; N], Vec<u8>)> {
    let mut parts = record.splitn(N + 1, |byte| *byte == b' ');
    let mut words = [""; N];
    for word in &mut words {
        *word = std::str::from_utf8(parts.next()?).ok()?;
    }
    let path = parts.next()?;
    is_path(path).then(|| (words, path.to_vec()))
}

fn entry(fields: &[&str; 7], path: Vec<u8>) -> Option<Entry> {
    let (device, number) = fields[5].split_once(':')?;
    Some(Entry {
        kind: Kind::of(fields[0])?,
        size: fields[1].parse().ok()?,
        blocks: fields[2].parse().ok()?,
        modified: moment(fields[3])?,
        changed: moment(fields[4])?,
        inode: (device.parse().ok()?, number.parse().ok()?),
        names: fields[6].parse().ok()?,
        path,
    })
}

/// Seconds with ten digits after the point, as `find` prints them.
fn moment(text: &str) -> Option<i128> {
    let (seconds, parts) = text.split_once('.')?;
    if parts.len() != 10 || !parts.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    Some(i128::from(seconds) * 10_000_000_000 + parts.parse::<i128>().ok()?)
}

fn is_path(path: &[u8]) -> bool {
    let parts = path
        .strip_prefix(b"/")
        .map(|rest| rest.split(|byte| *byte == b'/'));
    let is_part = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    let is_whole = |mut parts: std::slice::Split<'_, u8, _>| parts.all(is_part);
    path.len() <= LONGEST_PATH && !path.contains(&0) && (path == b"/" || parts.is_some_and(is_whole))
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let rest = path.strip_prefix(folder.strip_suffix(b"/").unwrap_or(folder));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// `/` itself is of the space, too: every space has one.
fn is_of_the_space(path: &[u8]) -> bool {
    path == b"/" || OF_THE_SPACE.iter().any(|own| own.as_bytes() == path)
}

/// A path that a person may ask for: as in a listing, or with a slash at its end.
pub fn asked(path: &[u8]) -> Option<Vec<u8>> {
    let path = path
        .strip_suffix(b"/")
        .filter(|path| !path.is_empty())
        .unwrap_or(path);
    is_path(path).then(|| path.to_vec())
}

/// Everything in the order in which it is taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The groups, one after another; folders are in it twice.
    pub groups: Vec<Vec<Entry>>,
    /// How many groups come again at the end.
    pub again: usize,
}

/// Cuts what was found into groups of about `part_bytes`.
pub fn plan(found: Vec<Entry>, part_bytes: u64) -> Plan {
    let (folders, mut files): (Vec<Entry>, Vec<Entry>) =
        found.into_iter().partition(|entry| entry.kind == Kind::Folder);
    // The names of one file stand beside its first one.
    let mut first = HashMap::new();
    for entry in files.iter().filter(|entry| entry.is_of_many()) {
        first.entry(entry.inode).or_insert_with(|| entry.path.clone());
    }
    files.sort_by_cached_key(|entry| {
        let leader = first.get(&entry.inode).filter(|_| entry.is_of_many());
        (leader.unwrap_or(&entry.path).clone(), entry.path.clone())
    });
    let folders = groups(folders, part_bytes);
    let again = folders.len();
    let files = groups(files, part_bytes);
    Plan {
        groups: [folders.clone(), files, folders].concat(),
        again,
    }
}

fn groups(entries: Vec<Entry>, part_bytes: u64) -> Vec<Vec<Entry>> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    let mut filled = u64::MAX;
    let mut before: Option<(u64, u64)> = None;
    for entry in entries {
        let inode = entry.is_of_many().then_some(entry.inode);
        let is_same_file = inode.is_some() && inode == before;
        let bytes = if is_same_file { 0 } else { entry.weight() }.saturating_add(HEADER_BYTES);
        let is_full = groups.last().is_none_or(|group| group.len() >= MOST_IN_GROUP)
            || filled.saturating_add(bytes) > part_bytes;
        match groups.last_mut().filter(|_| is_same_file || !is_full) {
            Some(group) => group.push(entry),
            None => {
                groups.push(vec![entry]);
                filled = 0;
            }
        }
        filled = filled.saturating_add(bytes);
        before = inode;
    }
    groups
}

/// More than tar makes of these.
pub fn most_bytes(group: &[Entry]) -> u64 {
    // Attributes may take as much as a path, several times; a sparse file has a map.
    const BESIDE: u64 = 256 << 10;
    let of = |entry: &Entry| entry.size.saturating_add(BESIDE);
    group.iter().map(of).fold(1 << 20, u64::saturating_add)
}

/// The listing as it is kept: each entry with the number of its group, from 1.
pub fn kept(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, group) in plan.groups.iter().enumerate() {
        for entry in group {
            let words = format!(
                "{} {} {} {} {} {} {}:{} {} ",
                number + 1,
                entry.kind.letter(),
                entry.size,
                entry.blocks,
                written(entry.modified),
                written(entry.changed),
                entry.inode.0,
                entry.inode.1,
                entry.names
            );
            out.extend_from_slice(words.as_bytes());
            out.extend_from_slice(&entry.path);
            out.push(0);
        }
    }
    out
}

fn written(moment: i128) -> String {
    const SECOND: i128 = 10_000_000_000;
    format!("{}.{:010}", moment.div_euclid(SECOND), moment.rem_euclid(SECOND))
}

/// Reads a listing that was kept; the groups of it are numbered from 1 without a gap.
pub fn read_kept(bytes: &[u8]) -> Result<Vec<Vec<Entry>>, ListingError> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    let body = match bytes.strip_suffix(b"\0") {
        Some(body) => body,
        None if bytes.is_empty() => return Ok(groups),
        None => return Err(ListingError::NoEnd),
    };
    for (number, record) in body.split(|byte| *byte == 0).enumerate() {
        let wrong = ListingError::Entry(number + 1);
        let (words, path) = fields::<8>(record).ok_or(ListingError::Entry(number + 1))?;
        let [group, rest @ ..] = words;
        let Some(entry) = entry(&rest, path) else {
            return Err(wrong);
        };
        let group: usize = group.parse().map_err(|_| wrong)?;
        match groups.len() {
            count if group == count && count > 0 => {
                if let Some(last) = groups.last_mut() {
                    last.push(entry);
                }
            }
            count if group == count + 1 => groups.push(vec![entry]),
            _ => return Err(ListingError::Entry(number + 1)),
        }
    }
    Ok(groups)
}

/// Paths that one of both has otherwise, or alone; folders are not looked at, for whatever is made in them changes them.
pub fn differing<'e>(then: impl Iterator<Item = &'e Entry>, now: &'e [Entry]) -> Vec<&'e [u8]> {
    let mut left: HashMap<&[u8], &Entry> = now.iter().map(|entry| (&entry.path[..], entry)).collect();
    let mut differing: Vec<&[u8]> = Vec::new();
    for entry in then.filter(|entry| entry.kind != Kind::Folder) {
        match left.remove(&entry.path[..]) {
            Some(now) if entry.is_unchanged(now) => {}
            _ => differing.push(&entry.path),
        }
    }
    let new = left.values().filter(|entry| entry.kind != Kind::Folder);
    differing.extend(new.map(|entry| &entry.path[..]));
    differing.sort_unstable();
    differing
}

/// Paths as tar and find are told them: from `/`, each ended by a zero.
pub fn names(group: &[Entry]) -> Vec<u8> {
    let mut names = Vec::new();
    for entry in group {
        names.extend_from_slice(entry.path.strip_prefix(b"/").unwrap_or(&entry.path));
        names.push(0);
    }
    names
}

#[cfg(test)]
mod tests;
