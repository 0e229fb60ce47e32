//! `steading cancel`: end a space, see the money back, keep the node's signed receipt.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::selling::Walk;
use crate::client::selling::ending::{Ended, close_unknown};
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::{moment, money};

/// Flags of `cancel`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The node destroys the volume's key slot, tears the space down, gives the rest back and signs a receipt. If it is silent, your client closes the lock alone and says when the rest returns (exit code 11 until it is back; cancel again then).")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// Why, for the farmer to read.
    #[arg(long, value_name = "WORDS")]
    why: Option<String>,
}

/// Cancels.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Result<ExitCode, Failure> {
    let mut client = Client::open(settings)?;
    let done = cancel(&mut client, arguments).await;
    client.leave().await;
    let (json, text, is_over) = done?;
    screen.result_and_told(&json, &text)?;
    Ok(if is_over {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Code::StillGoing.number())
    })
}

async fn cancel(client: &mut Client, arguments: Arguments) -> Outcome<(Value, String, bool)> {
    let (files, record) = match client.store.find(&arguments.name) {
        Err(failure) if is_id(&arguments.name) => {
            return cancel_unknown(client, &arguments.name, failure).await;
        }
        found => found?,
    };
    let held = files.lock()?;
    let record = files.record()?.unwrap_or(record);
    let mut steps = Steps::new();
    let mut walk = Walk::resume(client, files, record).await?;
    let ended = walk.end(arguments.why, &mut steps).await?;
    drop((steps, held));
    let is_over = ended.is_over();
    Ok((ended_json(&walk, &ended), ended_text(&walk, &ended), is_over))
}

fn is_id(name: &str) -> bool {
    name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A sale that only the ledger knows: after a restore from the seed alone.
async fn cancel_unknown(client: &Client, sale: &str, not_found: Failure) -> Outcome<(Value, String, bool)> {
    let mut steps = Steps::new();
    let closed = close_unknown(client, sale, &mut steps).await?;
    drop(steps);
    let Some((id, ended)) = closed else {
        return Err(not_found);
    };
    let is_over = ended.is_over();
    let json = json!({
        "sale": id,
        "receipt": null,
        "paid": ended.view.paid,
        "returned": ended.returned(),
        "refund_from": ended.refund_from_ms,
        "lock": ended.view.state,
    });
    Ok((json, money_text(&id.short(), &id.to_string(), &ended), is_over))
}

fn periods_paid(walk: &Walk<'_>, ended: &Ended) -> u32 {
    walk.prices().paid(ended.view.paid, walk.record.periods)
}

fn ended_json(walk: &Walk<'_>, ended: &Ended) -> Value {
    let receipt = walk.files.path("receipt");
    json!({
        "name": walk.record.name,
        "sale": walk.files.id,
        "receipt": ended.receipt.as_ref().map(|_| receipt.display().to_string()),
        "key_slot_destroyed": ended.receipt.as_ref().map(|receipt| receipt.message.key_slot_destroyed),
        "volume_destroyed": ended.receipt.as_ref().map(|receipt| receipt.message.volume_destroyed),
        "periods_paid": periods_paid(walk, ended),
        "price_of_period": walk.prices().price,
        "paid": ended.view.paid,
        "returned": ended.returned(),
        "refund_from": ended.refund_from_ms,
        "lock": ended.view.state,
        "times": walk.record.times,
    })
}

fn ended_text(walk: &Walk<'_>, ended: &Ended) -> String {
    let name = &walk.record.name;
    let mut text = money_text(name, name, ended);
    if ended.receipt.is_some() {
        text.push_str(&format!("\nreceipt   {}", walk.files.path("receipt").display()));
    }
    text
}

/// What became of the money of what people call `name` and commands `handle`.
fn money_text(name: &str, handle: &str, ended: &Ended) -> String {
    match ended.refund_from_ms.filter(|_| !ended.is_over()) {
        None => format!(
            "{name} is over: {} was paid, {} came back",
            money(ended.view.paid),
            money(ended.returned())
        ),
        Some(from) => format!(
            "{name}: the lock is closing; {} comes back from {}: `steading cancel {handle}` again then",
            money(ended.view.held()),
            moment(from)
        ),
    }
}
