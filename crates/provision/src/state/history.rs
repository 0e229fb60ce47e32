//! Journals that went different ways: told from an old copy, and never written over.
//!
//! ```text
//!   together ─► A alone ─────────────────────► together: B's knows less than A's ──► an old copy, replaced
//!            └► B alone, sold; then A alone ─► together: B's knows a start that A's does not, and of a sale
//!                                              what A's does not: left as it is, and said
//! ```
//!
//! Generations count the starts that a disk saw, and cannot tell: each of two disks that took turns saw one more than
//! the time before. So every start writes a number that no other has into the journal.

use std::collections::BTreeSet;
use std::path::Path;

use crate::journal::{Entry, Journal, JournalError, SaleRow};

use super::{JOURNAL, StateError, volumes};

/// The room of the journal in which its starts are kept.
const STARTS: &str = "starts";
/// A number that the kernel gives once.
const UNIQUE: &str = "/proc/sys/kernel/random/uuid";

/// Writes this start into the journal that leads.
pub(super) fn begin(journal: &Journal, generation: u64) -> Result<(), StateError> {
    let unique = std::fs::read(UNIQUE).map_err(|source| StateError::File {
        path: UNIQUE.into(),
        source,
    })?;
    let started =
        move |entry: &Entry<'_>| entry.put_row(STARTS, unique.trim_ascii(), &generation.to_be_bytes());
    Ok(journal.write_blocking(started)?)
}

/// Whether the journal in `group` says of a sale what this one does not know, from a start that this one knows nothing of.
/// One of a newer image may. One that cannot be read says nothing: it is the copy of a disk that failed.
pub(super) fn went_another_way(journal: &Journal, group: &str) -> Result<bool, JournalError> {
    differs(journal, &volumes::path(group, JOURNAL))
}

fn differs(journal: &Journal, path: &Path) -> Result<bool, JournalError> {
    if !path.exists() {
        return Ok(false);
    }
    let theirs = match Journal::peek(path, known) {
        Ok(theirs) => theirs,
        Err(JournalError::Newer(_)) => return Ok(true),
        Err(_) => return Ok(false),
    };
    let ours = journal.write_blocking(known)?;
    let is_known = |row| ours.sales.contains(row);
    Ok(!theirs.starts.is_subset(&ours.starts) && !theirs.sales.iter().all(is_known))
}

/// What a journal knows.
struct Known {
    starts: BTreeSet<Vec<u8>>,
    /// Whole rows: what was signed, paid and granted since is in them.
    sales: Vec<SaleRow>,
}

fn known(entry: &Entry<'_>) -> Result<Known, JournalError> {
    Ok(Known {
        starts: entry.rows(STARTS)?.into_iter().map(|(key, _)| key).collect(),
        sales: entry.sales()?,
    })
}

#[cfg(test)]
mod tests {
    use market::id::SaleId;

    use super::*;

    fn sold(epoch: u64) -> SaleRow {
        SaleRow {
            sale: SaleId([7; 32]),
            signed: vec![1],
            state: "{}".into(),
            spec: "{}".into(),
            host_key: None,
            epoch,
        }
    }

    /// A journal with a sale, and the copy of it on another disk, each of which saw a start alone; `alone` is what the
    /// other's did then.
    fn parted(alone: impl FnOnce(&Journal)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| folder.path().join(name));
        let journal = Journal::create(&ours).unwrap();
        begin(&journal, 1).unwrap();
        journal.write_blocking(|entry| entry.put_sale(&sold(0))).unwrap();
        journal.copy_to(&other).unwrap();
        let theirs = Journal::open(&other).unwrap();
        begin(&theirs, 2).unwrap();
        alone(&theirs);
        theirs.close();
        begin(&journal, 3).unwrap();
        differs(&journal, &other).unwrap()
    }

    #[test]
    fn what_another_did_alone_is_not_written_over() {
        assert!(!parted(|_| ()), "the control: a start alone is nothing to keep");
        let granted = |journal: &Journal| journal.write_blocking(|entry| entry.put_sale(&sold(1)));
        assert!(parted(|journal| granted(journal).unwrap()));
        let ended = |journal: &Journal| journal.write_blocking(|entry| entry.remove_sale(&sold(0).sale));
        assert!(
            !parted(|journal| ended(journal).unwrap()),
            "there is nothing left to keep"
        );
    }

    #[test]
    fn a_copy_that_is_older_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| folder.path().join(name));
        let journal = Journal::create(&ours).unwrap();
        begin(&journal, 1).unwrap();
        journal.write_blocking(|entry| entry.put_sale(&sold(0))).unwrap();
        journal.copy_to(&other).unwrap();
        journal.write_blocking(|entry| entry.put_sale(&sold(1))).unwrap();
        assert!(!differs(&journal, &other).unwrap());
        std::fs::write(&other, "rotten").unwrap();
        assert!(!differs(&journal, &other).unwrap());
    }

    #[test]
    fn a_journal_of_a_newer_image_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| folder.path().join(name));
        let journal = Journal::create(&ours).unwrap();
        journal.copy_to(&other).unwrap();
        assert!(!differs(&journal, &other).unwrap(), "the control");
        let newer = rusqlite::Connection::open(&other).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        drop(newer);
        assert!(differs(&journal, &other).unwrap());
    }
}
