//! Journals that went different ways: told from an old copy, and never written over.
//!
//! ```text
//!   together ─► A alone ─────────────────────► together: B's knows less than A's ──► an old copy, replaced
//!            └► A alone, then B alone, sold ─► together: B's knows a start that A's does not, and sales:
//!                                              left as it is, and said
//! ```
//!
//! Generations count the starts that a disk saw, and cannot tell: each of two disks that took turns saw one more than
//! the time before. So every start writes a number that no other has into the journal.

use std::collections::BTreeSet;

use crate::journal::{Entry, Journal, JournalError};

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

/// Whether the journal in `group` has sales of a start that this one knows nothing of. One that cannot be read has none:
/// it is the copy of a disk that failed.
pub(super) fn went_another_way(journal: &Journal, group: &str) -> Result<bool, JournalError> {
    let path = volumes::path(group, JOURNAL);
    if !path.exists() {
        return Ok(false);
    }
    let Ok((starts, sales)) = Journal::peek(&path, known) else {
        return Ok(false);
    };
    let ours = journal.write_blocking(known)?;
    Ok(!starts.is_subset(&ours.0) && !sales.is_subset(&ours.1))
}

type Known = (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>);

/// Its starts, and its sales.
fn known(entry: &Entry<'_>) -> Result<Known, JournalError> {
    let starts = entry.rows(STARTS)?.into_iter().map(|(key, _)| key).collect();
    let sales = entry
        .sales()?
        .iter()
        .map(|row| row.sale.as_bytes().to_vec())
        .collect();
    Ok((starts, sales))
}
