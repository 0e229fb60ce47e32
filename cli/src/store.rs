//! What the client keeps: the seed, the sales with their signed messages, the last offers.
//!
//! ```text
//! data/seed                       0600, one line
//! data/sales/<64 hex>/            0700, one folder a sale
//!      request offer agree sale grant receipt amended-N   the signed messages, byte for byte
//!      record.json                how far the client got
//!      vouchers.json              what was signed
//!      lock                       held while a command works on the sale
//! state/asked/                    the last request and its offers
//! state/ssh/                      config, known_hosts, key
//! ```
//! Invariant: a file is whole or not there (written beside, synced, renamed), so a command that
//! is killed leaves what the next one can go on from.

pub mod asked;
pub mod record;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::Context;
use market::envelope::{self, Signed};
use market::id::SaleId;
use market::message::Message;
use zeroize::Zeroizing;

use crate::exit::{Code, Failure, Outcome};
use crate::files::{make_folder, read_if_there, write_whole};
use crate::keys::Seed;
use crate::settings::Folders;
use record::Record;

/// The store of one person.
#[derive(Clone, Debug)]
pub struct Store {
    folders: Folders,
}

impl Store {
    /// The store in these folders; nothing is made yet.
    pub fn new(folders: Folders) -> Store {
        Store { folders }
    }

    /// The folders.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    fn seed_path(&self) -> PathBuf {
        self.folders.data.join("seed")
    }

    /// The seed.
    pub fn seed(&self) -> Outcome<Seed> {
        let path = self.seed_path();
        let bytes = read_if_there(&path)?.map(Zeroizing::new).ok_or_else(|| {
            Failure::new(Code::Wallet, "there is no wallet yet").next(
                "make one with `steading wallet new`, or bring one back with `steading wallet restore FILE`",
            )
        })?;
        let mode = std::fs::metadata(&path)
            .context("the seed cannot be read")?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Failure::new(Code::Wallet, "others can read the seed")
                .because(format!("{} has mode {:o}", path.display(), mode & 0o777))
                .next(format!("chmod 600 {}", path.display())));
        }
        let line = std::str::from_utf8(&bytes).unwrap_or_default();
        Seed::from_line(line).map_err(|error| {
            Failure::new(Code::Wallet, format!("{} is damaged", path.display()))
                .caused_by(&error)
                .next("bring it back from the backup: move it away, then `steading wallet restore FILE`")
        })
    }

    /// Whether there is a seed.
    pub fn has_seed(&self) -> bool {
        self.seed_path().exists()
    }

    /// Keeps a seed; refuses to overwrite one.
    pub fn keep_seed(&self, seed: &Seed) -> Outcome {
        if self.has_seed() {
            return Err(Failure::new(Code::Wallet, "there is a wallet already")
                .because(format!("it is in {}", self.seed_path().display()))
                .next("use another STEADING_HOME, or back this one up and move it away"));
        }
        make_folder(&self.folders.data)?;
        let line = Zeroizing::new(format!("{}\n", *seed.to_line()));
        Ok(write_whole(&self.seed_path(), line.as_bytes())?)
    }

    /// The folder of all sales.
    pub fn sales_folder(&self) -> PathBuf {
        self.folders.data.join("sales")
    }

    /// The files of one sale.
    pub fn sale(&self, id: SaleId) -> SaleFiles {
        SaleFiles {
            id,
            folder: self.sales_folder().join(id.to_string()),
        }
    }

    /// All sales with a record that can be read, the oldest first: a damaged one stops no other.
    pub fn sales(&self) -> Outcome<Vec<(SaleFiles, Record)>> {
        let mut sales = Vec::new();
        for files in self.folders_of_sales()? {
            if let Ok(Some(record)) = files.record() {
                sales.push((files, record));
            }
        }
        sales.sort_by_key(|(files, record)| (record.begun_ms, files.id));
        Ok(sales)
    }

    /// Sales whose record is there and cannot be read.
    pub fn damaged(&self) -> Outcome<Vec<SaleFiles>> {
        let all = self.folders_of_sales()?;
        Ok(all.into_iter().filter(|files| files.record().is_err()).collect())
    }

    fn folders_of_sales(&self) -> Outcome<Vec<SaleFiles>> {
        let entries = match std::fs::read_dir(self.sales_folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                let what = format!("{} cannot be read", self.sales_folder().display());
                return Err(Failure::new(Code::Unexpected, what).because(error));
            }
        };
        let mut sales = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.parse::<SaleId>().ok());
            sales.extend(id.map(|id| self.sale(id)));
        }
        Ok(sales)
    }

    /// The sale that goes by a name, a whole id or the beginning of one (8 digits or more).
    pub fn find(&self, name: &str) -> Outcome<(SaleFiles, Record)> {
        let is_begun = name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut sales = self.sales()?;
        let exact = sales.iter().rposition(|(_, record)| record.name == name);
        let found = exact.or_else(|| {
            let fits = |(files, _): &(SaleFiles, Record)| is_begun && files.id.to_string().starts_with(name);
            sales.iter().position(fits)
        });
        match found {
            Some(at) => Ok(sales.swap_remove(at)),
            None => {
                let open: Vec<String> = sales
                    .into_iter()
                    .filter(|(_, record)| !record.is_over())
                    .map(|(_, record)| record.name)
                    .collect();
                let known = if open.is_empty() {
                    "you have no spaces; `steading buy` gets one".to_owned()
                } else {
                    format!("your spaces are: {}", open.join(", "))
                };
                Err(Failure::new(Code::NotFound, format!("no space goes by the name {name:?}")).next(known))
            }
        }
    }

    /// A name for a new space: its own two words, with a number where another space that is not
    /// over has them.
    pub fn free_name(&self, id: SaleId) -> Outcome<String> {
        let taken: Vec<String> = self
            .sales()?
            .into_iter()
            .filter(|(files, _)| files.id != id)
            .map(|(_, record)| record.name)
            .collect();
        let name = id.name();
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        Ok(names.find(|name| !taken.contains(name)).unwrap_or(name))
    }
}

/// The files of one sale.
#[derive(Clone, Debug)]
pub struct SaleFiles {
    /// Which sale.
    pub id: SaleId,
    /// Its folder.
    pub folder: PathBuf,
}

impl SaleFiles {
    /// Where a signed message lies (or would).
    pub fn path(&self, message: &str) -> PathBuf {
        self.folder.join(message)
    }

    /// Keeps a signed message, byte for byte.
    pub fn keep(&self, message: &str, bytes: &[u8]) -> Outcome {
        make_folder(&self.folder)?;
        Ok(write_whole(&self.path(message), bytes)?)
    }

    /// A signed message, verified again.
    pub fn message<M: Message>(&self, name: &str) -> Outcome<Option<Signed<M>>> {
        let path = self.path(name);
        let Some(bytes) = read_if_there(&path)? else {
            return Ok(None);
        };
        envelope::open::<M>(&bytes, None).map(Some).map_err(|error| {
            Failure::new(Code::NotValid, format!("{} is damaged", path.display())).caused_by(&error)
        })
    }

    /// A signed message that must be there.
    pub fn need<M: Message>(&self, name: &str) -> Outcome<Signed<M>> {
        self.message(name)?.ok_or_else(|| {
            let what = format!("{} is missing", self.path(name).display());
            Failure::new(Code::Unexpected, what)
                .next("bring it back from a backup: `steading wallet restore FILE`")
        })
    }

    /// How far the client got.
    pub fn record(&self) -> Outcome<Option<Record>> {
        let path = self.path("record.json");
        let Some(bytes) = read_if_there(&path)? else {
            return Ok(None);
        };
        let record =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(record))
    }

    /// Keeps how far the client got.
    pub fn keep_record(&self, record: &Record) -> Outcome {
        make_folder(&self.folder)?;
        let json = serde_json::to_vec_pretty(record).context("a record cannot be written")?;
        Ok(write_whole(&self.path("record.json"), &json)?)
    }

    fn lock_file(&self) -> anyhow::Result<File> {
        make_folder(&self.folder)?;
        let path = self.path("lock");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("{} cannot be made", path.display()))
    }

    /// Waits until no other command works on this sale; held until dropped.
    pub fn lock(&self) -> anyhow::Result<File> {
        let file = self.lock_file()?;
        file.lock().context("the sale cannot be locked")?;
        Ok(file)
    }

    /// The same without waiting: nothing where another command works on it.
    pub fn try_lock(&self) -> anyhow::Result<Option<File>> {
        let file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error).context("the sale cannot be locked"),
        }
    }
}
