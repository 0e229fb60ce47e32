//! `steading unlock`: hand the key over again, or go on with a purchase that stopped halfway.

use clap::Args;
use market::quantity::Seconds;
use std::time::Duration;
use tokio::time::Instant;

use super::buy::{bought_json, last_line};
use super::or_interrupted;
use crate::client::Client;
use crate::client::selling::Walk;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::store::SaleFiles;
use crate::store::record::{Record, Step};

/// Flags of `unlock`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
After a power cut of the node the space's volume stays closed until your key comes again. The host key must be the one that was proven; another one ends with exit code 12.")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// How long to wait for the space.
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        default_value = "10min"
    )]
    timeout: Seconds,
}

/// Goes on until the space can be used.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let (files, record) = client.store.find(&arguments.name)?;
    if record.step >= Step::Ending {
        return Err(Failure::new(Code::NotFound, format!("{} is over", record.name)));
    }
    let timeout = Duration::from_secs(arguments.timeout.0);
    let store = client.store.clone();
    let done = or_interrupted(&store, unlock(&mut client, files, record, timeout)).await;
    client.leave().await;
    let (json, text) = done?;
    screen.result_and_told(&json, &text)
}

async fn unlock(
    client: &mut Client,
    files: SaleFiles,
    record: Record,
    timeout: Duration,
) -> Outcome<(serde_json::Value, String)> {
    let held = files.lock()?;
    let record = files.record()?.unwrap_or(record);
    let mut steps = Steps::new();
    let mut walk = Walk::resume(client, files, record).await?;
    walk.finish(Instant::now() + timeout, &mut steps).await?;
    drop((steps, held));
    Ok((bought_json(&walk), last_line(&walk.record)))
}
