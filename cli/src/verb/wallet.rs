//! `steading wallet`: the seed, the account, the backup.

mod backup;
mod restore;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::client::Client;
use crate::exit::{Failure, Outcome};
use crate::keys::Seed;
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::text::money;
use crate::ssh;
use crate::store::Store;

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
    Backup(Backup),
    /// Bring a wallet back from such a file, or from the seed's one line; sales come back from the
    /// nodes.
    Restore(File),
    /// Fetch the sales that have money in escrow and no files here from the nodes that signed them.
    Recall,
}

/// A file, or - for standard output or input.
#[derive(Debug, Args)]
pub struct File {
    /// The file; - is standard output or input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Flags of `wallet backup`.
#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    to: File,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

impl Verb {
    /// Does it.
    pub async fn run(self, settings: Settings, screen: Screen) -> Outcome {
        match self {
            Verb::New => new(&settings, screen),
            Verb::Show => show(settings, screen),
            Verb::Address => address(settings, screen),
            Verb::Balance => balance(settings, screen).await,
            Verb::Backup(flags) => backup::run(&settings, &flags.to.file, flags.force, screen),
            Verb::Restore(from) => restore::run(settings, &from.file, screen).await,
            Verb::Recall => restore::recall(settings, screen).await,
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

/// A backup file, for its fuzz target.
#[cfg(fuzzing)]
pub fn is_backup(text: &str) -> bool {
    serde_json::from_str::<backup::Backup>(text).is_ok()
}
