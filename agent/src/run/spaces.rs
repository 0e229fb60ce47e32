//! The machinery of spaces: recovered first, walls around it, the base below it, and
//! then the desk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::grid::{Grid, GridTicket};
use ed25519_dalek::SigningKey;
use escrow::{Asset, Rail};
use inventory::{Inventory, boot};
use market::book::{Capacity, Room};
use market::id::{Digest, GridId};
use provision::base::Bases;
use provision::firewall::{InterfaceName, Openings, Uplink};
use provision::journal::{Journal, JournalError};
use provision::network::address::Prefix;
use provision::space::{Outcome, Provisioner, Recovered};
use storage::verity::Seal;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::disks::Owned;
use super::medium::Booted;
use super::ready::Ready;
use super::resolver;
use super::traffic;
use super::verdict::Part;
use crate::console::Board;
use crate::desk::{self, Desk};
use crate::direct;
use crate::facts::{self, Image};
use crate::farmer::Farmer;
use crate::net::{NetState, NetWatch};
use crate::sales::{Given, RESTORE_EVERY_MS, SNAPSHOT_EVERY_MS, SpaceVolume};

/// Firewall rules that could not be set are set again after this.
const WALLS_AGAIN: Duration = Duration::from_secs(5);

/// What stands before anything is sold.
pub(super) struct Machinery {
    pub provisioner: Provisioner,
    pub bases: Bases,
    /// The groups that have this image's base.
    pub whole: Vec<String>,
    pub recovered: Vec<Recovered>,
    journal: Journal,
}

/// Brings machine and journal together, and starts to copy the base.
pub(super) async fn start(
    board: &Board,
    ready: &Ready,
    image: &Image,
    booted: &Booted,
    owned: &Owned,
) -> Option<Machinery> {
    board.way().begin(boot::Part::Journal);
    if let Err(error) = owned.state.journal() {
        let why = crate::words::chain(error);
        super::part_failed(board, "journal", &why, cure(error));
        ready.set(|ready| ready.state = Part::Bad(why));
        return None;
    }
    match recover(board, image, booted, owned).await {
        Ok(machinery) => {
            ready.set(|ready| ready.state = Part::Good);
            Some(machinery)
        }
        Err(why) => {
            super::part_failed(
                board,
                "spaces",
                &why,
                "switch off and on; if it stays, report this line",
            );
            ready.set(|ready| ready.state = Part::Bad(why));
            None
        }
    }
}

/// What a farmer does about a journal that is not opened. In none of these cases anything is erased or ended: spaces
/// that run go on, over their declared ports, and their volumes stay.
fn cure(error: &JournalError) -> &'static str {
    match error {
        JournalError::Absent(_) => {
            "nothing was erased, spaces that run go on; put the disk back that had it, or begin anew with blank disks"
        }
        JournalError::Older(_) => "nothing was changed; start the image that this node ran before",
        JournalError::Newer(_) => {
            "nothing was changed, spaces that run go on; write the newer image to the stick again"
        }
        JournalError::Corrupt(_) => {
            "nothing was erased, spaces that run go on; keep the disk, let them end, then begin anew with blank disks"
        }
        _ => "switch off and on; if it stays, look at the disk",
    }
}

async fn recover(board: &Board, image: &Image, booted: &Booted, owned: &Owned) -> Result<Machinery, String> {
    let journal = owned
        .state
        .journal()
        .map_err(|error| crate::words::chain(error))?
        .clone();
    let provisioner = Provisioner::new(journal.clone(), owned.storage.clone(), image.seccomp.clone())
        .map_err(|error| crate::words::chain(&error))?;
    let digest = Digest(image.base_digest);
    let bases = Bases::new(
        owned.storage.clone(),
        booted.medium.base.clone(),
        digest,
        image.base_bytes,
    );
    let bases = bases.sealed(Seal {
        data_bytes: image.base_data_bytes,
        root: image.base_root,
    });
    // Before any key comes: what the image says of its own base goes before what a disk says. Recovering opens none: it
    // starts nothing, and what runs has its own open.
    let (recovered, opened) = tokio::join!(provisioner.recover(), bases.open(owned.state.groups()));
    let whole = opened.unwrap_or_else(|error| {
        board.event(format!("a base was not opened: {}", crate::words::chain(&error)));
        Vec::new()
    });
    let recovered = recovered.map_err(|error| crate::words::chain(&error))?;
    for space in &recovered {
        let name = space.spec.sale.name();
        match &space.outcome {
            Outcome::Running { .. } => board.event(format!("{name} goes on")),
            Outcome::Undone => board.event(format!("{name} was half built: undone")),
            Outcome::Quarantined { causes } => board.event(format!("{name} quarantined: {causes}")),
            // The sale says these by itself.
            Outcome::Locked | Outcome::Ended => {}
        }
    }
    Ok(Machinery {
        provisioner,
        bases,
        whole,
        recovered,
        journal,
    })
}

/// Counts the month's traffic in the background, and slows spaces when all of it is used.
pub(super) fn count_traffic(
    board: &Board,
    ready: &Ready,
    machinery: &Machinery,
    network: &NetWatch,
    farmer: &Farmer,
) {
    let parts = traffic::Parts {
        board: board.clone(),
        ready: ready.clone(),
        journal: machinery.journal.clone(),
        provisioner: machinery.provisioner.clone(),
        network: network.clone(),
        // Without it every start of the agent would count as one of the machine.
        boot: boot_id().unwrap_or_default(),
    };
    crate::task::spawn(traffic::count(parts, farmer.clone()));
}

/// Everything that the desk needs of the others.
pub(super) struct Others {
    pub grid: Arc<Grid>,
    pub ticket: GridTicket,
    pub rail: Arc<dyn Rail>,
    pub inventory: Arc<Inventory>,
    /// What [`super::base::capacity`] found.
    pub counted: Result<(Capacity, Vec<SpaceVolume>), String>,
    pub version: String,
}

/// Opens the desk: sales out of the journal go on, new ones are made while the node sells.
pub(super) async fn open_desk(
    board: &Board,
    ready: &Ready,
    booted: &Booted,
    owned: &Owned,
    machinery: &mut Machinery,
    others: Others,
) -> Option<Desk> {
    board.way().begin(boot::Part::Desk);
    let opened = async {
        let node_key = owned
            .state
            .node_key()
            .map_err(|error| crate::words::chain(&error))?;
        let give_back_key = owned
            .state
            .give_back_key()
            .map_err(|error| crate::words::chain(&error))?;
        let journal = owned
            .state
            .journal()
            .map_err(|error| crate::words::chain(error))?
            .clone();
        let farmer = booted.reading.farmer.clone();
        let (capacity, volumes) = others.counted?;
        let facts = facts::of(&others.inventory, &farmer, &others.version);
        let asset: Asset = ledger::ASSET
            .parse()
            .map_err(|error| crate::words::chain(&error))?;
        let given = Given {
            grid: others.grid,
            grid_id: GridId(others.ticket.grid_id()),
            node_key: SigningKey::from_bytes(&node_key),
            give_back_key: SigningKey::from_bytes(&give_back_key),
            rail: others.rail,
            asset,
            journal,
            spaces: Arc::new(machinery.provisioner.clone()),
            board: board.clone(),
            boot: boot_id()?,
            image_version: others.version,
            snapshot_every_ms: SNAPSHOT_EVERY_MS,
            restore_every_ms: RESTORE_EVERY_MS,
        };
        let desk = desk::start(desk::Parts {
            given,
            farmer,
            facts,
            recovered: std::mem::take(&mut machinery.recovered),
            base: machinery.bases.digest(),
            capacity,
            volumes,
            room: Room::default(),
            selling: ready.selling(),
        });
        let desk = desk.await.map_err(|error| crate::words::chain(&error))?;
        direct::start(&desk, direct::Most::default());
        Ok::<Desk, String>(desk)
    };
    match opened.await {
        Ok(desk) => {
            ready.set(|ready| ready.desk = Part::Good);
            Some(desk)
        }
        Err(why) => {
            super::part_failed(
                board,
                "desk",
                &why,
                "switch off and on; if it stays, report this line",
            );
            ready.set(|ready| ready.desk = Part::Bad(format!("desk: {why}")));
            None
        }
    }
}

/// A number that is new at every power-on, as the kernel makes one.
pub(super) fn boot_id() -> Result<[u8; 16], String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(|error| crate::words::chain(&error))?;
    let hex: String = text.trim().chars().filter(|c| *c != '-').collect();
    let bytes = data_encoding::HEXLOWER
        .decode(hex.as_bytes())
        .map_err(|error| crate::words::chain(&error))?;
    bytes
        .try_into()
        .map_err(|_| "the kernel's boot id has no 16 bytes".to_owned())
}

/// Tells the walls of every change of the uplinks and of which name server answers, for ever.
pub(super) async fn follow_uplinks(
    board: Board,
    provisioner: Provisioner,
    openings: Openings,
    mut network: NetWatch,
) {
    let mut known: Option<Vec<Uplink>> = None;
    let mut order = Vec::new();
    loop {
        let found = uplinks(&network.borrow_and_update());
        // The walls stand at once; whether another name server is the better one is found out after that.
        let at_once = resolver::place(found.clone(), &order);
        keep_walls(&board, &provisioner, &openings, &mut known, at_once).await;
        order = resolver::order(&found).await;
        keep_walls(
            &board,
            &provisioner,
            &openings,
            &mut known,
            resolver::place(found, &order),
        )
        .await;
        // A change or the time for another question: both are answered by looking again.
        if let Ok(Err(_)) = timeout(resolver::ASK_EVERY, network.changed()).await {
            return;
        }
    }
}

/// Sets the rules for these uplinks, until they stand; nothing where they stand already.
async fn keep_walls(
    board: &Board,
    provisioner: &Provisioner,
    openings: &Openings,
    known: &mut Option<Vec<Uplink>>,
    uplinks: Vec<Uplink>,
) {
    while known.as_ref() != Some(&uplinks) {
        match provisioner.set_uplinks(uplinks.clone(), openings.clone()).await {
            Ok(()) => {
                board.update(|status| status.failures.retain(|failure| failure.part != "firewall"));
                *known = Some(uplinks.clone());
            }
            Err(error) => {
                let why = crate::words::chain(&error);
                super::part_failed(
                    board,
                    "firewall",
                    &why,
                    "it is tried again; if it stays, report this line",
                );
                sleep(WALLS_AGAIN).await;
            }
        }
    }
}

fn uplinks(state: &NetState) -> Vec<Uplink> {
    state
        .links
        .iter()
        .filter_map(|link| {
            Some(Uplink {
                interface: InterfaceName::try_from(link.name.clone()).ok()?,
                prefixes: link
                    .addresses
                    .iter()
                    .map(|(address, length)| Prefix {
                        address: *address,
                        length: *length,
                    })
                    .collect(),
                resolvers: link
                    .lease
                    .iter()
                    .flat_map(|lease| &lease.resolvers)
                    .map(|resolver| (*resolver).into())
                    .collect(),
            })
        })
        .collect()
}

/// This machine, read off the runtime.
pub(super) async fn read_inventory() -> Arc<Inventory> {
    let read = spawn_blocking(|| inventory::read(Path::new("/")));
    match read.await {
        Ok(inventory) => Arc::new(inventory),
        Err(_) => Arc::new(inventory::read(Path::new("/nowhere"))),
    }
}
