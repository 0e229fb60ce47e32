//! `steading wallet restore` and `recall`: a wallet from its backup or its seed, its sales from the nodes.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use market::id::SaleId;
use serde_json::json;
use zeroize::Zeroizing;

use super::backup::{Backup, is_kept};
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::files::{make_folder, write_whole};
use crate::keys::Seed;
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::{count, short};
use crate::ssh;
use crate::store::Store;

/// The largest backup that is read.
const MOST_BACKUP: u64 = 64 << 20;

/// Restores.
pub(super) async fn run(settings: Settings, from: &Path, screen: Screen) -> Outcome {
    let text = read_backup(from)?;
    let store = Store::new(settings.folders.clone());
    let bad_seed = |error: crate::keys::SeedError| no_backup(from).caused_by(&error);
    let (seed, backup) = if text.trim_start().starts_with('{') {
        let backup: Backup = serde_json::from_str(&text).map_err(|error| no_backup(from).because(error))?;
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
    let mut client = Client::open(settings)?;
    let recalled = recall_all(&mut client).await;
    client.leave().await;
    let address = client.settings.rail().ok().map(|rail| client.account(&rail));
    let mut text = format!("the wallet is back, with {}\n", count(number, "sale"));
    if let Some(address) = &address {
        text.push_str(&format!("address   {address}\n"));
    }
    text.push_str(&recalled.text());
    let json = json!({
        "address": address,
        "sales": number,
        "recalled": recalled.names,
        "changed": recalled.changed,
        "unknown_locks": recalled.unknown,
    });
    screen.result_and_told(&json, &text)
}

/// Asks ledger and nodes once more.
pub(super) async fn recall(settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let recalled = recall_all(&mut client).await;
    client.leave().await;
    if let Some(failure) = recalled.failure {
        return Err(failure);
    }
    let text = match (&recalled.names[..], &recalled.changed[..], &recalled.unknown) {
        ([], [], Some(unknown)) if unknown.is_empty() => {
            "every sale that has money in escrow is known here".to_owned()
        }
        _ => recalled.text(),
    };
    let json = json!({
        "recalled": recalled.names,
        "changed": recalled.changed,
        "unknown_locks": recalled.unknown,
    });
    screen.result_and_told(&json, &text)
}

/// What ledger and nodes had to say.
#[derive(Default)]
struct AllRecalled {
    /// Names of the spaces that came back.
    names: Vec<String>,
    /// Names of those whose record was older than what both signed.
    changed: Vec<String>,
    /// Ids of sales with money in escrow that no node gave back; nothing where the ledger is silent.
    unknown: Option<Vec<String>>,
    /// Why not all was asked.
    failure: Option<Failure>,
}

impl AllRecalled {
    fn text(&self) -> String {
        let mut text = String::new();
        for name in &self.names {
            text.push_str(&format!(
                "{name} is back: `steading spaces` shows how it stands\n"
            ));
        }
        for name in &self.changed {
            text.push_str(&format!(
                "{name} was changed since; its node gave back what both signed\n"
            ));
        }
        if let Some(failure) = &self.failure {
            text.push_str(&format!("not all was asked: {failure}\n"));
        }
        for sale in self.unknown.iter().flatten() {
            text.push_str(&format!(
                "sale {} has money in escrow, and no node that answers has it: `steading wallet recall` asks again, \
                 `steading cancel {sale}` closes the lock\n",
                short(sale)
            ));
        }
        text
    }
}

/// The locks that have no files here, and their sales from the nodes. A wallet is back without them, too: what does
/// not answer is told.
async fn recall_all(client: &mut Client) -> AllRecalled {
    let mut locks = match client.unknown_locks().await {
        Ok(locks) => locks,
        Err(failure) => {
            return AllRecalled {
                failure: Some(failure),
                ..AllRecalled::default()
            };
        }
    };
    let mut steps = Steps::new();
    let asked = if locks.is_empty() {
        Ok(Vec::new())
    } else {
        client.recall(&mut locks, &mut steps).await
    };
    let caught = client.catch_up(&mut steps).await;
    drop(steps);
    let written = ssh::write_files(&client.store, &client.seed);
    let (names, failure) = match asked {
        Ok(names) => (names, written.err()),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let (changed, failure) = match caught {
        Ok(changed) => (changed, failure),
        Err(more) => (Vec::new(), failure.or(Some(more))),
    };
    let unknown = locks.iter().map(|lock| SaleId(lock.terms.sale).to_string());
    AllRecalled {
        names,
        changed,
        unknown: Some(unknown.collect()),
        failure,
    }
}

fn no_backup(from: &Path) -> Failure {
    let what = format!("{} is no backup of a wallet; nothing was kept", from.display());
    Failure::new(Code::Usage, what).next(
        "give the file that `steading wallet backup` wrote, or one that holds the seed's line (steading-seed-1:…) alone",
    )
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
        Failure::new(Code::NotFound, format!("{} cannot be read", from.display()))
            .because(error)
            .next("give the file that `steading wallet backup` wrote, or - for standard input")
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
        if let Some(mut record) = files.record()? {
            record.from_backup = true;
            files.keep_record(&record)?;
        }
    }
    Ok(backup.sales.len())
}
