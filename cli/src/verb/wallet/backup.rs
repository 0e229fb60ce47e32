//! `steading wallet backup`: seed and sales in one file.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::Outcome;
use crate::files::write_whole;
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::text::count;
use crate::store::Store;

/// A backup: the seed's line, and every file of every sale.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    version: u32,
    pub(super) seed: String,
    pub(super) grid: Option<String>,
    pub(super) ledger: Option<String>,
    pub(super) sales: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
}

impl Drop for Backup {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.seed.zeroize();
    }
}

/// Writes it.
pub(super) fn run(settings: &Settings, to: &Path, force: bool, screen: Screen) -> Outcome {
    let store = Store::new(settings.folders.clone());
    let seed = store.seed()?;
    if !force && to != Path::new("-") && to.symlink_metadata().is_ok() {
        return Err(there_already(to));
    }
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

/// An older backup may hold what this one lacks.
fn there_already(to: &Path) -> crate::exit::Failure {
    let what = format!("{} is there already; nothing was written", to.display());
    crate::exit::Failure::new(crate::exit::Code::Usage, what)
        .because("it may be the backup of another wallet, or hold sales that this one has lost")
        .next("name another file, or add --force to write over it")
}

/// Names of files that a sale keeps; nothing else is written by a restore either.
pub(super) fn is_kept(name: &str) -> bool {
    let known = [
        "request",
        "offer",
        "agree",
        "sale",
        "amending",
        "grant",
        "receipt",
        "record.json",
        "vouchers.json",
    ];
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    known.contains(&name) || name.strip_prefix("amended-").is_some_and(number)
}
