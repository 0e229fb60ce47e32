//! A sale as the journal keeps it: written before anything is done about it, read at start.
//!
//! One row a sale: the Sale as both signed it, the machine's state as JSON, what is to be built as JSON, the public
//! half of the host key, the number of grants. Beside it, in rooms of their own, the request and offer that the sale
//! is about, the newest grant, the newest change, and at the end the signed receipt: what a user who lost his files gets back.

use std::ops::RangeInclusive;

use market::envelope::{EnvelopeError, Signed, open};
use market::id::{GridId, SaleId};
use market::message::{self, CapacityRequest, Gives, RecalledSale};
use market::quantity::Bytes;
use market::sale::Sale;
use provision::journal::{Entry, Journal, JournalError, SaleRow};
use provision::space::SpaceSpec;
use provision::volume::snapshot_for;

use crate::words::chain;

/// The journal's numbers of the public ports: a sale has its own until it is over.
pub const PORTS: &str = "public-port";
const REQUESTS: &str = "sale-request";
const OFFERS: &str = "sale-offer";
const AMENDMENTS: &str = "sale-amended";
const RECEIPTS: &str = "sale-receipt";
const GRANTS: &str = "sale-grant";

/// Why a sale was not kept or not found again.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The journal.
    #[error("the journal")]
    Journal(#[from] JournalError),
    /// A row is not what this program wrote.
    #[error("the journal's row of sale {} cannot be read", sale.short())]
    Json {
        /// Which.
        sale: SaleId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A signed message in it is not valid any more.
    #[error("the journal's row of sale {} holds no valid message", sale.short())]
    Message {
        /// Which.
        sale: SaleId,
        /// Why.
        #[source]
        source: EnvelopeError,
    },
}

/// What a snapshot of so large a volume takes; more than any disk has, where it cannot be.
pub(super) fn snapshot_of(disk: Bytes) -> Bytes {
    Bytes(snapshot_for(disk.0).unwrap_or(u64::MAX))
}

/// The lowest port that is free; none where all are in use: it is reached through the grid alone.
fn take_port(
    entry: &Entry<'_>,
    sale: &SaleId,
    ports: RangeInclusive<u16>,
) -> Result<Option<u16>, JournalError> {
    let ports = u32::from(*ports.start())..=u32::from(*ports.end());
    match entry.taken(PORTS).take(sale.as_bytes(), ports) {
        Ok(port) => Ok(u16::try_from(port).ok()),
        Err(JournalError::Taken(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives back what belongs to no sale.
fn free_ports(entry: &Entry<'_>, sales: &[SaleRow]) -> Result<(), JournalError> {
    let taken = entry.taken(PORTS);
    for (_, owner) in taken.all()? {
        if !sales.iter().any(|row| row.sale.as_bytes()[..] == owner[..]) {
            taken.give_back(&owner)?;
        }
    }
    Ok(())
}

/// Everything that outlives a restart.
#[derive(Debug, Clone)]
pub struct Record {
    /// What both signed.
    pub signed: Signed<message::Sale>,
    /// The machine.
    pub sale: Sale,
    /// What is to be built.
    pub spec: SpaceSpec,
    /// The public half of the SSH host key, once there was one.
    pub host_key: Option<[u8; 32]>,
    /// The signed receipt, once there is one.
    pub receipt: Option<Vec<u8>>,
    /// The newest change as both signed it, once one was agreed since the start.
    pub amended: Option<Vec<u8>>,
}

impl Record {
    /// The sale's id.
    pub fn id(&self) -> SaleId {
        self.sale.deal.id
    }

    /// What of the machine is the sale's: a snapshot that both gave up is there until the machine has removed it.
    pub fn booked(&self) -> Gives {
        let gives = self.spec.gives();
        let goes = self.sale.resizing.and_then(|resizing| resizing.snapshot) == Some(false);
        let snapshot = if goes {
            snapshot_of(gives.disk)
        } else {
            gives.snapshot
        };
        Gives { snapshot, ..gives }
    }

    fn row(&self) -> Result<SaleRow, RecordError> {
        let sale = self.id();
        let json = |source| RecordError::Json { sale, source };
        Ok(SaleRow {
            sale,
            signed: self.signed.bytes.clone(),
            state: serde_json::to_string(&self.sale).map_err(json)?,
            spec: serde_json::to_string(&self.spec).map_err(json)?,
            host_key: self.host_key,
            epoch: self.sale.epoch,
        })
    }

    /// Writes it; durable when this returns. The newest change takes the place of the one before: it alone tells how the
    /// sale stands, and whoever changes a sale without end fills no journal.
    pub async fn write(&self, journal: &Journal) -> Result<(), RecordError> {
        let row = self.row()?;
        let beside = [
            (RECEIPTS, self.receipt.clone()),
            (AMENDMENTS, self.amended.clone()),
        ];
        let written = journal.write(move |entry| {
            entry.put_sale(&row)?;
            for (room, bytes) in beside {
                if let Some(bytes) = bytes {
                    entry.put_row(room, row.sale.as_bytes(), &bytes)?;
                }
            }
            Ok(())
        });
        Ok(written.await?)
    }

    /// Writes a new one, with the request and offer it is about, and takes a port for it where the farmer declared some
    /// and one is free: all of it or nothing, or a power cut would leave a port to a sale that nobody knows, for ever.
    pub async fn write_new(
        mut self,
        journal: &Journal,
        request: Vec<u8>,
        offer: Vec<u8>,
        ports: Option<RangeInclusive<u16>>,
    ) -> Result<Record, RecordError> {
        let written = journal.write(move |entry| {
            let sale = self.id();
            if let Some(ports) = ports {
                self.spec.public_port = take_port(entry, &sale, ports)?;
            }
            let row = self.row().map_err(|error| JournalError::Row(chain(&error)))?;
            entry.put_sale(&row)?;
            entry.put_row(REQUESTS, sale.as_bytes(), &request)?;
            entry.put_row(OFFERS, sale.as_bytes(), &offer)?;
            Ok(self)
        });
        Ok(written.await?)
    }

    /// All that there are. A row that cannot be read is reported beside, and stops nothing else. A port that belongs to
    /// none of them, which images before this one could leave, is free again.
    pub async fn read_all(
        journal: &Journal,
        grid: GridId,
    ) -> Result<(Vec<Record>, Vec<RecordError>), RecordError> {
        let rows = journal
            .write(|entry| {
                let sales = entry.sales()?;
                free_ports(entry, &sales)?;
                Ok((sales, entry.rows(RECEIPTS)?))
            })
            .await?;
        let (sales, receipts) = rows;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for row in sales {
            let receipt = receipts
                .iter()
                .find(|(key, _)| key.as_slice() == row.sale.as_bytes());
            match Record::from_row(row, receipt.map(|(_, bytes)| bytes.clone()), grid) {
                Ok(record) => good.push(record),
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }

    fn from_row(row: SaleRow, receipt: Option<Vec<u8>>, grid: GridId) -> Result<Record, RecordError> {
        let sale = row.sale;
        let json = |source| RecordError::Json { sale, source };
        let signed = open::<message::Sale>(&row.signed, Some(grid));
        let mut state: Sale = serde_json::from_str(&row.state).map_err(json)?;
        let spec: SpaceSpec = serde_json::from_str(&row.spec).map_err(json)?;
        // An older program did not say for which size it had handed out the key: it may have been this one.
        if let Some(resizing) = &mut state.resizing
            && resizing.disk == Bytes(0)
        {
            resizing.disk = spec.disk;
            resizing.handed = resizing.grows_from.map(|_| spec.disk);
        }
        Ok(Record {
            signed: signed.map_err(|source| RecordError::Message { sale, source })?,
            sale: state,
            spec,
            host_key: row.host_key,
            receipt,
            amended: None,
        })
    }
}

/// Removes a sale and all that lies beside it.
pub(super) fn forget_rows(entry: &Entry<'_>, sale: &SaleId) -> Result<(), JournalError> {
    entry.remove_sale(sale)?;
    for room in [REQUESTS, OFFERS, RECEIPTS, GRANTS, AMENDMENTS] {
        entry.remove_row(room, sale.as_bytes())?;
    }
    Ok(())
}

/// The newest change as both signed it.
pub(super) async fn newest_change(journal: &Journal, sale: SaleId) -> Result<Option<Vec<u8>>, RecordError> {
    Ok(journal
        .write(move |entry| entry.row(AMENDMENTS, sale.as_bytes()))
        .await?)
}

/// Keeps the newest grant, before it is handed out.
pub async fn keep_grant(journal: &Journal, sale: SaleId, bytes: Vec<u8>) -> Result<(), RecordError> {
    Ok(journal
        .write(move |entry| entry.put_row(GRANTS, sale.as_bytes(), &bytes))
        .await?)
}

/// What was signed of a sale, for its user to have again; none where the request or the offer is not known any more.
pub async fn recalled(journal: &Journal, sale: SaleId) -> Result<Option<RecalledSale>, RecordError> {
    let read = journal.write(move |entry| {
        let key = sale.as_bytes();
        let (row, request, offer) = (
            entry.sale(&sale)?,
            entry.row(REQUESTS, key)?,
            entry.row(OFFERS, key)?,
        );
        let (Some(row), Some(request), Some(offer)) = (row, request, offer) else {
            return Ok(None);
        };
        Ok(Some(RecalledSale {
            request,
            offer,
            sale: row.signed,
            grant: entry.row(GRANTS, key)?,
            amended: entry.row(AMENDMENTS, key)?,
            receipt: entry.row(RECEIPTS, key)?,
        }))
    });
    Ok(read.await?)
}

/// Who asked for this sale, as the journal has it; for the holds of an agreement after a restart.
pub async fn request_of(journal: &Journal, sale: SaleId, grid: GridId) -> Option<Signed<CapacityRequest>> {
    let bytes = journal
        .write(move |entry| entry.row(REQUESTS, sale.as_bytes()))
        .await
        .ok()??;
    open(&bytes, Some(grid)).ok()
}
