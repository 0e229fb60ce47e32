//! A street with one shop in it: a real ledger, a real grid on loopback, a node's desk and sales on a real journal,
//! and a user. Only the machine is not there: spaces are entries in a list, for what is tried here is money, messages
//! and what outlives a restart. Spaces themselves are tried on the real kernel, in the guest.

mod grid_gone;
mod ledgers;
pub mod user;
pub mod way;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::console::Board;
use agent::desk::{self, Desk, Parts};
use agent::direct;
use agent::farmer::Farmer;
use agent::sales::{Bytes, Failed, Given, NotRestored, SpaceVolume, Spaces, UnlockKey};
use agent::seat::{Asked, Asker, SeatError};
use async_trait::async_trait;
use ed25519_dalek::SigningKey;
use escrow::{Account, Amount, LockState, Rail, RailKey, RailTime, Sure, Terms, Wallet};
use grid::serve::{Serve, ServeConfig};
use grid::{DirectStream, EndpointAddress, Grid, GridTicket, JoinConfig};
use ledger::server::{Bounds, Config, Serving, serve};
use ledger::{ASSET, LedgerRail, LedgerWallet, RailAddress, keys};
use market::book::Room;
use market::envelope::{Signed, open, sign};
use market::id::{Digest, EndpointId, GridId, GroupId, SaleId};
use market::message::*;
use market::quantity::{MilliCpus, Seconds, UnixMillis};
use market::sale::TornDown;
use market::{quantity, seal};
use provision::journal::Journal;
use provision::space::{Access, Outcome, Recovered, SpaceSpec};
use tokio::io::split;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use user::User;

pub const MONEY: Amount = Amount(100_000_000);
pub const UNIT_PRICE: Amount = Amount(800_000);
pub const PRICE: Amount = Amount(400_000);
const SOON: Duration = Duration::from_secs(60);
/// No test waits for a second snapshot of a space, and one looks that there is none yet.
const SNAPSHOT_EVERY_MS: u64 = 3_600_000;

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> [u8; 32] {
    key.verifying_key().to_bytes()
}

/// Ledger and meeting point.
pub struct Street {
    pub folder: tempfile::TempDir,
    ledger: Serving,
    serve: Serve,
    /// How far the ledger's clock is before the machine's, in ms.
    ahead: Arc<AtomicU64>,
    /// Between node and ledger.
    pub way: way::Way,
}

impl Street {
    pub async fn new() -> Street {
        let folder = tempfile::tempdir().unwrap();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let ahead = Arc::new(AtomicU64::new(0));
        let (source, wall) = (ahead.clone(), ledger::clock::wall_clock());
        let ledger = serve(Config {
            dir: folder.path().join("ledger"),
            listen,
            time: Some(Arc::new(move || wall() + source.load(Ordering::SeqCst))),
            bounds: Bounds::default(),
        })
        .await
        .unwrap();
        let founder = public(&key(1));
        let serve = Serve::start(ServeConfig::new("street", founder, [2; 32]))
            .await
            .unwrap();
        let way = way::Way::to(ledger.address()).await;
        Street {
            folder,
            ledger,
            serve,
            ahead,
            way,
        }
    }

    pub fn address(&self) -> RailAddress {
        self.ledger.address().clone()
    }

    pub fn ticket(&self) -> GridTicket {
        self.serve.ticket().clone()
    }

    pub fn grid(&self) -> GridId {
        GridId(self.ticket().grid_id())
    }

    pub fn rail(&self) -> LedgerRail {
        LedgerRail::new(self.address()).unwrap()
    }

    pub fn account(&self, seed: u8) -> Account {
        Account::on_ledger(&self.address().key(), &public(&key(seed)))
    }

    pub async fn balance(&self, seed: u8) -> Amount {
        self.rail()
            .balance(&self.account(seed), &ASSET.parse().unwrap())
            .await
            .unwrap()
    }

    pub async fn fund(&self, seed: u8) {
        self.fund_account(&self.account(seed)).await;
    }

    pub async fn fund_account(&self, account: &Account) {
        let operator = keys::read(&self.folder.path().join("ledger"), OPERATOR).unwrap();
        let once = Digest::of(account.as_str().as_bytes()).0;
        self.rail().fund(&operator, account, MONEY, once).await.unwrap();
    }

    pub fn journal(&self) -> std::path::PathBuf {
        self.folder.path().join("journal.sqlite")
    }
}

const OPERATOR: &str = "operator.key";

/// What the machine was asked to do.
#[derive(Default)]
pub struct Machine {
    /// Spaces that run, by their sale.
    pub running: Mutex<HashMap<SaleId, SpaceSpec>>,
    /// Whether the host key's seed came with each build and unlock.
    pub seeds: Mutex<Vec<bool>>,
    /// The next build fails for this reason.
    pub next_failure: Mutex<Option<Failed>>,
    /// Builds and restores never come to an end.
    pub is_stuck: AtomicBool,
    /// Resizes to which the user's key came.
    pub keys: AtomicUsize,
    /// Whoever holds it for writing keeps the machine from giving a space another size.
    pub resizes: tokio::sync::RwLock<()>,
    /// How many it was asked for.
    pub resizes_asked: AtomicUsize,
    /// No volume grows as it is unlocked.
    pub has_no_room: AtomicBool,
    /// Volumes that the next start finds.
    pub volumes: Mutex<Vec<SpaceVolume>>,
    /// Restores that were begun.
    pub restores: AtomicUsize,
    /// An end waits: a restore that is stuck stops.
    pub hurried: tokio::sync::Notify,
    /// The next restore fails for this reason.
    pub not_restored: Mutex<Option<NotRestored>>,
    /// How long a snapshot that was put back is not put back again, ms.
    pub restore_every_ms: AtomicU64,
    /// The ports that its farmer declared.
    pub ports: Mutex<Option<std::ops::RangeInclusive<u16>>>,
    /// What a space could not give back.
    pub memory_in_use: Mutex<quantity::Bytes>,
}

#[async_trait]
impl Spaces for Machine {
    async fn prepare(&self, _spec: SpaceSpec) -> Result<(), Failed> {
        Ok(())
    }

    async fn build(&self, spec: SpaceSpec, access: Access) -> Result<(), Failed> {
        self.seeds.lock().unwrap().push(access.host_key_seed.is_some());
        if let Some(failed) = self.next_failure.lock().unwrap().take() {
            return Err(failed);
        }
        if self.is_stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.running.lock().unwrap().insert(spec.sale, spec);
        Ok(())
    }

    async fn unlock(&self, spec: SpaceSpec, access: Access) -> Result<bool, Failed> {
        self.build(spec, access).await?;
        Ok(!self.has_no_room.load(Ordering::SeqCst))
    }

    async fn resize(&self, spec: SpaceSpec, key: Option<UnlockKey>) -> Result<(), Failed> {
        if let Some(failed) = self.next_failure.lock().unwrap().take() {
            return Err(failed);
        }
        self.resizes_asked.fetch_add(1, Ordering::SeqCst);
        let _may_begin = self.resizes.read().await;
        self.keys.fetch_add(usize::from(key.is_some()), Ordering::SeqCst);
        self.running.lock().unwrap().insert(spec.sale, spec);
        Ok(())
    }

    async fn lock(&self, sale: SaleId) -> Result<(), Failed> {
        self.running.lock().unwrap().remove(&sale);
        Ok(())
    }

    async fn restore(&self, sale: SaleId) -> Result<(), NotRestored> {
        let failed = self.not_restored.lock().unwrap().take();
        if failed.as_ref().is_none_or(|failed| !failed.is_untouched) {
            self.running.lock().unwrap().remove(&sale);
        }
        self.restores.fetch_add(1, Ordering::SeqCst);
        if self.is_stuck.load(Ordering::SeqCst) {
            self.hurried.notified().await;
            return Err(NotRestored {
                why: "the end came first".into(),
                is_untouched: false,
            });
        }
        failed.map_or(Ok(()), Err)
    }

    fn hurry(&self, _: SaleId) {
        self.hurried.notify_one();
    }

    fn memory_in_use(&self, _: SaleId) -> Result<quantity::Bytes, Failed> {
        Ok(*self.memory_in_use.lock().unwrap())
    }

    async fn end(&self, sale: SaleId) -> TornDown {
        self.running.lock().unwrap().remove(&sale);
        TornDown::CLEAN
    }

    fn runs(&self, sale: SaleId) -> bool {
        self.running.lock().unwrap().contains_key(&sale)
    }

    /// Says again whatever is said.
    async fn connect(&self, sale: SaleId, _port: u16) -> Result<Box<dyn Bytes>, Failed> {
        if !self.runs(sale) {
            return Err(Failed {
                why: "it does not run".into(),
                quarantine: None,
            });
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut read, mut write) = split(theirs);
            tokio::io::copy(&mut read, &mut write).await
        });
        Ok(Box::new(ours))
    }
}

/// The account of the user that [`opened`] makes.
const BUYER: u8 = 20;

/// A street with a shop that sells, and a user with money: what most tests begin with.
pub async fn opened() -> (Street, Node, User) {
    opened_with(Machine::default()).await
}

/// The same, with a machine that is as the test wants it.
pub async fn opened_with(machine: Machine) -> (Street, Node, User) {
    let street = Street::new().await;
    street.fund(BUYER).await;
    let node = Node::start(&street, Arc::new(machine), Vec::new()).await;
    let user = User::new(&street, BUYER).await;
    sells(&user).await;
    (street, node, user)
}

/// Waits until the shop sells: once the ledger has told it the time.
pub async fn sells(user: &User) {
    for nonce in 50_000.. {
        let look = user.look(nonce).await;
        if open::<Offer>(&user.ask(&look).await, None).is_ok() {
            break;
        }
    }
}

/// A node, in a runtime of its own: dropping it is a power cut.
pub struct Node {
    runtime: Option<Runtime>,
    pub board: Board,
    pub machine: Arc<Machine>,
    pub desk: Desk,
    pub journal: Journal,
    /// Where it asked for one.
    pub seat: Option<Asked>,
    /// How long it asked.
    pub seated_after: Duration,
}

/// Asks as the agent does, for the node of this street.
pub async fn ask(asker: Asker) -> Result<Asked, SeatError> {
    let asked = asker.dial().await?;
    asked.ask(&[4; 32]);
    Ok(asked)
}

impl Node {
    /// Powers on. `locked`: sales whose volumes are found closed.
    pub async fn start(street: &Street, machine: Arc<Machine>, locked: Vec<SpaceSpec>) -> Node {
        Node::start_owned(street, machine, locked, None).await
    }

    /// The same, with the owner key that its `farmer.toml` names.
    pub async fn start_owned(
        street: &Street,
        machine: Arc<Machine>,
        locked: Vec<SpaceSpec>,
        owner: Option<[u8; 32]>,
    ) -> Node {
        let bounds = (Room::default(), direct::Most::default());
        Node::start_with(street, machine, locked, owner, bounds).await
    }

    /// The same, with so much room for offers, and for streams.
    pub async fn start_with(
        street: &Street,
        machine: Arc<Machine>,
        locked: Vec<SpaceSpec>,
        owner: Option<[u8; 32]>,
        bounds: (Room, direct::Most),
    ) -> Node {
        let journal = street.journal();
        let started = Node::start_from(street, &journal, machine, locked, owner, bounds, None).await;
        started.unwrap()
    }

    /// The same on another disk, and as the agent does it where there may be a copy: it asks for the seat first.
    pub async fn start_seated(
        street: &Street,
        journal: &Path,
        locked: Vec<SpaceSpec>,
        seat: Asker,
    ) -> Result<Node, SeatError> {
        let (machine, bounds) = (Arc::default(), (Room::default(), direct::Most::default()));
        Node::start_from(street, journal, machine, locked, None, bounds, Some(seat)).await
    }

    /// A copy that asks nobody.
    pub async fn start_copy(street: &Street, journal: &Path, locked: Vec<SpaceSpec>) -> Node {
        let (machine, bounds) = (Arc::default(), (Room::default(), direct::Most::default()));
        let started = Node::start_from(street, journal, machine, locked, None, bounds, None).await;
        started.unwrap()
    }

    async fn start_from(
        street: &Street,
        journal: &Path,
        machine: Arc<Machine>,
        locked: Vec<SpaceSpec>,
        owner: Option<[u8; 32]>,
        (room, most): (Room, direct::Most),
        seat: Option<Asker>,
    ) -> Result<Node, SeatError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let board = Board::new("test");
        let (journal, grid_id, ticket) = (journal.to_owned(), street.grid(), street.ticket());
        // Its offers say from which disk it runs.
        let name = journal.file_stem().unwrap().to_string_lossy().into_owned();
        let rail = Arc::new(LedgerRail::new(street.way.address.clone()).unwrap());
        let payee = street.account(40);
        let (board_of_node, machine_of_node) = (board.clone(), machine.clone());
        let volumes = machine.volumes.lock().unwrap().clone();
        let ports = machine.ports.lock().unwrap().clone();
        let restore_every_ms = machine.restore_every_ms.load(Ordering::SeqCst);
        let started = runtime.spawn(async move {
            let begun = Instant::now();
            let asked = match seat {
                Some(asker) => {
                    let mut asked = ask(asker).await?;
                    asked.granted().await?;
                    Some(asked)
                }
                None => None,
            };
            let seated_after = begun.elapsed();
            let check = desk::check(grid_id, || None);
            let grid = Arc::new(Grid::join(JoinConfig::new(ticket, [4; 32]), check).await.unwrap());
            grid.joined(SOON).await.unwrap();
            let recovered = locked
                .into_iter()
                .map(|spec| Recovered {
                    spec,
                    outcome: Outcome::Locked,
                })
                .collect();
            let farmer = Farmer {
                wallet: Some(payee),
                price: Some(UNIT_PRICE),
                owner,
                public_address: ports.is_some().then(|| "node.example.org".to_owned()),
                ports,
                ..Farmer::default()
            };
            let (_, selling) = watch::channel(true);
            let groups = [(GroupId("steading-test".into()), quantity::Bytes(10 << 30))];
            let given = Given {
                grid: grid.clone(),
                grid_id,
                node_key: key(4),
                give_back_key: key(5),
                rail,
                asset: ASSET.parse().unwrap(),
                journal: open_journal(&journal).await,
                spaces: machine_of_node,
                board: board_of_node,
                boot: [6; 16],
                image_version: "0.1.0".into(),
                snapshot_every_ms: SNAPSHOT_EVERY_MS,
                restore_every_ms,
            };
            let parts = Parts {
                given,
                farmer,
                facts: Facts {
                    name: Some(name),
                    ..Facts::default()
                },
                recovered,
                base: Digest([7; 32]),
                capacity: desk::capacity(2, quantity::Bytes(2 << 30), None, &groups),
                volumes,
                room,
                selling,
            };
            let journal = parts.given.journal.clone();
            let desk = desk::start(parts).await.unwrap();
            direct::start(&desk, most);
            Ok::<_, SeatError>((desk, (asked, seated_after), journal))
        });
        match started.await.unwrap() {
            Ok((desk, (seat, seated_after), journal)) => Ok(Node {
                runtime: Some(runtime),
                board,
                machine,
                desk,
                journal,
                seat,
                seated_after,
            }),
            Err(refused) => {
                runtime.shutdown_background();
                Err(refused)
            }
        }
    }

    /// The mains are pulled: nothing is said, nothing is finished.
    pub fn power_cut(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub fn said(&self, part: &str) -> bool {
        self.board.events().iter().any(|event| event.text.contains(part))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The journal of the node before is held until its last task is gone.
async fn open_journal(path: &Path) -> Journal {
    let opened = async {
        loop {
            let journal = if path.exists() {
                Journal::open(path)
            } else {
                Journal::create(path)
            };
            match journal {
                Ok(journal) => return journal,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(SOON, opened)
        .await
        .expect("the journal is free again")
}

/// A nonce for tests: the number again and again.
fn twice<const N: usize>(number: u16) -> [u8; N] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|index| bytes[index % 2])
}
