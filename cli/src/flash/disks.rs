//! Which disks there are, what is on them, and which may be written.
//!
//! ```text
//!  /sys/block  size, model, bus, partitions, who holds them ─┐
//!  /proc/self/mountinfo, /proc/swaps  what is in use ────────┼──► Found ──► may it be written, and if not, why
//!  /run/udev/data  what udev found on each partition ────────┘
//! ```
//!
//! Invariant: nothing here opens a disk. What is in use is refused whatever was said; what this machine runs from, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use inventory::Bus;
use market::quantity::Bytes;
use serde::Serialize;

/// Mount points without which this machine does not run.
const SYSTEM: [&str; 6] = ["/", "/boot", "/boot/efi", "/usr", "/var", "/home"];
/// Smaller has no room for an image.
const LEAST_BYTES: u64 = 256 << 20;
/// More of a file in /proc or udev's notes is not read.
const MOST_BYTES: u64 = 4 << 20;
/// Disks upon disks upon disks.
const DEEPEST: usize = 8;

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The kernel's name of today.
    pub name: String,
    /// Its device.
    pub path: PathBuf,
    /// Maker and model.
    pub model: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// How it is connected.
    pub bus: Option<Bus>,
    /// Whether it is one that people carry around: USB, a card, or a medium that can be taken out.
    pub removable: bool,
    /// What is on it, in a few words; none where that is not known.
    pub holds: Option<String>,
    /// Where it is mounted, and what else uses it.
    pub in_use: Vec<String>,
    /// Whether this machine runs from it.
    pub is_system: bool,
    /// Whether it refuses to be written.
    pub read_only: bool,
    /// Bytes of a sector.
    pub sector_bytes: u32,
}

/// Why a disk is not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This machine needs it.
    #[error("this machine runs from it ({0})")]
    System(String),
    /// Something uses it.
    #[error("it is in use: {0}")]
    InUse(String),
    /// A switch, or a worn-out card.
    #[error("it is write-protected")]
    ReadOnly,
    /// A card reader without a card.
    #[error("there is no medium in it")]
    Empty,
    /// Less than any image.
    #[error("it has {}, too little for an image", Bytes(*.0).human())]
    TooSmall(u64),
    /// No firmware starts an image from it.
    #[error("its sectors have {0} bytes, and an image needs 512")]
    Sectors(u32),
    /// A disk that was built in.
    #[error("it is not removable and not on USB")]
    BuiltIn,
}

impl Found {
    /// Whether it may be written; `any_disk` where built-in ones may be, too.
    pub fn refusal(&self, any_disk: bool) -> Option<Refusal> {
        let uses = || self.in_use.join(", ");
        if self.is_system {
            return Some(Refusal::System(uses()));
        }
        if !self.in_use.is_empty() {
            return Some(Refusal::InUse(uses()));
        }
        match self.bytes {
            0 => return Some(Refusal::Empty),
            bytes if bytes < LEAST_BYTES => return Some(Refusal::TooSmall(bytes)),
            _ => {}
        }
        if self.read_only {
            return Some(Refusal::ReadOnly);
        }
        if self.sector_bytes != 512 {
            return Some(Refusal::Sectors(self.sector_bytes));
        }
        (!self.removable && !any_disk).then_some(Refusal::BuiltIn)
    }

    /// What a person knows it by: `SanDisk Ultra, 14.9 GiB`.
    pub fn words(&self) -> String {
        let size = Bytes(self.bytes).human();
        match &self.model {
            Some(model) => format!("{model}, {size}"),
            None => size,
        }
    }
}

/// All disks below this root, in the order of their names.
pub fn find(root: &Path) -> Vec<Found> {
    let mounts = mounts(root);
    let swaps = swaps(root);
    inventory::read(root)
        .disks
        .unwrap_or_default()
        .into_iter()
        .map(|disk| {
            let block = root.join("sys/block").join(&disk.name);
            let is_card = line(&block.join("device/type")).as_deref() == Some("SD");
            let model = [disk.vendor.clone(), disk.model.clone()];
            let model: Vec<String> = model.into_iter().flatten().collect();
            let mut found = Found {
                path: Path::new("/dev").join(&disk.name),
                model: (!model.is_empty()).then(|| model.join(" ")),
                bytes: disk.size_bytes.unwrap_or(0),
                removable: is_card || disk.removable == Some(true) || disk.bus == Some(Bus::Usb),
                bus: disk.bus,
                holds: None,
                in_use: Vec::new(),
                is_system: false,
                read_only: disk.read_only == Some(true),
                sector_bytes: disk.logical_sector_bytes.unwrap_or(512),
                name: disk.name,
            };
            look(root, &mut found, &mounts, &swaps);
            found
        })
        .collect()
}

/// A disk that is no disk to carry: by its device, as a loop. Only who says that any disk will do gets at it.
pub fn find_any(root: &Path, name: &str) -> Option<Found> {
    let block = root.join("sys/block").join(name);
    let sectors: u64 = line(&block.join("size"))?.parse().ok()?;
    let mut found = Found {
        name: name.to_owned(),
        path: Path::new("/dev").join(name),
        model: None,
        bytes: sectors.saturating_mul(512),
        bus: None,
        removable: false,
        holds: None,
        in_use: Vec::new(),
        is_system: false,
        read_only: line(&block.join("ro")).as_deref() == Some("1"),
        sector_bytes: line(&block.join("queue/logical_block_size"))
            .and_then(|text| text.parse().ok())
            .unwrap_or(512),
    };
    look(root, &mut found, &mounts(root), &swaps(root));
    Some(found)
}

/// The disk that a partition is one of: `sdb1` is of `sdb`.
pub fn whole_of(root: &Path, name: &str) -> Option<String> {
    let real = std::fs::canonicalize(root.join("sys/class/block").join(name)).ok()?;
    real.join("partition")
        .exists()
        .then(|| Some(real.parent()?.file_name()?.to_str()?.to_owned()))?
}

/// What is on it and what uses it, its partitions and what stands on them included.
fn look(root: &Path, found: &mut Found, mounts: &[Mount], swaps: &BTreeSet<String>) {
    let block = root.join("sys/block").join(&found.name);
    let mut names = vec![(found.name.clone(), block.clone())];
    let mut parts: Vec<String> = folder(&block)
        .into_iter()
        .filter(|name| block.join(name).join("partition").exists())
        .collect();
    parts.sort_by_key(|name| (name.len(), name.clone()));
    names.extend(parts.iter().map(|name| (name.clone(), block.join(name))));
    let mut holds = Vec::new();
    for (name, place) in &names {
        holds.extend(content(root, place));
        uses(root, (name, place), mounts, swaps, found, DEEPEST);
    }
    found.holds = match (holds.is_empty(), parts.len()) {
        (false, _) => Some(holds.join(", ")),
        (true, 0) => None,
        (true, 1) => Some("1 partition".to_owned()),
        (true, count) => Some(format!("{count} partitions")),
    };
}

fn uses(
    root: &Path,
    (name, place): (&str, &Path),
    mounts: &[Mount],
    swaps: &BTreeSet<String>,
    found: &mut Found,
    deep: usize,
) {
    let number = line(&place.join("dev")).unwrap_or_default();
    let device = format!("/dev/{name}");
    for mount in mounts {
        if mount.number == number || mount.source == device {
            found.is_system |= SYSTEM.contains(&mount.point.as_str());
            let words = format!("{name} is mounted at {}", mount.point);
            if !found.in_use.contains(&words) {
                found.in_use.push(words);
            }
        }
    }
    if swaps.contains(&device) {
        found.is_system = true;
        found.in_use.push(format!("{name} is swap"));
    }
    for holder in folder(&place.join("holders")) {
        found.in_use.push(format!("{holder} stands on {name}"));
        if let Some(deeper) = deep.checked_sub(1) {
            let place = root.join("sys/block").join(&holder);
            // A mapping's mount is known by its number; its name below /dev/mapper is not its own.
            uses(root, (&holder, &place), mounts, swaps, found, deeper);
        }
    }
}

/// What udev noted of a device: `vfat "KEYS"`.
fn content(root: &Path, place: &Path) -> Option<String> {
    let number = line(&place.join("dev"))?;
    let notes = read(&root.join("run/udev/data").join(format!("b{number}")))?;
    let fields: BTreeMap<&str, &str> = notes
        .lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .collect();
    let kind = fields.get("ID_FS_TYPE").filter(|kind| !kind.is_empty())?;
    let label = fields.get("ID_FS_LABEL").filter(|label| !label.is_empty());
    Some(match label {
        Some(label) => format!("{kind} \"{}\"", crate::show::text::plain(label)),
        None => (*kind).to_owned(),
    })
}

/// One line of mountinfo.
struct Mount {
    number: String,
    point: String,
    source: String,
}

fn mounts(root: &Path) -> Vec<Mount> {
    let text = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (number, point) = (fields.nth(2)?, fields.nth(1)?);
            let source = fields.skip_while(|field| *field != "-").nth(2)?;
            Some(Mount {
                number: number.to_owned(),
                point: point.replace("\\040", " "),
                source: source.to_owned(),
            })
        })
        .collect()
}

fn swaps(root: &Path) -> BTreeSet<String> {
    let text = read(&root.join("proc/swaps")).unwrap_or_default();
    let names = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

fn folder(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn line(path: &Path) -> Option<String> {
    Some(read(path)?.trim().to_owned())
}

fn read(path: &Path) -> Option<String> {
    // Files in /proc and /sys say that they are regular ones.
    let bytes = crate::files::read_bounded(path, MOST_BYTES).ok()??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
