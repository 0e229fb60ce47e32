//! `steading snapshot`: a space's files as they are now, kept beside it.

use std::time::Duration;

use clap::Args;
use market::quantity::{Bytes, Seconds, UnixMillis};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::resize::{agree, agree_to_price};
use super::{find_active, or_stopped};
use crate::client::Client;
use crate::client::selling::Walk;
use crate::client::selling::resizing::Size;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::{moment, money};
use crate::store::SaleFiles;
use crate::store::record::Record;

/// Flags of `snapshot`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading snapshot calm-otter              shows the price and asks
  steading snapshot calm-otter --replace    a new one for the one there is
  steading snapshot calm-otter --delete
It takes as much disk as the space has, and costs that from the next period
on. What was written and synced before is in it; a program that was at work
finds its files as after a power cut. Files deleted later stay in it. While
there is one the disk does not grow. `steading restore` puts it back.")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// Remove it: its price ends with it.
    #[arg(long, conflicts_with = "replace")]
    delete: bool,
    /// Remove the one there is, and take a new one.
    #[arg(long)]
    replace: bool,
    /// Yes to the price, unasked.
    #[arg(long)]
    yes: bool,
    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "2min")]
    timeout: Seconds,
}

const STOPPED: &str = "Ctrl-C was pressed; what both signed is done";

/// Takes one, or removes it.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let next = "a snapshot can be taken of a space that is active";
    let (files, record) = find_active(&client.store, &arguments.name, next)?;
    let done = or_stopped(snapshot(&mut client, &arguments, files, record), STOPPED).await;
    client.leave().await;
    let (json, text) = done?;
    screen.result(&json, &text)
}

async fn snapshot(
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
    let there = walk.snapshot_at().await?;
    let mut agreed = arguments.yes;
    if let Some(taken) = there {
        if !arguments.delete && !arguments.replace && walk.gives().snapshot > Bytes::ZERO {
            return Err(has_one(&walk, taken));
        }
        if arguments.replace {
            steps.quiet();
            let words = format!(
                "the snapshot taken {} goes, and a new one is taken",
                moment(taken.0)
            );
            agree(agreed, &words, "replace it?")?;
            agreed = true;
            change(&mut walk, false, agreed, deadline, &mut steps).await?;
        }
    }
    let wanted = !arguments.delete;
    let taken = change(&mut walk, wanted, agreed, deadline, &mut steps).await?;
    drop((steps, held));
    let json = json!({
        "name": walk.record.name,
        "snapshot_at": taken.map(|UnixMillis(ms)| ms),
        "snapshot_bytes": walk.gives().snapshot.0,
        "price_of_period": walk.prices().price,
        "total": walk.total(),
    });
    let (name, price) = (&walk.record.name, money(walk.prices().price));
    let text = match taken {
        Some(taken) => format!(
            "{name} has a snapshot of {}, {price} a period with it; `steading restore {name}` puts it back",
            moment(taken.0)
        ),
        None => format!("{name} has no snapshot, {price} a period"),
    };
    Ok((json, text))
}

fn has_one(walk: &Walk<'_>, taken: UnixMillis) -> Failure {
    let name = &walk.record.name;
    Failure::new(
        Code::Usage,
        format!("{name} has a snapshot, taken {}", moment(taken.0)),
    )
    .because("there is one of each space, and nothing was sent")
    .next("--replace takes a new one in its place, --delete removes it")
}

/// Has both sign that there is a snapshot, or none, and the node do it.
async fn change(
    walk: &mut Walk<'_>,
    wanted: bool,
    agreed: bool,
    deadline: Instant,
    steps: &mut Steps,
) -> Outcome<Option<UnixMillis>> {
    let size = Size {
        cpu: None,
        memory: None,
        disk: None,
        snapshot: Some(wanted),
    };
    let quote = walk.quote(size, steps).await?;
    let question = if wanted {
        "take it?"
    } else {
        "remove the snapshot?"
    };
    agree_to_price(walk, &quote, agreed, question, steps).await?;
    walk.snapshot(&quote, deadline, steps).await
}
