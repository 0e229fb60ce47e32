//! `steading restore`: a space as its snapshot is.

use std::time::Duration;

use clap::Args;
use market::quantity::Seconds;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::resize::agree;
use super::{find_active, or_stopped};
use crate::client::Client;
use crate::client::selling::Walk;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::moment;
use crate::store::SaleFiles;
use crate::store::record::Record;

/// Flags of `restore`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  steading restore calm-otter --yes
What runs in the space ends, its files become those of the snapshot, and it
is opened again with your key. What was written since is lost. The time of it
is not paid. The snapshot stays, and costs on until `steading snapshot NAME
--delete`. Stopped in the middle, the same command goes on.")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// Yes, unasked.
    #[arg(long)]
    yes: bool,
    /// How long it may take: as long as the disk takes to copy what changed.
    #[arg(long, value_name = "TIME", default_value = "30min")]
    timeout: Seconds,
}

const STOPPED: &str = "Ctrl-C was pressed; what the node was asked for it does";

/// Restores.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let next = "only a space that was active can be restored";
    let (files, record) = find_active(&client.store, &arguments.name, next)?;
    let done = or_stopped(restore(&mut client, &arguments, files, record), STOPPED).await;
    client.leave().await;
    let (json, text) = done?;
    screen.result(&json, &text)
}

async fn restore(
    client: &mut Client,
    arguments: &Arguments,
    files: SaleFiles,
    record: Record,
) -> Outcome<(Value, String)> {
    let held = files.lock()?;
    let record = files.record()?.unwrap_or(record);
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout.0);
    let mut walk = Walk::resume(client, files, record).await?;
    let mut steps = Steps::new();
    let name = walk.record.name.clone();
    let taken = walk.snapshot_at().await?.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            format!("{name} has no snapshot; nothing was changed"),
        )
        .next(format!("`steading snapshot {name}` takes one"))
    })?;
    if walk.record.restoring.is_none() {
        let words = format!(
            "{name} becomes what it was {}: what was written since is lost, what runs in it ends",
            moment(taken.0)
        );
        steps.quiet();
        agree(arguments.yes, &words, "restore it?")?;
    }
    walk.restore(taken, deadline, &mut steps).await?;
    walk.finish(deadline, &mut steps).await?;
    drop((steps, held));
    let json = json!({
        "name": name,
        "snapshot_at": taken.0,
        "state": walk.record.state_words(),
        "inside": walk.record.inside,
    });
    let text = format!(
        "{name} is as it was {}, and runs; the snapshot stays, `steading snapshot {name} --delete` ends its price",
        moment(taken.0)
    );
    Ok((json, text))
}
