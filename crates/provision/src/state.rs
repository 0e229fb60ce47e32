//! The node's own state: who it is and what it did, on a small volume of each group.
//!
//! ```text
//!   group of disk 1 (leads)       groups of disks 2 and 3            all others
//!   ┌ state: ext4, 128 MiB ────┐  ┌ state ──────────────────────┐    ┌ state ────────────────────┐
//!   │ node.key       0600      │─►│ the same                    │    │ the same                  │
//!   │ give-back.key  0600      │─►│ the same                    │    │ the same                  │
//!   │ node.json generation N+2 │  │ node.json  generation N+1   │    │ node.json  generation N   │
//!   │ journal.sqlite written   │─►│ journal.sqlite  follows     │    │ journal.sqlite  a copy    │
//!   └──────────────────────────┘  └─────────────────────────────┘    └───────────────────────────┘
//! ```
//!
//! At power-on the highest generation leads, and of equal ones the journal with the most writes: its keys
//! and its journal are the node's. What follows has all that was ever acknowledged, but for a disk that was slow and is
//! being brought what it lacks; the other copies, and those that follow no more, are made at power-on and with
//! [`State::replicate`]. Every copy has a lower generation than the journal that it was made from, so it leads only where
//! that disk is gone; then the new leader's generation passes the lost one's, so that a disk that returns does not bring
//! back what has since been undone. A journal that knows of a sale what the leading one never knew is no copy, nor is one
//! of a newer image: it is left as it is.
//!
//! Invariants: an identity is complete once `node.json` is there, which is written last and
//! replaced whole; a group without one, and without any volume of a space or a base, was never
//! used and is begun anew; a group of another node is looked at read-only and not touched; node
//! keys are opened by one function.

mod history;
mod identity;
mod volumes;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use inventory::Disk;
use market::id::NodeId;
use storage::Storage;
use storage::lvm::LvmError;
use zeroize::Zeroizing;

use crate::claim::{
    ClaimError, Consent, ConsentError, ConsentHash, DiskState, Groups, Holding, Rules, claim_of, mark, silent,
};
use crate::journal::{Journal, JournalError, Standing};
use crate::step::{chain, named};
use identity::Identity;
#[cfg(fuzzing)]
pub use identity::fuzz_node_json;

/// The room of the journal in which used lines of the farmer are kept.
const ROOM_CONSENTS: &str = "consents";
const JOURNAL: &str = "journal.sqlite";
/// Disks beside the leading one that are written before anything is acknowledged: with three, two may die in one night.
const FOLLOWERS: usize = 2;

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// LVM.
    #[error("LVM")]
    Lvm(#[from] LvmError),
    /// Claiming.
    #[error("claiming disks")]
    Claim(#[from] ClaimError),
    /// mkfs.ext4.
    #[error("the state volume of {group} was not made")]
    Mkfs {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: host::command::CommandError,
    },
    /// What is on it is not known, so it is neither mounted nor made.
    #[error("the state volume of {group} cannot be read")]
    Unreadable {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: storage::probe::ProbeError,
    },
    /// Mounting.
    #[error("the state volume of {group}")]
    Mount {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: host::mount::MountError,
    },
    /// A file on a state volume.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An identity that is there and cannot be read.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The kernel gave no random bytes for a key.
    #[error("no random bytes for a new key: {0}")]
    Random(String),
    /// The journal could not be copied or written.
    #[error("the journal")]
    Journal(#[from] JournalError),
    /// There is no disk of ours.
    #[error("no disk is claimed")]
    NoDisk,
    /// A test.
    #[cfg(feature = "fault-points")]
    #[error(transparent)]
    Stopped(#[from] crate::step::fault::Stopped),
}

/// What was found and made at power-on.
pub struct Started {
    /// Every disk, with what became of it.
    pub disks: Vec<DiskState>,
    /// Lines of the farmer that cannot be lines.
    pub wrong_lines: Vec<ConsentError>,
    /// The node's state; an error says why there is none.
    pub state: Result<State, StateError>,
}

/// The node's state, mounted.
pub struct State {
    node: NodeId,
    /// The leading group first.
    groups: Vec<String>,
    generation: u64,
    /// Groups that the leader knew and nobody sees now.
    missing: Vec<String>,
    /// Groups whose journal went another way.
    split: BTreeSet<String>,
    journal: Result<Journal, JournalError>,
}

/// Finds the node's state, claims what may be claimed, and makes or completes the state on every
/// disk of ours. Blocking: a second for what is there, two for each new disk. To be called once,
/// at power-on, when the hardware is there.
///
/// `boot_medium` names the disks booted from (`sda`); `lines` are `erase` of `farmer.toml`.
///
/// # Errors
/// When LVM does not answer. That there is no state is in [`Started::state`], with the disks.
pub fn start(
    storage: &Storage,
    disks: &[Disk],
    lines: &[String],
    boot_medium: &[String],
) -> Result<Started, StateError> {
    // First: LVM reads all that is in /dev.
    let silent = silent::put_aside(disks, boot_medium);
    let groups = Groups::read(storage)?;
    let found = volumes::find(storage, groups.names())?;
    let (consents, wrong_lines) = read_lines(lines);
    // A new identity is in memory only until a disk is claimed for it.
    let identity = match &found.leader {
        Some(leader) => leader.identity.another_handle(),
        None => Identity::fresh()?,
    };
    let used = found
        .leader
        .as_ref()
        .filter(|_| !consents.is_empty())
        .map(|leader| used_lines(&leader.group))
        .unwrap_or_default();
    let rules = Rules {
        node: identity.node(),
        consents: &consents,
        used: &used,
        boot_medium,
        unborn: &found.unborn,
        silent: &silent,
    };
    let claimed = claim_of(storage, disks, &rules, groups)?;
    let groups: Vec<String> = claimed.disks.iter().filter_map(group_of).collect();
    let state = State::assemble(storage, identity, found, groups);
    if let Ok(state) = &state {
        if let Ok(journal) = &state.journal {
            record_used(journal, &claimed.used)?;
        }
        for disk in &claimed.disks {
            if group_of(disk).is_some_and(|group| state.groups.contains(&group)) {
                finish(disk)?;
            }
        }
    }
    Ok(Started {
        disks: claimed.disks,
        wrong_lines,
        state,
    })
}

/// What is on the disk is complete: from now on nothing begins it anew. A disk that cannot be written keeps its mark.
fn finish(disk: &DiskState) -> Result<(), StateError> {
    named("claim-finished", || {
        if let Err(error) = mark::clear(&disk.path) {
            tracing::warn!(disk = disk.name, error = %chain(&error), "the mark of an unfinished claim stays");
        }
        Ok(())
    })
}

fn group_of(disk: &DiskState) -> Option<String> {
    match &disk.state {
        Holding::Claimed { group, .. } => Some(group.clone()),
        Holding::NotTouched { .. } => None,
    }
}

fn read_lines(lines: &[String]) -> (Vec<Consent>, Vec<ConsentError>) {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for line in lines {
        match line.parse() {
            Ok(consent) => right.push(consent),
            Err(error) => wrong.push(error),
        }
    }
    (right, wrong)
}

/// The lines that were good once. A journal that cannot be read gives none: a line names a disk
/// with its content, and a disk that was claimed has other content.
fn used_lines(group: &str) -> BTreeSet<ConsentHash> {
    let rows = Journal::peek(&volumes::path(group, JOURNAL), |entry| entry.rows(ROOM_CONSENTS));
    let hash = |(key, _): (Vec<u8>, Vec<u8>)| Some(ConsentHash(key.try_into().ok()?));
    rows.unwrap_or_default().into_iter().filter_map(hash).collect()
}

fn record_used(journal: &Journal, used: &BTreeSet<ConsentHash>) -> Result<(), StateError> {
    if used.is_empty() {
        return Ok(());
    }
    let used = used.clone();
    Ok(journal.write_blocking(move |entry| {
        used.iter()
            .try_for_each(|hash| entry.put_row(ROOM_CONSENTS, &hash.0, b"used"))
    })?)
}

/// A disk whose state cannot be written is left out, and does not stop the others.
fn usable(group: &str, prepared: Result<(), StateError>) -> bool {
    if let Err(error) = &prepared {
        tracing::warn!(group, error = %chain(error), "a disk's state cannot be written");
    }
    prepared.is_ok()
}

impl State {
    fn assemble(
        storage: &Storage,
        identity: Identity,
        found: volumes::Found,
        mut groups: Vec<String>,
    ) -> Result<Self, StateError> {
        let leader = match &found.leader {
            Some(leader) => leader.group.clone(),
            None => groups.first().cloned().ok_or(StateError::NoDisk)?,
        };
        groups.retain(|group| *group != leader);
        groups.insert(0, leader.clone());
        let missing: Vec<String> = found
            .known
            .iter()
            .filter(|known| !groups.contains(known))
            .cloned()
            .collect();
        let generation = found.highest.saturating_add(1);

        let fresh = found.leader.is_none();
        let prepare = |group: &String| {
            if !found.mounted.contains(group) {
                volumes::ensure(storage, group)?;
            }
            named("state-keys", || identity.write_keys(group))
        };
        prepare(&leader)?;
        groups.retain(|group| *group == leader || usable(group, prepare(group)));
        // The journal before the identity that speaks for it: an identity means that there is one.
        let path = volumes::path(&leader, JOURNAL);
        let journal = named("state-journal", || {
            Ok::<_, StateError>(if fresh {
                Journal::create(&path)
            } else {
                Journal::open(&path)
            })
        })?;
        let journal = match journal {
            // A cut between keys and journal of the first start: nothing was ever written.
            Err(JournalError::Exists(_)) if fresh => Journal::open(&path),
            other => other,
        };
        let known: BTreeSet<String> = found.known.iter().chain(&groups).cloned().collect();
        named("state-identity", || {
            identity::write_generation(&leader, generation.saturating_add(2), &known)
        })?;
        let mut split = BTreeSet::new();
        if let Ok(journal) = &journal {
            // A journal that is full is still read, and spaces are ended by it.
            if let Err(error) = history::begin(journal, generation) {
                tracing::warn!(error = %chain(&error), "the journal takes no start");
            }
            for group in &groups[1..] {
                if history::went_another_way(journal, group)? {
                    split.insert(group.clone());
                }
            }
        }
        let state = Self {
            node: identity.node(),
            groups,
            generation,
            missing,
            split,
            journal,
        };
        state.begin_to_follow(&known);
        // A copy that could not be made is made at the next change of a sale, or told then.
        if let Err(error) = state.replicate() {
            tracing::warn!(error = %chain(&error), "the journal was not copied");
        }
        Ok(state)
    }

    /// Who we are.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The volume groups of ours that are there, the leading one first.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Groups that this node had and nobody sees now: their spaces cannot be opened.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Groups whose journal knows of sales what this one does not, from a time when the leading disk was away: it is left as
    /// it is, and serves them where that disk alone is there.
    pub fn split(&self) -> &BTreeSet<String> {
        &self.split
    }

    /// The seed of the node's key. The one function that opens it, so that a TPM can seal it later.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn node_key(&self) -> Result<Zeroizing<[u8; 32]>, StateError> {
        identity::read_key(&self.groups[0], identity::NODE_KEY)
    }

    /// The seed of the key that signs give-backs.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn give_back_key(&self) -> Result<Zeroizing<[u8; 32]>, StateError> {
        identity::read_key(&self.groups[0], identity::GIVE_BACK_KEY)
    }

    /// The journal; an error where it is absent, older, newer or damaged: then nothing is sold.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub fn journal(&self) -> Result<&Journal, &JournalError> {
        self.journal.as_ref()
    }

    /// Has the journal write to the first other disks whatever it writes.
    fn begin_to_follow(&self, known: &BTreeSet<String>) {
        let Ok(journal) = &self.journal else { return };
        let mut following = 0;
        for group in self.groups[1..]
            .iter()
            .filter(|group| !self.split.contains(*group))
        {
            if following == FOLLOWERS {
                return;
            }
            let begun = journal
                .follow(&volumes::path(group, JOURNAL))
                .map_err(StateError::from)
                .and_then(|()| identity::write_generation(group, self.generation.saturating_add(1), known));
            match begun {
                Ok(()) => following += 1,
                Err(error) => {
                    tracing::warn!(group, error = %chain(&error), "the journal does not follow on a disk");
                }
            }
        }
    }

    /// How the journal's copies stand that were made to follow, a group. Blocking.
    ///
    /// # Errors
    /// When the journal's writer has ended.
    pub fn copies(&self) -> Result<Vec<(String, Standing)>, StateError> {
        let Ok(journal) = &self.journal else {
            return Ok(Vec::new());
        };
        let standings = journal.copies()?;
        let of = |group: &String| {
            let path = volumes::path(group, JOURNAL);
            let found = standings.iter().find(|(place, _)| *place == path);
            found.map(|(_, standing)| (group.clone(), *standing))
        };
        Ok(self.groups[1..].iter().filter_map(of).collect())
    }

    /// Copies journal and generation to every other disk of ours whose journal does not follow, or follows no more. What
    /// came after the last call is not on those. Blocking: some 50 ms, and some a disk.
    ///
    /// # Errors
    /// The first disk that could not be written; the others are tried all the same.
    pub fn replicate(&self) -> Result<(), StateError> {
        let Ok(journal) = &self.journal else { return Ok(()) };
        let copies = self.copies()?;
        let is_copied = |group: &&String| {
            if self.split.contains(*group) {
                return false;
            }
            let found = copies.iter().find(|(followed, _)| followed == *group);
            // The thread of a silent one may yet write what is there.
            found.is_none_or(|(_, standing)| *standing == Standing::Left)
        };
        let others: Vec<_> = self.groups[1..].iter().filter(is_copied).collect();
        if others.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<String> = self.groups.iter().chain(&self.missing).cloned().collect();
        // One copy beside the journal, and from there to the others: the journal waits for no other disk.
        let copy = volumes::copy_here(journal, &self.groups[0])?;
        let bring = |group: &&String| {
            volumes::bring_copy(&copy, group)?;
            identity::write_generation(group, self.generation, &known)
        };
        let brought: Vec<_> = others.iter().map(bring).collect();
        brought.into_iter().collect()
    }

    /// Closes the journal and unmounts the state volumes. The groups stay active: spaces may run on.
    ///
    /// # Errors
    /// The first that could not be unmounted; the others are tried all the same.
    pub fn close(self) -> Result<(), StateError> {
        if let Ok(journal) = self.journal {
            journal.close();
        }
        let closed: Vec<_> = self.groups.iter().map(|group| volumes::unmount(group)).collect();
        closed.into_iter().collect()
    }
}
