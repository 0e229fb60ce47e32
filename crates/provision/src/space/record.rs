//! The record of a space in the journal: what was sold, where it sits, how far it came.
//!
//! Numbers are taken and the record is written in one transaction, before anything is made; both go in one
//! transaction, after the last of it is gone.

use host::isolate::{LOWEST_FIRST_ID, RANGE};
use host::names;
use market::id::{SaleId, UserId};
use serde::{Deserialize, Serialize};

use super::{Place, SpaceSpec};
use crate::journal::{Entry, Journal, JournalError};
use crate::network::address::{MOST_SPACES_OF_A_USER, MOST_USERS, SpaceIndex, UserIndex};

const ROOM: &str = "spaces";
const USERS: &str = "user-index";
const RANGES: &str = "id-range";

/// How far a space came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has never been ready: if it stops, all of it goes.
    Building,
    /// It was ready once, and holds the user's files: they stay until the end.
    Built,
    /// It is being taken down: nothing brings it back.
    Ending,
}

/// One space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceRecord {
    /// What was sold.
    pub spec: SpaceSpec,
    /// Where it sits.
    pub place: Place,
    /// How far it came.
    pub phase: Phase,
    /// Its volume is being made what its snapshot is: nobody opens it before that came through.
    #[serde(default)]
    pub restoring: bool,
}

/// Why a space gets no place.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It has one, and was built before.
    #[error("space {sale} is on this node already")]
    Exists {
        /// The sale.
        sale: SaleId,
    },
    /// The kernel's names for it would be those of another.
    #[error("{what} {id} begins as {other} does, so the kernel could not tell them apart")]
    Alike {
        /// A sale or a user.
        what: &'static str,
        /// Its id.
        id: String,
        /// The other's.
        other: String,
    },
    /// Another space's SSH server has that port.
    #[error("port {port} leads to space {sale} already")]
    Port {
        /// The port.
        port: u16,
        /// The other space.
        sale: SaleId,
    },
    /// No number, or no journal.
    #[error("no place for space {sale}")]
    Journal {
        /// The sale.
        sale: SaleId,
        /// Why.
        #[source]
        source: JournalError,
    },
}

/// Gives the space a place and a record. One that is still building keeps what it has.
pub async fn admit(journal: &Journal, spec: &SpaceSpec) -> Result<SpaceRecord, AdmitError> {
    let (sale, spec) = (spec.sale, spec.clone());
    let written = journal.write(move |entry| {
        let others = all(entry)?;
        if let Err(refused) = check(&spec, &others) {
            return Ok(Err(refused));
        }
        let record = SpaceRecord {
            place: take(entry, &spec)?,
            spec,
            phase: Phase::Building,
            restoring: false,
        };
        put(entry, &record)?;
        Ok(Ok(record))
    });
    written
        .await
        .map_err(|source| AdmitError::Journal { sale, source })?
}

fn check(spec: &SpaceSpec, others: &[SpaceRecord]) -> Result<(), AdmitError> {
    let alike = |what, id: String, other: String| Err(AdmitError::Alike { what, id, other });
    for other in others {
        let (sale, user) = (other.spec.sale, other.spec.user);
        if sale == spec.sale {
            if other.phase != Phase::Building || other.spec != *spec {
                return Err(AdmitError::Exists { sale });
            }
            continue;
        }
        if names::space_interface(sale.as_bytes()) == names::space_interface(spec.sale.as_bytes()) {
            return alike("sale", spec.sale.to_string(), sale.to_string());
        }
        if user != spec.user && names::user_netns(user.as_bytes()) == names::user_netns(spec.user.as_bytes())
        {
            return alike("user", spec.user.to_string(), user.to_string());
        }
        if let Some(port) = spec
            .public_port
            .filter(|port| other.spec.public_port == Some(*port))
        {
            return Err(AdmitError::Port { port, sale });
        }
    }
    Ok(())
}

fn take(entry: &Entry<'_>, spec: &SpaceSpec) -> Result<Place, JournalError> {
    let (sale, user) = (spec.sale.as_bytes(), spec.user.as_bytes());
    let user_number = entry.taken(USERS).take(user, 0..=u32::from(MOST_USERS) - 1)?;
    let space_number = entry
        .taken(&spaces_of(&spec.user))
        .take(sale, 0..=u32::from(MOST_SPACES_OF_A_USER) - 1)?;
    let range = entry
        .taken(RANGES)
        .take(sale, 0..=(u32::MAX - LOWEST_FIRST_ID) / RANGE - 1)?;
    let unreadable = |number: u32| JournalError::Row(format!("the number {number} is beyond its kind"));
    let user_index = u16::try_from(user_number)
        .ok()
        .and_then(|number| UserIndex::try_from(number).ok());
    let space_index = u8::try_from(space_number)
        .ok()
        .and_then(|number| SpaceIndex::try_from(number).ok());
    Ok(Place {
        user_index: user_index.ok_or_else(|| unreadable(user_number))?,
        space_index: space_index.ok_or_else(|| unreadable(space_number))?,
        first_id: LOWEST_FIRST_ID + range * RANGE,
    })
}

/// Spaces are numbered for each user by itself.
fn spaces_of(user: &UserId) -> String {
    format!("space-index {user}")
}

/// Removes the record and gives the numbers back, the user's with the user's last space.
pub async fn dismiss(journal: &Journal, sale: SaleId) -> Result<(), JournalError> {
    let gone = journal.write(move |entry| {
        let Some(record) = get(entry, &sale)? else {
            return Ok(());
        };
        let user = record.spec.user;
        entry.remove_row(ROOM, sale.as_bytes())?;
        entry.taken(&spaces_of(&user)).give_back(sale.as_bytes())?;
        entry.taken(RANGES).give_back(sale.as_bytes())?;
        if !all(entry)?.iter().any(|other| other.spec.user == user) {
            entry.taken(USERS).give_back(user.as_bytes())?;
        }
        Ok(())
    });
    gone.await
}

/// Writes how far the space came.
pub async fn set_phase(journal: &Journal, sale: SaleId, phase: Phase) -> Result<(), JournalError> {
    let written = journal.write(move |entry| {
        let record = get(entry, &sale)?;
        let record = record.ok_or_else(|| JournalError::Row(format!("space {sale} has no record")))?;
        put(entry, &SpaceRecord { phase, ..record })
    });
    written.await
}

/// Writes whether the volume is being put back.
pub async fn set_restoring(journal: &Journal, sale: SaleId, restoring: bool) -> Result<(), JournalError> {
    let written = journal.write(move |entry| {
        let record = get(entry, &sale)?;
        let record = record.ok_or_else(|| JournalError::Row(format!("space {sale} has no record")))?;
        put(entry, &SpaceRecord { restoring, ..record })
    });
    written.await
}

/// Writes another size of a space that is built: its record, or none where there is no such space.
pub async fn set_size(journal: &Journal, spec: &SpaceSpec) -> Result<Option<SpaceRecord>, JournalError> {
    let spec = spec.clone();
    let written = journal.write(move |entry| {
        let Some(record) = get(entry, &spec.sale)?.filter(|record| record.phase == Phase::Built) else {
            return Ok(None);
        };
        let (cpu, memory, disk, snapshot) = (spec.cpu, spec.memory, spec.disk, spec.snapshot);
        let record = SpaceRecord {
            spec: SpaceSpec {
                cpu,
                memory,
                disk,
                snapshot,
                ..record.spec
            },
            ..record
        };
        put(entry, &record)?;
        Ok(Some(record))
    });
    written.await
}

/// The space's record, if it has one.
pub async fn read(journal: &Journal, sale: SaleId) -> Result<Option<SpaceRecord>, JournalError> {
    journal.write(move |entry| get(entry, &sale)).await
}

/// All records.
pub async fn read_all(journal: &Journal) -> Result<Vec<SpaceRecord>, JournalError> {
    journal.write(all).await
}

fn put(entry: &Entry<'_>, record: &SpaceRecord) -> Result<(), JournalError> {
    let text = serde_json::to_vec(record).map_err(|error| JournalError::Row(error.to_string()))?;
    entry.put_row(ROOM, record.spec.sale.as_bytes(), &text)
}

fn get(entry: &Entry<'_>, sale: &SaleId) -> Result<Option<SpaceRecord>, JournalError> {
    entry
        .row(ROOM, sale.as_bytes())?
        .map(|text| parse(&text))
        .transpose()
}

fn all(entry: &Entry<'_>) -> Result<Vec<SpaceRecord>, JournalError> {
    entry.rows(ROOM)?.iter().map(|(_, text)| parse(text)).collect()
}

fn parse(text: &[u8]) -> Result<SpaceRecord, JournalError> {
    serde_json::from_slice(text).map_err(|error| JournalError::Row(format!("a space's record: {error}")))
}

#[cfg(test)]
mod tests {
    use market::id::{Digest, GroupId};
    use market::quantity::{BitsPerSecond, Bytes, MilliCpus};

    use super::*;

    fn spec(sale: u8, user: u8) -> SpaceSpec {
        SpaceSpec {
            sale: SaleId([sale; 32]),
            user: UserId([user; 32]),
            name: "calm-otter".to_owned(),
            cpu: MilliCpus(500),
            memory: Bytes(1 << 29),
            disk: Bytes(1 << 30),
            rate: BitsPerSecond(10_000_000),
            pids: 512,
            base: Digest([9; 32]),
            group: GroupId("steading-00000000-00000000".to_owned()),
            public_port: None,
            snapshot: Bytes::ZERO,
        }
    }

    fn journal() -> (tempfile::TempDir, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(&folder.path().join("journal.sqlite")).unwrap();
        (folder, journal)
    }

    #[tokio::test]
    async fn places_differ_and_return_when_the_space_is_gone() {
        let (_folder, journal) = journal();
        let first = admit(&journal, &spec(1, 7)).await.unwrap();
        let second = admit(&journal, &spec(2, 7)).await.unwrap();
        let third = admit(&journal, &spec(3, 8)).await.unwrap();
        assert_eq!(first.place.user_index, second.place.user_index);
        assert_ne!(first.place.space_index, second.place.space_index);
        assert_ne!(first.place.user_index, third.place.user_index);
        assert_eq!(
            [first.place.first_id, second.place.first_id, third.place.first_id],
            [100_000, 165_536, 231_072]
        );
        dismiss(&journal, SaleId([1; 32])).await.unwrap();
        dismiss(&journal, SaleId([1; 32])).await.unwrap();
        assert_eq!(
            admit(&journal, &spec(4, 8)).await.unwrap().place.first_id,
            100_000
        );
        dismiss(&journal, SaleId([2; 32])).await.unwrap();
        let next = admit(&journal, &spec(5, 6)).await.unwrap();
        assert_eq!(
            next.place.user_index, first.place.user_index,
            "the user's number returned with the last space"
        );
    }

    #[tokio::test]
    async fn a_space_that_builds_again_keeps_its_place_and_a_built_one_is_refused() {
        let (_folder, journal) = journal();
        let record = admit(&journal, &spec(1, 7)).await.unwrap();
        assert_eq!(admit(&journal, &spec(1, 7)).await.unwrap(), record);
        set_phase(&journal, SaleId([1; 32]), Phase::Built).await.unwrap();
        assert!(matches!(
            admit(&journal, &spec(1, 7)).await,
            Err(AdmitError::Exists { .. })
        ));
        assert_eq!(
            read(&journal, SaleId([1; 32])).await.unwrap().unwrap().phase,
            Phase::Built
        );
    }

    #[tokio::test]
    async fn who_would_share_a_kernel_name_or_a_port_is_refused() {
        let (_folder, journal) = journal();
        let taken = SpaceSpec {
            public_port: Some(2201),
            ..spec(1, 7)
        };
        admit(&journal, &taken).await.unwrap();
        let mut alike = [1; 32];
        alike[31] = 2;
        let refused = admit(
            &journal,
            &SpaceSpec {
                sale: SaleId(alike),
                ..spec(1, 7)
            },
        )
        .await;
        assert!(
            matches!(refused, Err(AdmitError::Alike { what: "sale", .. })),
            "{refused:?}"
        );
        let mut alike = [7; 32];
        alike[31] = 2;
        let refused = admit(
            &journal,
            &SpaceSpec {
                user: UserId(alike),
                ..spec(2, 7)
            },
        )
        .await;
        assert!(
            matches!(refused, Err(AdmitError::Alike { what: "user", .. })),
            "{refused:?}"
        );
        let refused = admit(
            &journal,
            &SpaceSpec {
                public_port: Some(2201),
                ..spec(3, 8)
            },
        )
        .await;
        assert!(
            matches!(refused, Err(AdmitError::Port { port: 2201, .. })),
            "{refused:?}"
        );
        assert_eq!(
            read_all(&journal).await.unwrap().len(),
            1,
            "a refusal leaves nothing"
        );
    }
}
