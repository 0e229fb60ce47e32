//! The service: HTTP outside, the door and the store inside, every answer signed.
//!
//! The folder holds `ledger.key`, `operator.key`, `ledger.sqlite`, `lock` (one
//! process at a time) and `address` (the text that others are given, rewritten
//! at each start).

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ed25519_dalek::SigningKey;
use escrow::{Amount, Asset, RailName, RailTime};
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::address::{AddressError, RailAddress};
use crate::clock::{Clock, TimeSource, wall_clock};
use crate::door::{Door, Passed, Question};
use crate::keys::{self, KeyError};
use crate::listen;
use crate::store::book::{BookError, Booked, Operation};
use crate::store::pace::Pace;
use crate::store::writer::Writer;
use crate::store::{self, OpenError};
use crate::wire::{Answer, Head, LEASES, OpenLease, PATH, REQUEST_BYTES, Reply, SIGNATURE_HEADER};
use crate::{ASSET, signing};

pub use crate::listen::Bounds;

/// What a ledger needs to run.
pub struct Config {
    /// Where its keys and its file lie.
    pub dir: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its time comes from; the machine's clock if `None`.
    pub time: Option<TimeSource>,
    /// How much strangers may take of it.
    pub bounds: Bounds,
}

/// Why the ledger does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No file, or one that does not add up.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// Another process serves this folder.
    #[error("another ledger runs in {0}; stop it first")]
    Busy(PathBuf),
    /// The operating system says no.
    #[error("the ledger cannot {what}")]
    Io {
        /// What it wanted.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The listener's address is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// A ledger without its HTTP: bytes in, signed bytes out.
pub struct Ledger {
    key: SigningKey,
    door: Door,
    clock: Arc<Clock>,
    writer: Writer,
    reading: Arc<Mutex<Connection>>,
}

/// An answer and the ledger's signature over it and its request.
pub struct SignedAnswer {
    /// JSON of a [`Reply`].
    pub body: Vec<u8>,
    /// By the ledger's key, over [`signing::answer`].
    pub signature: [u8; 64],
}

impl Ledger {
    /// Opens the folder, audits the file, starts the writer. The receiver
    /// hears when the writer has ended and the folder is free again.
    pub fn open(
        dir: &Path,
        time: Option<TimeSource>,
        pace: Pace,
    ) -> Result<(Ledger, oneshot::Receiver<()>), ServeError> {
        keys::ensure_folder(dir)?;
        let lock = lock_folder(dir)?;
        let key = keys::read_or_create(dir, keys::LEDGER_KEY)?;
        let operator = keys::read_or_create(dir, keys::OPERATOR_KEY)?.verifying_key();
        let name = RailName::ledger(key.verifying_key().as_bytes());
        let opened = store::open(&dir.join("ledger.sqlite"), name.as_str()).map_err(Box::new)?;
        let audited = opened.audited;
        let clock = Arc::new(Clock::new(time.unwrap_or_else(wall_clock), audited.time_ms));
        let (free, freed) = oneshot::channel();
        let writer = Writer::start(
            opened.writing,
            name.to_string(),
            audited.head,
            clock.clone(),
            pace,
            // Both are dropped with the thread, after its connection.
            Box::new((lock, free)),
        )
        .map_err(|source| ServeError::Io {
            what: "start its writer".to_owned(),
            source,
        })?;
        let reading = Arc::new(Mutex::new(opened.reading));
        Ok((
            Ledger {
                key,
                door: Door { name, operator },
                clock,
                writer,
                reading,
            },
            freed,
        ))
    }

    /// The rail's name.
    pub fn name(&self) -> &RailName {
        &self.door.name
    }

    /// Answers one request's body.
    pub async fn answer(&self, request: &[u8]) -> SignedAnswer {
        let (answer, time, head) = match self.door.pass(request) {
            Ok(Passed::Operation(operation)) => self.write(*operation).await,
            Ok(Passed::Question(question)) => self.read(Some(question)).await,
            Err(answer) => {
                let (_, time, head) = self.read(None).await;
                (answer, time, head)
            }
        };
        let body = serde_json::to_vec(&Reply {
            time,
            journal: head,
            answer,
        })
        .unwrap_or_default();
        let signature = signing::sign(&self.key, &signing::answer(request, &body));
        SignedAnswer { body, signature }
    }

    async fn write(&self, operation: Operation) -> (Answer, RailTime, Head) {
        match self.writer.write(operation).await {
            Ok(Ok((Booked::Lock(view), time, head))) => (Answer::Lease { view }, time, head),
            Ok(Ok((Booked::Funded(free), time, head))) => {
                let free = amount(free);
                (
                    Answer::Balance {
                        free,
                        locked: Amount::ZERO,
                    },
                    time,
                    head,
                )
            }
            Ok(Err(BookError::Refused(refusal))) => {
                let (_, time, head) = self.read(None).await;
                (Answer::Refused { refusal }, time, head)
            }
            Ok(Err(BookError::Sqlite(error))) => self.failed(error.to_string()).await,
            Err(error) => self.failed(error.to_string()).await,
        }
    }

    async fn failed(&self, why: String) -> (Answer, RailTime, Head) {
        let (_, time, head) = self.read(None).await;
        (Answer::Failed { why }, time, head)
    }

    /// Reads in one transaction, so that answer and head belong together.
    async fn read(&self, question: Option<Question>) -> (Answer, RailTime, Head) {
        let time = self.clock.now();
        let (reading, name) = (self.reading.clone(), self.door.name.clone());
        let read = tokio::task::spawn_blocking(move || {
            // A panic in a reader leaves a connection that only reads.
            let mut connection = reading.lock().unwrap_or_else(PoisonError::into_inner);
            read_in_transaction(&mut connection, name.as_str(), question)
        })
        .await;
        let fallback = |why: String| {
            (
                Answer::Failed { why },
                time,
                Head {
                    sequence: 0,
                    hash: [0; 32],
                },
            )
        };
        match read {
            Ok(Ok((answer, head))) => (answer, time, head),
            Ok(Err(error)) => fallback(format!("the ledger's file cannot be read: {error}")),
            Err(error) => fallback(format!("the reader stopped: {error}")),
        }
    }
}

fn lock_folder(dir: &Path) -> Result<File, ServeError> {
    let path = dir.join("lock");
    let io = |source| ServeError::Io {
        what: format!("use {}", path.display()),
        source,
    };
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServeError::Busy(dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

fn amount(stored: i64) -> Amount {
    Amount(u128::try_from(stored).unwrap_or(0))
}

fn read_in_transaction(
    connection: &mut Connection,
    name: &str,
    question: Option<Question>,
) -> rusqlite::Result<(Answer, Head)> {
    let transaction = connection.transaction()?;
    let head = store::read_head(&transaction, name)?;
    let answer = match question {
        None | Some(Question::Now) => match ASSET.parse::<Asset>() {
            Ok(asset) => Answer::Ledger { asset },
            Err(error) => Answer::Failed {
                why: error.to_string(),
            },
        },
        Some(Question::Balance(account)) => Answer::Balance {
            free: amount(store::read_balance(&transaction, account.as_str())?),
            locked: amount(store::read_locked(&transaction, account.as_str())?),
        },
        Some(Question::View(lease)) => Answer::Lease {
            view: store::read_lock(&transaction, &lease)?,
        },
        Some(Question::Open(payer, after)) => {
            let open = store::read_open(&transaction, payer.as_str(), after.as_ref(), LEASES)?;
            let leases = open
                .into_iter()
                .filter_map(|(terms, view)| {
                    Some(OpenLease {
                        terms: serde_json::from_str(&terms).ok()?,
                        view,
                    })
                })
                .collect();
            Answer::Leases { leases }
        }
    };
    Ok((answer, head))
}

/// A ledger that runs.
pub struct Serving {
    address: RailAddress,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    /// What others are told.
    pub fn address(&self) -> &RailAddress {
        &self.address
    }

    /// Answers what has begun, writes what was taken, frees the folder.
    pub async fn shut_down(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Opens the folder and serves it until [`Serving::shut_down`].
pub async fn serve(config: Config) -> Result<Serving, ServeError> {
    let dir = config.dir.clone();
    let pace = config.bounds.pace;
    let opened = tokio::task::spawn_blocking(move || Ledger::open(&config.dir, config.time, pace)).await;
    let (ledger, freed) = opened.map_err(|error| ServeError::Io {
        what: "open its file".to_owned(),
        source: std::io::Error::other(error),
    })??;
    let listen = config.listen;
    let io = |source| ServeError::Io {
        what: format!("listen on {listen}"),
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(io)?;
    let local = listener.local_addr().map_err(io)?;
    let address = RailAddress::new(ledger.key.verifying_key().to_bytes(), &local.to_string())?;
    let address_path = dir.join("address");
    std::fs::write(&address_path, format!("{address}\n")).map_err(|source| ServeError::Io {
        what: format!("write {}", address_path.display()),
        source,
    })?;
    let bounds = config.bounds;
    let router = Router::new()
        .route(PATH, post(answer))
        .with_state((Arc::new(ledger), bounds.body));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        listen::run(listener, router, bounds, stopped).await;
        let _ = freed.await;
    });
    Ok(Serving { address, stop, task })
}

async fn answer(State((ledger, within)): State<(Arc<Ledger>, Duration)>, body: Body) -> Response {
    let Ok(read) = tokio::time::timeout(within, to_bytes(body, REQUEST_BYTES)).await else {
        return StatusCode::REQUEST_TIMEOUT.into_response();
    };
    let Ok(request) = read else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let signed = ledger.answer(&request).await;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
        (SIGNATURE_HEADER, crate::hex::encode(&signed.signature)),
    ];
    (headers, signed.body).into_response()
}
