//! `steading wallet`: the seed, the account, the backup.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use escrow::LockState;
use serde_json::json;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::keys::Seed;
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::text::{count, money, short};
use crate::ssh;
use crate::store::{Store, make_folder, write_whole};

/// The largest backup that is read.
const MOST_BACKUP: u64 = 64 << 20;

/// What to do with the wallet.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a wallet: one seed from which all keys follow.
    New,
    /// Show who you are: address, user id, SSH key, folders.
    Show,
    /// Show the address that pays and is paid.
    Address,
    /// Show what you have: free, and in escrow.
    Balance,
    /// Write seed and sales to a file (or - for standard output). Keep it secret.
    Backup(File),
    /// Bring a wallet back from such a file, or from the seed's one line.
    Restore(File),
}

/// A file, or - for standard output or input.
#[derive(Debug, Args)]
pub struct File {
    /// The file; - is standard output or input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Verb {
    /// Does it.
    pub async fn run(self, settings: Settings, screen: Screen) -> Outcome {
        match self {
            Verb::New => new(&settings, screen),
            Verb::Show => show(settings, screen),
            Verb::Address => address(settings, screen),
            Verb::Balance => balance(settings, screen).await,
            Verb::Backup(to) => backup(&settings, &to.file, screen),
            Verb::Restore(from) => restore(settings, &from.file, screen).await,
        }
    }
}

fn new(settings: &Settings, screen: Screen) -> Outcome {
    let rail = settings.rail()?;
    let store = Store::new(settings.folders.clone());
    let seed = Seed::fresh()?;
    store.keep_seed(&seed)?;
    settings.keep()?;
    ssh::write_files(&store, &seed)?;
    let address = seed.account_on(&rail.key());
    let config = ssh::config_path(&settings.folders);
    let json = json!({
        "address": address,
        "user": seed.user_id(),
        "ssh_key": ssh::public_line(&seed.ssh_key()),
        "ssh_config": config,
    });
    let text = format!(
        "address   {address}\nuser      {}\n\n\
         All keys follow from one seed. Keep a copy of it, and keep it secret:\n  \
         steading wallet backup FILE\n\
         For plain ssh, scp and VS Code, put this line at the top of ~/.ssh/config:\n  \
         Include {}\n",
        seed.user_id(),
        config.display()
    );
    screen.result(&json, &text)
}

fn show(settings: Settings, screen: Screen) -> Outcome {
    let client = Client::open(settings)?;
    let address = client.settings.rail().ok().map(|rail| client.account(&rail));
    let (user, key) = (client.seed.user_id(), ssh::public_line(&client.seed.ssh_key()));
    let folders = client.store.folders();
    let json = json!({
        "address": address,
        "user": user,
        "ssh_key": key,
        "ssh_config": ssh::config_path(folders),
        "data": folders.data,
        "state": folders.state,
    });
    let shown = address.map_or("none: no ledger is configured".to_owned(), |address| {
        address.to_string()
    });
    let text = format!(
        "address   {shown}\nuser      {user}\nssh key   {key}\ndata      {}\nssh       {}\n",
        folders.data.display(),
        ssh::config_path(folders).display(),
    );
    screen.result(&json, &text)
}

fn address(settings: Settings, screen: Screen) -> Outcome {
    let client = Client::open(settings)?;
    let rail = client.settings.rail()?;
    let address = client.account(&rail);
    screen.result(
        &json!({"address": address, "ledger": rail.name()}),
        address.as_str(),
    )
}

async fn balance(settings: Settings, screen: Screen) -> Outcome {
    let client = Client::open(settings)?;
    let rail = client.settings.rail()?;
    let address = client.account(&rail);
    let balance = client
        .rail(&rail)?
        .balance_of(&address)
        .await
        .map_err(|error| Failure::of_rail("the ledger does not say what you have", &error))?;
    let json = json!({
        "address": address,
        "balance": balance.free,
        "escrow": balance.locked,
        "decimals": escrow::LEDGER_DECIMALS,
    });
    let text = format!(
        "free        {:>14}\nin escrow   {:>14}\n",
        money(balance.free),
        money(balance.locked)
    );
    screen.result(&json, &text)
}

/// A backup: the seed's line, and every file of every sale.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    version: u32,
    seed: String,
    grid: Option<String>,
    ledger: Option<String>,
    sales: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
}

impl Drop for Backup {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.seed.zeroize();
    }
}

fn backup(settings: &Settings, to: &Path, screen: Screen) -> Outcome {
    let store = Store::new(settings.folders.clone());
    let seed = store.seed()?;
    let mut sales = std::collections::BTreeMap::new();
    for (files, _) in store.sales()? {
        let mut kept = std::collections::BTreeMap::new();
        let entries = std::fs::read_dir(&files.folder).context("a sale's folder cannot be read")?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_kept(&name) {
                let bytes = std::fs::read(entry.path())
                    .with_context(|| format!("{} cannot be read", entry.path().display()))?;
                kept.insert(name, data_encoding::BASE64.encode(&bytes));
            }
        }
        sales.insert(files.id.to_string(), kept);
    }
    let number = sales.len();
    let backup = Backup {
        version: 1,
        seed: seed.to_line().to_string(),
        grid: settings.ticket().ok().map(|ticket| ticket.to_string()),
        ledger: settings.rail().ok().map(|rail| rail.to_string()),
        sales,
    };
    let json = Zeroizing::new(serde_json::to_vec_pretty(&backup).context("no backup")?);
    if to == Path::new("-") {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&json).and_then(|()| out.write_all(b"\n"));
        return Ok(written.context("the backup cannot be written")?);
    }
    write_whole(to, &json)?;
    let text = format!(
        "{} and the seed are in {}. Whoever has that file has your money and your spaces.",
        count(number, "sale"),
        to.display()
    );
    screen.result(&json!({"file": to, "sales": number}), &text)
}

/// Names of files that a sale keeps; nothing else is written by a restore either.
fn is_kept(name: &str) -> bool {
    let known = [
        "request",
        "offer",
        "agree",
        "sale",
        "grant",
        "receipt",
        "record.json",
        "vouchers.json",
    ];
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    known.contains(&name) || name.strip_prefix("amended-").is_some_and(number)
}

async fn restore(settings: Settings, from: &Path, screen: Screen) -> Outcome {
    let text = read_backup(from)?;
    let store = Store::new(settings.folders.clone());
    let bad_seed = |error: crate::keys::SeedError| {
        Failure::new(Code::Wallet, "this is no backup of a wallet").caused_by(&error)
    };
    let (seed, backup) = if text.trim_start().starts_with('{') {
        let backup: Backup = serde_json::from_str(&text)
            .map_err(|error| Failure::new(Code::Wallet, "this is no backup of a wallet").because(error))?;
        (Seed::from_line(&backup.seed).map_err(bad_seed)?, Some(backup))
    } else {
        (Seed::from_line(&text).map_err(bad_seed)?, None)
    };
    store.keep_seed(&seed)?;
    let mut settings = settings;
    let mut number = 0;
    if let Some(backup) = &backup {
        number = restore_sales(&store, backup)?;
        let or = |kept: &Option<String>, now: Option<String>| now.or_else(|| kept.clone());
        let (grid, ledger) = (settings.ticket().ok(), settings.rail().ok());
        settings = Settings::read(
            or(&backup.grid, grid.map(|ticket| ticket.to_string())),
            or(&backup.ledger, ledger.map(|rail| rail.to_string())),
        )?;
    }
    settings.keep()?;
    ssh::write_files(&store, &seed)?;
    let client = Client::open(settings)?;
    let unknown = unknown_locks(&client).await;
    let address = client.settings.rail().ok().map(|rail| client.account(&rail));
    let json = json!({"address": address, "sales": number, "unknown_locks": unknown});
    let mut text = format!("the wallet is back, with {}\n", count(number, "sale"));
    if let Some(address) = &address {
        text.push_str(&format!("address   {address}\n"));
    }
    for sale in unknown.iter().flatten() {
        text.push_str(&format!(
            "sale {} has money in escrow that this backup does not know: `steading cancel {sale}` closes it\n",
            short(sale)
        ));
    }
    screen.result(&json, &text)
}

fn read_backup(from: &Path) -> Outcome<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = if from == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MOST_BACKUP)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(from).and_then(|file| file.take(MOST_BACKUP).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Failure::new(Code::NotFound, format!("{} cannot be read", from.display())).because(error)
    })?;
    Ok(text)
}

fn restore_sales(store: &Store, backup: &Backup) -> Outcome<usize> {
    for (id, kept) in &backup.sales {
        let id = id
            .parse::<market::id::SaleId>()
            .context("a sale's id in the backup is damaged")?;
        let files = store.sale(id);
        make_folder(&files.folder)?;
        for (name, base64) in kept.iter().filter(|(name, _)| is_kept(name)) {
            let bytes = data_encoding::BASE64
                .decode(base64.as_bytes())
                .with_context(|| format!("{name} of sale {id} in the backup is damaged"))?;
            write_whole(&files.path(name), &bytes)?;
        }
    }
    Ok(backup.sales.len())
}

/// Sales that have money in escrow and no files here; nothing where the ledger is silent.
async fn unknown_locks(client: &Client) -> Option<Vec<String>> {
    let rail = client.settings.rail().ok()?;
    let ledger = client.rail(&rail).ok()?;
    let locks = ledger.open_locks(&client.account(&rail)).await.ok()?;
    let unknown = locks
        .into_iter()
        .filter(|lock| lock.view.state != LockState::Closed)
        .map(|lock| market::id::SaleId(lock.terms.sale))
        .filter(|sale| !client.store.sale(*sale).folder.exists())
        .map(|sale| sale.to_string());
    Some(unknown.collect())
}
