//! Which disks are ours to use, and why the others are not.
//!
//! ```text
//!   inventory's disks ──► look ──► decide ──────────────────────────► take
//!                          │         │  blank, large enough             │ wipe both ends (consent
//!                          │         │  consented, one disk exactly     │   or half done), GPT with
//!                          │         │  half done                       │   one partition of ours,
//!                          │         ▼                                  │   PV, group of its own
//!                          │      shown, with the line that allows it   ▼
//!                          └─► ours already ──────────────────────► Claimed
//! ```
//!
//! Invariants: a disk that holds anything is not written until the farmer's line names it with
//! that content; the medium booted from and a group of another node are never written; a line is
//! good once, for one disk; a disk is a group by itself. Every disk that is seen is told, with a
//! reason in plain words. What was begun and not finished holds nothing and is begun anew.

mod fit;
mod look;
pub mod mark;
pub(crate) mod silent;
mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use host::names;
use inventory::Disk;
use market::id::NodeId;
use market::quantity::Bytes;
use storage::Storage;
use storage::lvm::LvmError;

use fit::{line_for, means};
pub use inventory::{Consent, ConsentError, ConsentHash};
pub(crate) use look::Groups;
use look::{Look, Seen};

/// Smaller disks are not claimed.
pub const SIZE_FLOOR_BYTES: u64 = 4 << 30;

/// What the farmer allows, and what must be left alone.
pub struct Rules<'a> {
    /// Who we are.
    pub node: NodeId,
    /// The farmer's lines.
    pub consents: &'a [Consent],
    /// Those that were good once before.
    pub used: &'a BTreeSet<ConsentHash>,
    /// Kernel names of the disks that were booted from (`sda`).
    pub boot_medium: &'a [String],
    /// Groups of ours in which nothing was ever kept: half done, to be begun anew.
    pub unborn: &'a BTreeSet<String>,
    /// Kernel names of the disks that hardly answer: nothing is asked of them.
    pub silent: &'a BTreeSet<String>,
}

/// One disk, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskState {
    /// The kernel's name of today (`sda`).
    pub name: String,
    /// Its device.
    pub path: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// Its model, where it says one.
    pub model: Option<String>,
    /// What became of it.
    pub state: Holding,
}

/// What became of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// It is ours.
    Claimed {
        /// Its volume group.
        group: String,
        /// What no volume has.
        free: Bytes,
        /// Whether it was claimed just now.
        new: bool,
    },
    /// It was not written.
    NotTouched {
        /// Why: "it is the medium that this machine booted from".
        why: String,
        /// What is on it: `ext4 "backup"`.
        what: String,
        /// The line for `erase` in `farmer.toml` that would give it, where one would.
        erase_line: Option<String>,
    },
}

/// Why disks could not be claimed at all. What is wrong with one disk is in its [`DiskState`].
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// LVM does not say what there is.
    #[error("the volume groups cannot be read")]
    Groups(#[source] LvmError),
}

/// All disks, and the lines that were used up by this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claimed {
    /// Every disk, by name.
    pub disks: Vec<DiskState>,
    /// To be recorded, so that they are not good again.
    pub used: BTreeSet<ConsentHash>,
}

impl DiskState {
    /// One sentence for the console: what it is, what became of it, and what to do.
    pub fn words(&self) -> String {
        let model = self
            .model
            .as_ref()
            .map(|model| format!("{model}, "))
            .unwrap_or_default();
        let disk = format!("{} ({model}{})", self.name, self.size.human());
        match &self.state {
            Holding::Claimed { free, new, .. } => {
                let since = if *new { "claimed now" } else { "claimed" };
                format!("{disk}: {since}, {} free", free.human())
            }
            Holding::NotTouched {
                why,
                what,
                erase_line,
            } => {
                let line = erase_line.as_ref().map(|line| {
                    format!("; to sell it and lose what is on it, add the line: erase = [\"{line}\"]")
                });
                format!(
                    "{disk} holds {what}: not touched, {why}{}",
                    line.unwrap_or_default()
                )
            }
        }
    }
}

/// Looks at every disk, claims those that may be, and tells about all. Blocking: seconds.
///
/// # Errors
/// When LVM does not answer at all.
pub fn claim_disks(storage: &Storage, disks: &[Disk], rules: &Rules<'_>) -> Result<Claimed, ClaimError> {
    let groups = Groups::read(storage).map_err(ClaimError::Groups)?;
    claim_of(storage, disks, rules, groups)
}

/// As [`claim_disks`], where `groups` was read a moment ago.
pub(crate) fn claim_of(
    storage: &Storage,
    disks: &[Disk],
    rules: &Rules<'_>,
    groups: Groups,
) -> Result<Claimed, ClaimError> {
    let seen: Vec<Seen> = disks
        .iter()
        .filter_map(|disk| look::at(disk, &groups, rules))
        .collect();
    let verdicts = decide(&seen, rules);
    let mut claimed = Claimed::default();
    let mut outcomes = Vec::new();
    for (disk, verdict) in seen.iter().zip(verdicts) {
        outcomes.push(match verdict {
            Verdict::Keep(group) => Outcome::Ours { group, new: false },
            Verdict::Leave { why, erase_line } => Outcome::Left { why, erase_line },
            Verdict::Take { consent } => {
                // Used up before anything is written: a cut in between costs the farmer a line, not a disk.
                claimed.used.extend(consent);
                match take::take(storage, disk, &rules.node) {
                    Ok(group) => Outcome::Ours { group, new: true },
                    Err(error) => Outcome::Left {
                        why: format!("claiming it failed: {}", crate::step::chain(&error)),
                        erase_line: None,
                    },
                }
            }
        });
    }
    // Asked again only where one was taken, and once for all: each question is a look at every disk.
    let took = |outcome: &Outcome| matches!(outcome, Outcome::Ours { new: true, .. });
    let groups = match outcomes.iter().any(took) {
        true => Groups::read(storage),
        false => Ok(groups),
    };
    for (disk, outcome) in seen.into_iter().zip(outcomes) {
        let state = match outcome {
            Outcome::Ours { group, new } => holding(&groups, group, new),
            Outcome::Left { why, erase_line } => Holding::NotTouched {
                why,
                what: disk.words(),
                erase_line,
            },
        };
        claimed.disks.push(DiskState {
            name: disk.name,
            path: disk.path,
            size: Bytes(disk.size_bytes),
            model: disk.model,
            state,
        });
    }
    Ok(claimed)
}

/// What was done with one disk.
enum Outcome {
    Ours { group: String, new: bool },
    Left { why: String, erase_line: Option<String> },
}

fn holding(groups: &Result<Groups, LvmError>, group: String, new: bool) -> Holding {
    match groups.as_ref().map(|groups| groups.free(&group)) {
        Ok(Some(free)) => Holding::Claimed { group, free, new },
        Ok(None) => not_read(&group, "LVM does not see it".to_owned()),
        Err(error) => not_read(&group, crate::step::chain(error)),
    }
}

fn not_read(group: &str, why: String) -> Holding {
    Holding::NotTouched {
        why,
        what: format!("our own group {group}"),
        erase_line: None,
    }
}

/// What is to be done with one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It is ours.
    Keep(String),
    /// It is to be taken, by this line where one was needed.
    Take { consent: Option<ConsentHash> },
    /// It stays as it is.
    Leave { why: String, erase_line: Option<String> },
}

/// Decides for all disks at once, for whether a line fits one disk alone is a question about all.
fn decide(seen: &[Seen], rules: &Rules<'_>) -> Vec<Verdict> {
    // For every line, how many disks it fits.
    let mut fits: BTreeMap<ConsentHash, Vec<&str>> = BTreeMap::new();
    for consent in rules.consents {
        let named = seen
            .iter()
            .filter(|disk| means(consent, disk))
            .map(|disk| disk.name.as_str());
        fits.insert(consent.hash(), named.collect());
    }
    seen.iter().map(|disk| decide_one(disk, rules, &fits)).collect()
}

fn decide_one(disk: &Seen, rules: &Rules<'_>, fits: &BTreeMap<ConsentHash, Vec<&str>>) -> Verdict {
    let leave = |why: &str| Verdict::Leave {
        why: why.to_owned(),
        erase_line: None,
    };
    match &disk.look {
        Look::Ours { group } => return Verdict::Keep(group.clone()),
        Look::BootMedium => return leave("it is the medium that this machine booted from"),
        Look::ReadOnly => return leave("it cannot be written"),
        Look::InUse => return leave("something uses it"),
        Look::Unreadable { .. } => return leave("it cannot be read"),
        Look::Silent => {
            return leave("it hardly answers: it is dying, or its cable is; put aside until the next start");
        }
        Look::Damaged => {
            return leave(
                "our partition is on it and its volumes cannot be read: spaces may lie behind it; to sell it anew, erase it \
                 on another computer",
            );
        }
        _ if disk.size_bytes < SIZE_FLOOR_BYTES => {
            return leave(&format!("it is smaller than {}", Bytes(SIZE_FLOOR_BYTES).human()));
        }
        Look::Blank | Look::HalfDone => return Verdict::Take { consent: None },
        Look::Holds { .. } | Look::OtherNode { .. } => {}
    }
    // A group of another node is never touched, whatever a line says: its farmer is asked there.
    if let Look::OtherNode { group } = &disk.look {
        return leave(&format!("its group {group} belongs to another node"));
    }
    let Some(consent) = rules.consents.iter().find(|consent| means(consent, disk)) else {
        return Verdict::Leave {
            why: "nobody allowed it".to_owned(),
            erase_line: line_for(disk),
        };
    };
    let hash = consent.hash();
    let named = fits.get(&hash).map_or(&[][..], Vec::as_slice);
    if named.len() > 1 {
        return leave(&format!(
            "the line for it fits {} too: each disk needs a line of its own",
            others(named, disk)
        ));
    }
    if rules.used.contains(&hash) {
        return leave("the line for it was good once, and that was used");
    }
    Verdict::Take { consent: Some(hash) }
}

fn others(named: &[&str], disk: &Seen) -> String {
    let others: Vec<_> = named.iter().copied().filter(|name| *name != disk.name).collect();
    others.join(" and ")
}

/// Whether a group's name is one that a node of ours gives.
pub(crate) fn is_node_group(group: &str) -> bool {
    let hex = |part: &str| {
        part.len() == 8
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = group.strip_prefix("steading-").unwrap_or_default().split('-');
    matches!((parts.next(), parts.next(), parts.next()), (Some(a), Some(b), None) if hex(a) && hex(b))
}

/// Whether a group's name begins as those of `node` do.
pub(crate) fn is_group_of(node: &NodeId, group: &str) -> bool {
    is_node_group(group) && group.starts_with(&names::volume_group_prefix(node.as_bytes()))
}

#[cfg(test)]
mod tests;
