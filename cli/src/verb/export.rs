//! `steading export`: what a space holds, encrypted, into a folder here.

use std::path::{Path, PathBuf};

use clap::Args;
use market::id::SaleId;
use market::message::{Offer, Sale};
use market::quantity::Bytes;
use serde_json::{Value, json};

use super::ssh::finish_first;
use super::{PARTS_KEPT, or_stopped};
use crate::carry::age::Identity;
use crate::carry::check;
use crate::carry::listing;
use crate::carry::manifest::Manifest;
use crate::carry::space::Space;
use crate::carry::take::{Taken, Wish, human, take};
use crate::client::Client;
use crate::client::selling::resizing::gives_now;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::count;
use crate::store::SaleFiles;
use crate::store::record::Record;

/// Names that are shown of many.
const MOST_SHOWN: usize = 20;
/// Smaller parts would be a file a kilobyte.
const LEAST_PART: u64 = 64 << 10;

/// Flags of `export`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading export calm-otter ~/calm-otter         all that was added or changed
  steading export calm-otter ~/site --path /srv   one folder
  steading export --check ~/calm-otter            is it whole? asks nobody
  steading import ~/calm-otter brave-heron        into another space
Stopped, or cut off? The same command goes on where it was. Left out are the
base's own files, caches, /tmp, and the space's own names and keys.
Each part is an age file of a piece of one tar stream. Without steading:
  steading export --key calm-otter > key          keep it as you keep the data
  for part in part-*.age; do age -d -i key $part; done | tar -xi")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME", required_unless_present_any = ["check", "key"])]
    name: Option<String>,
    /// The folder to write; made if it is not there, gone on with if it holds this export.
    #[arg(value_name = "DIR", required_unless_present_any = ["check", "key"])]
    folder: Option<PathBuf>,
    /// Only what lies here; may be repeated.
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// How much is lost at most when it is cut off.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    part: Bytes,
    /// Check an export, offline: every part is there, unchanged, and in its place.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["name", "folder", "path", "key"])]
    check: Option<PathBuf>,
    /// Print the key that opens the exports of a space, for stock age. Whoever has it reads them.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "folder", "path"])]
    key: Option<String>,
}

/// Exports, checks, or prints the key.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    if let Some(folder) = &arguments.check {
        return is_whole(&client, folder, screen);
    }
    if let Some(name) = &arguments.key {
        return print_key(&client, name, screen);
    }
    let (Some(name), Some(folder)) = (&arguments.name, &arguments.folder) else {
        return Err(Failure::new(Code::Usage, "a space and a folder are missing"));
    };
    let (files, record) = client.store.find(name)?;
    let wish = wish(&arguments, folder, &files, &record)?;
    let finished = finish_first(&mut client, files, record).await;
    client.leave().await;
    let space = Space {
        folders: client.store.folders().clone(),
        name: finished?,
    };
    let mut steps = Steps::new();
    let work = take(&space, &client.seed, &wish, &mut steps);
    let taken = or_stopped(work, PARTS_KEPT).await;
    drop(steps);
    let taken = taken?;
    screen.result_and_told(&taken_json(&taken, folder), &taken_text(&taken, folder))
}

fn wish(arguments: &Arguments, folder: &Path, files: &SaleFiles, record: &Record) -> Outcome<Wish> {
    let sale = files.need::<Sale>("sale")?;
    let offer = files.need::<Offer>("offer")?;
    let body = sale.message.body();
    let part_bytes = arguments.part.0;
    if part_bytes < LEAST_PART {
        return Err(Failure::new(
            Code::Usage,
            format!("--part {} is too small; nothing was sent", arguments.part),
        )
        .next("write --part 64KiB or more"));
    }
    let paths = arguments.path.iter().map(|path| {
        listing::asked(path.as_bytes()).ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("--path {path:?} is no path in a space; nothing was sent"),
            )
            .next("write it from /, as in --path /home/ann")
        })
    });
    if let Some(path) = arguments
        .path
        .iter()
        .find(|path| listing::PASSING.contains(&path.trim_end_matches('/')))
    {
        return Err(Failure::new(
            Code::Usage,
            format!("--path {path} holds nothing that lasts; nothing was sent"),
        )
        .next("name a folder below it, if that is meant"));
    }
    Ok(Wish {
        sale: files.id,
        node: body.node,
        base: body.base,
        disk_bytes: gives_now(files, record, &offer.message)?.disk.0,
        begun_ms: record.begun_ms,
        paths: paths.collect::<Outcome<_>>()?,
        folder: folder.to_owned(),
        part_bytes,
    })
}

fn taken_json(taken: &Taken, folder: &Path) -> Value {
    let mut json = export_json(&taken.manifest, folder);
    json["names"] = taken.entries.into();
    json["parts_before"] = taken.parts_before.into();
    json["changed"] = json!(taken.changed);
    json["left_out"] = taken.left_out.into();
    json["unreadable"] = taken.is_partial.into();
    json
}

fn export_json(manifest: &Manifest, folder: &Path) -> Value {
    json!({
        "folder": folder,
        "space": manifest.space,
        "sale": manifest.sale,
        "began": manifest.began_ms,
        "bytes": manifest.plain_bytes(),
        "parts": manifest.parts.len(),
        "done": manifest.done,
    })
}

fn taken_text(taken: &Taken, folder: &Path) -> String {
    let manifest = &taken.manifest;
    let mut text = format!(
        "{} is in {}: {}, {} in {}.\n",
        manifest.space,
        folder.display(),
        count(taken.entries, "name"),
        human(manifest.plain_bytes()),
        count(manifest.parts.len(), "part"),
    );
    if taken.parts_before == manifest.parts.len() {
        text.push_str("It was whole before; for what is new, export into another folder.\n");
    }
    if !taken.changed.is_empty() {
        text.push_str("Changed while it ran, and may be half of each:\n");
        let shown = taken.changed.iter().take(MOST_SHOWN);
        text.extend(shown.map(|path| format!("  {path}\n")));
        let more = taken.changed.len().saturating_sub(MOST_SHOWN);
        if more > 0 {
            text.push_str(&format!("  and {more} more\n"));
        }
    }
    if taken.left_out > 0 {
        text.push_str(&format!(
            "Left out, for no export can hold them: {}.\n",
            count(taken.left_out, "socket or device")
        ));
    }
    if taken.is_partial {
        text.push_str("Some of it could not be listed; `steading ssh` and find say what.\n");
    }
    text.push_str(&format!(
        "steading export --check {0}      is it whole?\nsteading import {0} NAME       into another space",
        folder.display()
    ));
    text
}

fn is_whole(client: &Client, folder: &Path, screen: Screen) -> Outcome {
    let mut steps = Steps::new();
    let manifest = check::check(folder, &client.seed, &mut steps)?;
    drop(steps);
    let text = format!(
        "The export of {} in {} is whole: {} in {}.",
        manifest.space,
        folder.display(),
        human(manifest.plain_bytes()),
        count(manifest.parts.len(), "part"),
    );
    screen.result(&export_json(&manifest, folder), &text)
}

fn print_key(client: &Client, name: &str, screen: Screen) -> Outcome {
    // A wallet that was restored from its line alone knows no sale, but its id.
    let sale = match name.parse::<SaleId>() {
        Ok(sale) => sale,
        Err(_) => client.store.find(name)?.0.id,
    };
    let line = Identity::new(&client.seed.export_key(&sale)).to_line();
    eprintln!(
        "Whoever has this key reads every export of that space. It opens nothing else, and pays nothing."
    );
    screen.result(&json!({"sale": sale, "identity": *line}), &line)
}
