//! `steading import`: an export into a space.

use std::path::PathBuf;

use clap::Args;
use market::message::Sale;
use serde_json::json;

use super::ssh::finish_first;
use super::{PARTS_KEPT, or_stopped};
use crate::carry::check;
use crate::carry::give::give;
use crate::carry::space::Space;
use crate::carry::take::human;
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;

/// Flags of `import`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading import ~/calm-otter brave-heron
  steading import ~/calm-otter brave-heron --unfinished
Files come back where they were, over what is there, with owners, modes, times
and attributes; nothing else is deleted. The space digests what it has then, and
what differs from the export is named. Stopped, or cut off? The same command
goes on where it was.")]
pub struct Arguments {
    /// The export.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The space to write to.
    #[arg(value_name = "NAME")]
    name: String,
    /// Take what there is of an export that never came to its end.
    #[arg(long)]
    unfinished: bool,
}

/// Imports.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let folder = &arguments.folder;
    let manifest = check::manifest(folder, &client.seed)?;
    if !manifest.done && !arguments.unfinished {
        return Err(check::unfinished(
            folder,
            manifest.next_group().0 - 1,
            manifest.groups,
        ));
    }
    let (files, record) = client.store.find(&arguments.name)?;
    let into = files.id;
    let base = files.need::<Sale>("sale")?.message.body().base;
    if base != manifest.base {
        eprintln!(
            "{} has another base below it than {} had: programs that were installed there may not run here",
            record.name, manifest.space
        );
    }
    let finished = finish_first(&mut client, files, record).await;
    client.leave().await;
    let space = Space {
        folders: client.store.folders().clone(),
        name: finished?,
    };
    let mut steps = Steps::new();
    let (from, is_done) = (manifest.space.clone(), manifest.done);
    let work = give(&space, &client.seed, folder, manifest, into, &mut steps);
    let given = or_stopped(work, PARTS_KEPT).await;
    drop(steps);
    let given = given?;
    if !given.differing.is_empty() {
        let failure = Failure::new(
            Code::NotWhole,
            format!("{} has not what {} had", space.name, from),
        );
        let failure = given.differing.into_iter().fold(failure, Failure::because);
        return Err(
            failure.next("something in the space changed them meanwhile: stop it there, then import again")
        );
    }
    let json = json!({
        "name": space.name,
        "from": from,
        "bytes": given.bytes,
        "groups": given.groups,
        "groups_before": given.groups_before,
        "whole": is_done,
    });
    let text = format!(
        "{} has what {from} had: {}, each file compared by its digest.\nWhat runs there may have to be started again.",
        space.name,
        human(given.bytes),
    );
    screen.result_and_told(&json, &text)
}
